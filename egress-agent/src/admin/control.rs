//! The control socket: how `status` and `flows` ask a running agent. HTTP/1 on a Unix socket, so
//! that `curl --unix-socket` is a client too.
//!
//! `GET /status` is one JSON object, an [`AgentReport`]. `GET /explain` is one too, an
//! [`Explanation`](crate::explain::Explanation). `GET /flows` is JSON lines, [`Line`]s: the
//! history; with `?follow=true` what happens from then on, until the client leaves. `POST /upgrade` has a
//! gateway replaced by another process, and is answered with an [`UpgradeReport`] once that has happened.
//!
//! The server runs on a thread of its own. All else only reads, from handles that never block those who
//! enforce, so neither many clients nor slow ones disturb the role.

mod client;
mod mesh;
mod report;
mod server;
mod serving;
mod stream;
mod upgrade;

use std::{path::PathBuf, str::FromStr};

pub(crate) use self::{
    client::{AskError, Stream, ask_explain, ask_mesh, ask_status, ask_upgrade, open_flows},
    mesh::Mesh,
    report::{
        AgentReport, Configuration, EventsReport, GatewayHealth, GatewayReport, LimitReport,
        NodeReport, Process, SetReport, TunnelReport,
    },
    server::{Control, Listening, listen},
    serving::Serving,
    stream::Line,
    upgrade::{UpgradeAnswer, UpgradeRefusal, UpgradeReport, UpgradeRequests},
};

/// Where a node agent listens.
pub(crate) const NODE_SOCKET: &str = "/run/egress-agent/node.sock";
/// Where a gateway listens.
pub(crate) const GATEWAY_SOCKET: &str = "/run/egress-agent/gateway.sock";
/// Where our systemd unit has it: a user of its own needs a directory of its own.
pub(crate) const GATEWAY_UNIT_SOCKET: &str = "/run/egress-gateway/gateway.sock";

/// `--control`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ControlPath {
    /// No socket.
    Off,
    /// This one.
    Path(PathBuf),
}

impl FromStr for ControlPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("expected the path of a socket, or off".into()),
            "off" => Ok(Self::Off),
            path => Ok(Self::Path(path.into())),
        }
    }
}

#[cfg(test)]
mod tests;

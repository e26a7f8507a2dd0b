//! The control socket: how `status` and `flows` ask a running agent. HTTP/1 on a Unix socket, so
//! that `curl --unix-socket` is a client too.
//!
//! `GET /status` is one JSON object, an [`AgentReport`]. `GET /explain` is one too, an
//! [`Explanation`](crate::explain::Explanation). `GET /flows` is JSON lines, [`Line`]s: the
//! history; with `?follow=true` what happens from then on, until the client leaves. `POST /standing` names the
//! network namespace of a pod that starts, and says whether enforcement stands for it. `POST /upgrade` has a gateway
//! replaced by another process, and is answered with an [`UpgradeReport`] once that has happened.
//!
//! Only root and the agent's own user may ask, and with `--control-group` the members of a group, who change
//! nothing and have few connections of their own.
//!
//! The server runs on a thread of its own. All else only reads, from handles that never block those who
//! enforce, so neither many clients nor slow ones disturb the role.

mod access;
mod answers;
mod client;
mod mesh;
mod report;
mod server;
mod serving;
mod stream;
mod upgrade;

use std::{path::PathBuf, str::FromStr};

pub(crate) use self::{
    access::ControlGroup,
    client::{
        AskError, LineBuffer, Stream, ask_explain, ask_mesh, ask_standing, ask_status, ask_upgrade,
        open_flows,
    },
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

/// Options of both roles.
#[derive(clap::Args, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ControlArgs {
    /// The socket for `egress-agent status`, `flows` and `explain`; `off` for none [default: in
    /// /run/egress-agent, node.sock or gateway.sock].
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<ControlPath>,
    /// A group whose members may ask on that socket too, without root: all flows, all workloads and the
    /// status of this host. They can change nothing.
    #[arg(long, value_name = "GROUP")]
    pub(crate) control_group: Option<ControlGroup>,
}

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

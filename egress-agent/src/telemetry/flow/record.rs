//! A flow as a record, which is also its JSON form.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::rfc3339;
use crate::types::Labels;

/// The hook of a flow that the gateway decided; the node's are its programs' names.
pub const GATEWAY_HOOK: &str = "gateway";
/// The hook of a flow that the node's tunnel refused.
pub const TUNNEL_HOOK: &str = "tunnel";

/// What became of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowVerdict {
    /// It passed.
    Allow,
    /// Policy refused it.
    Deny,
    /// It was sent to a gateway.
    Redirect,
    /// It was allowed, and then failed: the external host could not be reached or trusted, one side
    /// went away, or time was up.
    Fail,
}

/// One flow. What isn't known is left out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FlowRecord {
    /// When it was judged.
    #[serde(with = "rfc3339")]
    pub time: SystemTime,
    /// Where: a program of the node, or [`GATEWAY_HOOK`].
    pub hook: Cow<'static, str>,
    /// What was decided.
    pub verdict: FlowVerdict,
    /// Why: the name of a [`Reason`](egress_ebpf::reason::Reason). Absent where a gateway had
    /// nothing to object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// Audit mode let it pass all the same.
    pub audit: bool,
    /// The set of workloads whose mode it was judged by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// The name of its workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The workload's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The workload's labels, as many as are kept: see [`kept_labels`](super::kept_labels).
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The process that made the system call, by its number on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The program that this process ran when the event was read, as its mount namespace names it (cut
    /// at 255 bytes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// What this process called itself when it made the call: at most 15 bytes, which it chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The container of its cgroup, by its runtime's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The cgroup of its process, below the cgroup2 mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The interface where its packet was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<IpAddr>,
    /// The port there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Where the application wanted to go; a gateway doesn't know the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_address: Option<IpAddr>,
    /// The port that it dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// The gateway that a node sent it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<SocketAddr>,
    /// What its node and its gateway both call the connection: a [`TraceId`](crate::types::TraceId).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// HTTP's authority or the TLS server name, as the client said it (cut at 255 bytes); on a
    /// node, the names that resolve to the destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `TCP`, `ICMP`, `TLS`, `HTTP/1.1`, …
    pub protocol: String,
    /// The ClientHello had, or pretended to have, an encrypted one inside (ECH).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ech: bool,
    /// Whom the gateway dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<SocketAddr>,
    /// The status that an HTTP client got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_code: Option<u16>,
    /// Envoy's response flags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_flags: Option<String>,
    /// A sentence that says more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The host whose agent was asked. Agents leave it out; `egress-agent flows --server` fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

impl FlowRecord {
    /// Whether it is one of those that people look for: refused, failed, or would have been but
    /// for audit mode. What audit mode would have redirected is none: enforced, it works.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self.verdict {
            FlowVerdict::Deny | FlowVerdict::Fail => true,
            FlowVerdict::Allow | FlowVerdict::Redirect => false,
        }
    }
}

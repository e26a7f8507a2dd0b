//! What the node does with a `connect()`: the kernel's verdict over what its maps would hold.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use egress_ebpf::{
    addr::{Addr, PortBe},
    decide::{Place, PolicyView as _},
    endpoint::Reach,
    packet::{Flow, protocol},
    reason::Reason,
    verdict::{Action, Judgement, Mode, Target},
};

use super::question::{ExplainRequest, dialled};
use crate::{
    bpf::{Contents, PlanInputs, PolicyEvaluator, policy_id, specificity},
    policy::{DirectTarget, Hop, NodeAction, NodeRoute, Snapshot},
    types::Port,
};

/// Where a tunnel listener would be.
const LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15001);

/// What the node decides.
#[derive(Clone, Debug)]
pub(super) struct NodeDecision {
    /// How it is carried out.
    pub(super) mode: Mode,
    /// Why.
    pub(super) reason: Reason,
    /// What becomes of the call.
    pub(super) connected: Connected,
    /// The address that is dialled.
    pub(super) address: IpAddr,
    /// Whether that is only assumed.
    pub(super) assumed: bool,
    /// The name of the workload's set.
    pub(super) set: String,
    /// The resource that the route is of.
    pub(super) origin: Option<Arc<str>>,
}

/// What becomes of a `connect()`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Connected {
    /// It goes where it was dialled.
    Passes,
    /// It fails.
    Refused,
    /// It goes to a gateway.
    Redirected {
        /// The gateway's group.
        group: usize,
        /// The port at the gateway, or the one that was dialled, where it goes through the tunnel.
        port: Port,
        /// How it gets there.
        hop: Hop,
    },
}

impl NodeDecision {
    pub(super) fn of(snapshot: &Snapshot, question: &ExplainRequest) -> Self {
        let (address, assumed) = dialled(snapshot, question);
        let index = snapshot.mesh.set_of(&question.workload);
        let set = snapshot.mesh.sets().nth(index).map(|set| set.name.to_owned());
        let (contents, _) = Contents::desired(snapshot, &facts(snapshot, question, address));
        let judge = PolicyEvaluator::from(&contents);
        let policy = policy_id(index);
        let port = question.url.port.0;
        let flow = Flow {
            destination: Addr::from(address),
            destination_port: PortBe::new(port.get()),
            protocol: protocol::TCP,
            ..Flow::UNKNOWN
        };
        let verdict = judge.verdict(Place::Socket, &flow, policy);
        let mode = judge.policy(policy).mode;
        // In audit mode nothing is redirected, and what would be is what is asked about.
        let judged = Judgement::new(verdict, Mode::Enforce, policy, flow, 0);
        let (connected, reason) = match verdict.action {
            Action::Allow => (Connected::Passes, verdict.reason),
            Action::Deny => (Connected::Refused, verdict.reason),
            Action::Redirect(_) | Action::Tunnel(_) => {
                let plain = judged.redirect().map(|target| (target, Hop::Plain));
                let tunnel = judged.tunnel().map(|target| (target, Hop::Tunnel));
                let led = plain.or(tunnel);
                led.and_then(|(target, hop)| redirected(&contents, target, hop, address, port))
                    .map_or((Connected::Refused, Reason::NoHealthyGateway), |to| {
                        (to, verdict.reason)
                    })
            }
        };
        let origin = origin(snapshot, question, address, verdict.action);
        Self { mode, reason, connected, address, assumed, set: set.unwrap_or_default(), origin }
    }
}

/// Every gateway is healthy, and the only name that is resolved is the one in question.
fn facts(snapshot: &Snapshot, question: &ExplainRequest, address: IpAddr) -> PlanInputs {
    let gateways = &snapshot.mesh.gateways;
    PlanInputs {
        resolved: [(question.url.host.clone(), vec![address])].into(),
        healthy: gateways.iter().flat_map(|group| group.endpoints.iter().copied()).collect(),
        tunnel: vec![LISTENER],
        generation: 1,
        max_groups: u32::try_from(gateways.len()).unwrap_or(u32::MAX),
        ..PlanInputs::default()
    }
}

/// Where a redirect leads; `None` where no endpoint is there to go to.
fn redirected(
    contents: &Contents,
    target: Target,
    hop: Hop,
    address: IpAddr,
    dialled: Port,
) -> Option<Connected> {
    let group = contents.groups.get(&target.group)?;
    let reach = if address.is_ipv4() { Reach::V4 } else { Reach::V6First };
    let port = match hop {
        Hop::Plain => group.pick(0, reach).and_then(|_| Port::new(target.port.get()))?,
        // Which endpoint it is, the node's agent decides.
        Hop::Tunnel => (group.count > 0).then_some(dialled)?,
    };
    Some(Connected::Redirected { group: usize::try_from(target.group).ok()?, port, hop })
}

/// The resource whose route it is: of those that say what was decided the one that counts.
fn origin(
    snapshot: &Snapshot,
    question: &ExplainRequest,
    address: IpAddr,
    decided: Action,
) -> Option<Arc<str>> {
    let covers = |route: &NodeRoute| {
        route.port.is_none_or(|port| port == question.url.port)
            && match &route.target {
                DirectTarget::Any => true,
                DirectTarget::Net(net) => net.contains(&address),
                DirectTarget::Name(name) => *name == question.url.host,
            }
    };
    let says = |route: &NodeRoute| match (decided, route.action) {
        (Action::Redirect(to) | Action::Tunnel(to), NodeAction::Redirect { group, .. }) => {
            usize::try_from(to.group).is_ok_and(|to| to == group)
        }
        (Action::Allow, NodeAction::Direct) => true,
        _ => false,
    };
    let routes = snapshot.node.routes.iter().zip(&snapshot.node.origins).rev();
    let meant = routes.filter(|(route, _)| covers(route) && says(route));
    meant.max_by_key(|(route, _)| specificity(route)).map(|(_, origin)| Arc::clone(origin))
}

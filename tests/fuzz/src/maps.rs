//! A model of the kernel's maps: what the agent's changes do to them, and how a program reads them.

use egress_agent::bpf::{
    diff::Op,
    plan::{Contents, Prefix},
};
use egress_ebpf::{
    abi::{GatewayKey, Globals, PodAddress, PodPort, Policy, PolicyId, Route, RouteKey},
    addr::Addr,
    decide::{PolicyRules, PolicyView},
};
use zerocopy::IntoBytes;

/// What the maps hold. At first nothing, as before the first agent.
#[derive(Clone, Default, Debug)]
pub(crate) struct Maps(pub(crate) Contents);

impl Maps {
    /// Makes one change.
    pub(crate) fn apply(&mut self, op: &Op) {
        self.0.apply(op);
    }
}

/// Whether the first bits are equal, as an LPM trie compares them.
fn has_prefix<T: IntoBytes + zerocopy::Immutable>(key: &T, prefix: &Prefix<T>) -> bool {
    let (whole, rest) = (prefix.bits / 8, prefix.bits % 8);
    let (Ok(whole), mask) = (usize::try_from(whole), !(0xff_u8 >> rest)) else { return false };
    let (key, data) = (key.as_bytes(), prefix.data.as_bytes());
    key[..whole] == data[..whole] && (rest == 0 || (key[whole] ^ data[whole]) & mask == 0)
}

impl PolicyView for Maps {
    fn globals(&self) -> Globals {
        self.0.globals.unwrap_or(Globals::NONE)
    }

    fn policy(&self, policy: PolicyId) -> PolicyRules {
        let zero = Policy { mode: 0, table: 0 };
        self.0.policies.get(&policy).copied().unwrap_or(zero).into()
    }

    fn is_denied(&self, addr: &Addr) -> bool {
        self.0.denied.iter().any(|prefix| has_prefix(addr, prefix))
    }

    fn is_internal(&self, addr: &Addr) -> bool {
        self.0.internal.iter().any(|prefix| has_prefix(addr, prefix))
    }

    fn is_gateway(&self, key: &GatewayKey) -> bool {
        self.0.gateways.contains(key)
    }

    fn route(&self, key: &RouteKey) -> Option<Route> {
        let matching = self.0.routes.iter().filter(|(prefix, _)| has_prefix(key, prefix));
        matching.max_by_key(|(prefix, _)| prefix.bits).map(|(_, route)| *route)
    }

    fn interface(&self, ifindex: u32) -> Option<PodPort> {
        self.0.pod_interfaces.get(&ifindex).copied()
    }

    fn is_pod_address(&self, key: &PodAddress) -> bool {
        self.0.pod_addresses.contains(key)
    }
}

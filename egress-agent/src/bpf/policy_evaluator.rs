//! The verdict over what the maps hold, without asking the maps.

use std::net::SocketAddr;

use egress_ebpf::{
    abi::{GatewayKey, Globals, PodAddress, PodPort, Policy, PolicyId, Route, RouteKey, mode},
    addr::{Addr, PortBe},
    decide::{Place, PolicyRules, PolicyView, decide},
    packet::Flow,
    reason::Reason,
    verdict::{Action, Mode},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::plan::{Contents, Prefix};

/// Contents of the maps that can be searched as the kernel searches them.
pub struct PolicyEvaluator<'a> {
    contents: &'a Contents,
    /// Lengths of prefixes that occur, the longest first.
    routes: Vec<u32>,
    denied: Vec<u32>,
    internal: Vec<u32>,
}

impl<'a> From<&'a Contents> for PolicyEvaluator<'a> {
    fn from(contents: &'a Contents) -> Self {
        Self {
            contents,
            routes: lengths(contents.routes.keys().map(|key| key.bits)),
            denied: lengths(contents.denied.iter().map(|key| key.bits)),
            internal: lengths(contents.internal.iter().map(|key| key.bits)),
        }
    }
}

fn lengths(bits: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut lengths: Vec<u32> = bits.collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths.dedup();
    lengths
}

/// The key's prefixes of these lengths. What comes after the leading bits is zero, as in the plan.
fn prefixes<T>(key: T, lengths: &[u32]) -> impl Iterator<Item = Prefix<T>>
where
    T: IntoBytes + FromBytes + Immutable + Copy,
{
    lengths.iter().filter_map(move |bits| {
        let mut bytes = key.as_bytes().to_vec();
        for (at, byte) in (0_u32..).zip(&mut bytes) {
            let kept = bits.saturating_sub(at * 8).min(8);
            *byte &= u8::MAX.checked_shl(8 - kept).unwrap_or(0);
        }
        Some(Prefix { bits: *bits, data: T::read_from_bytes(&bytes).ok()? })
    })
}

impl PolicyEvaluator<'_> {
    /// Why packets of a socket's connection are dropped on their way out; `None` if they pass, or if
    /// the policy only audits.
    #[must_use]
    pub fn refuses(
        &self,
        policy: PolicyId,
        protocol: u8,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Option<Reason> {
        if self.policy(policy).mode != Mode::Enforce {
            return None;
        }
        let flow = Flow {
            source: Addr::from(local.ip()),
            destination: Addr::from(remote.ip()),
            source_port: PortBe::new(local.port()),
            destination_port: PortBe::new(remote.port()),
            protocol,
            ..Flow::UNKNOWN
        };
        let verdict = decide(Place::Skb, &flow, policy, self);
        match verdict.action {
            Action::Deny => Some(verdict.reason),
            Action::Allow | Action::Redirect(_) | Action::Tunnel(_) => None,
        }
    }
}

impl PolicyView for PolicyEvaluator<'_> {
    fn globals(&self) -> Globals {
        self.contents.globals.unwrap_or(Globals::NONE)
    }

    fn policy(&self, policy: PolicyId) -> PolicyRules {
        let zero = Policy { mode: mode::ENFORCE, table: 0 };
        self.contents.policies.get(&policy).copied().unwrap_or(zero).into()
    }

    fn is_denied(&self, addr: &Addr) -> bool {
        prefixes(*addr, &self.denied).any(|key| self.contents.denied.contains(&key))
    }

    fn is_internal(&self, addr: &Addr) -> bool {
        prefixes(*addr, &self.internal).any(|key| self.contents.internal.contains(&key))
    }

    fn is_gateway(&self, key: &GatewayKey) -> bool {
        self.contents.gateways.contains(key)
    }

    fn route(&self, key: &RouteKey) -> Option<Route> {
        prefixes(*key, &self.routes).find_map(|key| self.contents.routes.get(&key).copied())
    }

    fn interface(&self, ifindex: u32) -> Option<PodPort> {
        self.contents.pod_interfaces.get(&ifindex).copied()
    }

    fn is_pod_address(&self, key: &PodAddress) -> bool {
        self.contents.pod_addresses.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use egress_ebpf::abi::route_action;

    use super::*;

    fn addr(text: &str) -> Addr {
        Addr::from(text.parse::<std::net::IpAddr>().unwrap())
    }

    fn contents() -> Contents {
        let key = |port, bits, text: &str| Prefix {
            bits: RouteKey::FIXED_BITS + bits,
            data: RouteKey {
                table: 0,
                protocol: 6,
                reserved: 0,
                port: PortBe::new(port),
                addr: addr(text),
            },
        };
        let route = |action| Route { action, reserved: 0, port: PortBe::new(0), group: 0 };
        let gateway = |port, protocol| GatewayKey {
            addr: addr("10.9.0.1"),
            port: PortBe::new(port),
            protocol,
            reserved: 0,
        };
        Contents {
            globals: Some(Globals { generation: 1, ..Globals::NONE }),
            policies: [(1, Policy { mode: mode::AUDIT, table: 0 })].into(),
            routes: [
                (key(443, 0, "::"), route(route_action::REDIRECT)),
                (key(443, 96 + 24, "203.0.113.0"), route(route_action::DIRECT)),
                (key(443, 128, "203.0.113.9"), route(route_action::DENY)),
            ]
            .into(),
            gateways: [gateway(0, 0), gateway(443, 6)].into(),
            internal: [Prefix { bits: 96 + 8, data: addr("10.0.0.0") }].into(),
            denied: [Prefix { bits: 128, data: addr("169.254.169.254") }].into(),
            ..Contents::default()
        }
    }

    #[test]
    fn sockets_are_judged_as_their_packets_are() {
        let contents = contents();
        let judge = PolicyEvaluator::from(&contents);
        let ask = |policy, protocol, remote: &str| {
            judge.refuses(
                policy,
                protocol,
                "10.0.0.5:40000".parse().unwrap(),
                remote.parse().unwrap(),
            )
        };
        for (protocol, remote, expected) in [
            (6, "10.1.2.3:5432", None),
            (6, "127.0.0.1:80", None),
            (6, "203.0.113.1:443", None),
            (6, "203.0.113.9:443", Some(Reason::NoRoute)),
            (6, "203.0.113.1:80", Some(Reason::NoRoute)),
            // What a redirected connection looks like, and one that wasn't redirected.
            (6, "10.9.0.1:443", None),
            (6, "10.9.0.1:15000", Some(Reason::GatewayPort)),
            (6, "198.51.100.7:443", Some(Reason::NotRedirected)),
            (17, "198.51.100.7:443", Some(Reason::Protocol)),
            (17, "10.1.2.3:53", None),
            (6, "169.254.169.254:80", Some(Reason::DeniedPrefix)),
            (6, "[2001:db8::1]:443", Some(Reason::NotRedirected)),
        ] {
            assert_eq!(ask(0, protocol, remote), expected, "{protocol} {remote}");
            assert_eq!(ask(1, protocol, remote), None, "audit: {protocol} {remote}");
        }
        // Before any policy everything is denied.
        let empty = Contents::default();
        let judge = PolicyEvaluator::from(&empty);
        let (local, remote) = ("10.0.0.5:1".parse().unwrap(), "10.1.2.3:1".parse().unwrap());
        assert_eq!(judge.refuses(0, 6, local, remote), Some(Reason::NoPolicy));
    }
}

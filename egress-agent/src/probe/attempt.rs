//! What an attempt is, and what it has at hand while it is made.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use rustix::thread::CapabilitySet;

use super::{
    ip_family::{Families, Family},
    network::Network,
    outcome::{Call, Errno, Outcome},
    row::Row,
    settings::Settings,
    token::Token,
};

/// What a process has to have for an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Nothing: any process.
    Nothing,
    /// `CAP_NET_RAW`, which container runtimes give by default.
    NetRaw,
    /// `CAP_NET_ADMIN`.
    NetAdmin,
    /// `--gateway`.
    Gateway,
    /// `--hold`.
    Hold,
    /// `--sockets-from`.
    Passed,
}

impl Needs {
    /// The name in the list.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::NetRaw => "CAP_NET_RAW",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::Gateway => "--gateway",
            Self::Hold => "--hold",
            Self::Passed => "--sockets-from",
        }
    }

    /// Whether it is there.
    pub(super) fn met(self, settings: &Settings) -> bool {
        let has = |set| settings.capabilities.contains(set);
        match self {
            Self::Nothing => true,
            Self::NetRaw => has(CapabilitySet::NET_RAW),
            Self::NetAdmin => has(CapabilitySet::NET_ADMIN),
            Self::Gateway => settings.gateway.is_some(),
            Self::Hold => settings.held.is_some(),
            Self::Passed => settings.passed.is_some(),
        }
    }
}

/// What an attempt comes to. The error is an outcome too, for `?` in a function that cannot go on.
pub(super) type AttemptResult = Result<Outcome, Outcome>;

/// One bypass technique.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// The name; `-v4` or `-v6` is put to it.
    pub name: &'static str,
    /// What is done, in a few words.
    pub what: &'static str,
    /// What it is an example of.
    pub rows: &'static [Row],
    /// What the process has to have.
    pub needs: Needs,
    /// Where it makes sense.
    pub families: Families,
    pub(super) make: fn(&RunningAttempt<'_>) -> AttemptResult,
}

impl Attempt {
    /// The name with its family.
    #[must_use]
    pub fn full_name(&self, family: Family) -> String {
        let suffix = match family {
            Family::V4 => "v4",
            Family::V6 => "v6",
        };
        format!("{}-{suffix}", self.name)
    }
}

/// An attempt that is being made.
pub(super) struct RunningAttempt<'a> {
    pub(super) settings: &'a Settings,
    pub(super) needs: Needs,
    pub(super) token: Token,
    pub(super) target: IpAddr,
    pub(super) port: u16,
    pub(super) deadline: Instant,
}

impl RunningAttempt<'_> {
    /// What is sent.
    pub(super) fn data(&self) -> Vec<u8> {
        self.token.bytes()
    }

    /// Where it is sent.
    pub(super) fn to(&self) -> SocketAddr {
        SocketAddr::new(self.target, self.port)
    }

    /// The target in IPv6's form of IPv4 addresses.
    pub(super) fn mapped(&self) -> SocketAddr {
        let ip = match self.target {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        SocketAddr::new(ip.into(), self.port)
    }

    /// The target, which is IPv4 (the attempt's families say so).
    pub(super) fn v4(&self) -> Result<Ipv4Addr, Outcome> {
        match self.target {
            IpAddr::V4(ip) => Ok(ip),
            IpAddr::V6(_) => Err(Outcome::Error("an IPv4 attempt with an IPv6 target".into())),
        }
    }

    /// What is left of the attempt's time.
    pub(super) fn left(&self) -> Duration {
        // A socket's timeout of zero would mean none.
        self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    /// The interface and its addresses.
    pub(super) fn network(&self) -> Result<&Network, Outcome> {
        let network = self.settings.network.as_ref();
        network.map_err(|error| Outcome::NotApplicable(format!("no network here: {error}")))
    }

    /// The own address of the target's family.
    pub(super) fn own(&self) -> Result<IpAddr, Outcome> {
        let network = self.network()?;
        network.own(self.target.is_ipv6()).ok_or_else(|| {
            Outcome::NotApplicable(format!("{} has no address of this family", network.name))
        })
    }

    /// An in-cluster host of the target's family. The router stands for any such host.
    pub(super) fn in_cluster_host(&self) -> Result<IpAddr, Outcome> {
        let network = self.network()?;
        let router = if self.target.is_ipv6() {
            network.router_v6.filter(|addr| !addr.is_unicast_link_local()).map(IpAddr::V6)
        } else {
            network.router_v4.map(IpAddr::V4)
        };
        router.ok_or_else(|| {
            Outcome::NotApplicable("the router has no address to be named by".into())
        })
    }

    /// The result of a preparation: a socket, an option.
    pub(super) fn needed<T>(&self, what: &str, result: io::Result<T>) -> Result<T, Outcome> {
        result.map_err(|error| {
            let errno = Errno::of(&error);
            if errno.is_missing_feature() {
                Outcome::NotApplicable(format!("{what}: {errno}, this kernel doesn't have it"))
            } else if errno.is_forbidden() && !self.needs.met(self.settings) {
                Outcome::NotApplicable(format!("{what}: {errno}, needs {}", self.needs.name()))
            } else if errno.is_forbidden() {
                Outcome::Refused { call: Call::Prepare, errno: errno.0 }
            } else {
                Outcome::Error(format!("{what}: {errno}"))
            }
        })
    }

    /// The result of the attempt itself.
    pub(super) fn tried<T>(&self, call: Call, result: io::Result<T>) -> Result<T, Outcome> {
        result.map_err(|error| {
            let errno = Errno::of(&error);
            if errno.is_no_route() {
                Outcome::NotApplicable(format!("{errno}: there is no way to {}", self.target))
            } else {
                Outcome::Refused { call, errno: errno.0 }
            }
        })
    }
}

//! Where raw TCP was meant to go: on the plain hop by the port at the gateway, through the tunnel by what was dialled.

use std::sync::Arc;

use egress_ebpf::reason::Reason;
use ipnet::IpNet;

use super::{
    GatewayPolicy, matching, refusal,
    tables::{TcpEntry, TunnelTcp},
    tunnel::satisfies,
};
use crate::{
    policy::{
        Denied, DirectTarget, Hop, InnerProtocol, PortMode, ServerProtocol, SharedPort, TcpRoute,
        TcpTarget,
        trace::{self, Step},
    },
    types::{GatewayPort, Host, Namespace, OriginalDst, OriginalPort, Port, Source},
};

/// The services of a port that are known by name alone, as a source sees them.
enum Named<'a> {
    None,
    One(&'a TunnelTcp),
    /// Nobody could tell which of them was meant.
    Several,
}

impl GatewayPolicy {
    /// Decides a raw TCP connection by its port alone: the port at the gateway, which the node
    /// wrote in place of the one that was dialled.
    ///
    /// # Errors
    /// [`Denied`], with the reason.
    pub fn tcp(&self, source: &Source, port: OriginalPort) -> Result<TcpRoute, Denied> {
        let unrouted = || Denied {
            reason: Reason::NoRoute,
            detail: format!("no TCP service is routed to port {port} for this source"),
            matched: None,
        };
        if let Some(permitted) = self.permitted_tcp(source, port) {
            return self.authorized_tcp(source, None, permitted?);
        }
        if let Some(SharedPort { port, target }) = self.shared(port) {
            let route = match target {
                DirectTarget::Any => {
                    let to = format!("any address of port {port}");
                    self.routed_by_name(source, *port, None, Hop::Plain, &to)
                }
                DirectTarget::Name(host) => {
                    let to = format!("{host} port {port}");
                    self.routed_by_name(source, *port, Some(host), Hop::Plain, &to)
                }
                DirectTarget::Net(net) => {
                    let to = format!("{net} port {port}");
                    let known = self.known_by_net(source, *port, *net, Hop::Plain, &to);
                    known.unwrap_or_else(|| Err(refused(&to)))
                }
            };
            return self.authorized_tcp(source, None, route?);
        }
        let mut entries = self.tcp.get(&port).into_iter().flatten();
        let entry = entries.find(|entry| is_for(entry, source)).ok_or_else(unrouted)?;
        trace::note(|| Step::Rule(entry.rule.place.clone()));
        if entry.hop == Hop::Tunnel {
            return Err(refusal::plaintext(&format!("TCP to port {port}")));
        }
        let stage = self.stage.get(&entry.owner, GatewayPort(port.0)).ok_or_else(unrouted)?;
        let rule = stage.any_tcp.iter().find(|rule| matching::tcp(rule, Some(port.0), source));
        rule.iter().for_each(|rule| trace::note(|| Step::Rule(rule.place.clone())));
        let chosen = rule.and_then(|rule| matching::pick(&rule.targets)).ok_or_else(unrouted)?;
        let (cluster, host) = self.outside(&chosen.target, GatewayPort(port.0), source, None)?;
        let route = TcpRoute::new(Arc::clone(cluster), host.cloned());
        self.authorized_tcp(source, None, (route, port.0))
    }

    /// How to read a connection that came through the tunnel.
    #[must_use]
    pub fn tunnel_mode(&self, source: &Source, dialled: OriginalDst) -> PortMode {
        let Some(port) = dialled.port() else { return PortMode::Closed(Reason::NoRoute) };
        let by_address = TcpTarget::ByAddress(dialled.ip());
        if let Some(mode) = self.permitted_mode(source, port, by_address) {
            return mode;
        }
        if self.dialled_by_net(source, port, dialled.ip().into()).is_some() {
            return PortMode::Tcp;
        }
        match self.named_mode(port, Hop::Tunnel) {
            PortMode::Closed(reason) => match self.dialled_by_name(source, port, None) {
                Named::One(_) => PortMode::Tcp,
                Named::Several => PortMode::Closed(reason),
                Named::None => self
                    .permitted_mode(source, port, TcpTarget::ByName)
                    .unwrap_or(PortMode::Closed(reason)),
            },
            mode @ (PortMode::Detect | PortMode::Tcp) => mode,
        }
    }

    /// Decides a raw TCP connection that came through the tunnel, by what was dialled.
    ///
    /// # Errors
    /// [`Denied`], with the reason.
    pub fn tunnel_tcp(&self, source: &Source, dialled: OriginalDst) -> Result<TcpRoute, Denied> {
        self.authorized_tcp(source, None, self.routed_tunnel_tcp(source, dialled)?)
    }

    fn routed_tunnel_tcp(
        &self,
        source: &Source,
        dialled: OriginalDst,
    ) -> Result<(TcpRoute, Port), Denied> {
        let to = || dialled.to_string();
        let port = dialled.port().ok_or_else(|| refused(&to()))?;
        let net = dialled.ip().into();
        match self.known_by_net(source, port, net, Hop::Tunnel, &to()) {
            Some(route) => route,
            None => self.routed_by_name(source, port, None, Hop::Tunnel, &to()),
        }
    }

    /// Decides a raw TCP connection to an address of this network, where a service that the source sees has it.
    fn known_by_net(
        &self,
        source: &Source,
        port: OriginalPort,
        net: IpNet,
        came: Hop,
        to: &str,
    ) -> Option<Result<(TcpRoute, Port), Denied>> {
        if net.prefix_len() == net.max_prefix_len() {
            let by_address = TcpTarget::ByAddress(net.addr());
            if let Some(permitted) = self.permitted_dialled(source, port, by_address, came) {
                return Some(permitted);
            }
        }
        let entry = self.dialled_by_net(source, port, net)?;
        Some(self.follow(entry, source, came, to))
    }

    /// What was dialled, of what comes to a port of the gateway that is no service's own.
    pub(super) fn shared(&self, port: OriginalPort) -> Option<&SharedPort> {
        self.snapshot.rules.shared_tcp.get(&GatewayPort(port.0))
    }

    /// Decides a raw TCP connection to an address of this name, or to one that is of no known service. Then the source
    /// must be allowed a single one of the names on the port. The gateway resolves the name by itself.
    fn routed_by_name(
        &self,
        source: &Source,
        port: OriginalPort,
        name: Option<&Host>,
        came: Hop,
        to: &str,
    ) -> Result<(TcpRoute, Port), Denied> {
        let by = name.map_or(TcpTarget::ByName, TcpTarget::Named);
        let permitted = self.permitted_dialled(source, port, by, came);
        match (self.dialled_by_name(source, port, name), permitted) {
            (Named::One(entry), None) => self.follow(entry, source, came, to),
            (Named::One(entry), Some(permitted)) if entry.host == permitted_host(&permitted) => {
                permitted
            }
            (Named::None, Some(permitted)) => permitted,
            (Named::None, None) | (Named::One(_), Some(_)) | (Named::Several, _) => {
                Err(refused(to))
            }
        }
    }

    /// The route of a service that a rule of the mesh stage leads here.
    fn follow(
        &self,
        entry: &TunnelTcp,
        source: &Source,
        came: Hop,
        to: &str,
    ) -> Result<(TcpRoute, Port), Denied> {
        trace::note(|| Step::Rule(entry.rule.place.clone()));
        if (entry.hop, came) == (Hop::Tunnel, Hop::Plain) {
            return Err(refusal::plaintext(&format!("TCP to {to}")));
        }
        let stage = self.stage.get(&entry.owner, entry.stage).ok_or_else(|| refused(to))?;
        let Some(host) = &entry.host else {
            let rule =
                stage.any_tcp.iter().find(|rule| matching::tcp(rule, Some(entry.stage.0), source));
            rule.iter().for_each(|rule| trace::note(|| Step::Rule(rule.place.clone())));
            let chosen = rule.and_then(|rule| matching::pick(&rule.targets));
            let chosen = chosen.ok_or_else(|| refused(to))?;
            let (cluster, host) = self.outside(&chosen.target, entry.stage, source, None)?;
            let cluster = Arc::clone(cluster);
            let route = TcpRoute::new(cluster, host.cloned());
            return Ok((route, entry.stage.0));
        };
        let (_, served) = self.served(entry.group, &entry.owner, entry.stage, host)?;
        match served {
            ServerProtocol::Tcp => {}
            ServerProtocol::Terminate(tls)
                if entry.hop == Hop::Tunnel && tls.inside == InnerProtocol::Tcp =>
            {
                satisfies(tls, source)?;
            }
            other @ (ServerProtocol::Http { .. }
            | ServerProtocol::Passthrough(_)
            | ServerProtocol::Terminate(_)) => {
                return Err(refusal::wrong_stage(other, host, entry.stage, "raw TCP"));
            }
        }
        Ok((self.tcp_rules(stage, entry.stage, host, source)?, entry.stage.0))
    }

    fn candidates(&self, source: &Source, port: OriginalPort) -> impl Iterator<Item = &TunnelTcp> {
        let entries = self.tunnel_tcp.get(&port);
        entries.into_iter().flatten().filter(move |entry| {
            entry.routes.exported.sees(source)
                && entry.service.exported.sees(source)
                && matching::tcp(&entry.rule, None, source)
        })
    }

    /// The service with the longest prefix that the network is in, as the node chooses.
    fn dialled_by_net(
        &self,
        source: &Source,
        port: OriginalPort,
        net: IpNet,
    ) -> Option<&TunnelTcp> {
        let longest = |entry: &&TunnelTcp| {
            let nets = entry.nets.iter().filter(|known| known.contains(&net));
            nets.map(IpNet::prefix_len).max()
        };
        let found = self.candidates(source, port);
        let found = found.filter_map(|entry| Some(((longest(&entry)?, own(entry, source)), entry)));
        first_of_the_best(found)
    }

    /// The service of this name, or of the only one that the source is allowed, where the node finds its addresses by
    /// name.
    fn dialled_by_name(
        &self,
        source: &Source,
        port: OriginalPort,
        name: Option<&Host>,
    ) -> Named<'_> {
        let named = self.candidates(source, port).filter(|entry| {
            let host = entry.host.as_ref().filter(|_| entry.nets.is_empty());
            host.is_some_and(|host| name.is_none_or(|name| name == host))
        });
        let named: Vec<_> = named.map(|entry| (own(entry, source), entry)).collect();
        let is_one = named.windows(2).all(|pair| match pair {
            [(_, one), (_, other)] => one.host == other.host,
            _ => true,
        });
        match first_of_the_best(named.into_iter()) {
            None => Named::None,
            Some(entry) if is_one => Named::One(entry),
            Some(_) => Named::Several,
        }
    }
}

/// Whether the rule is for this source, and so is a service that it routes here.
fn is_for(entry: &TcpEntry, source: &Source) -> bool {
    entry.routes.exported.sees(source)
        && entry.services.iter().any(|service| service.exported.sees(source))
        && matching::tcp(&entry.rule, None, source)
}

/// What comes first of two services for the same: that of the source's own namespace, then the route of its own.
fn own(entry: &TunnelTcp, source: &Source) -> (bool, bool) {
    let own = |namespace: &Namespace| Some(namespace) == source.namespace();
    (own(&entry.service.namespace), own(&entry.routes.namespace))
}

/// The first of equals, as everywhere.
fn first_of_the_best<'e, R: PartialOrd>(
    ranked: impl Iterator<Item = (R, &'e TunnelTcp)>,
) -> Option<&'e TunnelTcp> {
    let best = ranked.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map(|(_, entry)| entry)
}

fn refused(to: &str) -> Denied {
    Denied {
        reason: Reason::NoRoute,
        detail: format!("no TCP service at {to} is routed here for this source"),
        matched: None,
    }
}

/// The host that raw TCP goes to by a policy.
fn permitted_host(permitted: &Result<(TcpRoute, Port), Denied>) -> Option<Host> {
    permitted.as_ref().ok().and_then(|(route, _)| route.host.clone())
}

//! Where raw TCP was meant to go: on the plain hop by the port at the gateway, through the tunnel by what was dialled.

use std::sync::Arc;

use egress_ebpf::reason::Reason;

use super::{GatewayPolicy, matching, refusal, tables::TunnelTcp, tunnel::satisfies};
use crate::{
    policy::{
        Denied, Hop, InnerProtocol, PortMode, ServerProtocol, TcpRoute, TcpTarget,
        trace::{self, Step},
    },
    types::{GatewayPort, Host, OriginalDst, OriginalPort, Port, Source},
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
        let refused = || Denied {
            reason: Reason::NoRoute,
            detail: format!("no TCP service is routed to port {port} for this source"),
            matched: None,
        };
        if let Some(permitted) = self.permitted_tcp(source, port) {
            return self.authorized_tcp(source, None, permitted?);
        }
        if let Some(dialled) = self.shared(port) {
            let to = format!("any address of port {dialled}");
            let route = self.routed_by_name(source, dialled, Hop::Plain, &to)?;
            return self.authorized_tcp(source, None, route);
        }
        let mut entries = self.tcp.get(&port).into_iter().flatten();
        let entry = entries
            .find(|entry| {
                entry.routes.exported.sees(source) && matching::tcp(&entry.rule, None, source)
            })
            .ok_or_else(refused)?;
        trace::note(|| Step::Rule(entry.rule.place.clone()));
        if entry.hop == Hop::Tunnel {
            return Err(refusal::plaintext(&format!("TCP to port {port}")));
        }
        let stage = self.stage.get(&entry.owner, GatewayPort(port.0)).ok_or_else(refused)?;
        let rule = stage.any_tcp.iter().find(|rule| matching::tcp(rule, Some(port.0), source));
        rule.iter().for_each(|rule| trace::note(|| Step::Rule(rule.place.clone())));
        let chosen = rule.and_then(|rule| matching::pick(&rule.targets)).ok_or_else(refused)?;
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
        if self.dialled_by_address(source, dialled).is_some() {
            return PortMode::Tcp;
        }
        match self.named_mode(port, Hop::Tunnel) {
            PortMode::Closed(reason) => match self.dialled_by_name(source, port) {
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
        let by_address = TcpTarget::ByAddress(dialled.ip());
        if let Some(permitted) = self.permitted_dialled(source, port, by_address, Hop::Tunnel) {
            return permitted;
        }
        if let Some(entry) = self.dialled_by_address(source, dialled) {
            return self.follow(entry, source, Hop::Tunnel, &to());
        }
        self.routed_by_name(source, port, Hop::Tunnel, &to())
    }

    /// The port that was dialled, of what comes to a port of the gateway where the services of a port are not told
    /// apart.
    pub(super) fn shared(&self, port: OriginalPort) -> Option<OriginalPort> {
        self.snapshot.rules.shared_tcp.get(&GatewayPort(port.0)).copied()
    }

    /// Decides a raw TCP connection to an address that is of no known service. Of the names on the port the source
    /// must be allowed a single one: that is what it reaches, by the gateway's own resolution.
    pub(super) fn routed_by_name(
        &self,
        source: &Source,
        port: OriginalPort,
        came: Hop,
        to: &str,
    ) -> Result<(TcpRoute, Port), Denied> {
        let permitted = self.permitted_dialled(source, port, TcpTarget::ByName, came);
        match (self.dialled_by_name(source, port), permitted) {
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

    fn candidates(
        &self,
        source: &Source,
        port: Option<OriginalPort>,
    ) -> impl Iterator<Item = &TunnelTcp> {
        let entries = port.and_then(|port| self.tunnel_tcp.get(&port));
        entries.into_iter().flatten().filter(move |entry| {
            entry.routes.exported.sees(source)
                && entry.service.exported.sees(source)
                && matching::tcp(&entry.rule, None, source)
        })
    }

    /// The service with the longest prefix that the address is in, as the node chooses.
    fn dialled_by_address(&self, source: &Source, dialled: OriginalDst) -> Option<&TunnelTcp> {
        let longest = |entry: &&TunnelTcp| {
            let nets = entry.nets.iter().filter(|net| net.contains(&dialled.ip()));
            nets.map(ipnet::IpNet::prefix_len).max()
        };
        let found = self.candidates(source, dialled.port());
        // Among equals the source's own namespace comes first.
        let own = |entry: &TunnelTcp| Some(&entry.service.namespace) == source.namespace();
        let found = found.filter_map(|entry| Some(((longest(&entry)?, own(entry)), entry)));
        // The first of equals, as everywhere.
        found.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, entry)| entry)
    }

    /// The services whose addresses the node finds by name.
    fn dialled_by_name(&self, source: &Source, port: OriginalPort) -> Named<'_> {
        let named = self.candidates(source, Some(port));
        let mut named = named.filter(|entry| entry.nets.is_empty());
        let Some(first) = named.next() else { return Named::None };
        let same = |other: &TunnelTcp| {
            (&other.host, other.stage, &other.owner) == (&first.host, first.stage, &first.owner)
        };
        if named.all(same) { Named::One(first) } else { Named::Several }
    }
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

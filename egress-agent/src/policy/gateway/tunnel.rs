//! What comes through the tunnel: who may speak for whom, and where raw TCP was meant to go.

use std::{net::IpAddr, sync::Arc};

use egress_ebpf::reason::Reason;

use super::{GatewayPolicy, Secured, matching, refusal, tables::TunnelTcp};
use crate::{
    policy::{
        Denied, Hop, InnerProtocol, PortMode, ServerProtocol, ServerTls, TcpRoute, TcpTarget,
        trace::{self, Step},
    },
    types::{AssertedWorkload, Host, Node, OriginalDst, Port, Source, SpiffeId, Workload},
};

/// Whether who comes through the tunnel is one whom a server's TLS settings would let in. What the
/// tunnel proves is an identity: of keys and certificates of the workload's own it knows nothing.
pub(super) fn satisfies(tls: &ServerTls, source: &Source) -> Result<(), Denied> {
    let refuse = |detail: String| Denied { reason: Reason::ClientIdentity, detail, matched: None };
    if !tls.spki_pins.is_empty() || !tls.hashes.is_empty() {
        return Err(refuse(
            "verifyCertificateSpki and verifyCertificateHash ask for a certificate of the client's \
             own, which nobody shows through the tunnel"
                .into(),
        ));
    }
    let names = &tls.subject_alt_names;
    let proven = source.principal.as_ref().map(ToString::to_string).unwrap_or_default();
    if names.is_empty() || names.contains(&proven) {
        return Ok(());
    }
    Err(refuse(format!(
        "found the identity {proven}, expected {} (subjectAltNames)",
        names.join(" or ")
    )))
}

impl GatewayPolicy {
    /// The TLS settings of the listener for tunnels; `None` where no tunnel leads to this process.
    #[must_use]
    pub fn tunnel(&self) -> Option<&Arc<ServerTls>> {
        self.tunnel.as_ref()
    }

    /// Who a tunnelled connection is from. `client` is what the tunnel's certificate proves, `peer`
    /// where it comes from; `claim` and `forwarded_for` are what it says of the workload.
    ///
    /// A node may speak for the workloads that are known to run there. A workload may speak for
    /// itself, with its own identity and from an address of its own.
    ///
    /// # Errors
    /// [`Reason::ClaimedWorkload`]: the workload isn't known, or `client` may not speak for it.
    pub fn claimed(
        &self,
        client: &SpiffeId,
        peer: IpAddr,
        claim: Option<&AssertedWorkload>,
        forwarded_for: Option<IpAddr>,
    ) -> Result<Source, Denied> {
        let refuse =
            |detail: String| Denied { reason: Reason::ClaimedWorkload, detail, matched: None };
        let peer = peer.to_canonical();
        let forwarded_for = forwarded_for.map(|addr| addr.to_canonical());
        let mesh = &self.snapshot.mesh;
        let meant = |workload: &&Arc<Workload>| match (claim, forwarded_for) {
            (Some(claim), _) => claim.is_about(workload),
            (None, Some(addr)) => workload.addresses.contains(&addr),
            (None, None) => workload.addresses.contains(&peer),
        };
        let mut known = mesh.workloads.iter().filter(meant).peekable();
        let whom = match (claim, forwarded_for) {
            (Some(claim), _) => format!("the workload {}/{}", claim.namespace.0, claim.name),
            (None, addr) => format!("the workload at {}", addr.unwrap_or(peer)),
        };
        if known.peek().is_none() {
            return Err(refuse(format!("{client} speaks for {whom}, which isn't known")));
        }
        let mut why = String::new();
        for workload in known {
            let addresses = &workload.addresses;
            if let Some(addr) = forwarded_for
                && !addresses.is_empty()
                && !addresses.contains(&addr)
            {
                why = format!("{addr} (forwarded) is none of its addresses");
                continue;
            }
            match self.speaks_for(client, peer, workload) {
                Ok(()) => {
                    // One on the host's network has no address but its node's.
                    let nodes = self.node_of(workload).map_or(&[][..], |node| &node.addresses);
                    let own = forwarded_for
                        .filter(|addr| addresses.contains(addr) || nodes.contains(addr));
                    return Ok(Source {
                        addr: own.or_else(|| addresses.first().copied()).unwrap_or(peer),
                        workload: Some(Arc::clone(workload)),
                        principal: Some(workload.principal(&mesh.trust_domain)),
                    });
                }
                Err(because) => why = because,
            }
        }
        Err(refuse(format!("{client} may not speak for {whom}: {why}")))
    }

    /// Whether a client with this identity and address may speak for the workload.
    fn speaks_for(
        &self,
        client: &SpiffeId,
        peer: IpAddr,
        workload: &Workload,
    ) -> Result<(), String> {
        let mesh = &self.snapshot.mesh;
        if *client == workload.principal(&mesh.trust_domain) && workload.addresses.contains(&peer) {
            return Ok(());
        }
        let Some(name) = &workload.node else {
            return Err("no node is known to run it (workloads[].node)".into());
        };
        let Some(node) = self.node_of(workload) else {
            return Err(format!("its node {name} isn't known"));
        };
        if *client != node.principal {
            return Err(format!("it runs on {name}, whose identity is {}", node.principal));
        }
        if !node.addresses.is_empty() && !node.addresses.contains(&peer) {
            return Err(format!("it runs on {name}, and {peer} is none of that node's addresses"));
        }
        Ok(())
    }

    fn node_of(&self, workload: &Workload) -> Option<&Node> {
        let name = workload.node.as_ref()?;
        self.snapshot.mesh.nodes.iter().find(|node| node.name == *name).map(Arc::as_ref)
    }

    /// How to read a connection that came through the tunnel.
    #[must_use]
    pub fn tunnel_mode(&self, source: &Source, dialled: OriginalDst) -> PortMode {
        let Some(port) = dialled.port() else { return PortMode::Closed(Reason::NoRoute) };
        if let Some(mode) = self.permitted_mode(source, dialled, TcpTarget::ByAddress) {
            return mode;
        }
        if self.dialled_by_address(source, dialled).is_some() {
            return PortMode::Tcp;
        }
        match self.named_mode(port, Hop::Tunnel) {
            PortMode::Closed(reason) => match self.dialled_by_name(source, dialled) {
                Some(_) => PortMode::Tcp,
                None => self
                    .permitted_mode(source, dialled, TcpTarget::ByName)
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
        let refused = || Denied {
            reason: Reason::NoRoute,
            detail: format!("no TCP service at {dialled} is routed here for this source"),
            matched: None,
        };
        if let Some(permitted) = self.permitted_tunnel_tcp(source, dialled, TcpTarget::ByAddress) {
            return permitted;
        }
        let entry = match self.dialled_by_address(source, dialled) {
            Some(entry) => entry,
            None => match (
                self.dialled_by_name(source, dialled),
                self.permitted_tunnel_tcp(source, dialled, TcpTarget::ByName),
            ) {
                (Some(entry), None) => entry,
                (None, Some(permitted)) => return permitted,
                (None, None) => return Err(refused()),
                // Of two names, nobody could tell which was meant.
                (Some(entry), Some(permitted)) if entry.host != permitted_host(&permitted) => {
                    return Err(refused());
                }
                (Some(_), Some(permitted)) => return permitted,
            },
        };
        trace::note(|| Step::Rule(entry.rule.place.clone()));
        let stage = self.stage.get(&entry.owner, entry.stage).ok_or_else(refused)?;
        let Some(host) = &entry.host else {
            let rule =
                stage.any_tcp.iter().find(|rule| matching::tcp(rule, Some(entry.stage.0), source));
            rule.iter().for_each(|rule| trace::note(|| Step::Rule(rule.place.clone())));
            let chosen = rule.and_then(|rule| matching::pick(&rule.targets)).ok_or_else(refused)?;
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
        dialled: OriginalDst,
    ) -> impl Iterator<Item = &TunnelTcp> {
        let entries = dialled.port().and_then(|port| self.tunnel_tcp.get(&port));
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
        let found = self.candidates(source, dialled);
        // Among equals the source's own namespace comes first.
        let own = |entry: &TunnelTcp| Some(&entry.service.namespace) == source.namespace();
        let found = found.filter_map(|entry| Some(((longest(&entry)?, own(entry)), entry)));
        // The first of equals, as everywhere.
        found.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, entry)| entry)
    }

    /// The service whose addresses the node finds by name, if it is the only one on the port: of
    /// two, nobody could tell which was meant.
    fn dialled_by_name(&self, source: &Source, dialled: OriginalDst) -> Option<&TunnelTcp> {
        let mut named = self.candidates(source, dialled).filter(|entry| entry.nets.is_empty());
        let first = named.next()?;
        let same = |other: &TunnelTcp| {
            (&other.host, other.stage, &other.owner) == (&first.host, first.stage, &first.owner)
        };
        named.all(same).then_some(first)
    }

    /// What the hop proves, or why it isn't enough.
    pub(super) fn secured(
        &self,
        wanted: Hop,
        came: Hop,
        group: usize,
        host: &Host,
    ) -> Result<Secured, Denied> {
        match (wanted, came) {
            (Hop::Plain, Hop::Plain) => Ok(Secured::No),
            (Hop::Plain, Hop::Tunnel) => Ok(Secured::Besides),
            (Hop::Tunnel, Hop::Tunnel) => Ok(Secured::Tunnel),
            (Hop::Tunnel, Hop::Plain) => {
                let service = self.snapshot.mesh.gateways.get(group).map(|group| &group.service);
                let to = service.map(|name| format!(" to {name}")).unwrap_or_default();
                Err(refusal::plaintext(&format!("what {host} is asked, on the way{to},")))
            }
        }
    }
}

/// The host that raw TCP goes to by a policy.
fn permitted_host(permitted: &Result<(TcpRoute, Port), Denied>) -> Option<Host> {
    permitted.as_ref().ok().and_then(|(route, _)| route.host.clone())
}

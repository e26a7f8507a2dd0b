//! Decisions about TLS connections, and about what is inside those that end here.

use std::sync::Arc;

use egress_ebpf::reason::Reason;

use super::{GatewayPolicy, Secured, refusal, stages::StagePort, tables::Bound, tunnel};
use crate::{
    policy::{
        Client, Cluster, Denied, EncryptedHello, Hop, HttpRequest, HttpRoute, InnerProtocol, Owner,
        Protocol, ServerProtocol, Target, TcpRoute, Termination, TlsConnection, TlsRoute, matching,
        preferred,
        trace::{self, Step},
        unmet,
    },
    types::{GatewayPort, Host, OriginalPort, Port, Source, SpiffeId},
};

impl GatewayPolicy {
    /// Decides a TLS connection by its server name. A rule of the mesh's stage comes first; without
    /// one, a server that terminates TLS on the original port itself is for clients that speak TLS
    /// to the gateway itself.
    ///
    /// # Errors
    /// [`Denied`], with the reason.
    pub fn tls(&self, connection: &TlsConnection<'_>) -> Result<TlsRoute, Denied> {
        match self.permitted_tls(connection, || self.routed_tls(connection))? {
            (TlsRoute::Forward(route), port) => {
                let TlsConnection { source, server_name, .. } = *connection;
                self.authorized_tcp(source, Some(server_name), (route, port)).map(TlsRoute::Forward)
            }
            // Policies decide about what is inside.
            (to @ TlsRoute::Terminate(_), _) => Ok(to),
        }
    }

    /// The route of a connection, and the port of the gateway's server, or else the one that was
    /// dialled.
    fn routed_tls(&self, connection: &TlsConnection<'_>) -> Result<(TlsRoute, Port), Denied> {
        let TlsConnection { source, port, server_name: host, hop: came, encrypted } = *connection;
        let mesh_allows =
            || Self::hello_allowed(encrypted, self.snapshot.mesh.encrypted_hello, host);
        // Through the tunnel nobody speaks to the gateway itself: the node does.
        let own = || {
            let own = || self.own_server(GatewayPort(port.0), host, source);
            (came == Hop::Plain).then(own).flatten()
        };
        let Some((mesh, service)) = self.service(port, host, source) else {
            if let Some(termination) = own() {
                return Ok((TlsRoute::Terminate(termination), port.0));
            }
            let cluster = self.passthrough(port, host, source)?;
            mesh_allows()?;
            let route = TcpRoute::new(cluster, Some(host.clone()));
            return Ok((TlsRoute::Forward(route), port.0));
        };
        if service.protocol != Protocol::Tls {
            if let Some(termination) = own() {
                return Ok((TlsRoute::Terminate(termination), port.0));
            }
            return Err(refusal::wrong_protocol(service, "TLS"));
        }
        let mut bound = mesh.tls.rules_for(host);
        let bound = bound.find_map(|bound| preferred(bound, source.namespace()));
        let Some(Bound { set, rules }) = bound else {
            if let Some(termination) = own() {
                return Ok((TlsRoute::Terminate(termination), port.0));
            }
            let cluster = self.direct(service, host, source)?;
            mesh_allows()?;
            let route = TcpRoute::new(cluster, Some(host.clone()));
            return Ok((TlsRoute::Forward(route), port.0));
        };
        let rule = rules.iter().find(|rule| matching::tls(rule, host, port.0, source));
        rule.iter().for_each(|rule| trace::note(|| Step::Rule(rule.place.clone())));
        let Some(chosen) = rule.and_then(|rule| matching::pick(&rule.targets)) else {
            let nearest = unmet::tls(rules.iter().map(|rule| &**rule), host, port.0, source);
            return Err(refusal::no_rule(set, host, port.0, &nearest));
        };
        match &chosen.target {
            Target::Gateway { group, port, hop, owner } => {
                let secured = self.secured(*hop, came, *group, host)?;
                let to = (*group, owner, *port);
                let route = self.tls_stage(to, secured, host, source, encrypted)?;
                Ok((route, port.0))
            }
            Target::Cluster { destination, host: named } => {
                self.allows_direct(service)?;
                mesh_allows()?;
                let host = named.as_ref().unwrap_or(host).clone();
                let client = Client::of(source);
                let cluster = destination.cluster(client, Some(&host))?;
                let cluster = Arc::clone(cluster);
                let route = TcpRoute::new(cluster, Some(host));
                Ok((TlsRoute::Forward(route), port.0))
            }
            Target::Refused { reason, detail } => Err(refusal::denied(*reason, detail)),
        }
    }

    /// Where TLS without a server name ends: on the very port that was dialled, if all servers that
    /// end TLS there do it in the same way, and the request inside says which host it is for.
    #[must_use]
    pub fn unnamed(&self, port: OriginalPort, hop: Hop) -> Option<Termination> {
        let port = GatewayPort(port.0);
        let mut stages = self.stage.on(port).filter(|(_, stage)| !stage.terminating.is_empty());
        let (owner, stage) = stages.next()?;
        let (first, others) = stage.terminating.split_first()?;
        let one = stages.next().is_none() && others.iter().all(|other| other == first);
        let usable = one && hop == Hop::Plain && first.inside == InnerProtocol::Http;
        usable.then(|| Termination { port, tls: Arc::clone(first), owner: owner.clone() })
    }

    /// The server of this process that terminates TLS for the name on this port of its own. A
    /// service that is hidden from the source stays hidden here.
    fn own_server(&self, port: GatewayPort, host: &Host, source: &Source) -> Option<Termination> {
        let mut own = self.stage.on(port).filter_map(|(owner, _)| {
            match self.served_on(owner, port, host)?.1 {
                ServerProtocol::Terminate(tls) => Some((owner, tls)),
                ServerProtocol::Http { .. }
                | ServerProtocol::Passthrough(_)
                | ServerProtocol::Tcp => None,
            }
        });
        let (owner, tls) = own.next()?;
        let owner = owner.clone();
        (!self.is_hidden(host, source)).then(|| Termination { port, tls: Arc::clone(tls), owner })
    }

    /// Whether services are declared for the host, and the source sees none of them.
    fn is_hidden(&self, host: &Host, source: &Source) -> bool {
        let mut known = self.mesh.values().flat_map(|mesh| mesh.services.matches(host)).flatten();
        known.next().is_some_and(|first| {
            !first.exported.sees(source) && !known.any(|s| s.exported.sees(source))
        })
    }

    /// The gateway's stage of [`Self::tls`].
    fn tls_stage(
        &self,
        (group, owner, port): (usize, &Owner, GatewayPort),
        secured: Secured,
        host: &Host,
        source: &Source,
        encrypted: bool,
    ) -> Result<TlsRoute, Denied> {
        let (stage, served) = self.served(group, owner, port, host)?;
        let mesh = self.snapshot.mesh.encrypted_hello;
        let chosen = match served {
            ServerProtocol::Passthrough(setting) => {
                Self::hello_allowed(encrypted, *setting, host)?;
                stage.tls.rules_for(host).next().and_then(|rules| {
                    let mut rules = rules.iter();
                    let rule = rules.find(|rule| matching::tls(rule, host, port.0, source))?;
                    trace::note(|| Step::Rule(rule.place.clone()));
                    matching::pick(&rule.targets)
                })
            }
            ServerProtocol::Tcp => {
                Self::hello_allowed(encrypted, mesh, host)?;
                return self.tcp_rules(stage, port, host, source).map(TlsRoute::Forward);
            }
            ServerProtocol::Terminate(tls) if secured == Secured::No => {
                let tls = Arc::clone(tls);
                let owner = owner.clone();
                return Ok(TlsRoute::Terminate(Termination { port, tls, owner }));
            }
            // The tunnel is the TLS that this server ends; what the application speaks inside is
            // not touched.
            ServerProtocol::Terminate(tls)
                if secured == Secured::Tunnel && tls.inside == InnerProtocol::Tcp =>
            {
                tunnel::satisfies(tls, source)?;
                Self::hello_allowed(encrypted, mesh, host)?;
                return self.tcp_rules(stage, port, host, source).map(TlsRoute::Forward);
            }
            other @ ServerProtocol::Terminate(_) => {
                return Err(refusal::wrong_stage(other, host, port, "TLS through the tunnel"));
            }
            http @ ServerProtocol::Http { .. } => {
                return Err(refusal::wrong_stage(http, host, port, "TLS"));
            }
        };
        let chosen = chosen.ok_or_else(|| {
            let rules = stage.tls.rules_for(host).next().into_iter().flatten();
            let nearest = unmet::tls(rules.map(|rule| &**rule), host, port.0, source);
            refusal::no_stage_rule(host, port, &nearest)
        })?;
        let (cluster, named) = self.outside(&chosen.target, port, source, Some(host))?;
        let host = named.unwrap_or(host).clone();
        Ok(TlsRoute::Forward(TcpRoute::new(Arc::clone(cluster), Some(host))))
    }

    /// Whether a ClientHello may be forwarded under this setting. Where TLS is terminated here, the
    /// inner one is never read, so the question doesn't arise.
    pub(super) fn hello_allowed(
        encrypted: bool,
        setting: EncryptedHello,
        host: &Host,
    ) -> Result<(), Denied> {
        match setting {
            EncryptedHello::Deny if encrypted => Err(refusal::encrypted_hello(host)),
            EncryptedHello::Deny | EncryptedHello::Allow => Ok(()),
        }
    }

    /// A request inside TLS that this gateway ended. Only the hosts of servers with the very same
    /// TLS settings may be asked for: else a connection that a lenient server accepted would reach
    /// what a strict one guards.
    pub(super) fn http_inside(
        &self,
        termination: &Termination,
        request: &HttpRequest<'_>,
    ) -> Result<HttpRoute, Denied> {
        let (port, host) = (termination.port, request.host);
        let stage = self.same_server(termination, host, request.source)?;
        if termination.tls.inside != InnerProtocol::Http {
            return Err(refusal::denied(
                Reason::WrongProtocol,
                "this server carries TCP, not HTTP",
            ));
        }
        self.http_rules(stage, port, request, self.cluster_of(host))
    }

    /// Decides a connection of any bytes inside TLS that this gateway ended, by its server name.
    ///
    /// # Errors
    /// [`Denied`], with the reason.
    pub fn tcp_inside(
        &self,
        termination: &Termination,
        host: &Host,
        source: &Source,
    ) -> Result<TcpRoute, Denied> {
        let stage = self.same_server(termination, host, source)?;
        let route = self.tcp_rules(stage, termination.port, host, source)?;
        self.authorized_tcp(source, Some(host), (route, termination.port.0))
    }

    /// The source once it has proven who it is. An identity of another trust domain says nothing
    /// about namespaces here, whoever signed it: then the address counts, as without one.
    #[must_use]
    pub fn authenticated(&self, source: Source, principal: &SpiffeId) -> Source {
        if principal.trust_domain == self.snapshot.mesh.trust_domain {
            source.authenticated(principal.clone())
        } else {
            source
        }
    }

    /// The stage that serves the host under exactly these TLS settings, to this source.
    fn same_server(
        &self,
        termination: &Termination,
        host: &Host,
        source: &Source,
    ) -> Result<&StagePort, Denied> {
        let Termination { port, tls, owner } = termination;
        match self.served_on(owner, *port, host) {
            Some((stage, ServerProtocol::Terminate(own)))
                if own == tls && !self.is_hidden(host, source) =>
            {
                Ok(stage)
            }
            Some(_) | None => Err(refusal::other_server(host, *port)),
        }
    }

    /// The cluster of the host's own service, for what is answered without an upstream.
    fn cluster_of(&self, host: &Host) -> &Arc<Cluster> {
        let mut services =
            self.mesh.values().flat_map(|mesh| mesh.services.matches(host)).flatten();
        services.next().map_or(&self.nowhere, |service| &service.cluster)
    }

    /// The rules for TCP at the gateway's stage.
    pub(super) fn tcp_rules(
        &self,
        stage: &StagePort,
        port: GatewayPort,
        host: &Host,
        source: &Source,
    ) -> Result<TcpRoute, Denied> {
        let chosen = stage.tcp.rules_for(host).next().and_then(|rules| {
            let rule = rules.iter().find(|rule| matching::tcp(rule, Some(port.0), source))?;
            trace::note(|| Step::Rule(rule.place.clone()));
            matching::pick(&rule.targets)
        });
        let chosen = chosen.ok_or_else(|| {
            let rules = stage.tcp.rules_for(host).next().into_iter().flatten();
            let nearest = unmet::tcp(rules.map(|rule| &**rule), port.0, source);
            refusal::no_stage_rule(host, port, &nearest)
        })?;
        let (cluster, named) = self.outside(&chosen.target, port, source, Some(host))?;
        let host = named.unwrap_or(host).clone();
        Ok(TcpRoute::new(Arc::clone(cluster), Some(host)))
    }
}

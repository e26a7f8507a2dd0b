//! Decisions about requests of HTTP in clear, and the rules of both stages for a request.

use std::sync::Arc;

use super::{GatewayPolicy, Secured, refusal, stages::StagePort, tables::Bound, tunnel};
use crate::{
    policy::{
        Client, Cluster, Denied, EntryPoint, HttpMatch, HttpOutcome, HttpRequest, HttpRoute,
        HttpRule, InnerProtocol, Owner, Protocol, ServerProtocol, Target, matching,
        path::AmbiguousPath,
        preferred,
        trace::{self, Step},
        unmet,
    },
    types::{GatewayPort, Port},
};

impl GatewayPolicy {
    /// Decides a request. Every request of a connection is asked about on its own.
    ///
    /// # Errors
    /// [`Denied`], with the reason.
    pub fn http(&self, request: &HttpRequest<'_>) -> Result<HttpRoute, Denied> {
        let routed = match request.entry {
            // The server's rules decide about what is inside the TLS that it ended.
            EntryPoint::Server(_) => self.routed_http(request)?,
            EntryPoint::Mesh | EntryPoint::Tunnel => {
                self.permitted_http(request, || self.routed_http(request))?
            }
        };
        self.authorized_http(request, routed)
    }

    /// The route of a request, and the port of the gateway's server, or else the one that was dialled.
    fn routed_http(&self, request: &HttpRequest<'_>) -> Result<(HttpRoute, Port), Denied> {
        let (port, host) = (request.port, request.host);
        if let EntryPoint::Server(termination) = request.entry {
            return Ok((self.http_inside(termination, request)?, termination.port.0));
        }
        let Some((mesh, service)) = self.service(port, host, request.source) else {
            let cluster = self.passthrough(port, host, request.source)?;
            return Ok((self.unruled_route(cluster, host), port.0));
        };
        if service.protocol != Protocol::Http {
            return Err(refusal::wrong_protocol(service, "plain HTTP"));
        }
        let mut bound = mesh.http.rules_for(host);
        let bound = bound.find_map(|bound| preferred(bound, request.source.namespace()));
        let Some(Bound { set, rules }) = bound else {
            let cluster = self.direct(service, host, request.source)?;
            return Ok((self.unruled_route(cluster, host), port.0));
        };
        let nearest = || unmet::http(rules.iter().map(|rule| &**rule), request, port.0);
        let Some((rule, matched)) = first(rules, request, port.0)? else {
            return Err(refusal::no_rule(set, host, port.0, &nearest()));
        };
        let HttpOutcome::Route(targets) = &rule.outcome else {
            return Ok((self.answer(rule, matched, request, &service.cluster)?, port.0));
        };
        let Some(chosen) = matching::pick(targets) else {
            return Err(refusal::no_rule(set, host, port.0, ""));
        };
        match &chosen.target {
            Target::Gateway { group, port, hop, owner } => {
                let secured = self.secured(*hop, request.entry.hop(), *group, host)?;
                let to = (*group, owner, *port);
                let route = self.http_stage(to, secured, request, &service.cluster)?;
                Ok((route, port.0))
            }
            Target::Cluster { destination, host: named } => {
                self.allows_direct(service)?;
                let host = named.as_ref().unwrap_or(host);
                let client = Client::of(request.source);
                let cluster = destination.cluster(client, Some(host))?;
                let route = self.route(rule, matched, chosen, (cluster, host), client, request)?;
                Ok((route, port.0))
            }
            Target::Refused { reason, detail } => Err(refusal::denied(*reason, detail)),
        }
    }

    /// The gateway's stage of [`Self::http`].
    fn http_stage(
        &self,
        (group, owner, port): (usize, &Owner, GatewayPort),
        secured: Secured,
        request: &HttpRequest<'_>,
        own: &Arc<Cluster>,
    ) -> Result<HttpRoute, Denied> {
        let host = request.host;
        let (stage, served) = self.served(group, owner, port, host)?;
        match served {
            ServerProtocol::Http { https_redirect: false } => {}
            ServerProtocol::Http { https_redirect: true } => {
                return Ok(self.redirect(&self.to_https, &self.plain, request, own, None));
            }
            // The tunnel is the mutual TLS that the destination rule asks for towards this server.
            ServerProtocol::Terminate(tls)
                if secured == Secured::Tunnel && tls.inside == InnerProtocol::Http =>
            {
                tunnel::satisfies(tls, request.source)?;
            }
            other @ (ServerProtocol::Tcp
            | ServerProtocol::Passthrough(_)
            | ServerProtocol::Terminate(_)) => {
                return Err(refusal::wrong_stage(other, host, port, "plain HTTP"));
            }
        }
        self.http_rules(stage, port, request, own)
    }

    /// The rules of the gateway's stage for a request that a server there is for.
    pub(super) fn http_rules(
        &self,
        stage: &StagePort,
        port: GatewayPort,
        request: &HttpRequest<'_>,
        own: &Arc<Cluster>,
    ) -> Result<HttpRoute, Denied> {
        let host = request.host;
        let rules = stage.http.rules_for(host).next().map_or(&[][..], Vec::as_slice);
        let Some((rule, matched)) = first(rules, request, port.0)? else {
            let nearest = unmet::http(rules.iter().map(|rule| &**rule), request, port.0);
            return Err(refusal::no_stage_rule(host, port, &nearest));
        };
        let HttpOutcome::Route(targets) = &rule.outcome else {
            return self.answer(rule, matched, request, own);
        };
        let chosen =
            matching::pick(targets).ok_or_else(|| refusal::no_stage_rule(host, port, ""))?;
        let (cluster, named) = self.outside(&chosen.target, port, request.source, Some(host))?;
        let host = named.unwrap_or(host);
        let client = self.client(request.source);
        self.route(rule, matched, chosen, (cluster, host), client, request)
    }
}

/// The first rule for this request, and the match that says so.
fn first<'r>(
    rules: &'r [Arc<HttpRule>],
    request: &HttpRequest<'_>,
    port: Port,
) -> Result<Option<(&'r HttpRule, Option<&'r HttpMatch>)>, Denied> {
    for rule in rules {
        match matching::http(rule, request, port) {
            Ok(Some(matched)) => {
                trace::note(|| Step::Rule(rule.place.clone()));
                return Ok(Some((rule, matched)));
            }
            Ok(None) => {}
            Err(AmbiguousPath) => return Err(refusal::ambiguous(request)),
        }
    }
    Ok(None)
}

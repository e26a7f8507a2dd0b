//! What `EgressPolicy` and `ClusterEgressPolicy` allow, and what passes because they are in audit mode.
//!
//! They come before Istio's resources, and only add to what those allow. What neither allows is refused;
//! where every policy that selects the source is in audit mode, it is let through and marked instead.

use std::sync::Arc;

use egress_ebpf::reason::Reason;

use super::{GatewayPolicy, refusal};
use crate::{
    policy::{
        Cluster, Denied, EgressAccess, EgressMode, Grant, Hop, HttpRequest, HttpRoute, MatchedRule,
        NotGranted, PortMode, TcpRoute, TcpTarget, TlsConnection, TlsRoute,
        trace::{self, Step},
    },
    types::{GatewayPort, Host, OriginalPort, Port, Source},
};

impl GatewayPolicy {
    /// The route of a request: by the policies of the source, or else by Istio's resources.
    pub(super) fn permitted_http(
        &self,
        request: &HttpRequest<'_>,
        istio: impl FnOnce() -> Result<(HttpRoute, Port), Denied>,
    ) -> Result<(HttpRoute, Port), Denied> {
        let (source, port, host) = (request.source, request.port, request.host);
        let not = match self.egress.http(request) {
            Ok(MatchedRule { grant, rates }) => {
                let cluster = self.granted(grant, request.entry.hop(), source, host)?;
                let name = Some(Arc::clone(&grant.policy.label));
                let route = HttpRoute { name, rates, ..self.unruled_route(cluster, host) };
                return Ok((route, port.0));
            }
            Err(not) => not,
        };
        let denied = match (istio(), &not) {
            (Ok(route), _) => return Ok(route),
            (Err(denied), NotGranted::Unnamed) => denied,
            (Err(_), NotGranted::Ambiguous(_)) => return Err(refusal::ambiguous(request)),
            (Err(_), NotGranted::Otherwise(nearest) | NotGranted::Several(nearest, _)) => {
                let asked = format!("{} to {host} port {port}", request.method);
                refusal::not_granted(&asked, nearest)
            }
        };
        let audit = self.audited(source, denied)?;
        let is_http = |grant: &&Grant| matches!(grant.rule.access, EgressAccess::Http { .. });
        let nearest = not.nearest().filter(is_http);
        let cluster = self.let_through(nearest, request.entry.hop(), source, host, port)?;
        Ok((HttpRoute { audit: Some(audit), ..self.default_route(cluster, host) }, port.0))
    }

    /// The same for a TLS connection.
    pub(super) fn permitted_tls(
        &self,
        connection: &TlsConnection<'_>,
        istio: impl FnOnce() -> Result<(TlsRoute, Port), Denied>,
    ) -> Result<(TlsRoute, Port), Denied> {
        let TlsConnection { source, port, server_name: host, hop, encrypted } = *connection;
        let forward = |cluster, rates, audit| {
            let route = TcpRoute { rates, audit, ..TcpRoute::new(cluster, Some(host.clone())) };
            (TlsRoute::Forward(route), port.0)
        };
        let hello = || Self::hello_allowed(encrypted, self.snapshot.mesh.encrypted_hello, host);
        let not = match self.egress.tls(port, host, source) {
            Ok(MatchedRule { grant, rates }) => {
                hello()?;
                return Ok(forward(self.granted(grant, hop, source, host)?, rates, None));
            }
            Err(not) => not,
        };
        let denied = match (istio(), not.nearest()) {
            (Ok(route), _) => return Ok(route),
            (Err(denied), None) => denied,
            (Err(_), Some(nearest)) => {
                refusal::not_granted(&format!("TLS to {host} port {port}"), nearest)
            }
        };
        let audit = self.audited(source, denied)?;
        hello()?;
        let cluster = self.let_through(None, hop, source, host, port)?;
        Ok(forward(cluster, Vec::new(), Some(audit)))
    }

    /// Raw TCP that came to this port of the gateway; `None` where no policy of the source is about it.
    pub(super) fn permitted_tcp(
        &self,
        source: &Source,
        port: OriginalPort,
    ) -> Option<Result<(TcpRoute, Port), Denied>> {
        self.raw(self.egress.tcp(GatewayPort(port.0), source), Hop::Plain, source)
    }

    /// Raw TCP by what was dialled.
    pub(super) fn permitted_dialled(
        &self,
        source: &Source,
        port: OriginalPort,
        by: TcpTarget<'_>,
        came: Hop,
    ) -> Option<Result<(TcpRoute, Port), Denied>> {
        self.raw(self.egress.dialled(port, source, by), came, source)
    }

    fn raw(
        &self,
        found: Result<MatchedRule<'_>, NotGranted<'_>>,
        came: Hop,
        source: &Source,
    ) -> Option<Result<(TcpRoute, Port), Denied>> {
        let MatchedRule { grant, rates } = match found {
            Ok(granted) => granted,
            Err(NotGranted::Several(one, other)) => {
                return Some(Err(refusal::two_raw_services(one, other)));
            }
            Err(_) => return None,
        };
        // A rule for raw TCP names one host: the compiler refuses wildcards.
        let host = grant.rule.host.exact()?;
        Some(self.granted(grant, came, source, host).map(|cluster| {
            let route = TcpRoute { rates, ..TcpRoute::new(cluster, Some(host.clone())) };
            (route, grant.rule.port.0)
        }))
    }

    /// How to read a connection through the tunnel, as far as policies say.
    pub(super) fn permitted_mode(
        &self,
        source: &Source,
        port: OriginalPort,
        by: TcpTarget<'_>,
    ) -> Option<PortMode> {
        match self.egress.dialled(port, source, by) {
            Ok(_) | Err(NotGranted::Several(..)) => Some(PortMode::Tcp),
            Err(_) => None,
        }
    }

    /// The cluster of a rule that allows it, once the hop is what it must be.
    fn granted(
        &self,
        grant: &Grant,
        came: Hop,
        source: &Source,
        host: &Host,
    ) -> Result<Arc<Cluster>, Denied> {
        let rule = &grant.rule;
        trace::note(|| Step::Granted(Arc::clone(&grant.policy.label)));
        if !self.member.get(rule.group).is_some_and(|member| *member) {
            let gateways = &self.snapshot.mesh.gateways;
            let other = gateways.get(rule.group).map(|group| group.service.to_string());
            return Err(Denied {
                reason: Reason::HostNotServed,
                detail: format!(
                    "{} sends {host} through {}, and this gateway isn't part of it",
                    grant.policy.label,
                    other.unwrap_or_default()
                ),
                matched: None,
            });
        }
        self.secured(rule.hop, came, rule.group, host)?;
        rule.destination.cluster(self.client(source), Some(host)).map(Arc::clone)
    }

    /// The policy that lets pass what was refused, because it is in audit mode. Only what no resource names
    /// passes: a refusal for another reason than that stays one.
    fn audited(&self, source: &Source, denied: Denied) -> Result<Arc<str>, Denied> {
        if !matches!(denied.reason, Reason::HostNotInRegistry | Reason::EgressPolicyDenied) {
            return Err(denied);
        }
        match self.egress.confining(source) {
            Some(policy) if policy.mode == EgressMode::Audit => {
                let label = &policy.label;
                let Denied { reason, detail, matched: _ } = denied;
                trace::note(|| Step::Audited { policy: Arc::clone(label), reason, detail });
                Ok(Arc::clone(label))
            }
            Some(_) | None => Err(denied),
        }
    }

    /// Where it goes that passes in audit mode: as a rule for the host and port says, or to the host that
    /// was asked for.
    fn let_through(
        &self,
        nearest: Option<&Grant>,
        came: Hop,
        source: &Source,
        host: &Host,
        port: OriginalPort,
    ) -> Result<Arc<Cluster>, Denied> {
        match nearest {
            Some(grant) => self.granted(grant, came, source, host),
            None => Ok(self.passthrough.cluster(port)),
        }
    }
}

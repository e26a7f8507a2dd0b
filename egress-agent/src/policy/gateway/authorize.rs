//! Authorization policies for what the routes would let through.

use std::sync::Arc;

use super::GatewayPolicy;
use crate::{
    policy::{
        Cluster, Denied, EgressAddresses, HttpRequest, HttpRoute, RequestFacts, Subject, TcpRoute,
        egress_addresses,
    },
    types::{Host, Port, Source},
};

impl GatewayPolicy {
    /// The route of a request, once policies allow it. `port` is the port of the gateway's server.
    pub(super) fn authorized_http(
        &self,
        request: &HttpRequest<'_>,
        (mut route, port): (HttpRoute, Port),
    ) -> Result<HttpRoute, Denied> {
        let HttpRequest { source, remote, server_name, host, authority, .. } = *request;
        let HttpRequest { method, path_and_query, headers, .. } = *request;
        let http = Some(RequestFacts { host, authority, method, path_and_query, headers });
        let subject = Subject { source, remote, port, server_name, http };
        route.audit = self.authorization.decide(&subject)?.or(route.audit);
        route.from = self.dialled_from(&route.cluster, source);
        Ok(route)
    }

    /// The addresses to dial from: the route's, or else the workload's.
    fn dialled_from(&self, cluster: &Cluster, source: &Source) -> Option<Arc<EgressAddresses>> {
        let of_route = cluster.from.clone();
        of_route.or_else(|| egress_addresses(&self.snapshot.mesh.egress_addresses, source))
    }

    /// The route of a connection, once policies allow it.
    pub(super) fn authorized_tcp(
        &self,
        source: &Source,
        server_name: Option<&Host>,
        (mut route, port): (TcpRoute, Port),
    ) -> Result<TcpRoute, Denied> {
        let remote = Some(source.addr);
        let subject = Subject { source, remote, port, server_name, http: None };
        route.audit = self.authorization.decide(&subject)?.or(route.audit);
        route.from = self.dialled_from(&route.cluster, source);
        Ok(route)
    }
}

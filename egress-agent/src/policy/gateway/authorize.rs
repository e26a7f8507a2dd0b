//! Authorization policies for what the routes would let through.

use super::GatewayPolicy;
use crate::{
    policy::{Denied, HttpRequest, HttpRoute, RequestFacts, Subject, TcpRoute},
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
        Ok(route)
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
        Ok(route)
    }
}

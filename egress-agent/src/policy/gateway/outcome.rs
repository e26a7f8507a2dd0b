//! From a rule that matched to the route that is carried out.

use std::sync::Arc;

use super::{GatewayPolicy, refusal};
use crate::{
    policy::{
        Abort, Client, Cluster, Delay, Denied, FAULT, HttpAction, HttpMatch, HttpOutcome,
        HttpRequest, HttpRoute, HttpRule, Redirect, Target, WeightedDestination, matching,
        path::AmbiguousPath,
    },
    types::Host,
};

impl GatewayPolicy {
    pub(super) fn default_route(&self, cluster: Arc<Cluster>, host: &Host) -> HttpRoute {
        HttpRoute {
            cluster,
            host: host.clone(),
            name: None,
            timeout: None,
            retry: Arc::clone(&self.retry),
            action: Arc::clone(&self.plain),
            mirrors: Vec::new(),
            rates: Vec::new(),
            from: None,
            audit: None,
        }
    }

    /// Where no rule of Istio's is needed.
    pub(super) fn unruled_route(&self, cluster: Arc<Cluster>, host: &Host) -> HttpRoute {
        HttpRoute { action: Arc::clone(&self.unruled), ..self.default_route(cluster, host) }
    }

    pub(super) fn route(
        &self,
        rule: &HttpRule,
        matched: Option<&HttpMatch>,
        chosen: &WeightedDestination,
        (cluster, host): (&Arc<Cluster>, &Host),
        client: Client<'_>,
        request: &HttpRequest<'_>,
    ) -> Result<HttpRoute, Denied> {
        let mut action = Arc::clone(&chosen.action);
        let rewritten = matching::rewrite(&rule.path, matched, request.path_and_query);
        if let Some(path) = rewritten.map_err(|AmbiguousPath| refusal::ambiguous(request))? {
            Arc::make_mut(&mut action).rewrite_path = Some(path);
        }
        Ok(HttpRoute {
            cluster: Arc::clone(cluster),
            host: host.clone(),
            name: rule.name.clone(),
            timeout: rule.timeout,
            retry: Arc::clone(&rule.retry),
            action: with_faults(rule, action),
            mirrors: mirrors(rule, client, request.host),
            rates: Vec::new(),
            from: None,
            audit: None,
        })
    }

    /// A redirect or a direct response. `own` is the cluster of the requested service itself.
    ///
    /// # Errors
    /// The path of a redirect can be read in two ways.
    pub(super) fn answer(
        &self,
        rule: &HttpRule,
        matched: Option<&HttpMatch>,
        request: &HttpRequest<'_>,
        own: &Arc<Cluster>,
    ) -> Result<HttpRoute, Denied> {
        Ok(match &rule.outcome {
            HttpOutcome::Redirect(redirect) => {
                let path = matching::rewrite(&rule.path, matched, request.path_and_query);
                let path = path.map_err(|AmbiguousPath| refusal::ambiguous(request))?;
                let path_and_query = path.as_deref().unwrap_or(request.path_and_query);
                let request = &HttpRequest { path_and_query, ..*request };
                self.redirect(redirect, &rule.action, request, own, rule.name.clone())
            }
            HttpOutcome::Respond(status, body) => {
                let mut action = Arc::clone(&rule.action);
                Arc::make_mut(&mut action).respond = Some((*status, body.clone()));
                let action = with_faults(rule, action);
                let name = rule.name.clone();
                HttpRoute { action, name, ..self.default_route(Arc::clone(own), request.host) }
            }
            // Both callers have taken the destinations out already; without one nothing is served.
            HttpOutcome::Route(_) => {
                let mut action = Arc::clone(&rule.action);
                let status = http::StatusCode::SERVICE_UNAVAILABLE;
                Arc::make_mut(&mut action).respond = Some((status, "no destination".into()));
                HttpRoute { action, ..self.default_route(Arc::clone(own), request.host) }
            }
        })
    }

    pub(super) fn redirect(
        &self,
        redirect: &Redirect,
        action: &Arc<HttpAction>,
        request: &HttpRequest<'_>,
        own: &Arc<Cluster>,
        name: Option<Arc<str>>,
    ) -> HttpRoute {
        let mut action = Arc::clone(action);
        let location = matching::location(redirect, request);
        Arc::make_mut(&mut action).redirect = Some((redirect.status, location));
        HttpRoute { action, name, ..self.default_route(Arc::clone(own), request.host) }
    }
}

/// Where copies of this request go, as chance decides. One that policy refuses is not made: the request
/// itself goes on.
fn mirrors(rule: &HttpRule, client: Client<'_>, host: &Host) -> Vec<(Arc<Cluster>, Host)> {
    let chosen = rule.mirrors.iter().filter(|mirror| matching::chance(mirror.share));
    let reached = chosen.filter_map(|mirror| match &mirror.target {
        Target::Cluster { destination, host: named } => {
            let host = named.as_ref().unwrap_or(host);
            let cluster = destination.cluster(client, Some(host)).ok()?;
            Some((Arc::clone(cluster), host.clone()))
        }
        Target::Gateway { .. } | Target::Refused { .. } => None,
    });
    reached.collect()
}

/// Adds what chance decides for this request.
fn with_faults(rule: &HttpRule, mut action: Arc<HttpAction>) -> Arc<HttpAction> {
    if let Some((delay, share)) = rule.delay
        && matching::chance(share)
    {
        let delay = match delay {
            Delay::Fixed(delay) => delay,
            Delay::Exponential(mean) => matching::exponential(mean),
        };
        Arc::make_mut(&mut action).delay = Some(delay);
    }
    if let Some((abort, share)) = rule.abort
        && matching::chance(share)
    {
        let action = Arc::make_mut(&mut action);
        let (status, grpc_status) = match abort {
            Abort::Http(status) => (status, None),
            // As Envoy has it, also where the request is not gRPC.
            Abort::Grpc(status) => (http::StatusCode::OK, Some(status)),
        };
        action.respond = Some((status, FAULT.into()));
        action.grpc_status = grpc_status;
    }
    action
}

//! From a rule that matched to the route that is carried out.

use std::sync::Arc;

use super::{GatewayPolicy, refusal};
use crate::{
    policy::{
        Abort, Cluster, Delay, Denied, FAULT, HttpAction, HttpMatch, HttpOutcome, HttpRequest, HttpRoute, HttpRule,
        Redirect, Weighted, matching, path::AmbiguousPath,
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
            audit: None,
        }
    }

    pub(super) fn route(
        &self,
        rule: &HttpRule,
        matched: Option<&HttpMatch>,
        chosen: &Weighted,
        cluster: &Arc<Cluster>,
        host: &Host,
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
            audit: None,
        })
    }

    /// A redirect or a direct response. `own` is the cluster of the requested service itself.
    pub(super) fn answer(
        &self,
        rule: &HttpRule,
        request: &HttpRequest<'_>,
        own: &Arc<Cluster>,
    ) -> HttpRoute {
        match &rule.outcome {
            HttpOutcome::Redirect(redirect) => {
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
        }
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

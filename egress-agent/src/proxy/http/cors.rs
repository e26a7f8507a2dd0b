//! Cross-origin requests: preflights are answered here, and responses to pages of allowed origins say so
//! (the Fetch standard, §3.3).

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{reply::Reply, request::Request};
use crate::policy::CorsPolicy;

/// A request's part in CORS.
#[derive(Debug)]
pub(super) struct Cors<'p> {
    policy: &'p CorsPolicy,
    /// The page's origin, where it is allowed.
    origin: Option<HeaderValue>,
    preflight: bool,
}

impl<'p> Cors<'p> {
    /// `None` where there is no policy, or the request is of no page.
    pub(super) fn of(policy: Option<&'p CorsPolicy>, request: &Request) -> Option<Self> {
        let policy = policy?;
        let origin = request.headers.get(header::ORIGIN).filter(|origin| !origin.is_empty())?;
        let asks = request.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
        let preflight = request.method == Method::OPTIONS && asks.is_some_and(|m| !m.is_empty());
        let allowed = origin.to_str().is_ok_and(|origin| policy.allows(origin));
        Some(Self { policy, origin: allowed.then(|| origin.clone()), preflight })
    }

    /// The answer to a preflight.
    pub(super) fn answer(&self) -> Option<Reply> {
        if !self.preflight || (self.origin.is_none() && !self.policy.answers_unmatched) {
            return None;
        }
        let mut reply = Reply::new(StatusCode::OK, String::new());
        if self.origin.is_some() {
            self.permit(&mut reply.headers);
            for (name, value) in [
                (header::ACCESS_CONTROL_ALLOW_METHODS, &self.policy.methods),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, &self.policy.headers),
                (header::ACCESS_CONTROL_MAX_AGE, &self.policy.max_age),
            ] {
                if let Some(value) = value {
                    reply.headers.insert(name, value.clone());
                }
            }
        }
        Some(reply)
    }

    /// What a response to an allowed page says, whatever the destination says.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        if self.origin.is_none() {
            return;
        }
        self.permit(headers);
        if let Some(exposed) = &self.policy.exposed {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }

    fn permit(&self, headers: &mut HeaderMap) {
        if let Some(origin) = &self.origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        if self.policy.credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
    }
}

//! The double's answers, as bytes and headers.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use serde_json::{Value, json};

/// What is sent back.
pub(super) type Body = BoxBody<Bytes, Infallible>;

/// What a server says that has just begun.
pub(super) fn starting(code: u16, path: &str) -> Response<Body> {
    let kind = path.rsplit('/').next().unwrap_or_default();
    let details = json!({"kind": kind});
    match code {
        404 => not_found(),
        403 => {
            let message = format!(
                "{kind} is forbidden: User \"agent\" cannot list resource {kind:?} in API group \"\" at the cluster scope"
            );
            status(403, "Forbidden", &message, Some(details))
        }
        429 => {
            let details = json!({"retryAfterSeconds": 1});
            status(429, "TooManyRequests", "storage is (re)initializing", Some(details))
        }
        code => {
            let message = "the request has been made before all known HTTP paths have been installed, please try again";
            status(code, "ServiceUnavailable", message, Some(json!({"retryAfterSeconds": 1})))
        }
    }
}

/// A path that is not there.
pub(super) fn not_found() -> Response<Body> {
    text(404, "404 page not found\n")
}

/// A few words.
pub(super) fn text(code: u16, words: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::from(words).boxed());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
    head(&mut response, "text/plain; charset=utf-8");
    response
}

/// A `Status` that says why not.
pub(super) fn status_object(
    code: u16,
    reason: &str,
    message: &str,
    details: Option<Value>,
) -> Value {
    let mut object = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    if let Some(details) = details {
        object["details"] = details;
    }
    object
}

/// The same as an answer.
pub(super) fn status(
    code: u16,
    reason: &str,
    message: &str,
    details: Option<Value>,
) -> Response<Body> {
    let after = details.as_ref().and_then(|details| details["retryAfterSeconds"].as_u64());
    let mut response = answer(code, &status_object(code, reason, message, details));
    if let Some(after) = after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after));
    }
    response
}

/// An object as an answer.
pub(super) fn answer(code: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::from(format!("{value}\n")).boxed());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
    head(&mut response, "application/json");
    response
}

/// The headers that a client acts on.
pub(super) fn head(response: &mut Response<Body>, kind: &'static str) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
}

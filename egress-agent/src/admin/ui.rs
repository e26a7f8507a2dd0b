//! The page of the admin port, for a browser on this host: `/ui`.
//!
//! It is off unless `--admin-ui` asks for it, since whoever reaches the loopback address could read who talks to
//! what. It changes nothing, needs nothing from elsewhere, and its Content-Security-Policy lets a browser run no
//! script but the one that is served here. What it shows is put in as text.

mod live;
mod summary;

use http::{HeaderValue, Response, StatusCode, header};

pub(super) use self::live::{Events, Ui, events};
use super::Status;
use crate::telemetry::Telemetry;

const HTML: &str = include_str!("ui/page.html");
const SCRIPT: &str = include_str!("ui/page.js");
const STYLE: &str = include_str!("ui/page.css");

/// No script, style or connection but this origin's, nothing inline, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The answer to a path below `/ui`, of the stream only the head; `None` for another path.
pub(super) fn respond(
    path: &str,
    telemetry: &Telemetry,
    status: &Status,
) -> Option<Response<String>> {
    let (kind, text) = match path {
        "/ui" => ("text/html; charset=utf-8", HTML.to_owned()),
        "/ui/page.js" => ("text/javascript; charset=utf-8", SCRIPT.to_owned()),
        "/ui/page.css" => ("text/css; charset=utf-8", STYLE.to_owned()),
        "/ui/summary" => ("application/json", summary::json(telemetry, status)),
        "/ui/flows" => ("text/event-stream", String::new()),
        _ => return None,
    };
    let mut response = Response::new(text);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache, max-age=0"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

#[cfg(test)]
mod tests;

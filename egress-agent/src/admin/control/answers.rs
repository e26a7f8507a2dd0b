//! What is answered on the control socket.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use tokio::sync::oneshot;

use super::{UpgradeRefusal, serving::Serving};
use crate::{admin::query::parameter, explain::Query};

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Whether enforcement stands for a pod that starts. The agent takes note of the pod's namespace.
pub(super) fn enforcing(query: &str, serving: &Serving) -> Response<Body> {
    let namespace = parameter(query, "namespace").and_then(|inode| inode.parse().ok());
    let (Some(pod), Some(namespace)) = (parameter(query, "pod"), namespace) else {
        return text(StatusCode::BAD_REQUEST, "expected ?pod=UID&namespace=INODE\n");
    };
    match (serving.standing)(&pod, namespace) {
        Ok(()) => body(StatusCode::OK, "application/json", full(Bytes::from_static(b"true"))),
        Err(why) => {
            let why = full(format!("{why}\n").into());
            body(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", why)
        }
    }
}

/// Has another process take over, and answers with the result.
pub(super) async fn upgrade(serving: &Serving) -> Response<Body> {
    let Some(requests) = &serving.upgrade else {
        return text(StatusCode::NOT_FOUND, "only a gateway is replaced while it runs\n");
    };
    let (answer, answered) = oneshot::channel();
    let asked = requests.send(answer).await.is_ok();
    let refused = || UpgradeRefusal::Refused("the process is ending".into());
    let answer = match answered.await {
        Ok(answer) if asked => answer,
        Ok(_) | Err(_) => Err(refused()),
    };
    let plain = |status, why: String| {
        body(status, "text/plain; charset=utf-8", full(format!("{why}\n").into()))
    };
    match answer {
        Ok(report) => {
            let report = serde_json::to_vec(&report).unwrap_or_default();
            body(StatusCode::OK, "application/json", full(report.into()))
        }
        Err(UpgradeRefusal::Refused(why)) => plain(StatusCode::CONFLICT, why),
        Err(UpgradeRefusal::Failed(why)) => plain(StatusCode::INTERNAL_SERVER_ERROR, why),
    }
}

/// What a request comes to, by the configuration in force.
pub(super) fn explain(query: &str, serving: &Serving) -> Response<Body> {
    let Some(snapshot) = (serving.snapshot)() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "no configuration has been accepted yet\n");
    };
    match Query::from_query(query).and_then(|ask| ask.answer(&snapshot)) {
        Ok(explanation) => {
            let explanation = serde_json::to_vec(&explanation).unwrap_or_default();
            body(StatusCode::OK, "application/json", full(explanation.into()))
        }
        Err(why) => {
            let why = full(format!("{why}\n").into());
            body(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", why)
        }
    }
}

pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

pub(super) fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    body(status, "text/plain; charset=utf-8", full(Bytes::from_static(text.as_bytes())))
}

pub(super) fn body(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

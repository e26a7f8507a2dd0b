//! The node's metrics, in Prometheus' text form.

mod fills;
mod series;
mod sources;

use std::{convert::Infallible, fmt::Write as _, io, net::SocketAddr, sync::Arc, time::Duration};

#[cfg(test)]
pub(super) use self::series::tests::families;
pub(crate) use self::{
    fills::MapFillCounter,
    sources::{AgentSources, Sources},
};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::exposition::CONTENT_TYPE;
use crate::enforcement::Exposure;

/// Scrapes at a time; more wait.
const CONNECTIONS: usize = 16;
/// Until a request's head is there, and for a whole connection.
const HEAD: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_secs(60);

/// Listens. What can't be listened on is an error at the start, not in the log later.
pub(crate) async fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// Answers scrapes for as long as the runtime lives.
pub(crate) async fn serve(listener: TcpListener, sources: Arc<Sources>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("can't accept a scrape: {error}");
                // Most likely out of descriptors: asking again at once would only burn the CPU.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let sources = Arc::clone(&sources);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                std::future::ready(Ok::<_, Infallible>(respond(&request, &sources)))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = timeout(CONNECTION, connection).await {
                tracing::debug!("a scrape failed: {error}");
            }
            drop(place);
        });
    }
}

fn respond(request: &Request<Incoming>, sources: &Sources) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let (status, content_type, text) = match request.uri().path() {
        _ if request.method() != Method::GET => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is answered\n".into())
        }
        "/metrics" | "/stats/prometheus" => match series::render(sources) {
            Ok(text) => (StatusCode::OK, CONTENT_TYPE, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/healthz/ready" => {
            let condition = &sources.agent.condition;
            let causes = condition.unready(&sources.agent.loaded.borrow());
            let (status, text) = readiness(&causes, &condition.exposures(), &condition.unknown());
            (status, TEXT, text)
        }
        _ => {
            let pages = "metrics are at /metrics, readiness is at /healthz/ready\n";
            (StatusCode::NOT_FOUND, TEXT, pages.into())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let content_type = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// `ready`, or why not, a line each; then the promises that don't hold and the unknown
/// interfaces, which are no reason to take the node out of service.
fn readiness(
    causes: &[String],
    exposures: &[Exposure],
    unknown: &[String],
) -> (StatusCode, String) {
    let (status, mut text) = match causes.is_empty() {
        true => (StatusCode::OK, "ready\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
    };
    for cause in causes {
        push(&mut text, format_args!("{cause}\n"));
    }
    for exposure in exposures {
        push(&mut text, format_args!("exposed: {exposure}\n"));
    }
    for interface in unknown {
        push(&mut text, format_args!("unknown: {interface}\n"));
    }
    (status, text)
}

/// Writing to a string can't fail.
fn push(text: &mut String, args: std::fmt::Arguments<'_>) {
    text.write_fmt(args).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_every_cause() {
        assert_eq!(readiness(&[], &[], &[]), (StatusCode::OK, "ready\n".into()));
        let causes = ["map DENIED is full".to_owned(), "interface a is gone".to_owned()];
        let (status, text) = readiness(&causes, &[], &[]);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "not ready\nmap DENIED is full\ninterface a is gone\n");
        let (status, text) = readiness(&[], &[exposure()], &[]);
        assert_eq!((status, &*text), (StatusCode::OK, "ready\nexposed: they can: shop/vpn\n"));
    }

    fn exposure() -> Exposure {
        Exposure {
            promise: "net_admin".into(),
            text: "they can".into(),
            count: 1,
            workloads: vec!["shop/vpn".into()],
        }
    }
}

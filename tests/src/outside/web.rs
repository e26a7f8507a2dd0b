//! HTTP that answers 301 to HTTPS, and HTTPS that answers with a page.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, channel::Channel, combinators::BoxBody};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::record::{Record, Seen};
use crate::{ca::Certificates, plan};

/// Size of the page that HTTPS answers with: about 150 kB, as the walkthrough's.
pub const PAGE_BYTES: usize = 151_654;
/// Size of `/download`, which takes some seconds; `/download/N` has N bytes.
const DOWNLOAD_BYTES: usize = 40 << 20;
const CHUNK: usize = 64 << 10;

type Body = BoxBody<Bytes, Infallible>;

pub(super) fn tls_acceptor(certificates: Certificates) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, record: Record) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).ok();
        let record = record.clone();
        match tls.clone() {
            None => drop(tokio::task::spawn_local(http(stream, None, false, record))),
            Some(tls) => drop(tokio::task::spawn_local(https(stream, tls, record))),
        }
    }
}

async fn https(stream: TcpStream, tls: TlsAcceptor, record: Record) {
    let Ok(stream) = tls.accept(stream).await else {
        record.add(Seen::HandshakeFailed);
        return;
    };
    let (_, session) = stream.get_ref();
    let h2 = session.alpn_protocol() == Some(b"h2");
    let server_name = session.server_name().map(str::to_owned);
    http(stream, Some(server_name), h2, record).await;
}

/// `tls` is the server name of a connection over TLS.
async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    tls: Option<Option<String>>,
    h2: bool,
    record: Record,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, tls.clone(), &record);
        async move { Ok::<_, Infallible>(response) }
    });
    let io = TokioIo::new(stream);
    // A client that goes away is no fault of the server.
    if h2 {
        conn::http2::Builder::new(LocalExecutor).serve_connection(io, service).await.ok();
    } else {
        conn::http1::Builder::new().serve_connection(io, service).await.ok();
    }
}

/// Runs HTTP/2's tasks on the servers' own thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(future));
    }
}

fn respond(
    request: &Request<Incoming>,
    tls: Option<Option<String>>,
    record: &Record,
) -> Response<Body> {
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = request.uri().authority().map(|authority| authority.as_str()).or(header);
    let host = host.unwrap_or_default().to_owned();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let over_tls = tls.is_some();
    record.add(match tls {
        None => Seen::Http { host: host.clone(), path: path.clone() },
        Some(server_name) => Seen::Https { server_name, host: host.clone(), path: path.clone() },
    });
    let name = host.split(':').next().unwrap_or_default();
    if let Some(bytes) = path.strip_prefix("/download") {
        let bytes = bytes.strip_prefix('/').and_then(|bytes| bytes.parse().ok());
        return download(bytes.unwrap_or(DOWNLOAD_BYTES));
    }
    if name == plan::METADATA {
        return text(StatusCode::OK, "AccessKeyId: the node's own credentials\n");
    }
    if path.split('?').next() == Some("/headers") {
        let lines = request.headers().iter().map(|(name, value)| {
            format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))
        });
        return text(StatusCode::OK, &lines.collect::<String>());
    }
    if !over_tls && path != "/plain" {
        let mut response = text(StatusCode::MOVED_PERMANENTLY, "");
        if let Ok(location) = format!("https://{name}{path}").try_into() {
            response.headers_mut().insert(header::LOCATION, location);
        }
        return response;
    }
    page(name)
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())).boxed());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}

fn page(host: &str) -> Response<Body> {
    let mut page = format!("<!doctype html><title>{host}</title>\n");
    while page.len() < PAGE_BYTES {
        page.push_str("<p>Breaking news from the documentation network.</p>\n");
    }
    page.truncate(PAGE_BYTES);
    let mut response = Response::new(Full::new(Bytes::from(page)).boxed());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html"));
    response
}

/// So many bytes at about ten mebibytes a second, with their length said in advance.
fn download(bytes: usize) -> Response<Body> {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::task::spawn_local(async move {
        let chunk = Bytes::from(vec![b'x'; CHUNK]);
        let mut pace = tokio::time::interval(Duration::from_millis(6));
        let mut left = bytes;
        while left > 0 {
            pace.tick().await;
            let piece = chunk.slice(..left.min(CHUNK));
            left -= piece.len();
            if sender.send_data(piece).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
    response
}

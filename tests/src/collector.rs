//! A collector of OpenTelemetry: OTLP over HTTP, plain or over TLS, in a namespace of the testbed. It keeps what
//! it gets.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
    trace::v1::Span,
};
use prost::Message;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    runtime,
    sync::oneshot,
    task::{LocalSet, spawn_local},
};
use tokio_rustls::TlsAcceptor;

use crate::netns::NetNs;

/// What a collector has got.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Log records, in their order.
    pub logs: Vec<LogRecord>,
    /// Spans, in their order.
    pub spans: Vec<Span>,
    /// What the senders say of themselves: the attributes of each request's resource.
    pub resources: Vec<Vec<KeyValue>>,
    /// The header fields of each request.
    pub heads: Vec<HeaderMap>,
    /// Requests that were no OTLP.
    pub unreadable: Vec<String>,
}

/// It serves until it is dropped.
#[derive(Debug)]
pub struct Collector {
    got: Arc<Mutex<Collected>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    /// Starts one; with `tls`, a certificate and its key in PEM, it speaks TLS alone.
    ///
    /// # Errors
    /// The address can't be bound, or the certificate can't be used.
    pub fn start(ns: &NetNs, address: SocketAddr, tls: Option<&(String, String)>) -> Result<Self> {
        let tls = tls.map(acceptor).transpose()?;
        let got = Arc::<Mutex<Collected>>::default();
        let (stop, stopped) = oneshot::channel();
        let (report, ready) = mpsc::channel();
        let seen = Arc::clone(&got);
        let thread = ns.spawn(move || {
            let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(report.send(Err(error.into()))),
            };
            LocalSet::new().block_on(&runtime, async {
                match TcpListener::bind(address).await {
                    Ok(listener) => {
                        spawn_local(serve(listener, tls, seen));
                        report.send(Ok(())).ok();
                        stopped.await.ok();
                    }
                    Err(error) => drop(report.send(Err(anyhow!("{address}: {error}")))),
                }
            });
        })?;
        let collector = Self { got, stop: Some(stop), thread: Some(thread) };
        ready.recv().map_err(|_| anyhow!("cannot enter {}", ns.name()))??;
        Ok(collector)
    }

    /// What it has got so far.
    #[must_use]
    pub fn collected(&self) -> Collected {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// An attribute as text.
#[must_use]
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|pair| pair.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(holds) => Some(holds.to_string()),
        // Agents send none of these.
        Value::DoubleValue(_)
        | Value::ArrayValue(_)
        | Value::KvlistValue(_)
        | Value::BytesValue(_)
        | Value::StringValueStrindex(_) => None,
    }
}

fn acceptor((certificate, key): &(String, String)) -> Result<TlsAcceptor> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .collect::<Result<_, _>>()
        .context("the collector's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("the collector's key")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, got: Arc<Mutex<Collected>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, got) = (tls.clone(), Arc::clone(&got));
        spawn_local(async move {
            match tls {
                None => speak(stream, got).await,
                // Who does not trust the certificate goes away here.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        speak(stream, got).await;
                    }
                }
            }
        });
    }
}

async fn speak(io: impl AsyncRead + AsyncWrite + Unpin + 'static, got: Arc<Mutex<Collected>>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let got = Arc::clone(&got);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let mut got = got.lock().unwrap_or_else(PoisonError::into_inner);
            let status = match got.take(head.uri.path(), body) {
                Ok(()) => StatusCode::OK,
                Err(error) => {
                    got.unreadable.push(format!("{error:#}"));
                    StatusCode::BAD_REQUEST
                }
            };
            got.heads.push(head.headers);
            let mut response = Response::new(Full::<Bytes>::default());
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    // A sender that goes away is no fault of the collector.
    http1::Builder::new().serve_connection(TokioIo::new(io), service).await.ok();
}

impl Collected {
    fn take(&mut self, path: &str, body: Bytes) -> Result<()> {
        match path {
            "/v1/logs" => {
                for all in ExportLogsServiceRequest::decode(body)?.resource_logs {
                    self.resources.extend(all.resource.map(|resource| resource.attributes));
                    self.logs
                        .extend(all.scope_logs.into_iter().flat_map(|scope| scope.log_records));
                }
            }
            "/v1/traces" => {
                for all in ExportTraceServiceRequest::decode(body)?.resource_spans {
                    self.resources.extend(all.resource.map(|resource| resource.attributes));
                    self.spans.extend(all.scope_spans.into_iter().flat_map(|scope| scope.spans));
                }
            }
            other => return Err(anyhow!("found the path {other}")),
        }
        Ok(())
    }
}

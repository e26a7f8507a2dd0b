//! One connection to a collector, kept between requests.

use std::{fmt, io, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::lookup_host,
    time::timeout,
};

use super::{
    environment::decoded,
    pack::{message, packed},
    protocol::{Compression, Protocol},
    reach,
    settings::Target,
};
use crate::{tls::CollectorTls, types::printable};

/// Longest answer that is read.
const ANSWER: usize = 64 << 10;
/// The part of a collector's message that is repeated, in characters.
const MESSAGE: usize = 200;

/// Why a request got no answer.
#[derive(Debug, Error)]
pub(super) enum SendError {
    #[error("{host} can't be resolved: {why}")]
    Resolve { host: String, why: io::Error },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("{0}")]
    Certificates(String),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request can't be made: {0}")]
    Request(#[from] http::Error),
    #[error("the answer can't be read: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// What a collector says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    /// `Retry-After` in seconds. Over gRPC zero where details of the status are given: the wait is the sender's.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

/// How it went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Status {
    Http(StatusCode),
    /// `grpc-status` and `grpc-message`.
    Grpc {
        code: u32,
        message: String,
    },
}

/// Who takes the next request.
enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

pub(super) struct Client {
    target: Target,
    tls: Option<CollectorTls>,
    kept: Option<Connection>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.target.endpoint.url()).finish_non_exhaustive()
    }
}

impl Client {
    /// For one kind of record.
    ///
    /// # Errors
    /// The certificates can't be used.
    pub(super) fn new(target: Target) -> Result<Self, String> {
        let tls = target.endpoint.tls.then(|| {
            let Target { endpoint, protocol, roots, identity, .. } = &target;
            let alpn = match protocol {
                Protocol::Http => "http/1.1",
                Protocol::Grpc => "h2",
            };
            CollectorTls::new(&endpoint.host, alpn, roots.clone(), identity.clone())
        });
        Ok(Self { tls: tls.transpose()?, target, kept: None })
    }

    /// Where it sends to.
    pub(super) fn url(&self) -> String {
        self.target.endpoint.url()
    }

    /// The body for a message, which can be sent more than once.
    pub(super) fn packed(&self, message: Vec<u8>) -> Bytes {
        packed(message, self.target.protocol, self.target.compression)
    }

    /// Sends a body and reads the answer, within the target's time.
    pub(super) async fn send(&mut self, body: Bytes) -> Result<Answer, SendError> {
        let limit = self.target.timeout;
        let sent = timeout(limit, self.exchange(body)).await;
        let result = sent.unwrap_or(Err(SendError::Timeout(limit)));
        if result.is_err() {
            // Nothing is known of how far it got.
            self.kept = None;
        }
        result
    }

    async fn exchange(&mut self, body: Bytes) -> Result<Answer, SendError> {
        let kept = match self.kept.take() {
            Some(mut kept) => kept.is_ready().await.then_some(kept),
            None => None,
        };
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let response = connection.send(self.request(body)?).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER).collect().await.map_err(SendError::Answer)?;
        self.kept = Some(connection);
        let trailers = body.trailers().cloned();
        let body = body.to_bytes();
        Ok(match self.target.protocol {
            Protocol::Http => http_answer(head.status, &head.headers, body),
            Protocol::Grpc => {
                // An answer without a message has all of it in its head.
                let last = trailers.as_ref().unwrap_or(&head.headers);
                grpc_answer(head.status, &head.headers, last, &body)
            }
        })
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, SendError> {
        let Target { endpoint, protocol, compression, timeout, headers, .. } = &self.target;
        let gzip = *compression == Compression::Gzip;
        let mut request = match protocol {
            Protocol::Http => {
                let mut request = Request::post(&endpoint.path)
                    .header(header::HOST, &endpoint.authority)
                    .header(header::CONTENT_TYPE, PROTOBUF);
                if gzip {
                    request = request.header(header::CONTENT_ENCODING, GZIP);
                }
                request
            }
            Protocol::Grpc => {
                let mut request = Request::post(endpoint.url())
                    .header(header::CONTENT_TYPE, "application/grpc")
                    .header(header::TE, "trailers")
                    .header("grpc-timeout", format!("{}m", timeout.as_millis()));
                if gzip {
                    request = request.header("grpc-encoding", GZIP);
                }
                request
            }
        }
        .header(header::USER_AGENT, concat!("egress-agent/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))?;
        for (name, value) in headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        Ok(request)
    }

    async fn connect(&self) -> Result<Connection, SendError> {
        let host = &self.target.endpoint.host;
        let found = lookup_host((host.as_str(), self.target.endpoint.port)).await;
        let found = found.map_err(|why| SendError::Resolve { host: host.clone(), why })?;
        let stream = match reach::connect(found).await {
            Some(stream) => stream.map_err(SendError::Connect)?,
            None => return Err(SendError::NoAddress { host: host.clone() }),
        };
        stream.set_nodelay(true).map_err(SendError::Connect)?;
        match &self.tls {
            None => self.speak(stream).await,
            Some(tls) => {
                let connector = tls.connector().map_err(SendError::Certificates)?;
                self.speak(tls.connect(&connector, stream).await.map_err(SendError::Tls)?).await
            }
        }
    }

    async fn speak<Io>(&self, io: Io) -> Result<Connection, SendError>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(io);
        // Each connection ends with its sender.
        Ok(match self.target.protocol {
            Protocol::Http => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(driven(connection));
                Connection::Http1(sender)
            }
            Protocol::Grpc => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(driven(connection));
                Connection::Http2(sender)
            }
        })
    }
}

impl Connection {
    async fn is_ready(&mut self) -> bool {
        let ready = match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        };
        ready.is_ok()
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }
}

async fn driven(connection: impl Future<Output = Result<(), hyper::Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!("a connection to a collector ended: {error}");
    }
}

fn http_answer(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Answer {
    let retry_after = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs));
    Answer { status: Status::Http(status), retry_after, body }
}

/// `last` is what ends the answer: trailers, or its head.
fn grpc_answer(status: StatusCode, head: &HeaderMap, last: &HeaderMap, body: &Bytes) -> Answer {
    let number = last.get("grpc-status").and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    let Some(code) = number else {
        if status != StatusCode::OK {
            // A proxy's own answer.
            return http_answer(status, head, Bytes::new());
        }
        let message = "the answer has no grpc-status".into();
        return Answer {
            status: Status::Grpc { code: UNKNOWN, message },
            retry_after: None,
            body: Bytes::new(),
        };
    };
    let text = last.get("grpc-message").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let text = decoded(text).unwrap_or_else(|| text.to_owned());
    let text: String = text.chars().take(MESSAGE).collect();
    let retry_after = last.contains_key("grpc-status-details-bin").then_some(Duration::ZERO);
    Answer {
        status: Status::Grpc { code, message: printable(&text).into_owned() },
        retry_after,
        body: message(body).unwrap_or_default(),
    }
}

/// gRPC's status for what is not said.
const UNKNOWN: u32 = 2;
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

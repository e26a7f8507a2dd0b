//! One connection to a collector, kept between requests.

use std::{fmt, io, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::settings::Target;
use crate::tls::CollectorTls;

/// Longest answer that is read.
const ANSWER: usize = 64 << 10;

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
    pub(super) status: StatusCode,
    /// `Retry-After` in seconds.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

pub(super) struct Client {
    target: Target,
    tls: Option<CollectorTls>,
    kept: Option<SendRequest<Full<Bytes>>>,
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
            let Target { endpoint, roots, identity, .. } = &target;
            CollectorTls::new(&endpoint.host, roots.clone(), identity.clone())
        });
        Ok(Self { tls: tls.transpose()?, target, kept: None })
    }

    /// Where it sends to.
    pub(super) fn url(&self) -> String {
        self.target.endpoint.url()
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
            Some(mut kept) => kept.ready().await.is_ok().then_some(kept),
            None => None,
        };
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let response = connection.send_request(self.request(body)?).await?;
        let (head, body) = response.into_parts();
        let body =
            Limited::new(body, ANSWER).collect().await.map_err(SendError::Answer)?.to_bytes();
        self.kept = Some(connection);
        let retry_after = head
            .headers
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs));
        Ok(Answer { status: head.status, retry_after, body })
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, SendError> {
        let endpoint = &self.target.endpoint;
        let mut request = Request::post(&endpoint.path)
            .header(header::HOST, &endpoint.authority)
            .header(header::CONTENT_TYPE, PROTOBUF)
            .header(header::USER_AGENT, concat!("egress-agent/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))?;
        for (name, value) in &self.target.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        Ok(request)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, SendError> {
        let host = &self.target.endpoint.host;
        let found = lookup_host((host.as_str(), self.target.endpoint.port)).await;
        let found = found.map_err(|why| SendError::Resolve { host: host.clone(), why })?;
        let mut last = SendError::NoAddress { host: host.clone() };
        for address in found {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(SendError::Connect)?;
                    return match &self.tls {
                        None => speak(stream).await,
                        Some(tls) => {
                            let connector = tls.connector().map_err(SendError::Certificates)?;
                            speak(tls.connect(&connector, stream).await.map_err(SendError::Tls)?)
                                .await
                        }
                    };
                }
                Err(why) => last = SendError::Connect(why),
            }
        }
        Err(last)
    }
}

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

async fn speak<Io>(io: Io) -> Result<SendRequest<Full<Bytes>>, SendError>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(io)).await?;
    // It ends with the sender.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("a connection to a collector ended: {error}");
        }
    });
    Ok(sender)
}

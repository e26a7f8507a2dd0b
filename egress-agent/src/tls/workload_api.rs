//! The SPIFFE Workload API: an identity and its roots from a socket on this host, as SPIRE's agent
//! serves it.
//!
//! What it gave last stays in use when the socket goes away or says nonsense: it tells what is true,
//! not what has ceased to be.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt as _;
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context, transport::Endpoint};
use tokio::time::{sleep, timeout};

/// How long the socket may take to answer, where it has something to say at once.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two attempts at first, and at the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// The endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkloadApi {
    socket: PathBuf,
}

/// An X.509-SVID: a certificate with its key, and who may vouch for others in its trust domain.
/// Everything is DER.
#[derive(Clone, PartialEq, Eq)]
pub struct Svid {
    /// The chain, the leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The leaf's key (PKCS#8).
    pub key: Vec<u8>,
    /// The roots of its own trust domain. Those of federated ones aren't among them.
    pub roots: Vec<Vec<u8>>,
}

impl fmt::Debug for Svid {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chain, key: _, roots } = self;
        f.debug_struct("Svid")
            .field("chain", &chain.len())
            .field("roots", &roots.len())
            .finish_non_exhaustive()
    }
}

/// What is known from a Workload API.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WorkloadMaterial {
    /// What it gave last.
    pub svid: Option<Svid>,
    /// Why there is nothing newer.
    pub trouble: Option<String>,
}

impl WorkloadMaterial {
    /// Takes an answer, or its absence.
    pub fn take(&mut self, answer: Result<Svid, String>) {
        match answer {
            Ok(svid) => *self = Self { svid: Some(svid), trouble: None },
            Err(why) => self.trouble = Some(why),
        }
    }
}

impl WorkloadApi {
    /// The Workload API at this Unix socket. Nothing is asked yet.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Reads `unix:PATH`, as the option and `SPIFFE_ENDPOINT_SOCKET` have it.
    ///
    /// # Errors
    /// What was found, and what was expected. TCP is refused: keys travel on it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("unix:").unwrap_or(text);
        let path = rest.strip_prefix("//").unwrap_or(rest);
        if text.starts_with("tcp:") {
            return Err(format!(
                "found `{text}`: private keys would travel over TCP in clear; expected unix:PATH"
            ));
        }
        if !path.starts_with('/') || path.len() < 2 || path.contains(['?', '#', '%']) {
            return Err(format!(
                "found `{text}`, expected unix:PATH with the absolute path of a socket, as in \
                 unix:/run/spire/agent-sockets/spire-agent.sock"
            ));
        }
        Ok(Self::new(path.into()))
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks once.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn once(&self) -> Result<Svid, String> {
        let asked = async {
            let client = self.connect().await?;
            client.fetch_x509_context().await.map_err(|error| explain(&error))
        };
        let context = timeout(ANSWER, asked).await.map_err(|_| silent())?;
        svid(&context?)
    }

    /// Follows it, for ever: tells every answer, and every loss of the socket.
    pub async fn follow(&self, mut tell: impl FnMut(Result<Svid, String>)) {
        let mut wait = RETRY.0;
        loop {
            let ended = self.stream(|answer| {
                if answer.is_ok() {
                    wait = RETRY.0;
                }
                tell(answer);
            });
            let why = ended.await;
            tell(Err(why));
            sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
        }
    }

    /// One connection: why it ended.
    async fn stream(&self, mut tell: impl FnMut(Result<Svid, String>)) -> String {
        let opened = async {
            let client = self.connect().await?;
            client.stream_x509_contexts().await.map_err(|error| explain(&error))
        };
        let mut stream = match timeout(ANSWER, opened).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(why)) => return why,
            Err(_) => return silent(),
        };
        // Later ones come when something changes; the first one has no reason to wait.
        let mut next = match timeout(ANSWER, stream.next()).await {
            Ok(next) => next,
            Err(_) => return silent(),
        };
        loop {
            match next {
                Some(Ok(context)) => tell(svid(&context)),
                Some(Err(error)) => return explain(&error),
                None => return "it closed the stream of identities".into(),
            }
            next = stream.next().await;
        }
    }

    async fn connect(&self) -> Result<WorkloadApiClient, String> {
        let connected = WorkloadApiClient::connect(Endpoint::Unix(self.socket.clone())).await;
        connected.map_err(|error| explain(&error))
    }
}

/// The first identity is the default one (SPIFFE Workload API §5.3).
fn svid(context: &X509Context) -> Result<Svid, String> {
    let svid = context.default_svid().ok_or("it gave no identity")?;
    let domain = svid.spiffe_id().trust_domain();
    let bundle = context.bundle_set().get_ref(domain);
    let bundle = bundle.ok_or_else(|| format!("it gave no roots for the trust domain {domain}"))?;
    let der = |certificates: &[spiffe::Certificate]| {
        certificates.iter().map(|der| der.as_bytes().to_vec()).collect()
    };
    Ok(Svid {
        chain: der(svid.cert_chain()),
        key: svid.private_key().as_bytes().to_vec(),
        roots: der(bundle.authorities()),
    })
}

fn silent() -> String {
    format!("it did not answer within {} s", ANSWER.as_secs())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn explain(error: &WorkloadApiError) -> String {
    match error {
        WorkloadApiError::NoIdentityIssued => {
            "it issues no identity to this process; register it (with SPIRE: `spire-server entry \
             create`)"
                .into()
        }
        WorkloadApiError::PermissionDenied(why) => format!("it refused: {why}"),
        error => {
            // The outer error of a transport says little.
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(inner) = source {
                let inner_text = inner.to_string();
                if !text.contains(&inner_text) {
                    text = format!("{text}: {inner_text}");
                }
                source = inner.source();
            }
            text
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

//! Which gateways answer: a state machine without I/O, and the probes that feed it.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    source::{NODE_HEADER, NONE, REVISIONS_HEADER},
    types::Revisions,
};

/// Probes without an answer, in a row, that make an endpoint unhealthy. A single lost packet
/// mustn't; a definite answer does at once.
const SILENT: u8 = 2;
/// Where a gateway says whether it is ready.
const PATH: &str = "/healthz/ready";
/// Far more than a status line.
const HEAD_BYTES: usize = 1024;

/// How endpoints are probed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probing {
    /// The port of the gateways' health endpoint.
    pub port: u16,
    /// Between two probes.
    pub interval: Duration,
    /// For a whole probe.
    pub timeout: Duration,
}

/// What an agent tells gateways along with its probes.
#[derive(Clone, Debug)]
pub(crate) struct ProbeIdentity {
    node: Arc<str>,
    revisions: watch::Receiver<Option<Arc<Revisions>>>,
}

impl ProbeIdentity {
    /// Of the agent of this node, which has these revisions in force. `None` for a name that no node can have.
    pub(crate) fn new(
        node: &str,
        revisions: watch::Receiver<Option<Arc<Revisions>>>,
    ) -> Option<Self> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        let good = !node.is_empty() && node.bytes().all(is_name);
        good.then(|| Self { node: node.into(), revisions })
    }

    /// Each with its end of line.
    fn headers(&self) -> String {
        let revisions = self.revisions.borrow();
        let digest = revisions.as_ref().map_or(NONE, |revisions| revisions.digest());
        format!("{NODE_HEADER}: {}\r\n{REVISIONS_HEADER}: {digest}\r\n", self.node)
    }
}

/// What a probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// `200`.
    Ready,
    /// The endpoint, or its host, said no.
    Refused(String),
    /// Nothing came back in time.
    Silent,
}

/// A change of state, to be logged and put in the maps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Transition {
    Up { after: Option<Duration> },
    Down { why: String },
}

/// What is known of one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    healthy: bool,
    silent: u8,
    /// When it became unhealthy; `None` if it never was anything else.
    since: Option<Instant>,
    /// Whether a first probe has told.
    known: bool,
}

impl Endpoint {
    /// `healthy`: what an earlier agent left in the maps. A new endpoint isn't healthy before it
    /// has said so.
    pub(crate) fn new(healthy: bool) -> Self {
        Self { healthy, silent: 0, since: None, known: false }
    }

    /// Takes a probe's outcome.
    pub(crate) fn observe(&mut self, now: Instant, outcome: Outcome) -> Option<Transition> {
        let first = !std::mem::replace(&mut self.known, true);
        let why = match outcome {
            Outcome::Ready => {
                self.silent = 0;
                let after = self.since.take().map(|since| now.duration_since(since));
                let was = std::mem::replace(&mut self.healthy, true);
                return (!was).then_some(Transition::Up { after });
            }
            Outcome::Refused(why) => {
                self.silent = 0;
                why
            }
            Outcome::Silent => {
                self.silent = self.silent.saturating_add(1);
                if self.healthy && self.silent < SILENT {
                    return None;
                }
                format!("no answer, {} in a row", self.silent)
            }
        };
        let was = std::mem::replace(&mut self.healthy, false);
        if was {
            self.since = Some(now);
        }
        // One that was never healthy is told of once.
        (was || first).then_some(Transition::Down { why })
    }

    pub(crate) fn healthy(&self) -> bool {
        self.healthy
    }
}

/// Probes all endpoints for as long as it lives.
pub(crate) struct Checker {
    /// The endpoints to probe.
    pub endpoints: watch::Sender<HashSet<IpAddr>>,
    /// Those that are healthy.
    pub healthy: watch::Receiver<HashSet<IpAddr>>,
}

impl Checker {
    /// `healthy`: what an earlier agent left in the maps. Gateways are told `words`.
    pub(crate) fn spawn(
        probing: Probing,
        healthy: HashSet<IpAddr>,
        words: Option<ProbeIdentity>,
    ) -> Self {
        let (endpoints, wanted) = watch::channel(HashSet::new());
        let (published, receiver) = watch::channel(healthy);
        tokio::spawn(check(probing, wanted, published, words));
        Self { endpoints, healthy: receiver }
    }
}

async fn check(
    probing: Probing,
    mut wanted: watch::Receiver<HashSet<IpAddr>>,
    published: watch::Sender<HashSet<IpAddr>>,
    words: Option<ProbeIdentity>,
) {
    let inherited = published.borrow().clone();
    let mut endpoints: HashMap<IpAddr, Endpoint> = HashMap::new();
    let mut probes: HashMap<IpAddr, tokio::task::AbortHandle> = HashMap::new();
    let mut tasks = JoinSet::new();
    let (outcomes, mut results) = mpsc::channel::<(IpAddr, Outcome)>(64);
    loop {
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = wanted.borrow_and_update().clone();
                probes.retain(|addr, probe| now.contains(addr) || { probe.abort(); false });
                endpoints.retain(|addr, _| now.contains(addr));
                for addr in now {
                    endpoints
                        .entry(addr)
                        .or_insert_with(|| Endpoint::new(inherited.contains(&addr)));
                    let (outcomes, words) = (outcomes.clone(), words.clone());
                    let probe = || tasks.spawn(probe_for_ever(probing, addr, outcomes, words));
                    probes.entry(addr).or_insert_with(probe);
                }
            }
            Some((addr, outcome)) = results.recv() => {
                // A result may come from a probe that was aborted since.
                let Some(endpoint) = endpoints.get_mut(&addr) else { continue };
                log(addr, endpoint.observe(Instant::now(), outcome));
            }
        }
        while tasks.try_join_next().is_some() {}
        let healthy: HashSet<IpAddr> = endpoints
            .iter()
            .filter(|(_, endpoint)| endpoint.healthy())
            .map(|(addr, _)| *addr)
            .collect();
        published.send_if_modified(|old| {
            let changed = *old != healthy;
            *old = healthy;
            changed
        });
    }
}

fn log(addr: IpAddr, transition: Option<Transition>) {
    match transition {
        Some(Transition::Up { after: None }) => tracing::info!("gateway {addr} is healthy"),
        Some(Transition::Up { after: Some(after) }) => {
            tracing::info!("gateway {addr} is healthy again, after {:.1} s", after.as_secs_f64());
        }
        Some(Transition::Down { why }) => {
            tracing::warn!("gateway {addr} is not healthy: {why}; no new connection goes there");
        }
        None => {}
    }
}

async fn probe_for_ever(
    probing: Probing,
    addr: IpAddr,
    outcomes: mpsc::Sender<(IpAddr, Outcome)>,
    words: Option<ProbeIdentity>,
) {
    let mut ticks = interval(probing.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let target = SocketAddr::new(addr, probing.port);
    loop {
        ticks.tick().await;
        let outcome = match timeout(probing.timeout, probe(target, words.as_ref())).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Silent,
        };
        if outcomes.send((addr, outcome)).await.is_err() {
            return;
        }
    }
}

/// One `GET`, as small as it gets.
async fn probe(target: SocketAddr, words: Option<&ProbeIdentity>) -> Outcome {
    let mut stream = match TcpStream::connect(target).await {
        Ok(stream) => stream,
        // A way that is gone may be back with the next routing update; a reset is an answer.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            return Outcome::Refused("connection refused".into());
        }
        Err(error) => {
            tracing::debug!("probing {target}: {error}");
            return Outcome::Silent;
        }
    };
    let request = request(target, words);
    let mut head = Vec::new();
    let answered = async {
        stream.write_all(request.as_bytes()).await?;
        while status(&head).is_none() && head.len() < HEAD_BYTES {
            if stream.read_buf(&mut head).await? == 0 {
                break;
            }
        }
        std::io::Result::Ok(())
    };
    if let Err(error) = answered.await {
        return Outcome::Refused(format!("the connection broke: {error}"));
    }
    match status(&head) {
        Some(200) => Outcome::Ready,
        Some(status) => Outcome::Refused(format!("{PATH} says {status}")),
        None => Outcome::Refused("the answer isn't HTTP".into()),
    }
}

/// A `GET`, with what the agent says of itself.
fn request(target: SocketAddr, words: Option<&ProbeIdentity>) -> String {
    let words = words.map(ProbeIdentity::headers).unwrap_or_default();
    format!("GET {PATH} HTTP/1.1\r\nHost: {target}\r\n{words}Connection: close\r\n\r\n")
}

/// The digest of the revisions that another gateway has in force; `None` of one that is not ready.
pub(crate) async fn ask_revisions(target: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(target).await.ok()?;
    stream.write_all(request(target, None).as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.take(u64::try_from(HEAD_BYTES).ok()?).read_to_end(&mut answer).await.ok()?;
    revisions(&answer)
}

/// The digest in a gateway's answer.
fn revisions(answer: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(answer).ok().filter(|_| status(answer) == Some(200))?;
    let head = text.split("\r\n\r\n").next()?;
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let field = fields.find(|(name, _)| name.eq_ignore_ascii_case(REVISIONS_HEADER))?;
    Some(field.1.trim().to_owned())
}

/// The status of an HTTP/1 answer, as soon as its first line is there (RFC 9112 §4).
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next().filter(|line| line.len() < head.len())?;
    let rest = line.strip_prefix(b"HTTP/1.1 ").or_else(|| line.strip_prefix(b"HTTP/1.0 "))?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;

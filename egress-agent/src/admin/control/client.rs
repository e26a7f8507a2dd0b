//! The client of the control socket.

use std::{io, path::Path, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::{net::UnixStream, time::timeout};

use super::{Line, mesh::Mesh, report::AgentReport, upgrade::UpgradeReport};
use crate::explain::{Explanation, Query};

/// How long an agent may take to begin its answer. It answers from memory.
const ANSWER: Duration = Duration::from_secs(5);
/// How long an upgrade may take: longer than the gateway waits for the new process.
const UPGRADE: Duration = Duration::from_secs(180);
/// Longest line; a flow's texts are cut far below.
const LINE_BYTES: usize = 64 * 1024;

/// Why an agent couldn't be asked.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    /// No agent listens.
    #[error("no agent listens on it")]
    Nobody,
    /// Somebody may, but not for this user.
    #[error("not allowed; run it as root, or as a member of the group of --control-group")]
    Forbidden,
    /// The question is wrong, or refused.
    #[error("{0}")]
    Refused(String),
    /// It was tried, and failed.
    #[error("{0}")]
    Failed(String),
    /// The agent didn't answer as it should.
    #[error("the agent {0}")]
    Answer(String),
    /// The connection failed.
    #[error("{0}")]
    Io(io::Error),
}

impl From<hyper::Error> for AskError {
    fn from(error: hyper::Error) -> Self {
        Self::Answer(format!("broke the connection: {error}"))
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the standard library's enum, which may grow")]
async fn connect(path: &Path) -> Result<http1::SendRequest<Empty<Bytes>>, AskError> {
    let stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::Nobody,
        io::ErrorKind::PermissionDenied => AskError::Forbidden,
        _ => AskError::Io(error),
    })?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender, or with the answer.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("control socket: {error}");
        }
    });
    Ok(sender)
}

/// An answer's body; the sender keeps the connection.
struct Answer {
    body: Incoming,
    sender: http1::SendRequest<Empty<Bytes>>,
}

async fn get(path: &Path, target: &str) -> Result<Answer, AskError> {
    send(path, Method::GET, target, ANSWER).await
}

async fn send(
    path: &Path,
    method: Method,
    target: &str,
    limit: Duration,
) -> Result<Answer, AskError> {
    let answer = async {
        let mut sender = connect(path).await?;
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "localhost")
            .body(Empty::new())
            .map_err(|error| AskError::Answer(error.to_string()))?;
        Ok::<_, AskError>((sender.send_request(request).await?, sender))
    };
    let (response, sender) = timeout(limit, answer)
        .await
        .map_err(|_| AskError::Answer(format!("gave no answer for {} s", limit.as_secs())))??;
    let (head, body) = response.into_parts();
    if head.status == StatusCode::OK {
        return Ok(Answer { body, sender });
    }
    let text = body.collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Err(match head.status {
        StatusCode::BAD_REQUEST | StatusCode::CONFLICT => AskError::Refused(text),
        StatusCode::INTERNAL_SERVER_ERROR => AskError::Failed(text),
        status => AskError::Answer(format!("says {status}: {text}")),
    })
}

/// Asks an agent how it is.
pub(crate) async fn ask_status(path: &Path) -> Result<AgentReport, AskError> {
    ask(path, "/status").await
}

/// Asks an agent what a request comes to.
pub(crate) async fn ask_explain(path: &Path, question: &Query) -> Result<Explanation, AskError> {
    ask(path, &format!("/explain?{}", question.query())).await
}

/// Asks a node agent whether enforcement stands for the pod of this UID in the network namespace of this inode. Where it
/// does not, the error is [`AskError::Refused`] and says why.
pub(crate) async fn ask_standing(path: &Path, pod: &str, namespace: u64) -> Result<(), AskError> {
    let target = format!("/standing?pod={pod}&namespace={namespace}");
    read::<bool>(send(path, Method::POST, &target, ANSWER).await?).await.map(drop)
}

/// Asks an agent for the workloads and the gateway that it knows.
pub(crate) async fn ask_mesh(path: &Path) -> Result<Mesh, AskError> {
    ask(path, "/mesh").await
}

/// Has another process take over from a gateway.
pub(crate) async fn ask_upgrade(path: &Path) -> Result<UpgradeReport, AskError> {
    read(send(path, Method::POST, "/upgrade", UPGRADE).await?).await
}

async fn ask<T: DeserializeOwned>(path: &Path, target: &str) -> Result<T, AskError> {
    read(get(path, target).await?).await
}

async fn read<T: DeserializeOwned>(answer: Answer) -> Result<T, AskError> {
    let text = timeout(ANSWER, answer.body.collect())
        .await
        .map_err(|_| AskError::Answer("didn't finish its answer".into()))??
        .to_bytes();
    serde_json::from_slice(&text).map_err(|error| {
        AskError::Answer(format!("gave an answer that this version can't read ({error})"))
    })
}

/// Asks an agent for its flows.
pub(crate) async fn open_flows(path: &Path, follow: bool) -> Result<Stream, AskError> {
    let target = if follow { "/flows?follow=true" } else { "/flows" };
    let Answer { body, sender } = get(path, target).await?;
    Ok(Stream { body, lines: LineBuffer::default(), _sender: sender })
}

/// Lines of an answer.
#[derive(Debug)]
pub(crate) struct Stream {
    body: Incoming,
    lines: LineBuffer,
    _sender: http1::SendRequest<Empty<Bytes>>,
}

impl Stream {
    /// The next line; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Line>, AskError> {
        loop {
            if let Some(line) = self.lines.next()? {
                return Ok(Some(line));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Some(data) = frame?.data_ref() {
                        self.lines.read.extend_from_slice(data);
                    }
                }
                None => return Ok(None),
            }
        }
    }
}

/// Bytes of an answer that are no whole line yet: at most a line and what came with its end.
#[derive(Debug, Default)]
pub(crate) struct LineBuffer {
    /// Where what was received is put.
    pub(crate) read: BytesMut,
}

impl LineBuffer {
    /// The next whole line, where one is there.
    pub(crate) fn next(&mut self) -> Result<Option<Line>, AskError> {
        if let Some(end) = memchr::memchr(b'\n', &self.read) {
            let line = self.read.split_to(end + 1);
            return serde_json::from_slice(&line).map(Some).map_err(|error| {
                AskError::Answer(format!("sent a line that this version can't read ({error})"))
            });
        }
        if self.read.len() > LINE_BYTES {
            return Err(AskError::Answer("sent a line without end".into()));
        }
        Ok(None)
    }
}

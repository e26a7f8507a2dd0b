//! The flows of one agent, wherever it is.

use std::{os::unix::fs::FileTypeExt as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{sync::mpsc, time::timeout};

use super::{
    saved,
    server::{FlowSource, Remote, Server},
};
use crate::{
    admin::control::{AskError, Line, Stream, open_flows},
    telemetry::FlowRecord,
};

/// How long an agent may take to say what it remembers.
const HISTORY: Duration = Duration::from_secs(60);

/// Flows of one answer; an agent remembers fewer. Another host is not trusted to end.
const MOST: usize = 65_536;

/// What was remembered, oldest first, and how many flows were lost before.
pub(super) type History = (Vec<FlowRecord>, u64);

/// An agent that was asked.
#[derive(Debug)]
pub(super) struct Feed {
    /// What `--server` calls it.
    name: Option<Arc<str>>,
    from: FeedSource,
}

#[derive(Debug)]
enum FeedSource {
    Socket(Stream),
    Remote(Remote),
    File(History),
}

impl Feed {
    /// Of an agent on this host.
    pub(super) fn local(stream: Stream) -> Self {
        Self { name: None, from: FeedSource::Socket(stream) }
    }

    /// Of `--server`.
    pub(super) async fn open(server: &Server, shell: &str, follow: bool) -> anyhow::Result<Self> {
        let from = match &server.place {
            FlowSource::Host(host) => FeedSource::Remote(Remote::start(shell, host, follow)?),
            FlowSource::Path(path) if is_socket(path)? => {
                FeedSource::Socket(open_flows(path, follow).await?)
            }
            FlowSource::Path(path) if follow => {
                bail!("{} is a file, which can't be followed", path.display())
            }
            FlowSource::Path(path) => {
                FeedSource::File(saved::read(path).map_err(anyhow::Error::msg)?)
            }
        };
        Ok(Self { name: Some(server.name.as_str().into()), from })
    }

    /// What `--server` calls it.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What is remembered.
    pub(super) async fn history(&mut self) -> anyhow::Result<History> {
        let (mut flows, lost) = timeout(HISTORY, self.remembered())
            .await
            .with_context(|| format!("no answer for {} s", HISTORY.as_secs()))??;
        flows.iter_mut().for_each(|flow| label(flow, self.name.as_ref()));
        Ok((flows, lost))
    }

    async fn remembered(&mut self) -> anyhow::Result<History> {
        if let FeedSource::File(history) = &mut self.from {
            return Ok(std::mem::take(history));
        }
        let (mut flows, mut lost) = (Vec::new(), 0);
        while let Some(line) = self.next().await? {
            match line {
                Line::Flow(_) if flows.len() >= MOST => {
                    bail!("sent more than {MOST} flows, which is more than an agent remembers")
                }
                Line::Flow(flow) => flows.push(*flow),
                Line::Lost(count) => lost += count,
                Line::Live => break,
            }
        }
        Ok((flows, lost))
    }

    async fn next(&mut self) -> Result<Option<Line>, AskError> {
        match &mut self.from {
            FeedSource::Socket(stream) => stream.next().await,
            FeedSource::Remote(remote) => remote.next().await,
            FeedSource::File(_) => Ok(None),
        }
    }

    /// Hands over what happens from now on, until the agent or whoever reads has ended. The last is why.
    pub(super) async fn forward(mut self, lines: mpsc::Sender<FeedItem>) {
        loop {
            let (line, ended) = match self.next().await {
                Ok(Some(Line::Flow(mut flow))) => {
                    label(&mut flow, self.name.as_ref());
                    (FeedItem::Line(Line::Flow(flow)), false)
                }
                Ok(Some(line)) => (FeedItem::Line(line), false),
                Ok(None) => (FeedItem::End(self.name.clone(), None), true),
                Err(error) => (FeedItem::End(self.name.clone(), Some(error)), true),
            };
            if lines.send(line).await.is_err() || ended {
                return;
            }
        }
    }
}

/// What a feed hands over.
#[derive(Debug)]
pub(super) enum FeedItem {
    Line(Line),
    /// No more comes from this one.
    End(Option<Arc<str>>, Option<AskError>),
}

/// A file may name the hosts itself.
fn label(flow: &mut FlowRecord, name: Option<&Arc<str>>) {
    if flow.server.is_none() {
        flow.server = name.map(|name| name.to_string());
    }
}

fn is_socket(path: &Path) -> anyhow::Result<bool> {
    let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    Ok(metadata.file_type().is_socket())
}

//! Where flows come from: agents' control sockets, or the pins that an agent left.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use futures_util::future::join_all;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    super::output::complain,
    feed::{Feed, FeedItem, History},
    server::Server,
};
use crate::{
    admin::control::{
        AskError, GATEWAY_SOCKET, GATEWAY_UNIT_SOCKET, Line, NODE_SOCKET, open_flows,
    },
    bpf::{self, Events},
    enforcement::FlowEnricher,
    telemetry::FlowRecord,
};

/// Lines of several agents that may wait to be shown.
const QUEUE: usize = 1024;
/// How often is looked whether an agent took over the pins.
const LOOK: Duration = Duration::from_secs(1);
/// The kernel's ring buffer holds what it holds; nothing is waited for.
const RING: Duration = Duration::from_millis(50);

/// All that were asked.
pub(in crate::cli) enum Sources {
    /// Running agents.
    Agents(Agents),
    /// The pins.
    Pins(Box<OrphanedBuffer>),
}

/// Answers that are being read.
#[derive(Default)]
pub(in crate::cli) struct Agents {
    feeds: Vec<Feed>,
    live: Option<mpsc::Receiver<FeedItem>>,
    /// Whether a host of `--server` could not be asked, or ended while it was followed.
    incomplete: bool,
}

/// A ring buffer that no agent reads.
pub(in crate::cli) struct OrphanedBuffer {
    dir: PathBuf,
    events: Events,
    namer: FlowEnricher,
    lost: u64,
    read: std::collections::VecDeque<FlowRecord>,
}

impl Sources {
    /// Asks the agent on this socket, or whichever runs; else takes the pins.
    pub(in crate::cli) async fn open(
        control: Option<&Path>,
        bpffs: &Path,
        follow: bool,
    ) -> anyhow::Result<Self> {
        let paths = match control {
            Some(path) => vec![path],
            None => [NODE_SOCKET, GATEWAY_SOCKET, GATEWAY_UNIT_SOCKET].map(Path::new).to_vec(),
        };
        let mut feeds = Vec::new();
        for path in &paths {
            match open_flows(path, follow).await {
                Ok(stream) => feeds.push(Feed::local(stream)),
                Err(AskError::Nobody) => {}
                Err(error) => bail!("{}: {error}", path.display()),
            }
        }
        if !feeds.is_empty() {
            return Ok(Self::Agents(Agents { feeds, ..Agents::default() }));
        }
        let asked: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let nobody = format!("no agent listens on {}", asked.join(" or "));
        if let Some(pid) = bpf::pins_owner(bpffs) {
            bail!(
                "{nobody}, though a node agent (pid {pid}) owns {}; give its --control, or read \
                 its standard output (`journalctl --unit egress-node`)",
                bpffs.display()
            );
        }
        let Some((events, counters)) = bpf::orphaned(bpffs)? else {
            bail!("{nobody}, and nothing is pinned at {}: nothing is enforced", bpffs.display());
        };
        complain(format_args!(
            "{nobody}; enforcement is in force as it was left. These are the events that the \
             kernel has kept since; reading takes them out"
        ));
        let lost = counters.lost()?;
        Ok(Self::Pins(Box::new(OrphanedBuffer {
            dir: bpffs.to_owned(),
            events,
            namer: FlowEnricher::default(),
            lost: lost.rate + lost.full,
            read: Default::default(),
        })))
    }

    /// Asks these hosts. One that can't be asked is reported, and the others are shown all the same.
    pub(super) async fn of_servers(
        servers: &[Server],
        shell: &str,
        follow: bool,
    ) -> anyhow::Result<Self> {
        let mut agents = Agents::default();
        for server in servers {
            match Feed::open(server, shell, follow).await {
                Ok(feed) => agents.feeds.push(feed),
                Err(error) => agents.report(Some(&server.name), &error),
            }
        }
        if agents.feeds.is_empty() {
            bail!("none of the hosts could be asked");
        }
        Ok(Self::Agents(agents))
    }

    /// Whether a host is missing in what was shown.
    pub(super) fn is_incomplete(&self) -> bool {
        match self {
            Self::Agents(agents) => agents.incomplete,
            Self::Pins(_) => false,
        }
    }

    /// What is remembered, oldest first, and how many were lost before.
    pub(in crate::cli) async fn history(&mut self) -> anyhow::Result<History> {
        match self {
            Self::Agents(agents) => agents.history().await,
            Self::Pins(pins) => {
                // Empty where nothing has happened since.
                if let Ok(read) = timeout(RING, pins.fill()).await {
                    read?;
                }
                Ok((pins.read.drain(..).collect(), pins.lost))
            }
        }
    }

    /// What comes after that; `None` when no more will come.
    pub(in crate::cli) async fn next(&mut self) -> anyhow::Result<Option<Line>> {
        match self {
            Self::Agents(agents) => agents.next().await,
            Self::Pins(pins) => pins.next().await,
        }
    }
}

impl Agents {
    async fn history(&mut self) -> anyhow::Result<History> {
        let (mut flows, mut lost) = (Vec::new(), 0);
        let answers = join_all(self.feeds.iter_mut().map(Feed::history)).await;
        let mut feeds = Vec::new();
        for (feed, answer) in std::mem::take(&mut self.feeds).into_iter().zip(answers) {
            match answer {
                Ok((more, gone)) => {
                    flows.extend(more);
                    lost += gone;
                    feeds.push(feed);
                }
                Err(error) if feed.name().is_none() => return Err(error),
                Err(error) => self.report(feed.name(), &error),
            }
        }
        if feeds.is_empty() {
            bail!("none of the hosts could be asked");
        }
        self.feeds = feeds;
        // Each agent's are in order already; the sort is stable.
        flows.sort_by_key(|flow| flow.time);
        Ok((flows, lost))
    }

    async fn next(&mut self) -> anyhow::Result<Option<Line>> {
        let feeds = &mut self.feeds;
        let live = self.live.get_or_insert_with(|| {
            let (lines, live) = mpsc::channel(QUEUE);
            for feed in feeds.drain(..) {
                tokio::spawn(feed.forward(lines.clone()));
            }
            live
        });
        loop {
            match live.recv().await {
                Some(FeedItem::Line(line)) => return Ok(Some(line)),
                Some(FeedItem::End(Some(name), error)) => {
                    let why = error.map(|error| format!(": {error}")).unwrap_or_default();
                    complain(format_args!("{name}: the agent has ended, it seems{why}"));
                    self.incomplete = true;
                }
                Some(FeedItem::End(None, Some(error))) => {
                    return Err(error).context("the agent has ended, it seems");
                }
                Some(FeedItem::End(None, None)) => {}
                None => {
                    complain(format_args!(
                        "the agent has ended; enforcement of a node stays as it is"
                    ));
                    return Ok(None);
                }
            }
        }
    }

    /// Says that a host is missing.
    fn report(&mut self, name: Option<&str>, error: &anyhow::Error) {
        complain(complaint(name.unwrap_or("the agent"), &format!("{error:#}")));
        self.incomplete = true;
    }
}

/// Who could not be asked, and why; a path that is called by itself is named once.
fn complaint(name: &str, why: &str) -> String {
    let named = why.strip_prefix(name).is_some_and(|rest| rest.starts_with(": "));
    if named { why.to_owned() } else { format!("{name}: {why}") }
}

impl OrphanedBuffer {
    /// Waits for events and reads those that are there.
    async fn fill(&mut self) -> anyhow::Result<()> {
        let Self { events, namer, read, .. } = self;
        let unreadable = events
            .read(|flow| read.push_back(namer.record(&flow)))
            .await
            .context("can't read the kernel's events")?;
        self.lost += u64::try_from(unreadable).unwrap_or(u64::MAX);
        Ok(())
    }

    async fn next(&mut self) -> anyhow::Result<Option<Line>> {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Some(flow) = self.read.pop_front() {
                return Ok(Some(Line::Flow(Box::new(flow))));
            }
            // One reader at a time: an agent that starts must get its events.
            if bpf::pins_owner(&self.dir).is_some() {
                complain(format_args!("an agent has started; call `flows` again to ask it"));
                return Ok(None);
            }
            tokio::select! {
                read = self.fill() => read?,
                _ = looks.tick() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_could_not_be_asked_is_named_once() {
        let why = "/tmp/a.json: No such file or directory (os error 2)";
        assert_eq!(complaint("/tmp/a.json", why), why);
        assert_eq!(complaint("node-1", why), format!("node-1: {why}"));
        assert_eq!(complaint("/tmp/a", why), format!("/tmp/a: {why}"));
    }
}

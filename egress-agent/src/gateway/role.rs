//! The process apart from its workers: from its start to the moment at which it serves.

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context as _, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use super::{
    bound_listeners::BoundListeners,
    in_force::InForce,
    loaded_configuration::LoadedConfiguration,
    peers, pods,
    running::Running,
    shutdown_signals::{DrainLimits, ShutdownSignals},
    view::View,
};
use crate::{
    admin::control::Listening,
    bpf::lookup,
    enforcement::notify::Manager,
    handover::{Channel, Message, Predecessor, Succession},
    source::{
        ConfigArgs, NodeSelector, Reload, Secrets,
        kubernetes::{More, Reports, Scope},
    },
};

/// The process apart from its workers, before it serves.
pub(super) struct Role {
    pub(super) in_force: InForce,
    pub(super) front: BoundListeners,
    pub(super) lookup: Option<lookup::Capture>,
    pub(super) control: Option<Listening>,
    pub(super) view: View,
    /// Those that the API server is asked for.
    pub(super) secrets: Option<Secrets>,
    pub(super) succession: Succession,
    pub(super) drain: DrainLimits,
    /// The nodes that run agents.
    pub(super) agents: NodeSelector,
    /// The port of gateways' health.
    pub(super) health: u16,
}

impl Role {
    /// Serves until a signal or another process ends it.
    ///
    /// # Errors
    /// What the user has to know.
    pub(super) async fn run(
        self,
        config: ConfigArgs,
        predecessor: Option<&Predecessor>,
    ) -> anyhow::Result<ExitCode> {
        let Self { in_force, front, lookup, control, view, secrets, mut succession, .. } = self;
        let (drain, agents, health) = (self.drain, self.agents, self.health);
        let mut ends = ShutdownSignals::new().context("can't listen for signals")?;
        let hup = signal(SignalKind::hangup()).context("can't listen for SIGHUP")?;
        // A process that takes over serves nothing before it can serve all.
        let (waiting, open) = match predecessor {
            None => (None, Some(front.open()?)),
            Some(predecessor) => (Some((front, predecessor)), None),
        };
        let rollout = in_force.rollout.clone();
        let credentials = in_force.credentials.faults();
        let reports = rollout.clone().map(|rollout| Reports { credentials, rollout });
        let more = More { secrets, reports, agents, ..More::default() };
        if let Some(rollout) = rollout {
            tokio::spawn(peers::ask(rollout, health));
        }
        let (origin, reported) = config.open(Scope::Cluster, more).await?;
        let (reload, loaded) = Reload::new(origin);
        let again = reload.again();
        let reload = reload.start().context("can't start the compiler's thread")?;
        let reload = tokio::spawn(reload);
        let loaded = match reported {
            Some(reported) => pods::merge(loaded, reported),
            None => loaded,
        };
        let credentials = Arc::clone(&in_force.credentials);
        let following = tokio::spawn(async move { credentials.watch().await });
        let mut following = LoadedConfiguration { in_force, loaded, tasks: [reload, following] };
        following.apply().await;
        let serving = view.serving(following.loaded.clone());
        let mut takes_over = None;
        let open = match (open, waiting) {
            (Some(open), _) => open,
            (None, Some((front, predecessor))) => {
                let channel = predecessor.channel()?;
                tokio::select! {
                    prepared = following.prepared(predecessor.credentials()) => prepared?,
                    () = ends.next() => bail!("a signal ended it before it could serve"),
                }
                ready(&channel).await?;
                let open = front.open()?;
                takes_over = Some((predecessor.pid(), channel));
                open
            }
            (None, None) => bail!("nothing is listened on"),
        };
        let control = control.map(|control| control.serve(serving)).transpose();
        let control = control.context("can't serve the control socket")?;
        let in_charge = takes_over.is_none();
        if let Some((pid, channel)) = takes_over {
            channel.send(&Message::Serving {}, &[]).await?;
            succession.follow(pid, channel);
        }
        let manager = in_charge.then(|| Manager::new(Instant::now()));
        let running =
            Running { following, open, control, lookup, succession, drain, manager, again, hup };
        running.run(&mut ends).await
    }
}

/// Asks the process before this one whether to accept connections.
async fn ready(channel: &Channel) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    channel.send(&Message::Ready { version }, &[]).await?;
    match channel.receive().await? {
        Some(Message::Serve {}) => Ok(()),
        Some(other) => bail!("the process before this one said {other:?}"),
        None => bail!("the process before this one ended"),
    }
}

//! The process apart from its workers: from the moment at which it serves to its end.

use std::{future::pending, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    signal::unix::Signal,
    sync::Notify,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    bound_listeners::Open,
    loaded_configuration::LoadedConfiguration,
    shutdown_signals::{DrainLimits, ShutdownSignals, drain},
};
use crate::{
    admin::{DrainManner, control::Control},
    bpf::lookup,
    enforcement::notify::Manager,
    handover::{Event, Succession},
    proxy::Drain,
    source::Loaded,
    sys::service::notify,
};

/// How often the host's own addresses are looked at.
const ADDRESSES_EVERY: Duration = Duration::from_secs(5);

/// A process that serves.
pub(super) struct Running {
    pub(super) following: LoadedConfiguration,
    pub(super) open: Open,
    pub(super) control: Option<Control>,
    /// Until another process has taken over.
    pub(super) lookup: Option<lookup::Capture>,
    pub(super) succession: Succession,
    pub(super) drain: DrainLimits,
    /// What the service manager is told; `None` where another process tells it.
    pub(super) manager: Option<Manager>,
    /// Has the configuration read again.
    pub(super) again: Arc<Notify>,
    /// SIGHUP.
    pub(super) hup: Signal,
}

/// Why it serves no longer.
enum Cause {
    /// A signal, or the time that it had after another process took over.
    Ended,
    /// The admin port.
    Asked(DrainManner),
    /// Another process serves, and nothing is left to do here.
    Drained,
}

impl Running {
    /// Serves, drains, and ends.
    ///
    /// # Errors
    /// It ended for another reason than it was asked to.
    pub(super) async fn run(mut self, ends: &mut ShutdownSignals) -> anyhow::Result<ExitCode> {
        let workers = self.open.workers.take().context("nobody serves")?;
        let mut finished = spawn_blocking(move || workers.join());
        let served = self.serve(ends, &mut finished).await;
        if served.is_err() {
            // The process ends when its workers have.
            self.open.drains().iter().for_each(Drain::expire);
        }
        let cause = served?;
        // Without readers the kernel is to take no connections.
        self.succession.close();
        self.following.stop();
        let status = &self.following.in_force.status;
        let limit = match cause {
            Cause::Drained => {
                tracing::info!("drained; ended");
                return Ok(ExitCode::SUCCESS);
            }
            Cause::Asked(DrainManner::AtOnce) => Duration::ZERO,
            Cause::Ended | Cause::Asked(DrainManner::Graceful) => self.drain.signal,
        };
        status.set_draining();
        if self.manager.is_some() {
            notify("STOPPING=1\nSTATUS=draining\n");
        }
        let signalled = drain(self.open.drains(), finished, ends, limit).await;
        // Whoever asked for it over the admin port ends the process, too, when it is time.
        if matches!(cause, Cause::Asked(_)) && !signalled {
            tracing::info!("drained; waiting for a signal to end");
            ends.next().await;
        }
        tracing::info!("ended");
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(
        &mut self,
        ends: &mut ShutdownSignals,
        finished: &mut JoinHandle<()>,
    ) -> anyhow::Result<Cause> {
        let mut looking = interval(ADDRESSES_EVERY);
        looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let status = Arc::clone(&self.following.in_force.status);
        let mut deadline = None;
        loop {
            self.tell_manager();
            tokio::select! {
                changed = self.following.loaded.changed() => {
                    changed.context("the configuration is no longer watched")?;
                    self.following.apply().await;
                }
                _ = looking.tick() => self.following.in_force.follow_addresses().await,
                Some(()) = self.hup.recv() => self.again.notify_one(),
                () = ends.next() => return Ok(Cause::Ended),
                manner = status.drain_asked() => return Ok(Cause::Asked(manner)),
                event = self.succession.next() => match event {
                    Event::Replaced => {
                        deadline = Some(Instant::now() + self.drain.upgrade);
                        self.hand_over().await;
                    }
                    Event::RatesUsed(used) => self.open.rates.count_used(used),
                    Event::InCharge => {
                        self.manager.get_or_insert_with(|| Manager::new(Instant::now()));
                    }
                    // Nobody accepts connections now: whoever manages the service is to start another
                    // process at once.
                    Event::Orphaned(status) => {
                        notify(&format!("MAINPID={}\n", std::process::id()));
                        bail!("the process that had taken over ended ({status}); so does this one");
                    }
                },
                () = at(deadline) => {
                    tracing::info!("what runs had its time after the upgrade");
                    return Ok(Cause::Ended);
                }
                _ = &mut *finished => match deadline {
                    Some(_) => return Ok(Cause::Drained),
                    None => bail!("the workers ended by themselves"),
                },
            }
        }
    }

    /// Leaves all that is new to the process that has taken over. The configuration is followed: a request
    /// on a connection that was open before is decided by it.
    async fn hand_over(&mut self) {
        self.open.hand_over();
        self.lookup = None;
        if let Some(control) = &mut self.control {
            control.leave();
        }
        self.manager = None;
        self.succession.release(self.open.rates.used()).await;
    }

    fn tell_manager(&mut self) {
        if let Some(manager) = &mut self.manager {
            let loaded = self.following.loaded.borrow();
            manager.send(loaded.last.is_some(), sentence(&loaded));
        }
    }
}

/// The state of a gateway, in a sentence.
fn sentence(loaded: &Loaded) -> String {
    let in_force = match loaded.snapshot {
        Some(_) => format!("configuration {} is in force", loaded.accepted),
        None => "no configuration is in force, so everything is refused".into(),
    };
    let refused = loaded.last.as_ref().is_some_and(|last| !last.accepted);
    let refused = if refused { "; the files, as they are now, are refused" } else { "" };
    format!("{in_force}{refused}")
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

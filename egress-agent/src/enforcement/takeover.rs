//! When to take over from an agent of another version, and when a first start begins to enforce.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    bpf::{Attachments, Error, PendingReason, Pins},
    types::ConfigurationStamp,
};

/// How long a take-over waits for gateways' health and for addresses of names: whatever is unknown
/// then is refused until it is known. A first start waits as long for a configuration.
const PATIENCE: Duration = Duration::from_secs(5);

/// Decides when our programs may come into force where another version's are, or where pods run that
/// nothing is enforced on yet. Too early would refuse what both allow, or in-cluster traffic of pods that
/// run, because our maps don't know yet which gateways answer, or who is who.
#[derive(Debug, Default)]
pub(crate) struct Takeover {
    since: Option<Instant>,
    told: bool,
}

/// What is known at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Progress {
    /// The maps hold the whole of a configuration.
    pub(crate) is_filled: bool,
    /// The configuration is refused, and none was accepted before it.
    pub(crate) is_refused: bool,
    /// Some workloads are under enforcement, and the maps could not take all that is configured.
    pub(crate) is_behind: bool,
    /// All is known that a verdict needs: which gateways answer, and addresses of names.
    pub(crate) is_informed: bool,
}

impl Takeover {
    /// Whether it is time.
    fn is_due(&mut self, waiting: PendingReason, now: Instant, progress: Progress) -> bool {
        let Progress { is_filled, is_refused, is_behind, is_informed } = progress;
        if waiting == PendingReason::OtherVersion && !is_filled {
            // What the other version holds is in force, however long.
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let known = match waiting {
            PendingReason::OtherVersion => is_informed,
            // Nothing is enforced meanwhile: no longer than it takes to know who is who, and not at all
            // where that is in doubt.
            PendingReason::FirstStart => is_filled || is_refused || is_behind,
        };
        known || now.duration_since(since) >= PATIENCE
    }

    /// Takes over if there is anything to take over and it is time. Whether ours are in force.
    pub(crate) fn attempt(
        &mut self,
        attachments: &mut Attachments,
        pins: &Pins,
        progress: Progress,
    ) -> bool {
        let Some(waiting) = attachments.waiting() else { return true };
        if !self.is_due(waiting, Instant::now(), progress) {
            return false;
        }
        match attachments.take_over(pins) {
            Ok(()) => {
                match waiting {
                    PendingReason::OtherVersion => {
                        tracing::info!("took over enforcement from another version, without a gap");
                    }
                    PendingReason::FirstStart if progress.is_filled => tracing::info!("enforcing"),
                    PendingReason::FirstStart => tracing::warn!(
                        "enforcing without a configuration: everything is denied until one is accepted"
                    ),
                }
                true
            }
            Err(error) => {
                // It recurs with every attempt.
                if !std::mem::replace(&mut self.told, true) {
                    tracing::error!("{}", failed(waiting, &error));
                }
                false
            }
        }
    }
}

fn failed(waiting: PendingReason, error: &Error) -> String {
    let (what, meanwhile) = match waiting {
        PendingReason::OtherVersion => ("take over from the other version", "it stays in force"),
        PendingReason::FirstStart => ("begin to enforce", "nothing is enforced"),
    };
    format!("can't {what} ({error}); {meanwhile}, and it is tried again")
}

/// What is in force until a configuration is accepted; `None` where everything external is denied.
pub(crate) fn inherited(
    waiting: Option<PendingReason>,
    held: Option<ConfigurationStamp>,
) -> Option<String> {
    if waiting == Some(PendingReason::OtherVersion) {
        return Some("what another version's programs hold".into());
    }
    held.map(|held| held.to_string())
}

/// Says how enforcement begins.
pub(crate) fn announce(
    adopted: bool,
    waiting: Option<PendingReason>,
    held: Option<ConfigurationStamp>,
) {
    match (waiting, adopted, held) {
        (Some(PendingReason::OtherVersion), ..) => tracing::warn!(
            "programs of another version enforce here; they stay in force as they are until this \
             agent has accepted a configuration"
        ),
        (Some(PendingReason::FirstStart), ..) => tracing::info!(
            "nothing is enforced here yet; what runs here is enforced when the maps hold a \
             configuration, in {} s at the latest, and what appears is at once",
            PATIENCE.as_secs()
        ),
        (None, true, Some(held)) => tracing::info!(
            "took over enforcement from an earlier agent, without a gap; the maps hold {held}"
        ),
        (None, true, None) => tracing::info!(
            "took over enforcement from an earlier agent, without a gap; the maps hold no \
             configuration, so everything external is denied"
        ),
        (None, false, _) => {
            tracing::info!(
                "enforcing; everything external is denied until a configuration is read"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Progress =
        Progress { is_filled: false, is_refused: false, is_behind: false, is_informed: false };
    const REFUSED: Progress = Progress { is_refused: true, ..NOTHING };
    const BEHIND: Progress = Progress { is_behind: true, ..NOTHING };
    const FILLED: Progress = Progress { is_filled: true, ..NOTHING };
    const INFORMED: Progress = Progress { is_informed: true, ..FILLED };

    #[test]
    fn another_versions_programs_stay_until_ours_know_as_much() {
        let start = Instant::now();
        let mut waiting = Takeover::default();
        let mut is_due = |seconds: u64, progress| {
            let now = start + Duration::from_secs(seconds);
            waiting.is_due(PendingReason::OtherVersion, now, progress)
        };
        // Without a configuration however long it takes.
        assert!(!is_due(0, NOTHING) && !is_due(3600, REFUSED) && !is_due(3600, BEHIND));
        assert!(!is_due(3600, FILLED), "the wait begins with the configuration");
        assert!(is_due(3602, INFORMED));
        assert!(!is_due(3604, FILLED));
        assert!(is_due(3605, FILLED), "but not for ever");
    }

    #[test]
    fn a_first_start_waits_for_a_configuration_and_not_for_long() {
        let start = Instant::now();
        let is_due = |seconds: u64, progress| {
            let mut waiting = Takeover::default();
            assert!(!waiting.is_due(PendingReason::FirstStart, start, NOTHING));
            waiting.is_due(
                PendingReason::FirstStart,
                start + Duration::from_secs(seconds),
                progress,
            )
        };
        assert!(!is_due(4, NOTHING));
        for progress in [FILLED, INFORMED, REFUSED, BEHIND] {
            assert!(is_due(0, progress), "{progress:?}");
        }
        assert!(is_due(5, NOTHING));
    }
}

//! When to take over from an agent of another version.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    bpf::{Attachments, Pins},
    types::Held,
};

/// How long a take-over waits for gateways' health and for addresses of names: whatever is unknown
/// then is refused until it is known.
const PATIENCE: Duration = Duration::from_secs(5);

/// Decides when our programs may come into force where another version's are. Until then those
/// enforce as they did; too early would refuse what both allow, because our maps don't know yet
/// which gateways answer.
#[derive(Debug, Default)]
pub(crate) struct TakeOver {
    since: Option<Instant>,
    told: bool,
}

impl TakeOver {
    /// Whether it is time. `known` says whether everything that a verdict needs is known; asked
    /// only once a configuration is in the maps.
    pub(crate) fn is_due(&mut self, known: bool, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        known || now.duration_since(since) >= PATIENCE
    }

    /// Takes over if there is anything to take over and it is time. Whether ours are in force.
    pub(crate) fn attempt(
        &mut self,
        attachments: &mut Attachments,
        pins: &Pins,
        known: bool,
    ) -> bool {
        if !attachments.is_waiting() {
            return true;
        }
        if !self.is_due(known, Instant::now()) {
            return false;
        }
        match attachments.take_over(pins) {
            Ok(()) => {
                tracing::info!("took over enforcement from another version, without a gap");
                true
            }
            Err(error) => {
                // It recurs with every attempt.
                if !std::mem::replace(&mut self.told, true) {
                    tracing::error!(
                        "can't take over from the other version ({error}); it stays in force, and \
                         it is tried again"
                    );
                }
                false
            }
        }
    }
}

/// What is in force until a configuration is accepted; `None` where everything external is denied.
pub(crate) fn inherited(waiting: bool, held: Option<Held>) -> Option<String> {
    if waiting {
        return Some("what another version's programs hold".into());
    }
    held.map(|held| held.to_string())
}

/// Says how enforcement begins.
pub(crate) fn announce(adopted: bool, waiting: bool, held: Option<Held>) {
    if waiting {
        tracing::warn!(
            "programs of another version enforce here; they stay in force as they are until this \
             agent has accepted a configuration"
        );
    } else if let (true, Some(held)) = (adopted, held) {
        tracing::info!(
            "took over enforcement from an earlier agent, without a gap; the maps hold {held}"
        );
    } else if adopted {
        tracing::info!(
            "took over enforcement from an earlier agent, without a gap; the maps hold no \
             configuration, so everything external is denied"
        );
    } else {
        tracing::info!("enforcing; everything external is denied until a configuration is read");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_what_is_unknown_but_not_for_ever() {
        let start = Instant::now();
        let mut waiting = TakeOver::default();
        assert!(!waiting.is_due(false, start));
        assert!(!waiting.is_due(false, start + PATIENCE / 2));
        assert!(waiting.is_due(true, start + PATIENCE / 2));
        assert!(waiting.is_due(false, start + PATIENCE));
        assert!(TakeOver::default().is_due(true, start));
    }
}

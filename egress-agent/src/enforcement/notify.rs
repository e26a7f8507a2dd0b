//! Telling systemd that the service is ready, and how it fares.
//!
//! Ready means: the programs are attached, and the first configuration has been read, whether it is
//! accepted or not. A configuration with an error must not keep the node from being up: what the
//! maps hold is enforced.

use std::time::Duration;

use tokio::time::Instant;

use crate::{source::Loaded, sys::service::notify};

/// How long systemd waits for a configuration. A node without one enforces all the same, and what
/// starts after it must not wait for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the service manager has been told.
#[derive(Debug)]
pub(crate) struct Manager {
    since: Instant,
    ready: bool,
    status: String,
}

impl Manager {
    /// At the start; the programs are attached.
    pub(crate) fn new(since: Instant) -> Self {
        Self { since, ready: false, status: String::new() }
    }

    /// Says what is new: `READY=1` once the first configuration is settled or waited for long
    /// enough, and the state in a sentence.
    pub(crate) fn send(&mut self, settled: bool, status: String) {
        let message = self.message(settled, status, Instant::now());
        if !message.is_empty() {
            notify(&message);
        }
    }

    fn message(&mut self, settled: bool, status: String, now: Instant) -> String {
        let mut message = String::new();
        if !self.ready && (settled || now.duration_since(self.since) >= PATIENCE) {
            self.ready = true;
            message.push_str("READY=1\n");
        }
        if status != self.status {
            message.push_str(&format!("STATUS={status}\n"));
            self.status = status;
        }
        message
    }
}

/// Says that the agent ends, and that enforcement does not.
pub(crate) fn stopping() {
    notify("STOPPING=1\nSTATUS=stopping; enforcement stays in force\n");
}

/// The state of a node whose programs are not in force yet, since nothing was enforced there before. `accepted`:
/// what became of the configuration, if it has been read.
pub(crate) fn first_start(accepted: Option<bool>) -> &'static str {
    match accepted {
        None => {
            "what ran before the first start is not under enforcement until the configuration is read"
        }
        Some(true) => {
            "what ran before the first start is not under enforcement until the maps hold the \
             configuration"
        }
        Some(false) => {
            "the configuration is refused, so everything will be denied; until then what ran before the first \
             start is not under enforcement"
        }
    }
}

/// The state of a node whose programs are in force, in a sentence. `held` is what the maps hold.
pub(crate) fn sentence(loaded: &Loaded, held: Option<&str>, unready: &[String]) -> String {
    let refused = loaded.last.as_ref().is_some_and(|last| !last.accepted);
    let in_force = match (&loaded.snapshot, held) {
        (Some(_), _) => format!("configuration {} is in force", loaded.accepted),
        (None, Some(held)) => format!("{held} is in force"),
        (None, None) => "no configuration is in force, so everything external is denied".into(),
    };
    let mut text = format!("attached; {in_force}");
    if refused {
        text.push_str("; the files, as they are now, are refused");
    }
    let causes = if loaded.snapshot.is_some() { unready } else { &[] };
    if let Some((first, more)) = causes.split_first() {
        text.push_str(&format!("; not ready: {first}"));
        if !more.is_empty() {
            text.push_str(&format!(" (and {} more)", more.len()));
        }
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::SystemTime};

    use super::*;
    use crate::{policy::Snapshot, source::LastReload};

    fn refused() -> Arc<LastReload> {
        Arc::new(LastReload { at: SystemTime::UNIX_EPOCH, accepted: false, problems: Vec::new() })
    }

    #[test]
    fn ready_is_said_once_and_never_waits_for_ever() {
        let start = Instant::now();
        let mut manager = Manager::new(start);
        assert_eq!(manager.message(false, "a".into(), start), "STATUS=a\n");
        assert_eq!(manager.message(false, "a".into(), start), "");
        assert_eq!(manager.message(true, "b".into(), start), "READY=1\nSTATUS=b\n");
        assert_eq!(manager.message(true, "b".into(), start + PATIENCE), "");
        let mut waiting = Manager::new(start);
        assert_eq!(waiting.message(false, String::new(), start + PATIENCE), "READY=1\n");
    }

    #[test]
    fn a_first_start_waits_for_what_is_still_to_come() {
        assert!(first_start(None).ends_with("until the configuration is read"));
        for read in [true, false] {
            let text = first_start(Some(read));
            assert!(text.contains("before the first start is not under enforcement"), "{text}");
            assert!(!text.contains("is read"), "{text}");
            assert_eq!(text.contains("refused"), !read, "{text}");
        }
    }

    #[test]
    fn the_state_says_what_is_in_force() {
        let mut loaded = Loaded::default();
        assert!(sentence(&loaded, None, &[]).contains("everything external is denied"));
        loaded.last = Some(refused());
        let text = sentence(&loaded, Some("what an earlier agent left"), &["not yet".into()]);
        assert_eq!(
            text,
            "attached; what an earlier agent left is in force; the files, as they are now, are \
             refused"
        );
        loaded.snapshot = Some(Arc::new(Snapshot::default()));
        loaded.accepted = 2;
        loaded.last = None;
        assert_eq!(sentence(&loaded, None, &[]), "attached; configuration 2 is in force");
        let text = sentence(&loaded, None, &["eth0\nis gone".into(), "more".into()]);
        assert!(text.ends_with("not ready: eth0 is gone (and 1 more)"), "{text}");
    }
}

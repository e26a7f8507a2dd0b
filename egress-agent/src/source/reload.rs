//! From files to the snapshot in force: watch, compile, publish. Both roles use it.
//!
//! A configuration that can't be read or doesn't compile changes nothing: the last good one stays
//! in force, every problem is reported, and [`Loaded::current`] turns false until it is repaired.
//! With none accepted yet there is no snapshot, and everything external is denied.

mod merged;

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::SystemTime,
};

use aws_lc_rs::digest::{Context, SHA256};
use tokio::sync::{Notify, watch};

pub use self::merged::Merged;
use super::{Files, Origin, ReadError};
use crate::{
    config::{self, Discovered, Severity},
    policy::Snapshot,
    types::Held,
};

/// What is in force, and whether that is what the files say.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The last good configuration; `None` before the first one.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Whether the files, as last read, are what is in force.
    pub current: bool,
    /// Configurations accepted since the start.
    pub accepted: u64,
    /// Configurations refused since the start.
    pub rejected: u64,
    /// Which configuration `snapshot` was compiled from.
    pub held: Held,
    /// What became of the last one; `None` before the files were read.
    pub last: Option<Arc<LastReload>>,
}

/// The last configuration that was read, put in force or not.
#[derive(Clone, Debug)]
pub struct LastReload {
    /// When it was read.
    pub at: SystemTime,
    /// Whether it is in force.
    pub accepted: bool,
    /// Errors of one that isn't, warnings of one that is; at most [`MOST_PROBLEMS`], of which the
    /// last says how many are left out.
    pub problems: Vec<String>,
}

/// Problems of a reload that are kept for those who ask later. The log has all.
const MOST_PROBLEMS: usize = 50;

/// Keeps a snapshot equal to where the configuration comes from.
pub struct Reload {
    origin: Origin,
    loaded: watch::Sender<Loaded>,
    again: Arc<Notify>,
    /// What is in force before a configuration was accepted.
    inherited: Option<String>,
}

impl Reload {
    /// The receiver shows the state from the start, which is "nothing yet".
    #[must_use]
    pub fn new(origin: Origin) -> (Self, watch::Receiver<Loaded>) {
        let (loaded, receiver) = watch::channel(Loaded::default());
        (Self { origin, loaded, again: Arc::new(Notify::new()), inherited: None }, receiver)
    }

    /// Says, where a configuration is refused before one was accepted, that this stays in force.
    #[must_use]
    pub fn inheriting(self, inherited: Option<String>) -> Self {
        Self { inherited, ..self }
    }

    /// Notify it to read again at once (SIGHUP).
    #[must_use]
    pub fn again(&self) -> Arc<Notify> {
        Arc::clone(&self.again)
    }

    /// Reads, compiles and publishes until it is dropped.
    pub async fn run(mut self) {
        loop {
            // Dropping `next` half-way loses nothing: it remembers only what it returned.
            let again = tokio::select! {
                files = self.origin.next() => Some(files),
                () = self.again.notified() => None,
            };
            let files = match again {
                Some(files) => files,
                None => self.origin.again().await,
            };
            self.take(files);
        }
    }

    fn take(&self, files: Result<Arc<Files>, Vec<ReadError>>) {
        let at = SystemTime::now();
        let mut held = Held::default();
        let (accepted, problems) = match files {
            Ok(files) => {
                held = Held { digest: digest(&files), accepted_at: seconds(at) };
                compile(&files)
            }
            Err(errors) => {
                let problems = errors.iter().map(ToString::to_string).collect::<Vec<_>>();
                for problem in &problems {
                    tracing::error!("{problem}");
                }
                (None, problems)
            }
        };
        let last = LastReload { at, accepted: accepted.is_some(), problems: shortened(problems) };
        self.loaded.send_modify(|loaded| {
            loaded.current = accepted.is_some();
            loaded.last = Some(Arc::new(last));
            match accepted {
                Some(snapshot) => {
                    loaded.accepted += 1;
                    loaded.snapshot = Some(snapshot);
                    loaded.held = held;
                    tracing::info!(
                        "configuration {} is in force ({})",
                        loaded.accepted,
                        held.digest_text()
                    );
                }
                None => {
                    loaded.rejected += 1;
                    let stays = match (&loaded.snapshot, &self.inherited) {
                        (Some(_), _) => "the last good one stays in force".into(),
                        (None, Some(inherited)) => format!("{inherited} stays in force"),
                        (None, None) => {
                            "none was accepted yet, so everything external is denied".to_owned()
                        }
                    };
                    tracing::error!("the configuration is refused; {stays}");
                }
            }
        });
    }
}

/// Of what was read, in the order of paths: each file's name and text, with their lengths. Where the
/// directory is doesn't matter.
fn digest(files: &Files) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    for file in files.resources.iter().chain(&files.mesh) {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        for part in [name, &file.text] {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part.as_bytes());
        }
    }
    if files.discovered != Discovered::default() {
        let mut hasher = DefaultHasher::new();
        files.discovered.hash(&mut hasher);
        context.update(&hasher.finish().to_be_bytes());
    }
    let digest = context.finish();
    let mut first = [0; 16];
    first.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    first
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Compiles and reports; every problem is a message of its own.
fn compile(files: &Files) -> (Option<Arc<Snapshot>>, Vec<String>) {
    let (snapshot, problems) =
        match config::compile_in(&files.discovered, &files.resources, files.mesh.as_ref()) {
            Ok(compiled) => (Some(Arc::new(compiled.snapshot)), compiled.warnings),
            Err(problems) => (None, problems.0),
        };
    files.objects.judge(&problems, snapshot.is_some());
    for problem in &problems {
        match problem.severity {
            Severity::Warning => tracing::warn!("{problem}"),
            Severity::Refusal | Severity::Error => tracing::error!("{problem}"),
        }
    }
    (snapshot, problems.iter().map(ToString::to_string).collect())
}

fn shortened(mut problems: Vec<String>) -> Vec<String> {
    if problems.len() > MOST_PROBLEMS {
        let more = problems.len() - (MOST_PROBLEMS - 1);
        problems.truncate(MOST_PROBLEMS - 1);
        problems.push(format!("and {more} more; the agent's log has them all"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;
    use crate::{config::RawFile, source::Timing};

    const LONG: Duration = Duration::from_secs(20);

    async fn until(
        receiver: &mut watch::Receiver<Loaded>,
        what: impl FnMut(&Loaded) -> bool,
    ) -> Loaded {
        timeout(LONG, receiver.wait_for(what)).await.expect("in time").unwrap().clone()
    }

    #[tokio::test]
    async fn a_bad_change_leaves_the_last_good_one() {
        let dir = TempDir::new().unwrap();
        let mesh = dir.path().join("mesh.yaml");
        fs::write(&mesh, "outboundTrafficPolicy: {mode: ALLOW_ANY}\n").unwrap();
        let timing = Timing { quiet: Duration::from_millis(10), ..Timing::default() };
        let (reload, mut receiver) =
            Reload::new(Origin::directory(dir.path().into(), None, timing));
        let again = reload.again();
        assert!(receiver.borrow().snapshot.is_none());
        let running = tokio::spawn(reload.run());

        let first = until(&mut receiver, |loaded| loaded.accepted == 1).await;
        assert!(first.current);

        fs::write(&mesh, "outboundTrafficPolicy: {mode: SOMETIMES}\n").unwrap();
        let bad = until(&mut receiver, |loaded| loaded.rejected == 1).await;
        assert!(!bad.current);
        let last = bad.last.unwrap();
        assert!(!last.accepted && last.problems[0].contains("SOMETIMES"), "{last:?}");
        assert!(Arc::ptr_eq(&bad.snapshot.unwrap(), first.snapshot.as_ref().unwrap()));

        fs::remove_dir_all(dir.path()).unwrap();
        let gone = until(&mut receiver, |loaded| loaded.rejected > 1).await;
        assert!(Arc::ptr_eq(&gone.snapshot.unwrap(), first.snapshot.as_ref().unwrap()));

        fs::create_dir(dir.path()).unwrap();
        fs::write(&mesh, "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n").unwrap();
        let repaired = until(&mut receiver, |loaded| loaded.current).await;
        assert!(!Arc::ptr_eq(&repaired.snapshot.unwrap(), first.snapshot.as_ref().unwrap()));

        let before = receiver.borrow_and_update().accepted;
        again.notify_one();
        until(&mut receiver, |loaded| loaded.accepted > before).await;
        running.abort();
    }

    #[test]
    fn configurations_are_told_apart_by_their_files() {
        let files = |path: &str, text: &str| Files {
            resources: vec![RawFile { path: path.into(), text: text.into() }],
            ..Files::default()
        };
        let one = digest(&files("/a/x.yaml", "text"));
        assert_eq!(one, digest(&files("/b/x.yaml", "text")), "wherever the directory is");
        assert_ne!(one, digest(&files("/a/x.yaml", "texts")));
        assert_ne!(one, digest(&files("/a/y.yaml", "text")));
        assert_ne!(digest(&files("x.yam", "ltext")), digest(&files("x.yaml", "text")));
        let mesh = Files { mesh: files("mesh.yaml", "").resources.pop(), ..Files::default() };
        assert_ne!(digest(&mesh), digest(&Files::default()));
    }

    #[test]
    fn a_flood_of_problems_is_kept_in_part() {
        let problems = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(shortened(problems(MOST_PROBLEMS)), problems(MOST_PROBLEMS));
        let short = shortened(problems(1000));
        assert_eq!(short.len(), MOST_PROBLEMS);
        assert_eq!(short[MOST_PROBLEMS - 1], "and 951 more; the agent's log has them all");
    }

    #[tokio::test]
    async fn nothing_accepted_yet_is_no_snapshot() {
        let dir = TempDir::new().unwrap();
        let gone = dir.path().join("gone");
        let (reload, mut receiver) = Reload::new(Origin::directory(gone, None, Timing::default()));
        let running = tokio::spawn(reload.run());
        let loaded = until(&mut receiver, |loaded| loaded.rejected == 1).await;
        assert!(loaded.snapshot.is_none() && !loaded.current);
        running.abort();
    }
}

//! From files to the snapshot in force: watch, compile, publish. Both roles use it. Compiling has a thread
//! of its own, so that it delays nothing else.
//!
//! A configuration that can't be read or doesn't compile changes nothing: the last good one stays
//! in force, every problem is reported, and [`Loaded::current`] turns false until it is repaired. In a
//! cluster that is so for each object by itself ([`LastGood`]).
//! With none accepted yet there is no snapshot, and everything external is denied.

mod build;
mod digest;
mod merged;

use std::{io, sync::Arc, time::SystemTime};

use tokio::sync::{Notify, watch};

use self::build::{Builder, Built, Compilation, Compile};
pub use self::merged::Merged;
use super::{Files, Origin, ReadError};
use crate::{
    config::{self, LastGood, ListenerStatuses, Severity},
    policy::Snapshot,
    sys::retire::Retired,
    types::ConfigurationStamp,
};

/// What is in force, and whether that is what the files say.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The last good configuration; `None` before the first one.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Whether the files, as last read, are what is in force.
    pub current: bool,
    /// Configurations accepted since the start. One that is read again (SIGHUP) and is the same counts once.
    pub accepted: u64,
    /// Configurations refused since the start, counted in the same way.
    pub rejected: u64,
    /// Which configuration `snapshot` was compiled from.
    pub held: ConfigurationStamp,
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
    compile: Compile,
    loaded: watch::Sender<Loaded>,
    again: Arc<Notify>,
    /// What is in force before a configuration was accepted.
    inherited: Option<String>,
}

impl Reload {
    /// The receiver shows the state from the start, which is "nothing yet".
    #[must_use]
    pub fn new(origin: Origin) -> (Self, watch::Receiver<Loaded>) {
        let mut last = LastGood::default();
        Self::compiling(origin, Box::new(move |files| compile(&mut last, files)))
    }

    fn compiling(origin: Origin, compile: Compile) -> (Self, watch::Receiver<Loaded>) {
        let (loaded, receiver) = watch::channel(Loaded::default());
        let again = Arc::new(Notify::new());
        (Self { origin, compile, loaded, again, inherited: None }, receiver)
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

    /// Reads, compiles and publishes until the future is dropped.
    ///
    /// # Errors
    /// There is no thread to compile on.
    pub fn start(self) -> io::Result<impl Future<Output = ()> + Send> {
        let Self { origin, compile, loaded, again, inherited } = self;
        let builder = Builder::start(compile)?;
        let publisher = Publisher { loaded, inherited, refused: None, replaced: Retired::start()? };
        Ok(run(origin, again, builder, publisher))
    }
}

async fn run(
    mut origin: Origin,
    again: Arc<Notify>,
    mut builder: Builder,
    mut publisher: Publisher,
) {
    let mut read_again = false;
    // Of the last attempt to read, which is told of after what was read before it.
    let mut unread: Option<Vec<ReadError>> = None;
    loop {
        // Dropping the reading half-way loses nothing: the origin remembers only what it returned.
        let reading = async {
            match read_again {
                true => origin.again().await,
                false => origin.next().await,
            }
        };
        tokio::select! {
            read = reading => {
                read_again = false;
                match read {
                    Ok(files) => {
                        unread = None;
                        builder.submit(files);
                    }
                    Err(errors) => unread = Some(errors),
                }
            }
            () = again.notified() => read_again = true,
            built = builder.next() => publisher.built(built),
        }
        if let Some(errors) = unread.take_if(|_| builder.is_idle()) {
            publisher.unread(&errors);
        }
    }
}

/// Who tells everybody what is in force.
struct Publisher {
    loaded: watch::Sender<Loaded>,
    inherited: Option<String>,
    /// What was refused last, unless something was accepted since.
    refused: Option<RefusedInput>,
    replaced: Retired,
}

/// What tells one refused configuration from another.
#[derive(PartialEq, Eq)]
enum RefusedInput {
    /// The digest of its files.
    Files([u8; 16]),
    /// Why they can't be read.
    Unreadable(Vec<String>),
}

impl Publisher {
    /// Publishes what was compiled.
    fn built(&mut self, built: Built) {
        let Built { digest, read_at, compilation, .. } = built;
        let Compilation { snapshot, problems } = compilation;
        let last =
            LastReload { at: read_at, accepted: snapshot.is_some(), problems: shortened(problems) };
        match snapshot {
            Some(snapshot) => {
                let accepted_at = seconds(read_at);
                let held = ConfigurationStamp { digest, accepted_at, generation: 0 };
                self.accept(last, snapshot, held);
            }
            None => self.refuse(last, RefusedInput::Files(digest)),
        }
    }

    /// Publishes that the configuration can't be read.
    fn unread(&mut self, errors: &[ReadError]) {
        let problems: Vec<_> = errors.iter().map(ToString::to_string).collect();
        for problem in &problems {
            tracing::error!("{problem}");
        }
        let at = SystemTime::now();
        let last = LastReload { at, accepted: false, problems: shortened(problems.clone()) };
        self.refuse(last, RefusedInput::Unreadable(problems));
    }

    /// Puts a snapshot in force. What is in force already, and was only read again, keeps its number and its time.
    fn accept(&mut self, last: LastReload, snapshot: Arc<Snapshot>, held: ConfigurationStamp) {
        self.refused = None;
        let mut replaced = None;
        self.loaded.send_modify(|loaded| {
            let is_same = loaded.current && loaded.held.digest == held.digest;
            loaded.current = true;
            loaded.last = Some(Arc::new(last));
            replaced = loaded.snapshot.replace(snapshot);
            let digest = held.digest_text();
            if is_same {
                let number = loaded.accepted;
                tracing::info!(
                    "read again without a change; configuration {number} stays in force ({digest})"
                );
                return;
            }
            loaded.accepted += 1;
            loaded.held = ConfigurationStamp { generation: loaded.accepted, ..held };
            tracing::info!("configuration {} is in force ({digest})", loaded.accepted);
        });
        if let Some(replaced) = replaced {
            self.replaced.add(replaced);
        }
    }

    /// Leaves in force what is.
    fn refuse(&mut self, last: LastReload, input: RefusedInput) {
        let is_same = self.refused.as_ref() == Some(&input);
        self.refused = Some(input);
        self.loaded.send_modify(|loaded| {
            loaded.current = false;
            loaded.last = Some(Arc::new(last));
            loaded.rejected += u64::from(!is_same);
            let stays = match (&loaded.snapshot, &self.inherited) {
                (Some(_), _) => "the last good one stays in force".into(),
                (None, Some(inherited)) => format!("{inherited} stays in force"),
                (None, None) => {
                    "none was accepted yet, so everything external is denied".to_owned()
                }
            };
            tracing::error!("the configuration is refused; {stays}");
        });
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Compiles and reports; every problem is a message of its own.
fn compile(last: &mut LastGood, files: &Files) -> Compilation {
    tracing::info!("compiling a configuration of {} files", files.resources.len());
    let Files { discovered, resources, mesh, .. } = files;
    // Files of a directory are one person's, and put in force together; objects of a cluster are many people's.
    let compiled = match discovered.gateways {
        None => config::compile(resources, mesh.as_ref()),
        Some(_) => last.compile(discovered, resources, mesh.as_ref()),
    };
    let (snapshot, problems, listeners) = match compiled {
        Ok(compiled) => {
            let mut snapshot = compiled.snapshot;
            snapshot.revisions = Arc::clone(files.objects.revisions());
            (Some(Arc::new(snapshot)), compiled.warnings, compiled.listeners)
        }
        Err(problems) => (None, problems.0, ListenerStatuses::new()),
    };
    files.objects.judge(&problems, snapshot.is_some(), &listeners);
    for problem in &problems {
        match problem.severity {
            Severity::Warning => tracing::warn!("{problem}"),
            Severity::Refusal | Severity::Error => tracing::error!("{problem}"),
        }
    }
    Compilation { snapshot, problems: problems.iter().map(ToString::to_string).collect() }
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
    use std::{fs, sync::mpsc as threads, time::Duration};

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::{digest::digest, *};
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
        let running = tokio::spawn(reload.start().unwrap());

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
        let snapshot = repaired.snapshot.as_ref().unwrap();
        assert!(!Arc::ptr_eq(snapshot, first.snapshot.as_ref().unwrap()));
        let repaired_at = repaired.last.clone().unwrap();

        // Read again, it is the same configuration: it keeps its number.
        receiver.borrow_and_update();
        again.notify_one();
        let same = until(&mut receiver, |loaded| !is_of(loaded, &repaired_at)).await;
        assert_eq!((same.accepted, same.rejected), (repaired.accepted, repaired.rejected));
        assert_eq!(same.held, repaired.held);
        running.abort();
    }

    fn is_of(loaded: &Loaded, last: &Arc<LastReload>) -> bool {
        loaded.last.as_ref().is_some_and(|of| Arc::ptr_eq(of, last))
    }

    /// A change and `systemctl reload` after it are one configuration, good or bad: what inotify saw is read again.
    #[tokio::test]
    async fn what_is_read_again_without_a_change_counts_once() {
        let dir = TempDir::new().unwrap();
        let mesh = dir.path().join("mesh.yaml");
        let timing = Timing { quiet: Duration::from_millis(10), ..Timing::default() };
        let (reload, mut receiver) =
            Reload::new(Origin::directory(dir.path().into(), None, timing));
        let again = reload.again();
        fs::write(&mesh, ALLOW).unwrap();
        let running = tokio::spawn(reload.start().unwrap());
        let mut seen = until(&mut receiver, |loaded| loaded.accepted == 1).await;
        let steps =
            [(None, 1, 0), (Some("direct: sometimes\n"), 1, 1), (None, 1, 1), (Some(ALLOW), 2, 1)];
        for (text, accepted, rejected) in steps.into_iter().chain([(None, 2, 1)]) {
            let before = seen.last.clone().unwrap();
            match text {
                Some(text) => fs::write(&mesh, text).unwrap(),
                None => again.notify_one(),
            }
            seen = until(&mut receiver, |loaded| !is_of(loaded, &before)).await;
            assert_eq!((seen.accepted, seen.rejected), (accepted, rejected), "{text:?}");
            assert_eq!(seen.held.generation, accepted);
        }
        // The twin: a directory that is gone is another refusal, and only one.
        fs::remove_dir_all(dir.path()).unwrap();
        let gone = until(&mut receiver, |loaded| loaded.rejected > 1).await;
        let before = gone.last.clone().unwrap();
        again.notify_one();
        let still = until(&mut receiver, |loaded| !is_of(loaded, &before)).await;
        assert_eq!(still.rejected, gone.rejected);
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
        let running = tokio::spawn(reload.start().unwrap());
        let loaded = until(&mut receiver, |loaded| loaded.rejected == 1).await;
        assert!(loaded.snapshot.is_none() && !loaded.current);
        running.abort();
    }

    /// A compiler that waits for each go-ahead, and says what it begins with.
    struct Held {
        begun: tokio::sync::mpsc::UnboundedReceiver<String>,
        go: threads::Sender<()>,
    }

    impl Held {
        fn new() -> (Self, Compile) {
            let (begin, begun) = tokio::sync::mpsc::unbounded_channel();
            let (go, gone) = threads::channel();
            let compile = move |files: &Files| {
                begin.send(text(files)).ok();
                // Not for ever: a test that fails ends the sender, or waits no longer than this.
                gone.recv_timeout(LONG * 2).ok();
                compile(&mut LastGood::default(), files)
            };
            (Self { begun, go }, Box::new(compile))
        }

        async fn started(&mut self) -> String {
            timeout(LONG, self.begun.recv()).await.expect("in time").unwrap()
        }
    }

    fn text(files: &Files) -> String {
        files.mesh.as_ref().map(|mesh| mesh.text.clone()).unwrap_or_default()
    }

    fn mesh(text: &str) -> Arc<Files> {
        let mesh = RawFile { path: "mesh.yaml".into(), text: text.into() };
        Arc::new(Files { mesh: Some(mesh), ..Files::default() })
    }

    const ALLOW: &str = "outboundTrafficPolicy: {mode: ALLOW_ANY}\n";
    const DENY: &str = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n";

    #[tokio::test]
    async fn everything_else_goes_on_while_a_configuration_is_compiled() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("mesh.yaml"), ALLOW).unwrap();
        let timing = Timing { quiet: Duration::from_millis(10), ..Timing::default() };
        let origin = Origin::directory(dir.path().into(), None, timing);
        let (mut held, compile) = Held::new();
        let (reload, mut receiver) = Reload::compiling(origin, compile);
        let again = reload.again();
        let running = tokio::spawn(reload.start().unwrap());
        held.started().await;
        held.go.send(()).unwrap();
        let first = until(&mut receiver, |loaded| loaded.accepted == 1).await;

        // The thread of this runtime is that of the node: what it serves is served while the compiler
        // is held.
        again.notify_one();
        held.started().await;
        let served = tokio::spawn(async { 7 });
        assert_eq!(timeout(LONG, served).await.unwrap().unwrap(), 7);
        let now = receiver.borrow().clone();
        assert_eq!(now.accepted, 1);
        assert!(Arc::ptr_eq(&now.snapshot.unwrap(), first.snapshot.as_ref().unwrap()));

        // The directory is gone meanwhile: what was read before counts first.
        fs::remove_dir_all(dir.path()).unwrap();
        again.notify_one();
        // It may have been read while it was going.
        (0..10).for_each(|_| held.go.send(()).unwrap());
        let gone = until(&mut receiver, |loaded| loaded.rejected == 1).await;
        let published = gone.snapshot.unwrap();
        assert!(!gone.current && !Arc::ptr_eq(&published, first.snapshot.as_ref().unwrap()));
        running.abort();
    }

    #[tokio::test]
    async fn an_end_does_not_wait_for_the_compiler() {
        let dir = TempDir::new().unwrap();
        let origin = Origin::directory(dir.path().into(), None, Timing::default());
        let (mut held, compile) = Held::new();
        let (reload, receiver) = Reload::compiling(origin, compile);
        let running = tokio::spawn(reload.start().unwrap());
        held.started().await;
        running.abort();
        assert!(timeout(LONG, running).await.unwrap().unwrap_err().is_cancelled());
        assert!(receiver.has_changed().is_err(), "nobody publishes now");
        // The compiler was never told to go on; now its thread ends.
        held.go.send(()).unwrap();
        assert!(timeout(LONG, held.begun.recv()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn the_last_configuration_wins() {
        let (mut held, compile) = Held::new();
        let mut builder = Builder::start(compile).unwrap();
        builder.submit(mesh("one: 1\n"));
        assert_eq!(held.started().await, "one: 1\n");
        builder.submit(mesh("two: 2\n"));
        builder.submit(mesh(DENY));
        assert!(!builder.is_idle());
        held.go.send(()).unwrap();
        held.go.send(()).unwrap();
        let built = timeout(LONG, builder.next()).await.unwrap();
        assert_eq!(built.digest, digest(&mesh(DENY)), "the first is outdated");
        assert!(built.compilation.snapshot.is_some() && builder.is_idle());
        assert_eq!(held.started().await, DENY, "the second was never compiled");
    }

    #[tokio::test]
    async fn changes_without_end_do_not_keep_everything_out_of_force() {
        let (mut held, compile) = Held::new();
        let mut builder = Builder::start(compile).unwrap();
        builder.submit(mesh("number: 0\n"));
        for number in 1..=5 {
            held.started().await;
            builder.submit(mesh(&format!("number: {number}\n")));
            held.go.send(()).unwrap();
        }
        // Each was outdated before it was compiled; every second one counts all the same.
        for number in [1, 3] {
            let built = timeout(LONG, builder.next()).await.unwrap();
            assert_eq!(built.digest, digest(&mesh(&format!("number: {number}\n"))));
        }
        held.started().await;
        held.go.send(()).unwrap();
        let last = timeout(LONG, builder.next()).await.unwrap();
        assert_eq!(last.digest, digest(&mesh("number: 5\n")));
    }

    #[tokio::test]
    async fn a_compiler_that_panics_refuses_one_configuration() {
        let mut good = false;
        let compile = move |files: &Files| {
            assert!(std::mem::replace(&mut good, true), "a bug");
            compile(&mut LastGood::default(), files)
        };
        let mut builder = Builder::start(Box::new(compile)).unwrap();
        builder.submit(mesh(ALLOW));
        let refused = timeout(LONG, builder.next()).await.unwrap().compilation;
        assert!(refused.snapshot.is_none() && refused.problems[0].contains("panicked"));
        builder.submit(mesh(ALLOW));
        let next = timeout(LONG, builder.next()).await.unwrap().compilation;
        assert!(next.snapshot.is_some(), "{:?}", next.problems);
    }
}

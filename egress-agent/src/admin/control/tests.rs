use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::{
    sys::listening::Sockets,
    telemetry::{
        FlowLog,
        flow_tests::{dropped, redirected},
    },
};

const LONG: Duration = Duration::from_secs(20);

fn report() -> AgentReport {
    AgentReport::Gateway(GatewayReport {
        warnings: Vec::new(),
        process: Process { pid: 7, version: "1".into(), since: SystemTime::UNIX_EPOCH },
        state: "LIVE".into(),
        configuration: Configuration {
            directory: "/etc/egress/config".into(),
            in_force: true,
            current: true,
            accepted: 1,
            rejected: 0,
            last_reload: None,
        },
        capture: "sk-lookup".into(),
        ports: [15000, 15021, 15090],
        workers: 2,
        connections: 0,
        requests: 0,
        tunnel: None,
        limits: Vec::new(),
        problems: Vec::new(),
    })
}

struct Bench {
    dir: TempDir,
    flows: Arc<FlowLog>,
    lost: Arc<AtomicU64>,
    upgrade: Option<UpgradeRequests>,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            flows: Arc::default(),
            lost: Arc::default(),
            upgrade: None,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("run/agent.sock")
    }

    fn listen(&self) -> anyhow::Result<Option<Listening>> {
        self.listen_for(None)
    }

    fn listen_for(&self, group: Option<&str>) -> anyhow::Result<Option<Listening>> {
        let control = Some(ControlPath::Path(self.path()));
        let control_group = group.map(|group| group.parse().unwrap());
        listen(&ControlArgs { control, control_group }, "/nowhere", &mut Sockets::default())
    }

    fn serving(&self) -> Serving {
        let lost = Arc::clone(&self.lost);
        Serving {
            standing: Box::new(|pod: &str, namespace| match (pod, namespace) {
                ("uid", 7) => Ok(()),
                other => Err(format!("not yet: {other:?}")),
            }),
            status: Box::new(report),
            snapshot: Box::new(|| None),
            flows: Arc::clone(&self.flows),
            lost: Box::new(move || lost.load(Ordering::Relaxed)),
            upgrade: self.upgrade.clone(),
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn next(stream: &mut Stream) -> Option<Line> {
    timeout(LONG, stream.next()).await.expect("in time").unwrap()
}

#[tokio::test]
async fn a_status_is_asked_for_and_answered() {
    let bench = Bench::new();
    let control = bench.listen().unwrap().unwrap().serve(bench.serving()).unwrap();
    assert_eq!((mode(&bench.path()), mode(bench.path().parent().unwrap())), (0o600, 0o700));
    assert_eq!(ask_status(&bench.path()).await.unwrap(), report());
    drop(control);
    assert!(!bench.path().exists(), "it cleans up after itself");
    assert!(matches!(ask_status(&bench.path()).await, Err(AskError::Nobody)));
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let bench = Bench::new();
    // Dropping a listener leaves its file, as a killed agent does.
    drop(bench.listen().unwrap());
    assert!(bench.path().exists());
    let first = bench.listen().unwrap().unwrap().serve(bench.serving()).unwrap();
    let error = format!("{:#}", bench.listen().unwrap_err());
    assert!(
        error.contains("another agent listens there") && error.contains("--control"),
        "{error}"
    );
    assert_eq!(ask_status(&bench.path()).await.unwrap(), report());
    drop(first);
    fs::write(bench.path(), "precious").unwrap();
    assert!(bench.listen().is_err());
    assert_eq!(fs::read_to_string(bench.path()).unwrap(), "precious");
    // Without the option a socket that can't be had is no error.
    let usual = bench.path().to_string_lossy().into_owned();
    assert!(listen(&ControlArgs::default(), &usual, &mut Sockets::default()).unwrap().is_none());
    let off = ControlArgs { control: Some(ControlPath::Off), ..ControlArgs::default() };
    assert!(listen(&off, &usual, &mut Sockets::default()).unwrap().is_none());
}

#[tokio::test]
async fn a_group_is_let_in_or_nobody_is() {
    use std::os::unix::fs::MetadataExt as _;
    let bench = Bench::new();
    // A group that the user of this test is in: without root, no other can be given.
    let own = rustix::process::getegid().as_raw().to_string();
    let control = bench.listen_for(Some(&own)).unwrap().unwrap().serve(bench.serving()).unwrap();
    assert_eq!((mode(&bench.path()), mode(bench.path().parent().unwrap())), (0o660, 0o711));
    assert_eq!(fs::metadata(bench.path()).unwrap().gid().to_string(), own);
    assert_eq!(ask_status(&bench.path()).await.unwrap(), report());
    drop(control);
    // A group that isn't there opens nothing, neither to it nor to others.
    let error = format!("{:#}", bench.listen_for(Some("no-such-group")).unwrap_err());
    assert!(error.contains("groupadd"), "{error}");
    assert!(!bench.path().exists());
    let usual = bench.path().to_string_lossy().into_owned();
    let group = Some("no-such-group".parse().unwrap());
    assert!(
        listen(
            &ControlArgs { control: None, control_group: group },
            &usual,
            &mut Sockets::default()
        )
        .is_err()
    );
}

#[tokio::test]
async fn history_comes_first_then_what_happens() {
    let bench = Bench::new();
    bench.flows.push(dropped());
    bench.lost.store(5, Ordering::Relaxed);
    let _control = bench.listen().unwrap().unwrap().serve(bench.serving()).unwrap();

    let mut once = open_flows(&bench.path(), false).await.unwrap();
    assert_eq!(next(&mut once).await, Some(Line::Lost(5)));
    assert_eq!(next(&mut once).await, Some(Line::Flow(Box::new(dropped()))));
    assert_eq!(next(&mut once).await, Some(Line::Live));
    assert_eq!(next(&mut once).await, None);

    let mut follower = open_flows(&bench.path(), true).await.unwrap();
    while next(&mut follower).await != Some(Line::Live) {}
    bench.flows.push(redirected());
    assert_eq!(next(&mut follower).await, Some(Line::Flow(Box::new(redirected()))));
    bench.lost.store(17, Ordering::Relaxed);
    assert_eq!(next(&mut follower).await, Some(Line::Lost(12)));
}

#[tokio::test]
async fn followers_are_bounded_and_never_shut_out_status() {
    let bench = Bench::new();
    let _control = bench.listen().unwrap().unwrap().serve(bench.serving()).unwrap();
    let mut followers = Vec::new();
    for _ in 0..16 {
        followers.push(open_flows(&bench.path(), true).await.unwrap());
    }
    let error = open_flows(&bench.path(), true).await.unwrap_err().to_string();
    assert!(error.contains("503") && error.contains("too many"), "{error}");
    assert_eq!(ask_status(&bench.path()).await.unwrap(), report());
    // One leaves: its place is free as soon as the server has noticed.
    followers.pop();
    timeout(LONG, async {
        while open_flows(&bench.path(), true).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a place becomes free");
}

#[test]
fn the_option_is_read() {
    assert_eq!("off".parse(), Ok(ControlPath::Off));
    assert_eq!("/a/b".parse(), Ok(ControlPath::Path("/a/b".into())));
    assert!("".parse::<ControlPath>().is_err());
}

#[tokio::test]
async fn an_upgrade_is_answered_once_it_is_done_and_refused_where_there_is_none() {
    let bench = Bench::new();
    let control = bench.listen().unwrap().unwrap().serve(bench.serving()).unwrap();
    let none = ask_upgrade(&bench.path()).await.unwrap_err();
    assert!(none.to_string().contains("only a gateway"), "{none}");
    drop(control);

    let (requests, mut asked) = tokio::sync::mpsc::channel(1);
    let bench = Bench { upgrade: Some(requests), ..Bench::new() };
    let _control = bench.listen().unwrap().unwrap().serve(bench.serving()).unwrap();
    let done = UpgradeReport { pid: 8, version: "2".into(), replaced: 7, drain_seconds: 900 };
    let answers = [
        Ok(done.clone()),
        Err(UpgradeRefusal::Refused("under way".into())),
        Err(UpgradeRefusal::Failed("exit status: 7".into())),
    ];
    let role = tokio::spawn(async move {
        for answer in answers {
            asked.recv().await.unwrap().send(answer).unwrap();
        }
    });
    assert_eq!(ask_upgrade(&bench.path()).await.unwrap(), done);
    let refused = ask_upgrade(&bench.path()).await;
    assert!(matches!(&refused, Err(AskError::Refused(why)) if why == "under way"), "{refused:?}");
    let failed = ask_upgrade(&bench.path()).await;
    assert!(matches!(&failed, Err(AskError::Failed(why)) if why == "exit status: 7"), "{failed:?}");
    role.await.unwrap();
    let ending = ask_upgrade(&bench.path()).await;
    assert!(matches!(&ending, Err(AskError::Refused(_))), "{ending:?}");
}

/// A process that has nothing to drain ends at once when another one has taken over.
#[tokio::test]
async fn who_asked_for_an_upgrade_has_the_answer_before_the_process_ends() {
    let (requests, mut asked) = tokio::sync::mpsc::channel(1);
    let bench = Bench { upgrade: Some(requests), ..Bench::new() };
    let done = UpgradeReport { pid: 8, version: "2".into(), replaced: 7, drain_seconds: 900 };
    for _ in 0..50 {
        let control = bench.listen().unwrap().unwrap().serve(bench.serving()).unwrap();
        let path = bench.path();
        let client = tokio::spawn(async move { ask_upgrade(&path).await });
        let answer = asked.recv().await.unwrap();
        let report = done.clone();
        let ending = tokio::task::spawn_blocking(move || {
            answer.send(Ok(report)).unwrap();
            drop(control);
        });
        ending.await.unwrap();
        assert_eq!(client.await.unwrap().unwrap(), done);
    }
}

#[tokio::test]
async fn a_socket_that_is_left_is_served_by_the_process_that_inherited_it() {
    let bench = Bench::new();
    let mut sockets = Sockets::default();
    let control = Some(ControlPath::Path(bench.path()));
    let args = ControlArgs { control, ..ControlArgs::default() };
    let first = listen(&args, "/nowhere", &mut sockets).unwrap().unwrap();
    let mut first = first.serve(bench.serving()).unwrap();
    let mut following = open_flows(&bench.path(), true).await.unwrap();

    let mut inherited = Sockets::inheriting(sockets.into_open());
    let second = listen(&args, "/nowhere", &mut inherited).unwrap().unwrap();
    let _second = second.serve(bench.serving()).unwrap();
    first.leave();
    for _ in 0..20 {
        assert_eq!(ask_status(&bench.path()).await.unwrap(), report());
    }
    // Who is connected is served on, and the end of the first leaves the socket where it is.
    bench.flows.push(dropped());
    assert!(next(&mut following).await.is_some());
    drop(first);
    assert_eq!(ask_status(&bench.path()).await.unwrap(), report());
}

#[tokio::test]
async fn a_pod_stands_or_it_says_why_not() {
    let bench = Bench::new();
    let _control = bench.listen().unwrap().unwrap().serve(bench.serving()).unwrap();
    assert!(ask_standing(&bench.path(), "uid", 7).await.is_ok());
    let why = ask_standing(&bench.path(), "uid", 8).await.unwrap_err();
    assert!(
        matches!(&why, AskError::Refused(why) if why.contains("not yet: (\"uid\", 8)")),
        "{why}"
    );
}

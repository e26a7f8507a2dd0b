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
use crate::telemetry::{
    FlowLog,
    flow_tests::{dropped, redirected},
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
}

impl Bench {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), flows: Arc::default(), lost: Arc::default() }
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
        listen(&ControlArgs { control, control_group }, "/nowhere")
    }

    fn serving(&self) -> Serving {
        let lost = Arc::clone(&self.lost);
        Serving {
            status: Box::new(report),
            snapshot: Box::new(|| None),
            flows: Arc::clone(&self.flows),
            lost: Box::new(move || lost.load(Ordering::Relaxed)),
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
    assert!(listen(&ControlArgs::default(), &usual).unwrap().is_none());
    let off = ControlArgs { control: Some(ControlPath::Off), ..ControlArgs::default() };
    assert!(listen(&off, &usual).unwrap().is_none());
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
    assert!(listen(&ControlArgs { control: None, control_group: group }, &usual).is_err());
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

//! What one workload does costs no other one its egress: a workload floods, and meanwhile every
//! request of a well-behaved one is answered in whole, and its node finds the gateway healthy.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use egress_tests::{
    cluster::Cluster,
    flood,
    pair::{SILENT, mesh, routes},
    plan,
    process::{Place, Process},
    testbed::Testbed,
    wait::{SOON, START, until, until_is},
};

/// One flood at a time: another one would take the machine from who is observed.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // A test that failed leaves nothing behind.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Requests of the well-behaved workload during a flood.
const REQUESTS: usize = 40;
/// The gateway's own ports.
const OWN_PORTS: [(u16, &str); 2] = [(15021, "healthz/ready"), (15090, "stats/prometheus")];
/// The gateway's address of the other family, which no endpoint names.
const OTHER: &str = "fd00:10:10::11";
/// Its addresses on a second interface.
const SECOND: [&str; 2] = ["10.244.77.11", "fd00:10:77::11"];

fn flood(testbed: &Testbed, from: &Place, name: &str, args: &[&str]) -> Process {
    flood::start(testbed, from, name, args).unwrap()
}

/// A request of the well-behaved workload: its status and how many bytes came.
fn request(testbed: &Testbed) -> String {
    let written = "%{http_code} %{size_download}";
    let url = "http://www.example.com/plain";
    testbed.curl(&["-o", "/dev/null", "-w", written, url]).unwrap().stdout
}

/// What the node and the well-behaved workload see while somebody floods: every answer, counted.
fn observe(testbed: &Testbed) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    let health = format!("http://{}:15021/healthz/ready", plan::GATEWAYS[0]);
    for _ in 0..REQUESTS {
        *seen.entry(format!("request {}", request(testbed))).or_default() += 1;
        let code =
            testbed.app().run("curl", &["-s", "-m5", "-o/dev/null", "-w%{http_code}", &health]);
        *seen.entry(format!("health {}", code.unwrap().stdout)).or_default() += 1;
    }
    seen
}

/// What it should be.
fn all_well(whole: &str) -> BTreeMap<String, usize> {
    [(format!("request {whole}"), REQUESTS), ("health 200".to_owned(), REQUESTS)].into()
}

/// A testbed with a second pod, and how a whole answer looks.
struct Site {
    testbed: Testbed,
    cluster: Cluster,
    whole: String,
    node: Process,
    gateway: Process,
    _alone: MutexGuard<'static, ()>,
}

/// What the gateway may take from its host.
enum Within<'a> {
    Everything,
    /// So many descriptors.
    Descriptors(u32),
    /// The memory of this cgroup.
    Memory(&'a MemoryCgroup),
}

/// A cgroup with a bound on memory. It is gone with the value.
struct MemoryCgroup {
    dir: PathBuf,
    /// The files with the bound and with how often it was reached.
    limit: &'static str,
    failures: &'static str,
}

impl MemoryCgroup {
    fn new(bytes: u64) -> Self {
        let name = format!("egress-test-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (dir, limit, failures) = if v1.is_dir() {
            (v1.join(name), "memory.limit_in_bytes", "memory.oom_control")
        } else {
            // It may be asked for already, which is no failure.
            fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").ok();
            (Path::new("/sys/fs/cgroup").join(name), "memory.max", "memory.events")
        };
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(limit), bytes.to_string()).unwrap();
        Self { dir, limit, failures }
    }

    /// How many of its processes the kernel has killed.
    fn killed(&self) -> u64 {
        let text = fs::read_to_string(self.dir.join(self.failures)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap();
        line.trim().parse().unwrap()
    }

    fn limit(&self) -> u64 {
        fs::read_to_string(self.dir.join(self.limit)).unwrap().trim().parse().unwrap()
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // Its processes have ended, and the kernel may still be busy with that.
        until(SOON, "the cgroup to be empty", || fs::remove_dir(&self.dir).ok()).ok();
    }
}

impl Site {
    fn new(descriptors: Option<u32>, more: &[&str]) -> Self {
        Self::within(&descriptors.map_or(Within::Everything, Within::Descriptors), more)
    }

    fn within(within: &Within<'_>, more: &[&str]) -> Self {
        let alone = alone();
        let testbed = Testbed::test(1).unwrap();
        let cluster = Cluster::grow(&testbed).unwrap();
        testbed.apply_mesh(&mesh()).unwrap();
        testbed.apply("routes.yaml", &routes()).unwrap();
        let more: Vec<String> = more.iter().map(|arg| (*arg).to_owned()).collect();
        let wrapper = match within {
            Within::Everything => None,
            Within::Descriptors(limit) => {
                Some(("prlimit", vec![format!("--nofile={limit}:{limit}")]))
            }
            Within::Memory(cgroup) => {
                let enter = "echo $$ > \"$0\"/cgroup.procs && exec \"$@\"".to_owned();
                let dir = cgroup.dir.to_string_lossy().into_owned();
                Some(("sh", vec!["-c".to_owned(), enter, dir]))
            }
        };
        let gateway = match wrapper {
            None => testbed.start_gateway_with(0, &more).unwrap(),
            Some((program, own)) => {
                let agent = testbed.agent().to_string_lossy().into_owned();
                let gateway = testbed.gateway_args_with(&testbed.gateway_control(0));
                let args = [own, vec![agent], gateway, more].concat();
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let place = testbed.gateway(0);
                let gateway = place.start(&testbed.dir(), "gateway1", program, &args).unwrap();
                until(START, "the gateway to be ready", || {
                    let url = "http://localhost:15021/healthz/ready";
                    place.run("curl", &["-sf", url]).ok()?.ok().then_some(())
                })
                .unwrap();
                gateway
            }
        };
        let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
        let asked = || request(&testbed);
        let whole = until_is(SOON, "the allowed way", asked, |seen| seen.starts_with("200 "));
        let whole = whole.unwrap();
        Self { testbed, cluster, whole, node, gateway, _alone: alone }
    }

    fn stat(&self, name: &str) -> u64 {
        self.testbed.stat(0, &format!("egress.limit.{name}")).unwrap()
    }

    /// Memory of the gateway that no file backs, in KiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.gateway.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// The well-behaved workload lost nothing, and the node never doubted the gateway.
    fn undisturbed(&self) {
        assert_eq!(observe(&self.testbed), all_well(&self.whole), "{}", self.gateway.stderr());
        let doubts = self.node.stderr();
        let doubts: Vec<_> = doubts.lines().filter(|line| line.contains("unhealthy")).collect();
        assert_eq!(doubts, Vec::<&str>::new());
    }
}

/// What curl says of one of the gateway's own ports: a status, or its own exit code.
fn own_port(from: &Place, address: &str, (port, path): (u16, &str)) -> String {
    let url = format!("http://{address}:{port}/{path}");
    let done =
        from.run("curl", &["-s", "-g", "-m5", "-o/dev/null", "-w%{http_code}", &url]).unwrap();
    if done.ok() { done.stdout } else { format!("curl: ({})", done.code) }
}

/// Gives the gateway's host a second interface, with addresses of its own that the other hosts have routes to.
fn second_interface(site: &Site) {
    let gateway = &site.testbed.gateway(0).ns;
    gateway.ip(&["link", "add", "lan1", "type", "veth", "peer", "name", "lan2"]).unwrap();
    for end in ["lan1", "lan2"] {
        gateway.ip(&["link", "set", end, "up"]).unwrap();
    }
    gateway.ip(&["addr", "add", &format!("{}/24", SECOND[0]), "dev", "lan1"]).unwrap();
    gateway.ip(&["addr", "add", &format!("{}/64", SECOND[1]), "dev", "lan1", "nodad"]).unwrap();
    for host in [site.testbed.app(), &site.cluster.remote] {
        for (address, via) in SECOND.into_iter().zip([plan::GATEWAYS[0], OTHER]) {
            let family = if via.contains(':') { "-6" } else { "-4" };
            host.ns.ip(&[family, "route", "add", address, "via", via]).unwrap();
        }
    }
}

/// Curl saw a reset: right after the handshake (7), or once it had sent its request.
fn assert_reset(seen: &str) {
    assert!(["curl: (7)", "curl: (52)", "curl: (56)"].contains(&seen), "{seen}");
}

#[test]
fn the_gateways_own_ports_are_for_no_workload_at_any_address() {
    let site = Site::new(None, &[]);
    let other = format!("[{OTHER}]");
    second_interface(&site);
    let second_v6 = format!("[{}]", SECOND[1]);
    // No node knows these addresses.
    let unknown = [other.as_str(), SECOND[0], &second_v6];
    for port in OWN_PORTS {
        // The node, and a host that is no workload of the mesh.
        for from in [site.testbed.app(), &site.cluster.remote] {
            for address in [plan::GATEWAYS[0]].iter().chain(&unknown) {
                assert_eq!(own_port(from, address, port), "200", "{port:?} at {address}");
            }
        }
        for from in [site.testbed.pod(), &site.testbed.outside_cgroup(), &site.cluster.neighbour] {
            // So the gateway itself refuses, and counts it below.
            unknown.iter().for_each(|address| assert_reset(&own_port(from, address, port)));
        }
    }
    // Only the gateway's own host reaches the administrator's port.
    for address in [plan::GATEWAYS[0]].iter().chain(&unknown) {
        for from in [site.testbed.pod(), &site.testbed.outside_cgroup(), site.testbed.app()] {
            let seen = own_port(from, address, (15000, "stats"));
            assert!(seen.starts_with("curl: "), "{seen} at {address}");
        }
    }
    let refused = |endpoint: &str| {
        let metrics = site.testbed.admin(0, "stats/prometheus").unwrap();
        let name =
            format!("egress_admin_refused_total{{endpoint=\"{endpoint}\",cause=\"source\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap()
    };
    assert_eq!((refused("health"), refused("metrics")), (9, 9));

    // The tunnel's port is for nodes too: a workload is reset before a byte of TLS.
    let tunnel = (15008, "");
    assert_reset(&own_port(&site.cluster.neighbour, &other, tunnel));
    until(SOON, "the refusal to be counted", || {
        (site.testbed.stat(0, "egress.denied.gateway_port").ok()? > 0).then_some(())
    })
    .unwrap();

    // Where the mesh names the address, the node refuses already.
    let endpoints = format!("endpoints: [{}]", plan::GATEWAYS[0]);
    let named = format!("{endpoints}\n  otherAddresses: [\"{OTHER}\"]");
    site.testbed.apply_mesh(&mesh().replace(&endpoints, &named)).unwrap();
    for (port, endpoint) in OWN_PORTS.into_iter().zip(["health", "metrics"]) {
        until(SOON, "the node to refuse the connect", || {
            let before = refused(endpoint);
            let seen = own_port(&site.cluster.neighbour, &other, port);
            (seen == "curl: (7)" && refused(endpoint) == before).then_some(())
        })
        .unwrap();
        assert_eq!(own_port(site.testbed.app(), &other, port), "200", "{port:?}");
    }
    assert_eq!(request(&site.testbed), site.whole);
}

#[test]
fn idle_connections_to_the_health_port_take_no_gateway_from_others() {
    let site = Site::new(None, &[]);
    // From where no workload of the mesh is, at both addresses: the gateway has to serve it.
    let from = &site.cluster.remote;
    let _floods: Vec<_> =
        [(plan::GATEWAYS[0], "15021"), (OTHER, "15021"), (plan::GATEWAYS[0], "15090")]
            .into_iter()
            .enumerate()
            .map(|(number, (address, port))| {
                let name = format!("flood{number}");
                flood(&site.testbed, from, &name, &["idle", address, port, "200"])
            })
            .collect();
    site.undisturbed();
    let metrics = own_port(site.testbed.app(), plan::GATEWAYS[0], OWN_PORTS[1]);
    assert_eq!(metrics, "200");
}

#[test]
fn one_workload_takes_no_descriptors_from_others() {
    let site = Site::new(Some(512), &[]);
    let _flood =
        flood(&site.testbed, &site.cluster.neighbour, "flood", &["idle", plan::WEB, "80", "800"]);
    site.undisturbed();
    assert!(site.stat("connections.refused") > 0, "the flood was no flood");
    let (used, bound) = (site.stat("descriptors.used"), site.stat("descriptors.bound"));
    assert_eq!(bound, 512);
    assert!(used < bound, "{used} of {bound}");
    // A new configuration is read all the same.
    let accepted = site.testbed.stat(0, "egress.config.accepted").unwrap();
    site.testbed.apply_mesh(&format!("{}accessLogEncoding: JSON\n", mesh())).unwrap();
    until(SOON, "the new configuration", || {
        (site.testbed.stat(0, "egress.config.accepted").ok()? > accepted).then_some(())
    })
    .unwrap();
}

#[test]
fn large_heads_towards_a_silent_upstream_are_bounded_and_given_back() {
    let site = Site::new(None, &["--memory-limit", "256MiB", "--max-request-bytes", "64MiB"]);
    let port = SILENT.to_string();
    let _silent =
        flood(&site.testbed, site.testbed.outside(), "silent", &["silent", plan::WEB, &port]);
    let before = site.memory();
    // 380 MB of heads.
    let heads =
        ["heads", plan::WEB, &port, &format!("silent.example.com:{port}"), "60", "128", "50000"];
    let running = flood(&site.testbed, &site.cluster.neighbour, "flood", &heads);
    assert!(site.stat("request_bytes.refused") > 0, "the flood was no flood");
    let held = site.stat("request_bytes.used");
    assert!(held > 1 << 20 && held <= 32 << 20, "{held}: a source has half of 64 MiB");
    site.undisturbed();
    let most = site.memory();
    assert!(most < 256 * 1024, "{most} KiB");
    drop(running);
    let used = || (site.stat("request_bytes.used"), site.memory());
    let fallen = |(held, memory): &(u64, u64)| *held == 0 && *memory < before + 64 * 1024;
    until_is(SOON, "the memory to be given back", used, fallen).unwrap();
    site.undisturbed();
}

/// The bounds follow from the cgroup that the gateway runs in, as in a container with a limit.
#[test]
fn a_gateway_with_half_a_gibibyte_outlives_more_heads_than_that() {
    const MEMORY: u64 = 512 << 20;
    let cgroup = MemoryCgroup::new(MEMORY);
    assert_eq!(cgroup.limit(), MEMORY);
    let site = Site::within(&Within::Memory(&cgroup), &[]);
    let port = SILENT.to_string();
    let _silent =
        flood(&site.testbed, site.testbed.outside(), "silent", &["silent", plan::WEB, &port]);
    // 640 MB of heads.
    let heads =
        ["heads", plan::WEB, &port, &format!("silent.example.com:{port}"), "100", "128", "50000"];
    let running = flood(&site.testbed, &site.cluster.neighbour, "flood", &heads);
    assert!(site.stat("request_bytes.refused") > 0, "the flood was no flood");
    site.undisturbed();
    drop(running);
    let used = || site.stat("request_bytes.used");
    until_is(SOON, "the memory to be given back", used, |held| *held == 0).unwrap();
    site.undisturbed();
    assert_eq!(cgroup.killed(), 0);
    drop(site);
}

#[test]
fn responses_that_nobody_reads_are_bounded_and_given_back() {
    let site = Site::new(None, &["--max-queued-bytes", "8MiB"]);
    let before = site.memory();
    let unread = ["unread", plan::WEB, "80", "www.example.com", "/download", "20", "30"];
    let running = flood(&site.testbed, &site.cluster.neighbour, "flood", &unread);
    until(SOON, "the responses to pile up", || {
        (site.stat("queued_bytes.used") > 1 << 20).then_some(())
    })
    .unwrap();
    site.undisturbed();
    // One worker; every connection may have a frame beyond the bound, and one on its way.
    let held = site.stat("queued_bytes.used");
    assert!(held <= (8 << 20) + 20 * (16 + 64) * 1024, "{held}");
    let most = site.memory();
    assert!(most < before + 96 * 1024, "{most} KiB, {before} before");
    drop(running);
    let used = || (site.stat("queued_bytes.used"), site.memory());
    let fallen = |(held, memory): &(u64, u64)| *held == 0 && *memory < before + 32 * 1024;
    until_is(SOON, "the memory to be given back", used, fallen).unwrap();
}

/// What a pod that is refused has to be told of: each of its refusals, while another one has as many as two
/// processors make.
#[test]
fn refusals_without_end_take_no_flow_event_of_another_pod() {
    const REFUSALS: u16 = 20;
    let _alone = alone();
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    let running = flood(&testbed, testbed.pod(), "flood", &["refused", plan::ATTACKER, "9"]);
    // Nobody else sends there. The system call's hook knows no source yet.
    let told = |port: u16| {
        let to = format!("-> {}:{port} ", plan::ATTACKER);
        let log = node.stdout();
        log.lines().any(|line| line.contains(&to) && line.contains("DENIED"))
    };
    for port in 20_000..20_000 + REFUSALS {
        let script = format!(
            "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             s.bind(('{}', 0))\ntry:\n    s.sendto(b'x', ('{}', {port}))\n\
             except PermissionError:\n    print('refused')\n",
            plan::NEIGHBOUR,
            plan::ATTACKER
        );
        let done = cluster.neighbour.run("/usr/bin/python3", &["-c", &script]).unwrap();
        assert_eq!(done.stdout.trim(), "refused", "{done:?}");
    }
    for port in 20_000..20_000 + REFUSALS {
        let what = format!("the refusal at port {port}");
        until(SOON, &what, || told(port).then_some(())).unwrap();
    }
    assert!(running.stderr().is_empty(), "{}", running.stderr());
}

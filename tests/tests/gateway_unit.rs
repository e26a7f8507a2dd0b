//! The life of the gateway's unit under a real systemd as process 1, with traffic on it.

#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::{fs, path::Path};

use anyhow::{Context, Result};
use egress_tests::{
    copy_program,
    machine::{GATEWAY_NETWORK, Machine},
    manifests::Walkthrough,
    page::{self, Step, commands},
    plan,
    process::{Finished, Process},
    testbed::Testbed,
    wait::{SOON, START, until, until_is},
};

const GATEWAY: &str = "egress-gateway.service";
const AGENT: &str = "/usr/local/bin/egress-agent";
const URL: &str = "https://edition.cnn.com/";
const DOWNLOAD: &str = "https://edition.cnn.com/download";
/// What `/download` has.
const DOWNLOAD_BYTES: u64 = 40 << 20;
const READY: &str = "http://localhost:15021/healthz/ready";
/// The page that documents an upgrade, and the heading above it.
const UPGRADE: (&str, &str) = ("docs/operations.md", "Drain, restart, upgrade");
/// A port that no server of the gateway has.
const OTHER_PORT: u16 = 8443;
/// `CAP_NET_BIND_SERVICE`, and nothing else (capabilities(7)).
const MAY_BIND: &str = "0000000000000400";

fn edit(root: &Path) -> Result<()> {
    let append = |name: &str, text: &str| {
        let path = root.join(name);
        let old = fs::read_to_string(&path).with_context(|| name.to_owned())?;
        fs::write(&path, old + text).with_context(|| name.to_owned())
    };
    // The gateway's node is another host; here it is another network.
    let drop_ins = root.join("etc/systemd/system/egress-gateway.service.d");
    fs::create_dir_all(&drop_ins)?;
    let network = format!("[Service]\nNetworkNamespacePath={GATEWAY_NETWORK}\n");
    fs::write(drop_ins.join("network.conf"), network)?;
    let options = format!("EGRESS_OPTIONS=\"--resolver {} --workers 1\"\n", plan::OUTSIDE_DNS);
    append("etc/egress/egress-gateway.env", &options)
}

fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// A gateway's unit, and a client that dials the gateway as the kernel of a node would have it.
struct Life<'a> {
    testbed: &'a Testbed,
    machine: &'a Machine<'a>,
}

impl Life<'_> {
    fn property(&self, name: &str) -> String {
        self.machine.property(GATEWAY, name).unwrap()
    }

    fn is(&self, name: &str, value: &str) {
        let what = format!("{name}={value}");
        until_is(START, &what, || self.property(name), |found| found == value)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.journal()));
    }

    fn journal(&self) -> String {
        self.machine.journal(&["--unit", GATEWAY]).unwrap()
    }

    /// Waits until a configuration is in force, and is what the files say.
    fn in_force(&self) {
        let state = || self.property("StatusText");
        let is_good =
            |text: &String| text.starts_with("configuration ") && text.ends_with(" is in force");
        until_is(SOON, "a configuration in force", state, is_good)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.journal()));
    }

    /// Replaces the settings at once, and has the unit read them.
    fn reload(&self, mesh: &Path, text: &str) {
        replace(mesh, text);
        self.machine.systemctl(&["reload", GATEWAY]).unwrap();
    }

    fn pid(&self) -> String {
        self.property("MainPID")
    }

    fn via(url_port: u16) -> [String; 2] {
        ["--resolve".into(), format!("{}:{url_port}:{}", plan::HOST, plan::GATEWAYS[0])]
    }

    fn asked(&self) -> String {
        let via = Self::via(443);
        self.testbed.curl_status(&[&via[0], &via[1], URL]).unwrap()
    }

    fn served(&self, when: &str) {
        until_is(SOON, when, || self.asked(), |seen| seen == "200")
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.journal()));
    }

    /// Readiness, as a load balancer or another node sees it.
    fn ready(&self) -> String {
        let args = ["-s", "-o", "/dev/null", "-w", "%{http_code}", READY];
        self.testbed.gateway(0).run("curl", &args).unwrap().stdout
    }

    /// A command as the page has it, which must succeed.
    fn typed(&self, line: &str) -> Finished {
        let done = self.machine.shell(line).unwrap();
        assert!(done.ok(), "{line}: {done:?}\n{}", self.journal());
        done
    }

    fn status(&self) -> (i32, String) {
        let done = self.machine.run(AGENT, &["status"]).unwrap();
        (done.code, done.stdout)
    }

    /// A download that takes about ten seconds, under way.
    fn download(&self, name: &str) -> Process {
        let file = self.testbed.dir().join(name);
        let (path, via) = (file.to_string_lossy(), Self::via(443));
        let args = ["-sS", "--limit-rate", "4M", &via[0], &via[1], "-o", &path, DOWNLOAD];
        let process = self.testbed.pod().start(&self.testbed.dir(), name, "curl", &args).unwrap();
        until(SOON, "a download to be under way", || {
            fs::metadata(&file).ok().filter(|meta| meta.len() > 1 << 20)
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}", process.stderr()));
        process
    }

    fn complete(&self, name: &str, mut download: Process) {
        let ended = download.wait(START).unwrap();
        assert!(ended.success(), "{name}: {}\n{}", download.stderr(), self.journal());
        let size = fs::metadata(self.testbed.dir().join(name)).unwrap().len();
        assert_eq!(size, DOWNLOAD_BYTES, "{name}");
    }

    /// Whether a TCP connection to a port without a server is accepted. Curl says the same of a port that is closed as
    /// of a connection that is reset before it looks, so what is accepted may take several tries to show.
    fn accepts_other_port(&self) -> bool {
        let connect = format!("exec 3<>/dev/tcp/{}/{OTHER_PORT}", plan::GATEWAYS[0]);
        let done = self.testbed.pod().run("bash", &["-c", &connect]).unwrap();
        // It may be reset before the client has seen that it was accepted, for which curl has the exit code of a refusal.
        done.ok() || done.stderr.contains("reset by peer")
    }
}

#[test]
fn the_shipped_gateway_lives_under_systemd() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let machine = Machine::boot(&testbed, edit).unwrap();
    let life = Life { testbed: &testbed, machine: &machine };
    assert_eq!(life.asked(), "curl: (7)", "nothing listens yet");

    machine.systemctl(&["start", GATEWAY]).unwrap();
    life.served("the first start");
    life.is("StatusText", "configuration 1 is in force");
    assert_eq!(life.ready(), "200");
    assert_eq!(life.status().0, 0, "{}", life.status().1);

    // A reload with a good configuration: another one in force, by the same process.
    let first = life.pid();
    let mesh = machine.path("/etc/egress/config/mesh.yaml");
    let good = fs::read_to_string(&mesh).unwrap();
    replace(&mesh, &format!("{good}accessLogEncoding: JSON\n"));
    life.is("StatusText", "configuration 2 is in force");
    // The change was seen, so the reload reads the same again: it is no other configuration.
    machine.systemctl(&["reload", GATEWAY]).unwrap();
    let again = "read again without a change; configuration 2 stays in force";
    until(SOON, "the reload", || life.journal().contains(again).then_some(())).unwrap();
    assert_eq!(life.property("StatusText"), "configuration 2 is in force");
    life.served("a reload");
    until(SOON, "the new form of the log", || {
        life.journal().contains("\"response_code\":").then_some(())
    })
    .unwrap();

    broken_configuration(&life, &mesh);
    assert_eq!(life.pid(), first, "all of this is one process");

    // A restart waits for what runs.
    let download = life.download("restart");
    machine.systemctl(&["restart", GATEWAY]).unwrap();
    life.complete("restart", download);
    assert_ne!(life.pid(), first);
    life.served("a restart");
    restart_with_a_broken_configuration(&life, &mesh);

    // kill -9: back by itself.
    let before = life.pid();
    machine.systemctl(&["kill", "--signal=KILL", GATEWAY]).unwrap();
    until_is(START, "another process", || life.pid(), |pid| *pid != before && pid != "0").unwrap();
    life.served("kill -9");
    assert_eq!(life.property("NRestarts"), "1");

    upgrade(&life);
    stop(&life);
    unprivileged(&life);
}

/// The last good configuration stays in force, and everything says what is wrong.
fn broken_configuration(life: &Life<'_>, mesh: &Path) {
    let good = fs::read_to_string(mesh).unwrap();
    life.reload(mesh, &good.replace("REGISTRY_ONLY", "SOMETIMES"));
    let state = || life.property("StatusText");
    let is_told = |text: &String| {
        text.starts_with("configuration ")
            && text.ends_with(" is in force; the files, as they are now, are refused")
    };
    until_is(SOON, "the refusal", state, is_told).unwrap();
    assert_eq!((life.asked(), life.ready()), ("200".into(), "200".into()));
    // journald takes lines a moment after they are written.
    let errors = || life.machine.journal(&["--unit", GATEWAY, "--priority", "err"]).unwrap();
    let is_named = |errors: &String| errors.contains("SOMETIMES");
    until_is(SOON, "the fault in the journal", errors, is_named).unwrap();
    let (code, said) = life.status();
    assert!(code == 1 && said.contains("SOMETIMES"), "{code}: {said}");
    life.reload(mesh, &good);
    life.in_force();
    assert_eq!(life.status().0, 0);
}

/// A gateway keeps nothing over a restart: it is up at once, refuses everything and says so.
fn restart_with_a_broken_configuration(life: &Life<'_>, mesh: &Path) {
    let good = fs::read_to_string(mesh).unwrap();
    replace(mesh, &good.replace("REGISTRY_ONLY", "SOMETIMES"));
    life.machine.systemctl(&["restart", GATEWAY]).unwrap();
    assert_eq!(life.property("ActiveState"), "active");
    life.is(
        "StatusText",
        "no configuration is in force, so everything is refused; the files, as they are now, are \
         refused",
    );
    assert!(life.asked().starts_with("curl: "));
    assert_eq!(life.ready(), "503");
    let (code, said) = life.status();
    assert!(code == 1 && said.contains("SOMETIMES"), "{code}: {said}");
    life.reload(mesh, &good);
    life.served("the repair");
    assert_eq!(life.ready(), "200");
}

/// Another process takes over: no request fails, and what runs is completed by the process before.
fn upgrade(life: &Life<'_>) {
    let (testbed, machine) = (life.testbed, life.machine);
    // What the page has in the working directory.
    copy_program(testbed.agent(), &machine.path("/root/egress-agent.new")).unwrap();
    let typed = commands(UPGRADE.0, UPGRADE.1, "egress-agent upgrade").unwrap();
    let [install, take_over] = &typed[..] else { panic!("{typed:?}") };
    let (before, restarts) = (life.pid(), life.property("NRestarts"));
    let enough = testbed.dir().join("enough");
    let script = format!(
        "until [ -e {} ]; do curl -s -o /dev/null -w '%{{http_code}} %{{exitcode}}\\n' --max-time \
         20 {} {URL}; done",
        enough.display(),
        Life::via(443).join(" ")
    );
    let mut requests =
        testbed.pod().start(&testbed.dir(), "requests", "sh", &["-c", &script]).unwrap();
    let count = || requests.stdout().lines().count();
    until_is(SOON, "requests", count, |count| *count > 3).unwrap();
    let download = life.download("upgrade");
    life.typed(install);
    let done = life.typed(take_over);
    let after = until_is(SOON, "another process", || life.pid(), |pid| *pid != before).unwrap();
    assert!(done.stdout.contains(&format!("process {after} ")), "{done:?}");
    let then = count();
    until_is(SOON, "requests of the new process", count, |count| *count > then + 5).unwrap();
    fs::write(&enough, "").unwrap();
    assert!(requests.wait(SOON).unwrap().success());
    let all = requests.stdout();
    assert_eq!(all.lines().filter(|line| *line != "200 0").count(), 0, "{all}");
    life.complete("upgrade", download);
    assert_eq!(life.pid(), after);
    assert_eq!(life.property("NRestarts"), restarts, "systemd did nothing");
    let program = machine.run("readlink", &[&format!("/proc/{after}/exe")]).unwrap().stdout;
    assert_eq!(program.trim(), AGENT, "it runs what was installed");
    let first = format!("/proc/{before}");
    let is_there = || machine.run("test", &["-e", &first]).unwrap().ok();
    until_is(SOON, "the process before to have ended", is_there, |there| !there).unwrap();
    life.is("ActiveState", "active");

    // The page's other way, for changed arguments: a restart, and the wait until it is ready.
    let typed = commands(UPGRADE.0, UPGRADE.1, "systemctl restart egress-gateway").unwrap();
    let [restart, wait] = &typed[..] else { panic!("{typed:?}") };
    life.typed(restart);
    // The gateway's host is another network here.
    life.typed(&format!("nsenter --net={GATEWAY_NETWORK} {wait}"));
    assert_eq!(life.ready(), "200");
    assert_ne!(life.pid(), after);
    life.served("the page's restart");
}

/// A stop drains: nothing new is accepted, readiness is false, and what runs is completed.
fn stop(life: &Life<'_>) {
    let download = life.download("stop");
    life.machine.systemctl(&["--no-block", "stop", GATEWAY]).unwrap();
    life.is("StatusText", "draining");
    assert_eq!(life.property("ActiveState"), "deactivating");
    assert!(life.asked().starts_with("curl: "), "new connections are refused");
    assert_ne!(life.ready(), "200");
    life.complete("stop", download);
    life.is("ActiveState", "inactive");
    assert_eq!(life.property("Result"), "success");
    assert_eq!(life.asked(), "curl: (7)");
}

/// The drop-in for `bind:`, installed as the page says: no capability but one, and no eBPF.
fn unprivileged(life: &Life<'_>) {
    life.machine.systemctl(&["start", GATEWAY]).unwrap();
    life.served("a start");
    let accepts = || life.accepts_other_port();
    until_is(SOON, "a connection to another port: sk-lookup takes every one", accepts, |seen| {
        *seen
    })
    .unwrap();
    let blocks = page::blocks("docs/operations.md", "A gateway node").unwrap();
    let block = blocks.iter().find(|block| block.text.contains("bind:")).expect("the commands");
    for step in block.steps().unwrap() {
        let Step::Run(line) = step else { panic!("{step:?}") };
        let done = life.machine.shell(&line).unwrap();
        assert!(done.ok(), "{line}: {done:?}\n{}", life.journal());
    }
    life.served("the gateway without eBPF");
    assert_eq!(life.status().0, 0, "{}", life.status().1);
    let status = format!("/proc/{}/status", life.pid());
    let status = life.machine.run("cat", &[&status]).unwrap().stdout;
    for name in ["CapEff:", "CapPrm:", "CapBnd:", "CapAmb:"] {
        let found = status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        assert_eq!(found, Some(MAY_BIND), "{name}");
    }
    assert!(!life.accepts_other_port(), "only the ports that are named");
    life.machine.systemctl(&["restart", GATEWAY]).unwrap();
    life.served("a restart without eBPF");
}

//! The units that are shipped, under a real systemd as process 1, from installation to removal.

#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use anyhow::{Context, Result};
use egress_tests::{
    ca::{Authority, Subject, Time, issue_mutual},
    copy_program,
    machine::{GATEWAY_NETWORK, Machine},
    manifests::Walkthrough,
    page::commands,
    plan,
    process::Finished,
    testbed::Testbed,
    wait::{SOON, START, until, until_is},
};

const NODE: &str = "egress-node.service";
const GATEWAY: &str = "egress-gateway.service";
const WEB: &str = "web.service";
/// Where the workload writes what it reached.
const REACHED: &str = "/var/lib/reached";

/// A workload in a slice below `workloads.slice`: what is allowed, then what is not.
const WORKLOAD: &str = "[Service]\nType=oneshot\nSlice=workloads-web.slice\nExecStart=/bin/sh \
                        /var/lib/workload.sh\n[Install]\nWantedBy=multi-user.target\n";

/// Who may read keys.
const KEYS: u32 = 987;
/// A server of the gateway that terminates TLS with the credential `web`.
const TLS_PORT: u16 = 20443;
const CREDENTIAL: &str = "etc/egress/credentials/web";

fn server() -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: own, namespace: \
         istio-system}}\nspec:\n  selector: {{istio: egressgateway}}\n  servers:\n  - port: {{number: \
         {TLS_PORT}, name: https-own, protocol: HTTPS}}\n    hosts: [{}]\n    tls: {{mode: SIMPLE, \
         credentialName: web}}\n",
        plan::HOST
    )
}

/// Puts a certificate with this serial number in place, as a renewal does, with a key of this mode.
fn renew(root: &Path, authority: &Authority, serial: u64, mode: u32) -> Result<()> {
    let id = "spiffe://cluster.local/ns/istio-system/sa/egress";
    let subject = Subject { name: plan::HOST, uri: id, serial, time: Time::Now };
    let (certificate, key) = issue_mutual(authority, &subject)?;
    let directory = root.join(CREDENTIAL);
    fs::create_dir_all(&directory)?;
    for (name, text, mode) in [("tls.crt", certificate, 0o640), ("tls.key", key, mode)] {
        let new = directory.join(format!(".{name}"));
        fs::write(&new, text)?;
        chown(&new, Some(0), Some(KEYS))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
        fs::rename(&new, directory.join(name))?;
    }
    Ok(())
}

/// The fingerprints of the certificate that the gateway shows, and of the one in place.
fn fingerprints(machine: &Machine<'_>) -> (String, String) {
    let of = |script: &str| machine.run("sh", &["-c", script]).unwrap().stdout;
    let shown = of(&format!(
        "openssl s_client -connect {}:{TLS_PORT} -servername {} </dev/null 2>/dev/null | openssl x509 \
         -noout -fingerprint",
        plan::GATEWAYS[0],
        plan::HOST
    ));
    (shown, of(&format!("openssl x509 -noout -fingerprint -in /{CREDENTIAL}/tls.crt")))
}

/// A gateway with a user of its own reads a renewed key if its group may, and keeps the old one if not.
fn keys_are_renewed(machine: &Machine<'_>, authority: &Authority) {
    // What `LoadCredential=` gives a unit is a copy of the start.
    let unit = "systemd-run --unit=copied --property=LoadCredential=key:/etc/egress/credentials/web/tls.key \
                sleep infinity";
    let started = machine.shell(unit).unwrap();
    assert!(started.ok(), "{started:?}");
    let compare = "cmp -s /run/credentials/copied.service/key /etc/egress/credentials/web/tls.key";
    let is_copy = || machine.shell(compare).unwrap().code;
    until_is(SOON, "the copy", is_copy, |code| *code == 0).unwrap();
    let seen = || fingerprints(machine);
    let current = |(shown, placed): &(String, String)| !shown.is_empty() && shown == placed;
    let (first, _) = until_is(SOON, "the first certificate", seen, current).unwrap();
    renew(&machine.path("/"), authority, 2, 0o640).unwrap();
    let (second, _) = until_is(SOON, "the renewed certificate", seen, current).unwrap();
    assert_ne!(first, second);
    assert_eq!(is_copy(), 1, "the copy is the key of before");
    machine.systemctl(&["stop", "copied"]).unwrap();

    let named = || machine.journal(&["--unit", GATEWAY]).unwrap().matches("tls.key").count();
    let before = named();
    renew(&machine.path("/"), authority, 3, 0o600).unwrap();
    until_is(SOON, "the key that it may not read", named, |now| *now > before).unwrap();
    let (shown, placed) = fingerprints(machine);
    assert_eq!(shown, second);
    assert_ne!(shown, placed);
    let key = machine.path(CREDENTIAL).join("tls.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    until_is(SOON, "the key that it may read again", seen, current).unwrap();
}

fn edit(root: &Path) -> Result<()> {
    let write = |name: &str, text: String| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().context("a directory")?)?;
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    let script = format!(
        "allowed=$(curl -s -o /dev/null -w '%{{http_code}}' --max-time 10 http://{}/)\n\
         timeout 3 bash -c '</dev/tcp/{}/{}' 2>/dev/null && attack=open || attack=refused\n\
         echo \"$allowed $attack\" >{REACHED}\n",
        plan::HOST,
        plan::ATTACKER,
        plan::TCP_PORTS[0],
    );
    write("var/lib/workload.sh", script)?;
    write("etc/systemd/system/web.service", WORKLOAD.into())?;
    // Who may read keys: docs/operations.md.
    append(&root.join("etc/group"), &format!("egress-keys:x:{KEYS}:\n"))?;
    let keys = "[Service]\nSupplementaryGroups=egress-keys\n";
    write("etc/systemd/system/egress-gateway.service.d/keys.conf", keys.into())?;
    // The gateway's node is another host; here it is another network.
    let network = format!(
        "[Service]\nNetworkNamespacePath={GATEWAY_NETWORK}\nEnvironment=SSL_CERT_FILE=/var/ca.pem\n"
    );
    write("etc/systemd/system/egress-gateway.service.d/network.conf", network)?;
    let options = format!(
        "EGRESS_OPTIONS=\"--resolver {} --workers 1 --credentials-dir /etc/egress/credentials\"\n",
        plan::OUTSIDE_DNS
    );
    append(&root.join("etc/egress/egress-gateway.env"), &options)?;
    let options = format!("EGRESS_OPTIONS=\"--resolver {}\"\n", plan::CLUSTER_DNS);
    append(&root.join("etc/egress/egress-node.env"), &options)
}

fn append(path: &Path, text: &str) -> Result<()> {
    let old = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(fs::write(path, old + text)?)
}

/// What a new run of the workload reaches: the status of the allowed host, and whether an address
/// outside is open to it.
fn reached(machine: &Machine<'_>) -> Result<String> {
    let file = machine.path(REACHED);
    fs::remove_file(&file).ok();
    machine.systemctl(&["start", WEB])?;
    Ok(fs::read_to_string(&file)?.trim().to_owned())
}

const ENFORCED: &str = "301 refused";

fn enforced(machine: &Machine<'_>, when: &str) {
    let seen = || reached(machine).unwrap();
    until_is(SOON, when, seen, |seen| seen == ENFORCED).unwrap();
}

fn pid(machine: &Machine<'_>, unit: &str) -> String {
    machine.property(unit, "MainPID").unwrap()
}

fn status(machine: &Machine<'_>) -> String {
    machine.property(NODE, "StatusText").unwrap()
}

/// After a restart with a broken configuration: the unit's state, its log and `status` name the configuration that
/// the maps still hold, and none of them says that everything is denied.
fn says_what_the_maps_hold(machine: &Machine<'_>, unit: &str) {
    let ask = |args: &[&str]| machine.run("/usr/local/bin/egress-agent", args).unwrap();
    let (told, shown) = (ask(&["status", "-o", "json"]), ask(&["status"]));
    // Of the table of exit codes in docs/commands.md: something is wrong.
    assert_eq!((told.code, shown.code), (1, 1), "{shown:?}");
    let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    let held = &told["node"]["held"];
    let (generation, digest) = (held["generation"].as_u64().unwrap(), held["digest"].as_str());
    assert_eq!(generation, 1);
    let accepted = held["accepted_at"].as_str().unwrap().replace('T', " ").replace('Z', " UTC");
    let named =
        format!("configuration {generation} (digest {}, accepted {accepted})", digest.unwrap());
    assert_eq!(
        unit,
        format!("attached; {named} is in force; the files, as they are now, are refused")
    );
    let of_this_process = format!("_PID={}", pid(machine, NODE));
    // journald takes lines a moment after they are written.
    let log = || machine.journal(&["--unit", NODE, &of_this_process]).unwrap();
    let is_whole = |log: &String| {
        log.contains("SOMETIMES") && log.contains(&format!("{named} stays in force"))
    };
    let log = until_is(SOON, "the refusal in the journal", log, is_whole).unwrap();
    for (place, text) in [("the log", &log), ("status", &shown.stdout)] {
        // `status` breaks its lines.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&format!("{named} stays in force")), "{place}: {text}");
        assert!(!text.contains("everything external is denied"), "{place}: {text}");
        assert!(text.contains("SOMETIMES"), "{place}: {text}");
    }
}

fn asked_status(machine: &Machine<'_>) -> Finished {
    machine.run("/usr/local/bin/egress-agent", &["status"]).unwrap()
}

/// While the unit fails again and again, `status` says that no agent runs, how its unit is, what the maps hold, and
/// that nothing is followed; its exit code is that of something wrong, although the gateway is well.
fn says_that_no_agent_runs(machine: &Machine<'_>) {
    let parts = [
        "PROBLEMS\n",
        "problem: no agent is running; enforcement is in force as it was left. Changes of the configuration, of \
         gateways' health and of interfaces are not followed\n",
        "problem: egress-node.service is enabled and activating",
        "systemd has started it again ",
        "maps hold      configuration ",
    ];
    let is_said = |done: &Finished| parts.iter().all(|part| done.stdout.contains(part));
    let said = until_is(SOON, "the state without an agent", || asked_status(machine), is_said);
    assert_eq!(said.unwrap().code, 1);
}

#[test]
fn the_shipped_units_live_under_systemd() {
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().http.apply(&testbed).unwrap();
    testbed.apply("own.yaml", &server()).unwrap();
    let authority = Authority::new("Authority of the servers").unwrap();
    let mut machine = Machine::boot(&testbed, |root| {
        renew(root, &authority, 1, 0o640)?;
        edit(root)
    })
    .unwrap();

    // The twin of everything below: without enforcement a workload doesn't start, because its slice
    // demands the pins; and nothing brings the agent up by itself.
    assert!(!machine.run("systemctl", &["start", WEB]).unwrap().ok());
    assert_eq!(machine.property(NODE, "ActiveState").unwrap(), "inactive");

    // Start.
    machine.systemctl(&["enable", "--now", GATEWAY, NODE]).unwrap();
    enforced(&machine, "enforcement after the start");
    for unit in [NODE, GATEWAY] {
        // journald drops none of their lines, whosever flood it is.
        assert_eq!(machine.property(unit, "LogRateLimitIntervalUSec").unwrap(), "0", "{unit}");
    }
    let in_force = |text: &String| {
        text.starts_with("attached; configuration") && text.ends_with("is in force")
    };
    until_is(SOON, "the state", || status(&machine), in_force).unwrap();
    let ready = || {
        let journal = machine.journal(&["--unit", NODE, "--output", "json"]).unwrap();
        let mut lines =
            journal.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.find(|line| line["MESSAGE"] == "ready")
    };
    let ready = until(SOON, "the line in the journal, without a time", ready).unwrap();
    assert_eq!(ready["PRIORITY"], "6");

    // The gateway is nobody that there is, and may read what the group of keys may.
    let status_file = format!("/proc/{}/status", pid(&machine, GATEWAY));
    let credentials = machine.run("cat", &[&status_file]).unwrap().stdout;
    let ids = |name: &str| {
        let line = credentials.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(!ids("Uid:").contains(&"0".to_owned()) && ids("Groups:").contains(&KEYS.to_string()));
    keys_are_renewed(&machine, &authority);

    // Restart: what runs is another process, and a workload notices nothing.
    let before = pid(&machine, NODE);
    machine.systemctl(&["restart", NODE]).unwrap();
    assert_ne!(pid(&machine, NODE), before);
    enforced(&machine, "enforcement after a restart");

    // A broken configuration: a reload keeps the last good one, a restart is up at once and says
    // what it enforces.
    let mesh = machine.path("/etc/egress/config/mesh.yaml");
    let good = fs::read_to_string(&mesh).unwrap();
    fs::write(&mesh, good.replace("REGISTRY_ONLY", "SOMETIMES")).unwrap();
    machine.systemctl(&["reload", NODE]).unwrap();
    until_is(SOON, "the refusal", || status(&machine), |text| text.contains("refused")).unwrap();
    assert!(status(&machine).starts_with("attached; configuration 1 is in force"));
    machine.systemctl(&["restart", NODE]).unwrap();
    let text = until_is(SOON, "the refusal", || status(&machine), |text| text.contains("refused"));
    says_what_the_maps_hold(&machine, &text.unwrap());
    enforced(&machine, "what the maps hold");
    let errors = || machine.journal(&["--unit", NODE, "--priority", "err"]).unwrap();
    let is_named = |errors: &String| errors.contains("SOMETIMES");
    until_is(SOON, "the fault in the journal", errors, is_named).unwrap();
    fs::write(&mesh, &good).unwrap();
    machine.systemctl(&["reload", NODE]).unwrap();
    until_is(SOON, "the repair", || status(&machine), in_force).unwrap();

    // kill -9: enforced in the meantime, and back by itself.
    let before = pid(&machine, NODE);
    machine.systemctl(&["kill", "--signal=KILL", NODE]).unwrap();
    enforced(&machine, "enforcement without an agent");
    let after = || pid(&machine, NODE);
    until_is(START, "another agent", after, |pid| *pid != before && pid != "0").unwrap();

    // However often the start fails, it is tried again.
    let env = machine.path("/etc/egress/egress-node.env");
    let good = fs::read_to_string(&env).unwrap();
    fs::write(&env, good.replace("--uplink eth0", "--uplink gone0")).unwrap();
    assert!(!machine.run("systemctl", &["restart", NODE]).unwrap().ok());
    let restarts = || machine.property(NODE, "NRestarts").unwrap().parse::<u32>().unwrap();
    until_is(START, "more attempts than systemd's own limit", restarts, |count| *count > 5)
        .unwrap();
    says_that_no_agent_runs(&machine);
    fs::write(&env, good).unwrap();
    let active = || machine.property(NODE, "ActiveState").unwrap();
    until_is(START, "the agent to come up by itself", active, |state| state == "active").unwrap();
    enforced(&machine, "enforcement after failures");

    // An upgrade of both roles: of the gateway by a process that takes over, as the unit's main process.
    // Each command is the page's, with what it has in the working directory.
    let typed = |part: &str| {
        let lines = commands("docs/operations.md", "Drain, restart, upgrade", part).unwrap();
        assert_eq!(lines.len(), 2, "{lines:?}");
        copy_program(testbed.agent(), &machine.path("/root/egress-agent.new")).unwrap();
        let done = lines.iter().map(|line| machine.shell(line).unwrap()).collect::<Vec<_>>();
        assert!(done.iter().all(Finished::ok), "{done:?}\n{}", machine.journal(&[]).unwrap());
        done.into_iter().next_back().unwrap()
    };
    let (gateway, node) = (pid(&machine, GATEWAY), pid(&machine, NODE));
    let upgrade = typed("egress-agent upgrade");
    let after = || pid(&machine, GATEWAY);
    let after = until_is(SOON, "another main process", after, |pid| *pid != gateway).unwrap();
    assert!(upgrade.stdout.contains(&format!("process {after} ")), "{upgrade:?}");
    let first = Path::new("/proc").join(&gateway);
    let ended = || machine.run("test", &["-e", &first.to_string_lossy()]).unwrap().ok();
    until_is(SOON, "the first process to have drained", ended, |there| !there).unwrap();
    assert_eq!(machine.property(GATEWAY, "ActiveState").unwrap(), "active");
    assert_eq!(machine.property(GATEWAY, "NRestarts").unwrap(), "0");
    assert_eq!(pid(&machine, GATEWAY), after);
    typed("systemctl restart egress-node");
    assert_ne!(pid(&machine, NODE), node);
    enforced(&machine, "enforcement after an upgrade");
    // The gateway restarts by itself too.
    let before = pid(&machine, GATEWAY);
    machine.systemctl(&["kill", "--signal=KILL", GATEWAY]).unwrap();
    let after = || pid(&machine, GATEWAY);
    until_is(START, "another gateway", after, |pid| *pid != before && pid != "0").unwrap();
    enforced(&machine, "the way through the new gateway");

    // A boot: the workload starts after enforcement, although both are wanted at once.
    machine.systemctl(&["enable", WEB]).unwrap();
    fs::remove_file(machine.path(REACHED)).unwrap();
    machine.reboot().unwrap();
    let first = until(START, "the workload", || fs::read_to_string(machine.path(REACHED)).ok());
    assert!(first.unwrap().trim().ends_with("refused"));
    let time = |unit: &str, name: &str| machine.property(unit, name).unwrap().parse::<u64>();
    let node = time(NODE, "ActiveEnterTimestampMonotonic").unwrap();
    let workload = time(WEB, "ExecMainStartTimestampMonotonic").unwrap();
    assert!(0 < node && node <= workload, "{node} {workload}");
    enforced(&machine, "enforcement after a boot");

    removal(&machine);
}

/// `disable` and `detach` are heard, and `uninstall` leaves the host as it was.
fn removal(machine: &Machine<'_>) {
    machine.systemctl(&["disable", "--now", NODE]).unwrap();
    enforced(machine, "enforcement of a node that was stopped");
    let stopped = asked_status(machine);
    assert_eq!(stopped.code, 1, "{stopped:?}");
    let is_said = |part: &str| stopped.stdout.contains(part);
    assert!(is_said("no agent is running; enforcement is in force as it was left"), "{stopped:?}");
    assert!(is_said("maps hold      configuration "), "{stopped:?}");
    assert!(!is_said("egress-node.service is"), "nobody wants the unit: {stopped:?}");
    let detach = machine.run("/usr/local/bin/egress-agent", &["detach"]).unwrap();
    assert!(detach.ok(), "{}", detach.stderr);
    // A slice that is up already demands nothing again, one that is to come up does; neither brings
    // the agent back.
    assert!(reached(machine).unwrap().ends_with("open"));
    machine.systemctl(&["stop", "workloads-web.slice"]).unwrap();
    assert!(!machine.run("systemctl", &["start", WEB]).unwrap().ok());
    assert_eq!(machine.property(NODE, "ActiveState").unwrap(), "inactive");
    // A gateway's host is in order without a node's agent, unless one is wanted there.
    let gateway_alone = asked_status(machine);
    assert_eq!(gateway_alone.code, 0, "{gateway_alone:?}");
    machine.systemctl(&["enable", NODE]).unwrap();
    let wanted = asked_status(machine);
    assert_eq!(wanted.code, 1, "{wanted:?}");
    let said = "problem: nothing is attached, so workloads of this host reach the network as if nothing were here: \
                egress-node.service is enabled and inactive";
    assert!(wanted.stdout.contains(said), "{wanted:?}");
    machine.systemctl(&["enable", "--now", NODE]).unwrap();
    enforced(machine, "enforcement that is wanted again");

    let agent = |args: &[&str]| machine.run("/usr/local/bin/egress-agent", args).unwrap();
    let planned = agent(&["uninstall", "--purge", "--dry-run"]);
    enforced(machine, "enforcement after a dry run");
    let done = agent(&["uninstall", "--purge"]);
    assert!(done.ok(), "{}", done.stderr);
    assert_eq!(done.stdout, planned.stdout);
    assert_eq!(agent(&["status"]).code, 3);
    for unit in [NODE, GATEWAY] {
        assert_eq!(machine.property(unit, "LoadState").unwrap(), "not-found");
    }
    // Nothing of ours is left: files, links of `enable`, pins, sockets; the test's own drop-in is.
    let left =
        machine.run("find", &["/etc", "/run", "/sys/fs/bpf", "-name", "*egress*"]).unwrap().stdout;
    assert_eq!(left.trim(), "/etc/systemd/system/egress-gateway.service.d");
    let slices = machine.run("find", &["/etc", "-name", "workloads*"]).unwrap().stdout;
    assert_eq!(slices, "");
    // And a workload is as free as it was.
    assert!(reached(machine).unwrap().ends_with("open"));
    assert!(agent(&["uninstall"]).stdout.contains("nothing is installed"));
}

const PAGE: &str = "docs/operations.md";

/// Types the commands of one block of the page, word for word; `after` each.
fn typed(machine: &Machine<'_>, heading: &str, part: &str, mut after: impl FnMut(&str)) {
    for line in commands(PAGE, heading, part).unwrap() {
        let done = machine.shell(&line).unwrap();
        assert!(done.ok(), "{line}: {done:?}\n{}", machine.journal(&[]).unwrap());
        after(&line);
    }
}

/// From a host without anything of ours to enforcement and back, by the commands of the page alone.
#[test]
fn the_commands_of_the_page_enforce_and_take_it_away() {
    const PROGRAM: &str = "/usr/local/bin/egress-agent";
    let testbed = Testbed::test(1).unwrap();
    Walkthrough::example().unwrap().http.apply(&testbed).unwrap();
    let machine = Machine::boot(&testbed, |root| {
        edit(root)?;
        // What the page has the reader install.
        let units = root.join("etc/systemd/system");
        for path in [root.join("etc/egress"), units.join("workloads-.slice.d")] {
            fs::remove_dir_all(path)?;
        }
        for unit in [NODE, GATEWAY, "workloads.slice"] {
            fs::remove_file(units.join(unit))?;
        }
        Ok(())
    })
    .unwrap();
    let machine = &machine;
    let is_there = |path: &str| machine.run("test", &["-e", path]).unwrap().ok();
    // What the commands of the build leave: this machine has no compiler.
    fs::remove_file(machine.path("/var/bin/egress-agent")).unwrap();
    let built = machine.path("/root/target/release/egress-agent");
    fs::create_dir_all(built.parent().unwrap()).unwrap();
    copy_program(testbed.agent(), &built).unwrap();
    assert!(!is_there(PROGRAM));
    let lines = commands(PAGE, "Build and install", "cargo build").unwrap();
    let (builds, installs): (Vec<&String>, _) =
        lines.iter().partition(|line| line.starts_with("cargo "));
    assert_eq!((builds.len(), installs.len()), (2, 1), "{lines:?}");
    assert!(machine.shell(installs[0]).unwrap().ok());
    assert!(is_there(PROGRAM));
    // The last of these checks the shipped configuration.
    typed(machine, "Build and install", "egress-agent check", |_| {});
    // "Edit `mesh.yaml` first": that of these hosts, with their rules.
    let config = machine.path("/etc/egress/config");
    fs::remove_dir_all(&config).unwrap();
    fs::create_dir(&config).unwrap();
    fs::copy(testbed.mesh(), config.join("mesh.yaml")).unwrap();
    for entry in fs::read_dir(testbed.config()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), config.join(entry.file_name())).unwrap();
    }

    let resolver = |role: &str, server: &str| {
        let env = machine.path(&format!("/etc/egress/egress-{role}.env"));
        append(&env, &format!("EGRESS_OPTIONS=\"--resolver {server}\"\n")).unwrap();
    };
    typed(machine, "A gateway node", "egress-gateway.env", |line| {
        if line.starts_with("cp ") && line.contains(".env ") {
            resolver("gateway", plan::OUTSIDE_DNS);
        }
    });
    assert_eq!(machine.property(GATEWAY, "ActiveState").unwrap(), "active");
    assert_eq!(machine.property(GATEWAY, "UnitFileState").unwrap(), "enabled");
    assert!(reached(machine).unwrap().ends_with("open"), "no node enforces yet");
    typed(machine, "An app node", "egress-node.env", |line| {
        if line.starts_with("cp ") && line.contains(".env ") {
            resolver("node", plan::CLUSTER_DNS);
        }
    });
    assert_eq!(machine.property(NODE, "ActiveState").unwrap(), "active");
    enforced(machine, "enforcement as the page has it");

    typed(machine, "Taking enforcement away", "disable --now", |line| {
        if line.starts_with("systemctl ") {
            enforced(machine, "stopping the agent is not enough");
        }
    });
    assert_eq!(machine.property(NODE, "UnitFileState").unwrap(), "disabled");
    assert_eq!(machine.property(NODE, "ActiveState").unwrap(), "inactive");
    assert!(reached(machine).unwrap().ends_with("open"));
    typed(machine, "Taking enforcement away", "uninstall --dry-run", |line| {
        let state = if line.ends_with("--dry-run") { "loaded" } else { "not-found" };
        for unit in [NODE, GATEWAY] {
            assert_eq!(machine.property(unit, "LoadState").unwrap(), state, "{unit}: {line}");
        }
    });
    // What stays without `--purge`.
    assert!(is_there(PROGRAM) && is_there("/etc/egress/config/mesh.yaml"));
    assert!(reached(machine).unwrap().ends_with("open"));
}

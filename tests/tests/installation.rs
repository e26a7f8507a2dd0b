//! The quick start for two hosts as an operator types it, from the Debian package to its removal: every command is
//! read from the page. Both hosts have systemd as process 1.

#![expect(clippy::unwrap_used, reason = "what a test can't go on without ends it")]

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};
use egress_tests::{
    agent,
    machine::Machine,
    page::{Step, blocks, steps},
    plan,
    process::Finished,
    testbed::Testbed,
    wait::{SOON, until_is},
};

const QUICK_START: &str = "docs/quick-start.md";
const OPERATIONS: &str = "docs/operations.md";
/// The addresses of the page: its gateway host, and an application host beside it.
const GATEWAY_HOST: &str = "192.0.2.10";
const APPLICATION_HOST: &str = "192.0.2.20";
/// The network of both, in which the workloads' name server is, too.
const NETWORK: &str = "192.0.2.0/24";
const NODE: &str = "egress-node.service";
const GATEWAY: &str = "egress-gateway.service";

/// The service that is on the application host already.
const BILLING: &str = "[Service]\nType=oneshot\nExecStart=/bin/sh /var/lib/billing.sh\n";
/// Where it writes what it reached: the allowed host, then an address without a route.
const REACHED: &str = "/var/lib/reached";

fn billing() -> String {
    format!(
        "allowed=$(curl -s -o /dev/null -w '%{{http_code}}' --max-time 10 \
         http://packages.example.org/)\n\
         timeout 3 bash -c '</dev/tcp/{}/{}' 2>/dev/null && other=open || other=refused\n\
         echo \"$allowed $other\" >{REACHED}\n",
        plan::ATTACKER,
        plan::TCP_PORTS[0]
    )
}

/// A host with Debian as its administrator has it before the first step: names are looked up, authorities are
/// trusted, and the package lies where the page has it.
fn host<'a>(testbed: &'a Testbed, name: &str, package: &Path) -> Machine<'a> {
    let place = if name == "gateway" { testbed.gateway(0) } else { testbed.app() };
    let edit = |root: &Path| -> Result<()> {
        let write = |path: &str, text: &[u8]| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().context("a directory")?)?;
            fs::write(&path, text).with_context(|| path.display().to_string())
        };
        write("etc/resolv.conf", format!("nameserver {}\n", plan::OUTSIDE_DNS).as_bytes())?;
        let authority = fs::read(testbed.dir().join("ca.pem"))?;
        write("etc/ssl/certs/ca-certificates.crt", &authority)?;
        write("etc/systemd/system/billing.service", BILLING.as_bytes())?;
        write("var/lib/billing.sh", billing().as_bytes())?;
        let file = package.file_name().context("a package has a name")?.to_string_lossy();
        write(&format!("root/target/dist/{file}"), &fs::read(package)?)
    };
    Machine::bare(testbed, name, place, edit).unwrap()
}

/// The network of the page.
fn addresses(testbed: &Testbed) -> Result<()> {
    for (place, address) in [(testbed.app(), APPLICATION_HOST), (testbed.gateway(0), GATEWAY_HOST)]
    {
        place.ns.ip(&["addr", "add", &format!("{address}/24"), "dev", plan::UPLINK])?;
    }
    testbed.outside().ns.ip(&["route", "add", NETWORK, "dev", plan::UPLINK]).map(drop)
}

/// Follows the steps below a heading; each command has to succeed.
fn follow(machine: &Machine<'_>, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Run(line) => {
                let done = machine.shell(line).unwrap();
                assert!(done.ok(), "{line}: {done:?}\n{}", machine.journal(&[]).unwrap());
            }
            Step::Write { path, text } => {
                let path = machine.path(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        }
    }
}

/// Steps without `egress-agent status`, which says how it stands at that moment.
fn without_status(steps: Vec<Step>) -> Vec<Step> {
    let status = Step::Run("egress-agent status".into());
    let count = steps.len();
    let rest: Vec<Step> = steps.into_iter().filter(|step| *step != status).collect();
    assert_eq!(rest.len() + 1, count, "the page looks at the status once");
    rest
}

/// The host is as it should be, but for promises that its kernel cannot keep.
fn healthy(machine: &Machine<'_>) {
    let ask = || machine.shell("egress-agent status").unwrap();
    let is_good = |done: &Finished| [0, 4].contains(&done.code);
    until_is(SOON, "a good status", ask, is_good).unwrap();
}

fn reached(machine: &Machine<'_>) -> String {
    fs::remove_file(machine.path(REACHED)).ok();
    machine.systemctl(&["restart", "billing"]).unwrap();
    fs::read_to_string(machine.path(REACHED)).unwrap().trim().to_owned()
}

/// Every file of the host below `/etc` and `/usr`, what is enabled included.
fn files(machine: &Machine<'_>) -> BTreeSet<String> {
    let find = "find /etc /usr -xdev ! -type d ! -path '*/__pycache__/*'";
    let done = machine.shell(find).unwrap();
    assert!(done.ok(), "{done:?}");
    done.stdout.lines().map(str::to_owned).collect()
}

fn added(before: &BTreeSet<String>, machine: &Machine<'_>) -> Vec<String> {
    let after = files(machine);
    let gone: Vec<_> = before.difference(&after).collect();
    assert!(gone.is_empty(), "{gone:?}");
    after.difference(before).cloned().collect()
}

#[test]
fn the_quick_start_is_typed_on_two_hosts_from_the_package_to_its_removal() {
    let testbed = Testbed::test(1).unwrap();
    addresses(&testbed).unwrap();
    let package = agent::package(&testbed.dir().join("package")).unwrap();
    let gateway = host(&testbed, "gateway", &package);
    let app = host(&testbed, "app", &package);
    let before = [&gateway, &app].map(files);
    assert_eq!(reached(&app), "301 open", "nothing enforces yet");

    let both = steps(QUICK_START, "Both hosts").unwrap();
    for machine in [&gateway, &app] {
        follow(machine, &both);
        for unit in [NODE, GATEWAY] {
            assert_eq!(machine.property(unit, "ActiveState").unwrap(), "inactive");
            assert_eq!(machine.property(unit, "UnitFileState").unwrap(), "disabled");
        }
    }
    assert_eq!(reached(&app), "301 open", "the installation starts nothing");

    follow(&gateway, &without_status(steps(QUICK_START, "The gateway host").unwrap()));
    healthy(&gateway);
    follow(&app, &without_status(steps(QUICK_START, "The application host").unwrap()));
    healthy(&app);

    // The allowed request, the refused one, and why.
    let typed = steps(QUICK_START, "Try it").unwrap();
    let [Step::Run(allowed), Step::Run(refused), Step::Run(flows), Step::Run(reason)] = &typed[..]
    else {
        panic!("{typed:?}")
    };
    let answer = || app.shell(allowed).unwrap();
    let is_answered = |done: &Finished| done.ok() && done.stdout.starts_with("HTTP/1.1 200");
    until_is(SOON, "the allowed host", answer, is_answered).unwrap();
    let journal = || gateway.journal(&["--unit", "egress-gateway"]).unwrap();
    let is_logged = |text: &String| text.contains("packages.example.org");
    until_is(SOON, "the line of the access log", journal, is_logged).unwrap();
    let done = app.shell(refused).unwrap();
    assert!(!done.ok() && done.stdout.is_empty(), "{done:?}");
    // Events follow what they are about.
    let is_told = |line: &str| line.contains("198.51.100.10:443") && line.contains("(no_route)");
    let has_it = |done: &Finished| done.ok() && done.stdout.lines().any(is_told);
    until_is(SOON, "the refusal", || app.shell(flows).unwrap(), has_it).unwrap();
    let reason = app.shell(reason).unwrap();
    assert!(reason.ok() && reason.stdout.contains("no_route"), "{reason:?}");
    // The service of the page's drop-in.
    until_is(SOON, "a service in a slice", || reached(&app), |seen| seen == "200 refused").unwrap();

    a_reinstallation_restarts_nothing(&app);
    removal(&gateway, &app, &before);
}

/// An upgrade says which units run the version before, and leaves them alone.
fn a_reinstallation_restarts_nothing(app: &Machine<'_>) {
    let before = app.property(NODE, "MainPID").unwrap();
    let done = app.shell("dpkg --install target/dist/egress-agent_*.deb").unwrap();
    assert!(done.ok(), "{done:?}");
    assert!(done.stdout.contains("systemctl restart egress-node"), "{done:?}");
    assert!(!done.stdout.contains("systemctl restart egress-gateway"), "{done:?}");
    assert_eq!(app.property(NODE, "MainPID").unwrap(), before);
    follow(app, &[Step::Run("systemctl restart egress-node".into())]);
    until_is(SOON, "the restarted agent", || reached(app), |seen| seen == "200 refused").unwrap();
}

/// The page's way to remove the package; what is left is what the operator wrote.
fn removal(gateway: &Machine<'_>, app: &Machine<'_>, before: &[BTreeSet<String>; 2]) {
    let all = blocks(OPERATIONS, "The Debian package").unwrap();
    let block = all.iter().find(|block| block.text.contains("apt remove")).expect("the commands");
    let typed = block.steps().unwrap();
    let remove = typed.last().expect("a command").clone();
    let Step::Run(line) = &remove else { panic!("{remove:?}") };

    // Under enforcement the package stays, with the program that could take enforcement away.
    let kept = app.shell(line).unwrap();
    // apt gives dpkg a terminal, and shows what it writes there as its own output.
    assert!(!kept.ok() && kept.stdout.contains("run first: egress-agent uninstall"), "{kept:?}");
    assert_eq!(app.property(NODE, "ActiveState").unwrap(), "active");
    assert_eq!(reached(app), "200 refused");

    follow(app, &typed);
    follow(gateway, &[remove]);
    let purge = Step::Run("apt purge egress-agent".into());
    for (machine, before) in [gateway, app].into_iter().zip(before) {
        follow(machine, std::slice::from_ref(&purge));
        for unit in [NODE, GATEWAY] {
            assert_eq!(machine.property(unit, "LoadState").unwrap(), "not-found");
        }
        // The kernel may have two files of its own there: `maps.debug` and `progs.debug`.
        let pins = machine.shell("find /sys/fs/bpf -mindepth 1 -not -name '*.debug'").unwrap();
        assert_eq!(pins.stdout, "");
        let own = added(before, machine);
        let mut expected = vec!["/etc/egress/config/mesh.yaml", "/etc/egress/config/packages.yaml"];
        if std::ptr::eq(machine, app) {
            expected.push("/etc/systemd/system/billing.service.d/egress.conf");
        }
        assert_eq!(own, expected);
    }
    let listening = gateway.shell("ss -Hltn").unwrap().stdout;
    assert_eq!(listening, "", "nothing listens on the gateway host");
    assert_eq!(reached(app), "301 open", "as it was");
}

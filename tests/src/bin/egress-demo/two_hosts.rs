//! The quick start on two hosts, as its page has it: each command, on hosts with systemd as process 1.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use egress_tests::{
    machine::Machine,
    page::{self, Step},
    plan,
    process::Finished,
    testbed::Testbed,
    wait,
};

use crate::screen::Screen;

/// The page, below the repository's root.
const PAGE: &str = "docs/quick-start.md";
/// What the package brings along, where the page takes it from.
const EXAMPLES: &str = "/usr/share/doc/egress-agent/examples";
/// Done before: the hosts have the package's files.
const INSTALL: &str = "apt install ";

/// The sections of the page, with the hosts that they are for.
const SECTIONS: [(&str, &[&str]); 4] = [
    ("Both hosts", &[GATEWAY, APP]),
    ("The gateway host", &[GATEWAY]),
    ("The application host", &[APP]),
    ("Try it", &[APP]),
];
const GATEWAY: &str = "gateway";
const APP: &str = "app";

/// The page's own addresses are documentation's; these hosts have others.
fn with_own_addresses(text: &str) -> String {
    text.replace("[192.0.2.0/24]", "[10.10.0.0/24, 10.96.0.0/12]")
        .replace("192.0.2.10", plan::GATEWAYS[0])
}

/// What the hosts have before the page begins: trust in the external servers' authority.
fn edit(testbed: &Testbed, root: &Path) -> Result<()> {
    for name in ["mesh.yaml", "config/mesh.yaml"] {
        fs::remove_file(root.join("etc/egress").join(name)).ok();
    }
    let certificates = root.join("etc/ssl/certs");
    fs::create_dir_all(&certificates)?;
    fs::copy(testbed.dir().join("ca.pem"), certificates.join("ca-certificates.crt"))?;
    let examples = root.join("var/examples/config");
    fs::create_dir_all(&examples)?;
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/hosts/config");
    for entry in fs::read_dir(shipped)? {
        let entry = entry?;
        fs::copy(entry.path(), examples.join(entry.file_name()))?;
    }
    Ok(())
}

/// Puts what the package has below `/usr`, which is this machine's own, into place, and mounts what systemd mounts
/// outside a container.
fn complete(host: &Machine<'_>) -> Result<()> {
    let script = format!(
        "mount -t tmpfs tmpfs /usr/share/doc && mkdir -p {EXAMPLES} && cp -r /var/examples/. {EXAMPLES} && \
         {{ mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf; }}"
    );
    let done = host.run("sh", &["-c", &script])?;
    if !done.ok() {
        bail!("cannot complete the host: {done:?}");
    }
    Ok(())
}

/// Whether a command did what the page says.
fn is_as_described(command: &str, done: &Finished) -> bool {
    let ended_well = done.ok();
    if command.contains("http://packages.example.org") {
        return ended_well && done.stdout.starts_with("HTTP/1.1 200");
    }
    if command.contains("https://www.example.com") {
        return !ended_well;
    }
    if command.contains(" flows ") {
        return ended_well && done.stdout.contains("(no_route)");
    }
    // A kernel that lacks something is reported (4 of `status`, 1 of `doctor`), and nothing is wrong.
    let lacks =
        (command.ends_with(" status") && done.code == 4 && !done.stdout.contains("PROBLEM"))
            || command.ends_with(" doctor");
    ended_well || lacks
}

/// Runs the quick start.
pub(crate) fn run() -> Result<ExitCode> {
    let mut screen = Screen::new();
    let testbed = Testbed::beside(1)?;
    let app = Machine::boot(&testbed, |root| edit(&testbed, root))?;
    let gateway = Machine::boot_gateway(&testbed, |root| edit(&testbed, root))?;
    for host in [&app, &gateway] {
        complete(host)?;
    }
    println!("Two hosts, with the package's files in place.");
    for (title, hosts) in SECTIONS {
        screen.step(title);
        let steps = page::steps(PAGE, title)?;
        for name in hosts {
            let host = if *name == GATEWAY { &gateway } else { &app };
            for step in &steps {
                match step {
                    Step::Write { path, text } => file(&screen, (name, host), path, text)?,
                    Step::Run(line) if line.starts_with(INSTALL) => {}
                    Step::Run(line) => command(&mut screen, (name, host), line)?,
                }
            }
        }
    }
    let good = screen.table();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn file(screen: &Screen, (name, host): (&str, &Machine<'_>), path: &str, text: &str) -> Result<()> {
    let text = with_own_addresses(text);
    let place = host.path(path);
    let parent = place.parent().context("a directory")?;
    fs::create_dir_all(parent)?;
    fs::write(&place, &text).with_context(|| path.to_owned())?;
    println!("\n   {name}: {path}");
    // The path, which the page has in the first line, has been shown.
    screen.all(text.split_once('\n').map_or("", |(_path, text)| text));
    Ok(())
}

fn command(screen: &mut Screen, (name, host): (&str, &Machine<'_>), text: &str) -> Result<()> {
    screen.root_command(name, text);
    // What was started a moment ago may not be in force yet. A command that fails for good is shown as it is.
    let ask = || host.run("sh", &["-c", text]);
    let last = wait::until_is(wait::SOON, text, ask, |done| {
        done.as_ref().is_ok_and(|done| is_as_described(text, done))
    });
    let done = match last {
        Ok(done) => done?,
        Err(_) => ask()?,
    };
    screen.all(&done.stdout);
    screen.all(&done.stderr);
    let good = is_as_described(text, &done);
    let seen = if good { "as described".to_owned() } else { format!("exit code {}", done.code) };
    screen.check(&format!("{name}: {text}"), &seen, good);
    Ok(())
}

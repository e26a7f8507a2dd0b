//! The `bug-report` command: one archive of what a report about a fault needs.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use jiff::Timestamp;

use super::{exit::USAGE, output::stdout, paths};
use crate::{
    bundle::{Archive, redacted},
    doctor::{HostFacts, Role, findings},
};

/// How long an agent's page may take.
const PAGE: Duration = Duration::from_secs(10);
/// The most that is read of one, in bytes.
const PAGE_BYTES: u64 = 16 << 20;
/// Lines of the journal.
const LINES: &str = "2000";

/// Pages of the agents, with the names that they have in the archive.
const PAGES: [(u16, &str, &str); 8] = [
    (15020, "/metrics", "node/metrics.txt"),
    (15020, "/healthz/ready", "node/ready.txt"),
    (15000, "/stats", "gateway/stats.txt"),
    (15000, "/clusters", "gateway/clusters.txt"),
    (15000, "/config_dump", "gateway/config_dump.json"),
    (15000, "/listeners", "gateway/listeners.txt"),
    (15000, "/certs", "gateway/certs.json"),
    (15000, "/server_info", "gateway/server_info.json"),
];

/// Other commands of this program, with the names that their outputs have in the archive.
const COMMANDS: [(&[&str], &str); 4] = [
    (&["version", "-o", "json"], "version.json"),
    (&["status", "-o", "json"], "status.json"),
    (&["status"], "status.txt"),
    (&["flows", "-o", "json", "--last", "2000"], "flows.json"),
];

/// Options of `bug-report`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
In the archive are version, status, flows, metrics, pages of the agents, the
journal's last lines, what `doctor` finds, and the files of --config. Values
under names that say authorization, cookie, password, secret, token, credential,
signature or key, values of conditions on headers, queries of URLs and private
keys are removed; names of hosts, workloads and addresses are not. Look through
it before you give it to anybody.

Examples:
  egress-agent bug-report
  egress-agent bug-report --config /etc/egress/config report.tar

Exit codes: 0 written, 1 it can't be written, 2 a file can't be read, or is
there already.")]
pub(super) struct BugReportArgs {
    /// The archive, which must not exist yet [default: egress-bug-report-TIME.tar].
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Files and directories of the configuration, to be added.
    #[arg(long, value_name = "PATH")]
    config: Vec<PathBuf>,
}

/// Writes the archive.
///
/// # Errors
/// It can't be written.
pub(super) fn run(args: &BugReportArgs) -> anyhow::Result<ExitCode> {
    write(args, &std::env::current_exe().context("can't find this program")?)
}

/// The same, with the program whose other commands are asked.
fn write(args: &BugReportArgs, own: &Path) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now();
    let stamp = Timestamp::try_from(now).unwrap_or_default().strftime("%Y%m%d-%H%M%S").to_string();
    let name = format!("egress-bug-report-{stamp}");
    let path = args.file.clone().unwrap_or_else(|| format!("{name}.tar").into());
    let (files, unreadable) = paths::read(&args.config, None);
    if !unreadable.is_empty() {
        return wrong(&unreadable.join("\nerror: "));
    }
    // Names of workloads and hosts are nobody else's business.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return wrong(&format!("{} exists already; name a file that does not", path.display()));
        }
        Err(error) => return wrong(&format!("can't write {}: {error}", path.display())),
    };
    let mut archive = Archive::new(file, &name, now);
    let mut missing = Vec::new();
    for (member, text) in gathered(own) {
        match text {
            Ok(text) => archive.add(&member, redacted(&text).as_bytes())?,
            Err(why) => missing.push(format!("{member}: {why}\n")),
        }
    }
    let given = files.resources.iter().chain(&files.mesh).enumerate();
    for (number, file) in given {
        let base = file.path.rsplit('/').next().unwrap_or("file");
        let member = format!("config/{number:03}-{}", base.chars().take(40).collect::<String>());
        archive.add(&member, redacted(&file.text).as_bytes())?;
    }
    archive.add("missing.txt", missing.concat().as_bytes())?;
    archive.finish().with_context(|| path.display().to_string())?;
    stdout().write_all(said(&path, missing.len()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What is said of an archive in which this many parts are missing. Its path is a line, for a program to read.
fn said(path: &Path, missing: usize) -> String {
    let parts = match missing {
        0 => String::new(),
        1 => "not there (missing.txt says why): 1 part\n".to_owned(),
        some => format!("not there (missing.txt says why): {some} parts\n"),
    };
    format!(
        "{}\n{parts}Secrets were removed as far as they were recognised.\nLook through it before you send it.\n",
        path.display()
    )
}

fn wrong(why: &str) -> anyhow::Result<ExitCode> {
    writeln!(std::io::stderr().lock(), "error: {why}")?;
    Ok(ExitCode::from(USAGE))
}

/// Every part: its name, and its text or why there is none.
fn gathered(own: &Path) -> Vec<(String, Result<String, String>)> {
    let mut all = Vec::new();
    for (role, name) in [(Role::Node, "node"), (Role::Gateway, "gateway")] {
        let lines = findings(&HostFacts::of(role)).into_iter();
        let lines =
            lines.map(|found| format!("{:?} {}: {}\n", found.level, found.what, found.text));
        all.push((format!("doctor-{name}.txt"), Ok(lines.collect())));
    }
    for (args, name) in COMMANDS {
        all.push((name.to_owned(), output(Command::new(own).args(args))));
    }
    let mut journal = Command::new("journalctl");
    journal.args([
        "--unit",
        "egress-node",
        "--unit",
        "egress-gateway",
        "--lines",
        LINES,
        "--no-pager",
    ]);
    all.push(("journal.txt".into(), output(&mut journal)));
    for (port, page, name) in PAGES {
        all.push((name.to_owned(), fetch(port, page)));
    }
    all
}

/// What a command says, whatever it thinks of it.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A page of an agent on this host.
fn fetch(port: u16, page: &str) -> Result<String, String> {
    let text =
        get(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), page).map_err(|e| e.to_string())?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or_else(|| "the answer is no HTTP".into())
}

fn get(addr: SocketAddr, page: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, PAGE)?;
    stream.set_read_timeout(Some(PAGE))?;
    let request = format!("GET {page} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut text = Vec::new();
    stream.take(PAGE_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, net::TcpListener};

    use super::{super::testing::golden, *};

    #[test]
    fn what_is_missing_is_said() {
        let path = Path::new("egress-bug-report-20261130-120000.tar");
        golden("bug-report.txt", &[0, 1, 12].map(|missing| said(path, missing)).concat());
    }

    #[test]
    fn a_page_is_its_body() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /stats HTTP/1.0\r\n"));
            stream.write_all(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nbody\n").unwrap();
        });
        assert_eq!(fetch(addr.port(), "/stats"), Ok("body\n".into()));
        serving.join().unwrap();
        assert!(fetch(addr.port(), "/stats").is_err());
    }

    /// In whatever part a secret is: what the agents' commands say, and files of the configuration.
    #[test]
    fn no_secret_that_was_planted_is_in_the_archive() {
        let dir = tempfile::TempDir::new().unwrap();
        let planted = "\
kind: Secret
stringData:
  tls.key: |
    -----BEGIN PRIVATE KEY-----
    planted-inline-key
    -----END PRIVATE KEY-----
---
kind: VirtualService
spec:
  http:
  - headers: {request: {set: {Authorization: Bearer planted-bearer, x-api-key: planted-api-key}}}
    match:
    - headers: {cookie: {exact: sid=planted-cookie}}
---
kind: AuthorizationPolicy
spec:
  rules:
  - when:
    - key: request.headers[x-team]
      values: [planted-condition]
";
        let said = "\
GET /a?session=planted-query HTTP/1.1
Proxy-Authorization: Basic planted-basic-credentials
Set-Cookie: sid=planted-set-cookie
HTTPS_PROXY=http://user:planted-proxy-password@proxy.example:3128
OTEL_EXPORTER_OTLP_HEADERS=x-team=planted-otel-header
{\"password\": \"planted-in-json\", \"host\": \"kept.example\"}
";
        let config = dir.path().join("a.yaml");
        std::fs::write(&config, planted).unwrap();
        let output = dir.path().join("said.txt");
        std::fs::write(&output, said).unwrap();
        let own = dir.path().join("own");
        std::fs::write(&own, format!("#!/bin/sh\ncat {}\n", output.display())).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&own, executable).unwrap();
        let file = dir.path().join("report.tar");
        let args = BugReportArgs { file: Some(file.clone()), config: vec![config] };
        let _code = write(&args, &own).unwrap();
        let archive = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        // What is no secret is there, so the parts are.
        for part in ["kept.example", "proxy.example:3128", "request.headers[x-team]"] {
            assert!(archive.contains(part), "{part}\n{archive}");
        }
        assert!(!archive.contains("planted"), "{archive}");
    }

    #[test]
    fn an_archive_is_written_once_and_without_secrets() {
        let dir = tempfile::TempDir::new().unwrap();
        let config = dir.path().join("a.yaml");
        std::fs::write(&config, "headers: {x-token: hunter2}\n").unwrap();
        let file = dir.path().join("report.tar");
        let args = || BugReportArgs { file: Some(file.clone()), config: vec![config.clone()] };
        assert_eq!(
            format!("{:?}", write(&args(), Path::new("/bin/true")).unwrap()),
            format!("{:?}", ExitCode::SUCCESS)
        );
        let mut text = Vec::new();
        File::open(&file).unwrap().read_to_end(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains("/config/000-a.yaml") && text.contains("/missing.txt"));
        assert!(!text.contains("hunter2"));
        // What is there already is not written over, and what can't be read leaves no archive behind.
        let (absent, other) = (dir.path().join("absent"), dir.path().join("other.tar"));
        let args_of = BugReportArgs { file: Some(other.clone()), config: vec![absent] };
        assert_eq!(
            format!("{:?}", write(&args_of, Path::new("/bin/true")).unwrap()),
            format!("{:?}", ExitCode::from(USAGE))
        );
        assert!(!other.exists());
        assert_eq!(
            format!("{:?}", write(&args(), Path::new("/bin/true")).unwrap()),
            format!("{:?}", ExitCode::from(USAGE))
        );
    }
}

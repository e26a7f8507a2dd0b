//! The `probe` command: try every bypass technique, or be the canary.

mod allowed;
mod canary;
mod options;
mod table;

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    net::IpAddr,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::thread::capabilities;

use super::{
    exit::{FAILURE, USAGE},
    output::{complain, stdout},
    wrap::width,
};
use crate::{
    probe::{self, Case, Family, Needs, Network, Outcome, ProbeId, Report, Settings, Sockets},
    sys::process::raise_open_files,
};
use allowed::Allowed;
use options::Output;
pub(super) use options::ProbeArgs;
use table::Summary;

/// Exit code where nothing got out, but the allowed connection failed too.
const INCONCLUSIVE: u8 = 3;

/// Runs it.
///
/// # Errors
/// Output can't be written, or the canary can't listen.
pub(super) fn run(args: ProbeArgs) -> anyhow::Result<ExitCode> {
    if args.list {
        let mut out = stdout();
        let width = width(out.is_terminal());
        table::list(args.output, width, &mut out)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Many sockets at a time, and the canary has one for each address and port.
    raise_open_files().ok();
    if args.canary_server {
        return canary::run(&args);
    }
    if let Some(path) = &args.pass_sockets {
        let mut said = Ok(());
        Sockets::give(path, || said = writeln!(stdout(), "waiting at {}", path.display()))
            .with_context(|| path.display().to_string())?;
        said?;
        return Ok(ExitCode::SUCCESS);
    }
    let (settings, cases) = match prepare(&args) {
        Ok(prepared) => prepared,
        Err(error) => {
            complain(format_args!("error: {error:#}"));
            return Ok(ExitCode::from(USAGE));
        }
    };
    if args.hold {
        hold()?;
    }
    let allowed = args.allow_check.as_deref().map_or(Allowed::NotChecked, Allowed::check);
    let jobs = args.jobs.unwrap_or(JOBS);
    let reports = make(&cases, &settings, jobs);
    let summary = Summary { settings: &settings, reports: &reports, allowed: &allowed };
    let mut out = stdout();
    match args.output {
        Output::Table => {
            let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
            summary.text(colours, width(out.is_terminal()), &mut out)?;
        }
        Output::Json => summary.json(&mut out)?,
    }
    out.flush()?;
    Ok(ExitCode::from(verdict(&reports, &allowed)))
}

/// What the arguments ask for; every error is a usage error.
fn prepare(args: &ProbeArgs) -> anyhow::Result<(Settings, Vec<Case>)> {
    let targets = args.targets()?;
    if targets.is_empty() {
        bail!(
            "no target: name the canary's address, as in `egress-agent probe 203.0.113.9` \
             (start the canary there with `egress-agent probe --canary-server`)"
        );
    }
    let mut cases = args.select(probe::cases(&args.ports.0))?;
    cases.retain(|case| {
        let v6 = case.family == Family::V6;
        let other_gateway = case.attempt.needs == Needs::Gateway
            && args.gateway.is_some_and(|gateway| gateway.is_ipv6() != v6);
        targets.iter().any(|target| target.is_ipv6() == v6) && !other_gateway
    });
    if cases.is_empty() {
        bail!("--only names nothing of the family that the target's address is of");
    }
    // Old and foreign sockets are for those who ask for them.
    cases.retain(|case| match case.attempt.needs {
        Needs::Hold => args.hold,
        Needs::Passed => args.sockets_from.is_some(),
        Needs::Nothing | Needs::NetRaw | Needs::NetAdmin | Needs::Gateway => {
            !args.hold && args.sockets_from.is_none()
        }
    });
    let timeout = args.timeout;
    let plain = settings(targets.clone(), args.ports.0.clone(), timeout)?;
    let passed = match &args.sockets_from {
        Some(path) => Some(Sockets::take(path).with_context(|| path.display().to_string())?),
        None => None,
    };
    let port = args.ports.0.first().copied().unwrap_or_default();
    let held = args.hold.then(|| Sockets::open(&targets, port, timeout));
    let settings = Settings { gateway: args.gateway, risky: args.risky, held, passed, ..plain };
    Ok((settings, cases))
}

/// What is tried without options.
fn settings(targets: Vec<IpAddr>, ports: Vec<u16>, timeout: Duration) -> anyhow::Result<Settings> {
    let capabilities = capabilities(None).context("can't read the own capabilities")?.effective;
    Ok(Settings {
        id: ProbeId::random(),
        targets,
        ports,
        timeout,
        gateway: None,
        risky: false,
        capabilities,
        network: Network::find().map_err(|error| error.to_string()),
        held: None,
        passed: None,
    })
}

/// Makes every attempt that needs neither a gateway's address nor sockets from before, at these targets, at most one of
/// each family. Nobody needs to be there: what the own kernel refuses does not get that far.
///
/// # Errors
/// The own capabilities can't be read.
pub(super) fn attempts(targets: Vec<IpAddr>) -> anyhow::Result<Vec<Report>> {
    raise_open_files().ok();
    let mut cases = probe::cases(&[PORT]);
    cases.retain(|case| {
        let v6 = case.family == Family::V6;
        targets.iter().any(|target| target.is_ipv6() == v6) && is_ordinary(case.attempt.needs)
    });
    let settings = settings(targets, vec![PORT], PATIENCE)?;
    Ok(probe::run(&cases, &settings, JOBS, |_| {}))
}

/// The canary's port, how long an attempt waits, and how many are made at a time, where nobody says.
const PORT: u16 = 7777;
const PATIENCE: Duration = Duration::from_secs(2);
const JOBS: usize = 16;

/// Whether an attempt can be made without more than its target.
fn is_ordinary(needs: Needs) -> bool {
    match needs {
        Needs::Nothing | Needs::NetRaw | Needs::NetAdmin => true,
        Needs::Gateway | Needs::Hold | Needs::Passed => false,
    }
}

/// Waits for a line: whoever holds sockets is told when to use them.
fn hold() -> anyhow::Result<()> {
    writeln!(stdout(), "holding")?;
    io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

/// Makes the attempts; on a terminal one sees how far it is.
fn make(cases: &[Case], settings: &Settings, jobs: usize) -> Vec<Report> {
    let (terminal, done) = (io::stderr().is_terminal(), AtomicUsize::new(0));
    let reports = probe::run(cases, settings, jobs, |report| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if terminal {
            eprint!("\r\x1b[K{done} of {} attempts: {}", cases.len(), report.case.name());
        }
    });
    if terminal {
        eprint!("\r\x1b[K");
    }
    reports
}

fn verdict(reports: &[Report], allowed: &Allowed) -> u8 {
    let out = reports.iter().any(|report| matches!(report.outcome, Outcome::Answered(_)));
    match allowed {
        _ if out => FAILURE,
        Allowed::Fails(_) => INCONCLUSIVE,
        Allowed::NotChecked | Allowed::Works(_) => 0,
    }
}

#[cfg(test)]
mod tests;

//! The `doctor` command: whether this host is fit for an agent.

use std::{io::Write as _, process::ExitCode};

use clap::ValueEnum;
use serde_json::{Value, json};

use super::{
    exit::FAILURE,
    output::{Output, stdout},
    wrap::{WIDTH, wrap},
};
use crate::doctor::{Finding, HostFacts, Level, Role, findings};

/// Options of `doctor`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Run it before the installation, as root. It changes nothing: programs are
verified and let go of, ports are bound and closed, and each name server is
asked once.

Examples:
  egress-agent doctor
  egress-agent doctor --role gateway

Exit codes: 0 the agent would work here (warnings are allowed), 1 something
prevents it, 2 wrong options.")]
pub(super) struct DoctorArgs {
    /// What this host is to be.
    #[arg(long, value_enum, default_value_t = DoctorRole::Node)]
    role: DoctorRole,
    /// How it is written.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// `--role`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum DoctorRole {
    /// An application node.
    Node,
    /// A gateway node.
    Gateway,
}

/// Prints what was found.
///
/// # Errors
/// Standard output can't be written.
pub(super) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let role = match args.role {
        DoctorRole::Node => Role::Node,
        DoctorRole::Gateway => Role::Gateway,
    };
    let found = findings(&HostFacts::of(role));
    let mut out = stdout();
    match args.output {
        Output::Text => out.write_all(text(&found).as_bytes())?,
        Output::Json => {
            writeln!(out, "{:#}", value(&found))?;
        }
    }
    out.flush()?;
    let failed = found.iter().any(|finding| finding.level == Level::Failure);
    Ok(if failed { ExitCode::from(FAILURE) } else { ExitCode::SUCCESS })
}

fn value(found: &[Finding]) -> Value {
    let one = |Finding { level, what, text }: &Finding| json!({ "level": name(*level), "check": what, "text": text });
    json!({ "findings": found.iter().map(one).collect::<Vec<_>>() })
}

const fn name(level: Level) -> &'static str {
    match level {
        Level::Good => "ok",
        Level::Warning => "warning",
        Level::Failure => "failure",
    }
}

fn text(found: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { level, what, text: said } in found {
        let first = format!("{:8} {what:17} ", name(*level));
        text.push_str(&wrap(said, &first, &" ".repeat(first.len()), WIDTH));
    }
    let count = |level| found.iter().filter(|finding| finding.level == level).count();
    let last = match (count(Level::Failure), count(Level::Warning)) {
        (0, 0) => "fit".to_owned(),
        (0, n) => format!("fit, with {n} to know of"),
        (n, _) => format!("not fit: {n} in the way"),
    };
    text.push_str(&format!("\n{last}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{documented, golden},
        *,
    };

    #[test]
    fn findings_fit_a_terminal() {
        let finding = |level, what, text: &str| Finding { level, what, text: text.into() };
        let found = [
            finding(Level::Good, "kernel", "Linux 6.12.0-1-amd64"),
            finding(
                Level::Warning,
                "other programs",
                "eth0 ingress: cil_from_netdev. Ours come before them and are put back there; what they redirect past the kernel's stack is not seen",
            ),
            finding(Level::Failure, "ports", "15020 (metrics): another process listens on it"),
        ];
        golden("doctor.txt", &text(&found));
        documented("doctor -o json", &value(&found));
        assert!(text(&found[..1]).ends_with("\nfit\n"));
        assert!(text(&found[..2]).ends_with("\nfit, with 1 to know of\n"));
    }
}

//! The `check` command: what would these files do, and what is wrong with them.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;

use super::{
    exit::{FAILURE, REFUSED, USAGE},
    output::{Output, stdout},
    paths::read,
    wrap::{fitted, width},
};
use crate::{
    config::{self, Problem, Severity},
    policy::{
        ClientTls, ClientTlsMode, CredentialFiles, CredentialSource, ServerProtocol, Snapshot,
    },
};

/// Options of `check`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  # Every problem of a directory at once, each with file, line and field.
  egress-agent check /etc/egress/config

  # A change before it is committed, with the settings from elsewhere.
  egress-agent check --mesh /etc/egress/mesh.yaml policy.yaml

Exit code: 0 where all of it is in force (warnings are allowed), 1 with errors
(nothing of it would be in force), 2 where something can't be read, 3 where it
is in force and parts of it are refused.")]
pub(super) struct CheckArgs {
    /// Files, or directories of *.yaml and *.yml as `--config` takes them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The mesh-wide settings [default: a mesh.yaml among the paths or in a directory].
    #[arg(long, value_name = "FILE")]
    mesh: Option<PathBuf>,
    /// How problems are printed.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    files: usize,
    errors: usize,
    refusals: usize,
    warnings: usize,
    problems: &'a [Problem],
}

/// Prints every problem.
///
/// # Errors
/// Standard output can't be written.
pub(super) fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let mut out = stdout();
    let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let screen = Screen { colours, width: width(out.is_terminal()) };
    let code = check(&args, screen, &mut out, &mut io::stderr().lock())?;
    out.flush()?;
    Ok(ExitCode::from(code))
}

/// What the text is shown on.
#[derive(Clone, Copy)]
struct Screen {
    colours: bool,
    width: usize,
}

fn check(
    args: &CheckArgs,
    screen: Screen,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let (files, unreadable) = read(&args.paths, args.mesh.as_deref());
    if !unreadable.is_empty() {
        for error in unreadable {
            writeln!(err, "error: {error}")?;
        }
        return Ok(USAGE);
    }
    let mut problems = match config::compile(&files.resources, files.mesh.as_ref()) {
        Ok(compiled) => {
            let mut problems = compiled.warnings;
            problems.extend(missing_files(&compiled.snapshot));
            problems
        }
        Err(problems) => problems.0,
    };
    if files.resources.is_empty() {
        problems.extend(args.paths.iter().map(|path| nothing_there(path)));
    }
    let count = |severity| problems.iter().filter(|p| p.severity == severity).count();
    let (errors, refusals) = (count(Severity::Error), count(Severity::Refusal));
    let report = Report {
        files: files.resources.len() + usize::from(files.mesh.is_some()),
        errors,
        refusals,
        warnings: count(Severity::Warning),
        problems: &problems,
    };
    match args.output {
        Output::Text => text(&report, screen, out)?,
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
        }
    }
    Ok(match (errors, refusals) {
        (0, 0) => 0,
        (0, _) => REFUSED,
        _ => FAILURE,
    })
}

fn text(report: &Report<'_>, screen: Screen, out: &mut impl Write) -> io::Result<()> {
    for problem in report.problems {
        let text = fitted(&problem.to_string(), screen.width);
        let text = text.trim_end();
        if screen.colours {
            let (word, code) = match problem.severity {
                Severity::Error => (": error", "1;31"),
                Severity::Refusal => (": refused", "31"),
                Severity::Warning => (": warning", "1;33"),
            };
            let painted = format!(": \x1b[{code}m{}\x1b[0m", &word[2..]);
            writeln!(out, "{}", text.replacen(word, &painted, 1))?;
        } else {
            writeln!(out, "{text}")?;
        }
    }
    let count = |n: usize, word: &str| match n {
        0 => format!("no {word}s"),
        1 => format!("1 {word}"),
        n => format!("{n} {word}s"),
    };
    let Report { files, errors, refusals, warnings, problems: _ } = report;
    let what = match (errors, refusals) {
        (0, 0) => "",
        (0, _) => "; all of it is in force but what is refused",
        _ => "; nothing of it is put in force before the errors are gone",
    };
    let refusals = match refusals {
        0 => String::new(),
        n => format!("{}, ", count(*n, "refusal")),
    };
    let (errors, warnings) = (count(*errors, "error"), count(*warnings, "warning"));
    let summary = format!("{errors}, {refusals}{warnings} in {}{what}", count(*files, "file"));
    write!(out, "{}", fitted(&summary, screen.width))
}

fn nothing_there(path: &Path) -> Problem {
    Problem::new(
        Severity::Error,
        path.display().to_string(),
        "no resources here; with this configuration everything external is refused",
    )
    .found(
        "no file",
        "files *.yaml or *.yml with ServiceEntry, Gateway, DestinationRule, VirtualService",
    )
}

/// Certificates and keys that this machine doesn't have; the gateway's may.
fn missing_files(snapshot: &Snapshot) -> Vec<Problem> {
    let mut seen = HashSet::new();
    let mut problems = Vec::new();
    for server in &snapshot.rules.servers {
        let ServerProtocol::Terminate(tls) = &server.protocol else { continue };
        let files = tls.certificates().flat_map(|source| match source {
            CredentialSource::Files(files) => {
                let CredentialFiles { certificate, private_key, ca_certificates, ca_crl } = files;
                let pair = [certificate, private_key].into_iter();
                pair.chain(ca_certificates).chain(ca_crl).collect()
            }
            CredentialSource::Named(_) | CredentialSource::Own => Vec::new(),
        });
        for path in files {
            if let Err(error) = File::open(path)
                && seen.insert(path)
            {
                let message = format!(
                    "can't be read here ({error}), but Gateway {} needs it on port {}; if the \
                     gateway can't read it either, connections that need it are refused",
                    server.gateway, server.port
                );
                problems.push(Problem::new(Severity::Warning, path.display().to_string(), message));
            }
        }
    }
    for cluster in &snapshot.rules.clusters {
        let Some(ClientTls { mode, ca_certificates, ca_crl, .. }) = &cluster.tls else { continue };
        let own = match mode {
            // Where the credential is, only the gateway knows (`--credentials-dir`).
            ClientTlsMode::Simple
            | ClientTlsMode::SimpleNamed(_)
            | ClientTlsMode::MutualNamed(_) => Vec::new(),
            ClientTlsMode::Mutual { client_certificate, private_key } => {
                vec![client_certificate, private_key]
            }
        };
        for path in own.into_iter().chain(ca_certificates).chain(ca_crl) {
            if let Err(error) = File::open(path)
                && seen.insert(path)
            {
                let message = format!(
                    "can't be read here ({error}), but TLS to {} needs it; if the gateway can't \
                     read it either, every request there fails",
                    cluster.name
                );
                problems.push(Problem::new(Severity::Warning, path.display().to_string(), message));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests;

//! The `certs` command: what is in the files of certificates, and what is wrong with it.

mod options;
mod show;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Subcommand;

use self::options::ShowArgs;
use super::{
    exit::{FAILURE, USAGE},
    output::{Output, stdout},
    wrap::{fitted, width},
};

/// Options of `certs`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  egress-agent certs show --config /etc/egress/config \\
      --credentials-dir /etc/egress/credentials")]
pub(super) struct CertsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Print chains, identities, validity, and what is wrong.
    Show(ShowArgs),
}

/// Runs a command on certificates.
///
/// # Errors
/// Standard output can't be written, or the configuration can't be read.
pub(super) fn run(args: CertsArgs) -> anyhow::Result<ExitCode> {
    let Command::Show(args) = args.command;
    let shown = show::show(&args)?;
    if shown.certificates.is_empty() {
        writeln!(
            io::stderr(),
            "error: nothing to show: name a directory or file of certificates, or give --config, \
             --credentials-dir, --identity-dir or --workload-api"
        )?;
        return Ok(ExitCode::from(USAGE));
    }
    let mut out = stdout();
    match args.output {
        Output::Text => {
            let mut text = Vec::new();
            show::text(&shown, &mut text)?;
            let text = String::from_utf8_lossy(&text);
            out.write_all(fitted(&text, width(out.is_terminal())).as_bytes())?;
        }
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, &shown)?;
            writeln!(out)?;
        }
    }
    out.flush()?;
    Ok(if shown.is_good() { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) })
}

#[cfg(test)]
mod tests;

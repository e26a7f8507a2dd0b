//! The `upgrade` command: a gateway goes on as another process, which takes over its listeners.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};

use super::{
    exit::{FAILURE, REFUSED},
    output::{Output, complain, stdout},
    wrap::{fitted, width},
};
use crate::admin::control::{
    AskError, GATEWAY_SOCKET, GATEWAY_UNIT_SOCKET, UpgradeReport, ask_upgrade,
};

/// Options of `upgrade`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The gateway starts the program that is now at the path it was started by, with
its own arguments and environment. Once the new process has the configuration in
force and accepts connections from the same listeners, the old one accepts no
more, and goes on with what runs for at most `--upgrade-drain-timeout` seconds.
If the new process can't serve, the old one goes on as if nothing had happened.
Changed arguments need a restart. Run it as root.

Example: install another version and have it take over
  install -m 0755 egress-agent.new /usr/local/bin/egress-agent && \\
      egress-agent upgrade

Exit codes: 0 another process has taken over; 1 it was tried and failed, and the
old one goes on, or no gateway was reached; 2 wrong options; 3 refused: another
upgrade is under way, or the process before still drains.")]
pub(super) struct UpgradeArgs {
    /// The gateway's control socket [default: the usual ones].
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// How it is written.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Asks for it and prints the result.
///
/// # Errors
/// No gateway is reached, or it can't be replaced.
pub(super) fn run(args: &UpgradeArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    let report = match runtime.block_on(ask(args.control.as_deref()))? {
        Ok(report) => report,
        Err(AskError::Refused(why)) => {
            complain(format_args!("error: refused: {why}"));
            return Ok(ExitCode::from(REFUSED));
        }
        Err(error) => {
            complain(format_args!("error: {error}"));
            return Ok(ExitCode::from(FAILURE));
        }
    };
    let mut out = stdout();
    match args.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string(&report)?)?,
        Output::Text => {
            let width = width(out.is_terminal());
            out.write_all(fitted(&text(&report), width).as_bytes())?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(control: Option<&Path>) -> anyhow::Result<Result<UpgradeReport, AskError>> {
    let paths = match control {
        Some(path) => vec![path],
        None => [GATEWAY_SOCKET, GATEWAY_UNIT_SOCKET].map(Path::new).to_vec(),
    };
    for path in paths {
        match ask_upgrade(path).await {
            Err(AskError::Nobody) => {}
            Err(AskError::Forbidden) => bail!("{}: {}", path.display(), AskError::Forbidden),
            answer => return Ok(answer),
        }
    }
    match control {
        Some(path) => bail!("{}: {}", path.display(), AskError::Nobody),
        None => {
            bail!("no gateway runs on this host, or its control socket is elsewhere (--control)")
        }
    }
}

fn text(report: &UpgradeReport) -> String {
    let UpgradeReport { pid, version, replaced, drain_seconds } = report;
    format!(
        "process {pid} (version {version}) has taken over from process {replaced}, which goes on with what \
         runs for at most {drain_seconds} s"
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            testing::{documented, golden},
            wrap::WIDTH,
        },
        *,
    };

    #[test]
    fn the_answer_names_both_processes() {
        let report = UpgradeReport { pid: 8, version: "2".into(), replaced: 7, drain_seconds: 900 };
        let text = text(&report);
        for part in ["process 8", "version 2", "process 7", "900 s"] {
            assert!(text.contains(part), "{text}");
        }
        documented("upgrade -o json", &serde_json::to_value(&report).unwrap());
        golden("upgrade.txt", &fitted(&text, WIDTH));
    }
}

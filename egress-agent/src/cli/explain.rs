//! The `explain` command: what a request of a workload comes to, and which resource says so.

mod text;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;

use super::{
    exit::{FAILURE, REFUSED, USAGE},
    output::{Output, stdout},
    paths,
};
use crate::{
    admin::control::{AskError, GATEWAY_SOCKET, GATEWAY_UNIT_SOCKET, NODE_SOCKET, ask_explain},
    config,
    explain::{Explanation, Query, Verdict},
};

/// Options of `explain`.
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "egress-agent explain [OPTIONS] --from <NAMESPACE/WORKLOAD> <URL>\n       [PATH]..."
)]
#[command(after_help = "\
Examples:
  # By these files: the node's verdict, the rules of both stages, cluster, TLS
  # and addresses.
  egress-agent explain --from shop/web https://api.example.com/v1 \\
      /etc/egress/config

  # By what is in force on this host now.
  egress-agent explain --from shop/web https://api.example.com/v1

  # A pod of a cluster, which is in no file.
  egress-agent explain --from shop/web --label app=web \\
      tcp://db.example.com:5432 config/

Each step names the resource, file and line that decides it. The steps are the
data path's own decisions. Gateways are taken to be healthy, and a name to
resolve to an external address, unless --address says otherwise.

Exit codes: 0 it is allowed, or the gateway answers it as a rule says; 1 the
configuration has errors, or no agent answers; 2 the question or a file can't be
read; 3 it is refused.")]
pub(super) struct ExplainArgs {
    /// Who asks: a workload of mesh.yaml, or any name with --label.
    #[arg(long, value_name = "NAMESPACE/WORKLOAD")]
    from: String,
    /// What is asked for. tls:// is TLS with anything inside, tcp:// other bytes.
    #[arg(value_name = "URL")]
    url: String,
    /// Files, or directories as `check` takes them [default: ask the agent that runs here].
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The mesh-wide settings [default: a mesh.yaml among the paths or in a directory].
    #[arg(long, value_name = "FILE", requires = "paths")]
    mesh: Option<PathBuf>,
    /// The method of an HTTP request.
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<String>,
    /// A header of an HTTP request.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// A label of the pod, where it is in no file.
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// The address that the host resolves to.
    #[arg(long, value_name = "IP")]
    address: Option<String>,
    /// The control socket of the agent to ask [default: the usual ones].
    #[arg(long, value_name = "PATH", conflicts_with = "paths")]
    control: Option<PathBuf>,
    /// How it is written.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Prints the steps.
///
/// # Errors
/// Standard output can't be written, or no agent answers.
pub(super) fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let mut out = stdout();
    let code = match explained(&args)? {
        Ok(explanation) => print(&explanation, args.output, &mut out)?,
        Err((code, why)) => {
            writeln!(io::stderr().lock(), "error: {why}")?;
            code
        }
    };
    out.flush()?;
    Ok(ExitCode::from(code))
}

/// The explanation, or an exit code and what is wrong.
fn explained(args: &ExplainArgs) -> anyhow::Result<Result<Explanation, (u8, String)>> {
    let ask = Query {
        from: args.from.clone(),
        url: args.url.clone(),
        method: args.method.clone(),
        headers: args.headers.clone(),
        labels: args.labels.clone(),
        address: args.address.clone(),
    };
    // Before anybody is asked: whatever the configuration is.
    if let Err(why) = ask.check() {
        return Ok(Err((USAGE, why)));
    }
    if args.paths.is_empty() {
        return asked(&ask, args.control.as_ref());
    }
    let (files, unreadable) = paths::read(&args.paths, args.mesh.as_deref());
    if !unreadable.is_empty() {
        return Ok(Err((USAGE, unreadable.join("\nerror: "))));
    }
    Ok(match config::compile(&files.resources, files.mesh.as_ref()) {
        Ok(compiled) => ask.answer(&Arc::new(compiled.snapshot)).map_err(|why| (USAGE, why)),
        Err(problems) => {
            let (errors, _) = problems.count();
            let why = format!(
                "the configuration has {errors} errors, and nothing of it would be in force; \
                 `egress-agent check` shows them"
            );
            Err((FAILURE, why))
        }
    })
}

/// Asks the agents that run here: the first that answers.
fn asked(
    ask: &Query,
    control: Option<&PathBuf>,
) -> anyhow::Result<Result<Explanation, (u8, String)>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    let usual = [NODE_SOCKET, GATEWAY_SOCKET, GATEWAY_UNIT_SOCKET].map(PathBuf::from);
    let sockets = control.map_or_else(|| usual.to_vec(), |path| vec![path.clone()]);
    for socket in sockets {
        match runtime.block_on(ask_explain(&socket, ask)) {
            Ok(explanation) => return Ok(Ok(explanation)),
            Err(AskError::Nobody) => {}
            Err(AskError::Refused(why)) => return Ok(Err((USAGE, why))),
            Err(error) => return Ok(Err((FAILURE, format!("{}: {error}", socket.display())))),
        }
    }
    let nobody = match control {
        Some(path) => format!("no agent listens on {}", path.display()),
        None => "no agent runs here".to_owned(),
    };
    let why = format!(
        "{nobody}; give the files to explain by, as in `egress-agent explain --from shop/web \
         https://api.example.com/ /etc/egress/config`"
    );
    Ok(Err((FAILURE, why)))
}

fn print(explanation: &Explanation, output: Output, out: &mut impl Write) -> anyhow::Result<u8> {
    match output {
        Output::Text => write!(out, "{}", text::render(explanation))?,
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, explanation)?;
            writeln!(out)?;
        }
    }
    Ok(match explanation.outcome.verdict {
        Verdict::Allowed | Verdict::Answered => 0,
        Verdict::Refused => REFUSED,
    })
}

#[cfg(test)]
mod tests;

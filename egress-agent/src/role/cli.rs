//! The command line: what all commands share, and which one runs.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::{
    certs::{self, CertsArgs},
    check::{self, CheckArgs},
    detach::{self, DetachArgs},
    flows::{self, FlowsArgs},
    gateway::{self, GatewayArgs},
    kernel::{self, KernelArgs},
    node::{self, NodeArgs},
    probe::{self, ProbeArgs},
    reasons::{self, ReasonsArgs},
    status::{self, StatusArgs},
};

/// Exit code of a command that failed.
pub const FAILURE: u8 = 1;
/// Exit code of a wrong command line; clap's own.
pub const USAGE: u8 = 2;
/// Exit code of a node agent, or a `detach`, that found another agent owning the pins.
pub const OWNED: u8 = 3;

const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\neBPF programs built with ",
    env!("EGRESS_EBPF_TOOLCHAIN_USED")
);

const EXAMPLES: &str = "\
Examples:
  # What would these files do? Every problem at once, nothing is changed.
  egress-agent check --mesh mesh.yaml config/

  # A gateway that needs no privilege: it listens on the ports that applications dial.
  egress-agent gateway --config config/ --mesh mesh.yaml \\
      --labels istio=egressgateway --namespace istio-system --capture bind:80,443

  # A gateway for every port, with one listener (needs CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN).
  egress-agent gateway --config config/ --mesh mesh.yaml \\
      --labels istio=egressgateway --namespace istio-system --capture sk-lookup

  # Enforce on an application node: the cgroup and the interface of one pod, and the uplink.
  egress-agent node --config config/ --mesh mesh.yaml \\
      --cgroup /sys/fs/cgroup/pods/web --pod-interface veth-web=10.0.0.5 --uplink eth0

  # What is in force here, and what is wrong with it? What was refused, and why?
  egress-agent status
  egress-agent flows --verdict denied --since 5m
  egress-agent reasons no_route

  # Which certificates does a gateway use, whom are they for, and when do they expire?
  egress-agent certs show --config config/ --credentials-dir /etc/egress/credentials

  # Take enforcement away again. Stopping or killing the agent does not.
  egress-agent detach

  # Try every way around it, from inside a pod, to a canary outside.
  egress-agent probe 203.0.113.9

Each command has more: egress-agent node --help";

/// Lets pods out only through an egress gateway, and proves it: eBPF on the application nodes sends
/// their connections to the gateway and drops everything else; the gateway routes, logs and limits
/// them by Istio's ServiceEntry, Gateway, DestinationRule and VirtualService.
#[derive(Parser, Debug)]
#[command(name = "egress-agent", version = VERSION, after_help = EXAMPLES)]
#[command(propagate_version = false, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
struct LogArgs {
    /// How the agent's own messages are written to standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "EGRESS_LOG_FORMAT")]
    log_format: LogFormat,
    /// Say more: `-v` debug, `-vv` trace. `RUST_LOG` does it per module.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum LogFormat {
    /// One line a message.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Enforce on this node: load the eBPF programs, keep them equal to the configuration.
    Node(Box<NodeArgs>),
    /// Be the gateway: HTTP proxy, TLS origination, TLS passthrough, TCP.
    Gateway(GatewayArgs),
    /// Compile the configuration and print every problem in it.
    Check(CheckArgs),
    /// Show certificates, their identities and validity, and what is wrong with them.
    Certs(CertsArgs),
    /// Show what is in force on this host, and what is wrong with it.
    Status(StatusArgs),
    /// Show what was refused, redirected and allowed, and why.
    Flows(FlowsArgs),
    /// Explain a reason: what it means, and what to do.
    Reasons(ReasonsArgs),
    /// Say what this kernel has, and let it verify every program. Changes nothing.
    Kernel(KernelArgs),
    /// Remove enforcement from this node. Nothing else removes it.
    Detach(DetachArgs),
    /// Try every way out that is known from where this runs, or be the canary at the other end.
    Probe(Box<ProbeArgs>),
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    init_log(&cli.log);
    let result = match cli.command {
        Command::Node(args) => node::run(*args),
        Command::Gateway(args) => gateway::run(args),
        Command::Check(args) => check::run(args),
        Command::Certs(args) => certs::run(args),
        Command::Status(args) => status::run(args),
        Command::Flows(args) => flows::run(args),
        Command::Reasons(args) => reasons::run(args),
        Command::Kernel(args) => kernel::run(&args),
        Command::Detach(args) => detach::run(args),
        Command::Probe(args) => probe::run(*args),
    };
    result.unwrap_or_else(|error| {
        // Whoever read has had enough: `egress-agent reasons | head`.
        if is_broken_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        // `{:#}` prints the causes too, outermost first.
        tracing::error!("{error:#}");
        ExitCode::from(FAILURE)
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Messages go to standard error: standard output belongs to events, access log and results.
fn init_log(args: &LogArgs) {
    let level = match args.verbose {
        0 => "info",
        1 => "info,egress_agent=debug",
        _ => "info,egress_agent=trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_is_required() {
        assert!(Cli::try_parse_from(["egress-agent"]).is_err());
        assert!(Cli::try_parse_from(["egress-agent", "detach"]).is_ok());
    }
}

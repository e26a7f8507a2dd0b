//! The command line: what all commands share, and which one runs.

mod bug_report;
mod certs;
mod check;
mod cni;
mod detach;
mod doctor;
mod exit;
mod explain;
mod flows;
mod generate;
mod kernel;
mod log;
mod output;
mod paths;
mod probe;
mod reasons;
pub mod schema;
mod status;
mod suggest;
#[cfg(test)]
mod testing;
pub mod uninstall;
mod upgrade;
mod verify;
mod version;
mod wrap;

use std::{ffi::OsString, io, io::Write as _, process::ExitCode};

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::{
    bug_report::BugReportArgs,
    certs::CertsArgs,
    check::CheckArgs,
    cni::CniArgs,
    detach::DetachArgs,
    doctor::DoctorArgs,
    exit::{FAILURE, OWNED, USAGE},
    explain::ExplainArgs,
    flows::FlowsArgs,
    generate::{CompletionArgs, ManArgs},
    kernel::KernelArgs,
    log::LogArgs,
    probe::ProbeArgs,
    reasons::ReasonsArgs,
    status::StatusArgs,
    suggest::SuggestArgs,
    uninstall::UninstallArgs,
    upgrade::UpgradeArgs,
    verify::VerifyArgs,
    version::VersionArgs,
};
use crate::{
    bpf,
    gateway::{self, GatewayArgs},
    node::{self, NodeArgs},
    sys::usage::begin,
    telemetry::watch_panics,
};

const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\neBPF programs built with ",
    env!("EGRESS_EBPF_TOOLCHAIN_USED")
);

/// Columns of a page of `--help`.
const WIDTH: usize = 80;

const EXAMPLES: &str = "\
Examples:
  # What would these files do? Every problem at once, nothing is changed.
  egress-agent check --mesh mesh.yaml config/

  # What becomes of a request, and which resource, file and line decides it?
  egress-agent explain --from shop/web https://api.example.com/ config/

  # A gateway without eBPF: it listens on the ports that applications dial.
  # Ports below 1024 need CAP_NET_BIND_SERVICE, others no privilege.
  egress-agent gateway --config config/ --mesh mesh.yaml \\
      --labels istio=egressgateway --namespace istio-system \\
      --capture bind:80,443

  # A gateway for every port, with one listener (needs CAP_BPF, CAP_PERFMON,
  # CAP_NET_ADMIN).
  egress-agent gateway --config config/ --mesh mesh.yaml \\
      --labels istio=egressgateway --namespace istio-system --capture sk-lookup

  # Enforce on an application node: the cgroup and the interface of one pod, and
  # the uplink.
  egress-agent node --config config/ --mesh mesh.yaml \\
      --cgroup /sys/fs/cgroup/pods/web --pod-interface veth-web=10.0.0.5 \\
      --uplink eth0

  # What is in force here, and what is wrong with it? What was refused, and why?
  egress-agent status
  egress-agent flows --verdict denied --since 5m
  egress-agent reasons no_route

  # Which certificates does a gateway use, whom are they for, and when do they
  # expire?
  egress-agent certs show --config config/ \\
      --credentials-dir /etc/egress/credentials

  # Install another version, and have it take over from the gateway without a
  # refused connection.
  install -m 0755 egress-agent.new /usr/local/bin/egress-agent && \\
      egress-agent upgrade

  # Take enforcement away again. Stopping or killing the agent does not.
  egress-agent detach

  # Stop both roles, take enforcement away and remove the units. Shows first
  # what it would do.
  egress-agent uninstall --dry-run

  # Try every known bypass technique, from a pod, against a canary on an
  # external host.
  egress-agent probe 203.0.113.9

Each command has more: egress-agent node --help

Exit codes: 0 done, and nothing is wrong; 1 it failed, or something is wrong; 2
the command line, a file or a question can't be read; 3 understood, and refused
or owned by another agent, as the command says; 4 status: all that can be
enforced here is, but promises are listed that don't hold on this node.";

/// Lets pods out only through an egress gateway, and proves it: eBPF on the application nodes sends
/// their connections to the gateway and drops everything else; the gateway routes, logs and limits
/// them by Istio's ServiceEntry, Gateway, DestinationRule and VirtualService.
#[derive(Parser, Debug)]
#[command(name = "egress-agent", version = VERSION, after_help = EXAMPLES)]
// A page is as wide as the narrowest usual terminal, wherever it is read.
#[command(max_term_width = WIDTH)]
#[command(propagate_version = false, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Enforce on this node: load the eBPF programs, keep them equal to the configuration.
    Node(Box<NodeArgs>),
    /// Be the gateway: HTTP proxy, TLS origination, TLS passthrough, TCP.
    Gateway(Box<GatewayArgs>),
    /// Compile the configuration and print every problem in it.
    #[command(alias = "analyze")]
    Check(CheckArgs),
    /// Say what becomes of a request, step by step, and which resource decides it.
    #[command(alias = "describe")]
    Explain(ExplainArgs),
    /// Show certificates, their identities and validity, and what is wrong with them.
    Certs(CertsArgs),
    /// Show what is in force on this host, and what is wrong with it.
    Status(StatusArgs),
    /// Show what was refused, redirected and allowed, and why.
    #[command(alias = "observe")]
    Flows(FlowsArgs),
    /// Explain a reason: what it means, and what to do.
    Reasons(ReasonsArgs),
    /// Suggest resources for what was refused, or would have been but for audit mode.
    Suggest(SuggestArgs),
    /// Say what this kernel has, and let it verify every program. Changes nothing.
    Kernel(KernelArgs),
    /// Write one archive of what a report about a fault needs, without secrets.
    BugReport(BugReportArgs),
    /// Find out whether this host is fit for an agent, before one is installed.
    Doctor(DoctorArgs),
    /// Remove enforcement from this node. Nothing else removes it.
    Detach(DetachArgs),
    /// Remove the units of this product from this host, and enforcement with them.
    Uninstall(UninstallArgs),
    /// Have another process take over from the gateway of this host, without a refused connection.
    Upgrade(UpgradeArgs),
    /// Try every known bypass technique from where this runs, or be the canary at the other end.
    Probe(Box<ProbeArgs>),
    /// Say what is enforced for the pods of a namespace, and try from one of them whether it is.
    Verify(Box<VerifyArgs>),
    /// Be a chained CNI plug-in: hold the start of a pod until enforcement stands for it.
    Cni(CniArgs),
    /// Show the version, the build, the maps' layout and the kernel.
    Version(VersionArgs),
    /// Print a completion script for a shell.
    Completion(CompletionArgs),
    /// Write the manual pages.
    Man(ManArgs),
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    begin();
    let cli = match parse(cni::arguments(std::env::args_os())) {
        Ok(cli) => cli,
        Err(page) => return show(&page),
    };
    log::init(&cli.log);
    watch_panics();
    // A role's messages are a log, whatever it is that they end with.
    let is_logged = matches!(cli.command, Command::Node(_) | Command::Gateway(_));
    let is_logged = is_logged || cli.log.is_json();
    let has_verdict = matches!(
        cli.command,
        Command::Certs(_)
            | Command::Check(_)
            | Command::Doctor(_)
            | Command::Explain(_)
            | Command::Probe(_)
            | Command::Status(_)
            | Command::Verify(_)
    );
    let result = match cli.command {
        Command::Node(args) => node::run(*args),
        Command::Gateway(args) => gateway::run(*args),
        Command::Check(args) => check::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Certs(args) => certs::run(args),
        Command::Status(args) => status::run(args),
        Command::Flows(args) => flows::run(args),
        Command::Reasons(args) => reasons::run(args),
        Command::Suggest(args) => suggest::run(&args),
        Command::Kernel(args) => kernel::run(&args),
        Command::BugReport(args) => bug_report::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Detach(args) => detach::run(args),
        Command::Uninstall(args) => uninstall::run(&args),
        Command::Upgrade(args) => upgrade::run(&args),
        Command::Probe(args) => probe::run(*args),
        Command::Verify(args) => verify::run(*args),
        Command::Cni(args) => cni::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Completion(args) => generate::completion(&args, Cli::command()),
        Command::Man(args) => generate::man(&args, Cli::command()),
    };
    // What is left of a line has not been written.
    let result = result.and_then(|code| {
        output::stdout().flush()?;
        Ok(code)
    });
    result.unwrap_or_else(|error| {
        // The reader has had enough: `egress-agent reasons | head`.
        if is_broken_pipe(&error) {
            // A verdict that was not heard is no success.
            return ExitCode::from(if has_verdict { FAILURE } else { 0 });
        }
        // `{:#}` prints the causes too, outermost first.
        if is_logged {
            tracing::error!("{error:#}");
        } else {
            // Its reader may have left as well.
            output::complain(format_args!("error: {error:#}"));
        }
        let owned = error.downcast_ref().is_some_and(bpf::Error::is_owned);
        ExitCode::from(if owned { OWNED } else { FAILURE })
    })
}

/// Reads the command line. An error shows the usage of the command that it is about, options that contradict each
/// other included.
fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| with_usage(error, &mut command, &matches))
}

fn with_usage(
    error: clap::Error,
    command: &mut clap::Command,
    matches: &ArgMatches,
) -> clap::Error {
    let below = matches.subcommand();
    let below =
        below.and_then(|(name, matches)| Some((command.find_subcommand_mut(name)?, matches)));
    if let Some((command, matches)) = below {
        return with_usage(error, command, matches);
    }
    error.format(command)
}

/// Prints what there is in place of a command: a page of help, the version, or what is wrong with the command line.
fn show(page: &clap::Error) -> ExitCode {
    let printed = page.print().and_then(|()| io::stdout().flush());
    match printed {
        Err(error) if !page.use_stderr() && error.kind() != io::ErrorKind::BrokenPipe => {
            output::complain(format_args!("error: cannot write to standard output: {error}"));
            ExitCode::from(FAILURE)
        }
        _ => ExitCode::from(u8::try_from(page.exit_code()).unwrap_or(USAGE)),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    // What is written as JSON comes with an error of its own.
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let of_json = || error.downcast_ref::<serde_json::Error>()?.io_error_kind();
    kind.or_else(of_json) == Some(io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Those of istioctl and of Hubble, as docs/commands.md says.
    #[test]
    fn other_tools_words_are_understood() {
        for words in [
            &["observe", "--verdict", "dropped"][..],
            &["observe", "-o", "jsonpb"],
            &["observe", "-o", "compact", "--since", "1h30m", "--last", "5"],
            &["analyze", "a.yaml"],
            &["describe", "--from", "shop/web", "https://a.example/"],
        ] {
            let line = Cli::try_parse_from([&["egress-agent"], words].concat());
            assert!(line.is_ok(), "{words:?}: {line:?}");
        }
        assert!(Cli::try_parse_from(["egress-agent", "obsrve"]).is_err());
    }

    /// `docs/reference/cli.md`: what `--help` says.
    #[test]
    fn the_reference_has_every_command() {
        fn add(command: &mut clap::Command, title: &str, text: &mut String) {
            let help = command.render_long_help().to_string();
            let lines = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
            text.push_str(&format!("\n## {title}\n\n```text\n{}\n```\n", lines.trim_end()));
            for below in command.get_subcommands_mut().filter(|below| !below.is_hide_set()) {
                if below.get_name() != "help" {
                    let title = format!("{title} {}", below.get_name());
                    add(below, &title, text);
                }
            }
        }
        let mut text = String::from(
            "# Command reference\n\n<!-- Generated: `cargo xtask references`. -->\n\nWhat `--help` of each command \
             says. [Commands](../commands.md) says what they are for, and what their exit codes mean.\n",
        );
        let mut command = Cli::command().term_width(WIDTH);
        command.build();
        add(&mut command, "egress-agent", &mut text);
        crate::types::testing::page("cli.md", &text);
    }

    /// Every command, those of commands included, with what is typed for it.
    fn each(
        command: &mut clap::Command,
        path: &str,
        look: &mut impl FnMut(&mut clap::Command, &str),
    ) {
        look(command, path);
        for below in command.get_subcommands_mut() {
            let path = format!("{path} {}", below.get_name());
            each(below, &path, look);
        }
    }

    /// What the longest line of a text is, in columns.
    fn width(text: &str) -> usize {
        text.lines().map(|line| line.chars().count()).max().unwrap_or_default()
    }

    #[test]
    fn every_page_of_help_fits_80_columns_without_breaking_an_example() {
        // With the width that it is given, and with the terminal's.
        for given in [Some(WIDTH), None] {
            let mut command = Cli::command();
            command = match given {
                Some(width) => command.term_width(width),
                None => command,
            };
            command.build();
            let mut seen = 0;
            each(&mut command, "egress-agent", &mut |command, path| {
                seen += 1;
                for page in [command.render_help(), command.render_long_help()] {
                    let page = page.to_string();
                    assert!(width(&page) <= WIDTH, "{path}: {}\n{page}", width(&page));
                }
                // A longer line would be broken, and a command with it.
                for text in [command.get_after_help(), command.get_after_long_help()] {
                    let text = text.map(ToString::to_string).unwrap_or_default();
                    assert!(width(&text) <= WIDTH, "{path}: {}\n{text}", width(&text));
                }
            });
            assert!(seen > 20, "{seen}");
        }
    }

    /// Whoever reads a page of help can paste a command. The plug-in is called by the container runtime.
    #[test]
    fn every_page_of_help_has_an_example() {
        let mut command = Cli::command();
        command.build();
        let mut without = Vec::new();
        each(&mut command, "egress-agent", &mut |command, path| {
            let page = command.render_long_help().to_string();
            let name = path.rsplit(' ').next().unwrap_or_default();
            let example = page.split("\nExample").nth(1).unwrap_or_default();
            // The command itself is in it, on a line of its own.
            let is_shown = example.lines().any(|line| {
                line.starts_with("  ") && !line.trim_start().starts_with('#') && line.contains(name)
            });
            if !is_shown {
                without.push(path.to_owned());
            }
        });
        without.retain(|path| !path.split(' ').any(|word| word == "help"));
        assert_eq!(without, ["egress-agent cni"]);
    }

    /// Whatever is written in JSON is in the reference.
    #[test]
    fn every_command_that_writes_json_has_a_schema() {
        let mut command = Cli::command();
        command.build();
        let mut seen = 0;
        each(&mut command, "egress-agent", &mut |command, path| {
            let Some(output) = command.get_arguments().find(|one| one.get_id() == "output") else {
                return;
            };
            let values = output.get_possible_values();
            if values.iter().any(|value| value.get_name() == "json") {
                seen += 1;
                let name = path.strip_prefix("egress-agent ").unwrap_or_default();
                let wanted = format!("{name} -o json");
                assert!(schema::schema_of(&wanted).is_some(), "{wanted}");
            }
        });
        assert!(seen >= 9, "{seen}");
    }

    /// What a command prints for people is compared with a file, in 80 columns. Those without one print no table and
    /// no page.
    #[test]
    fn every_command_that_prints_a_page_has_a_golden_file() {
        // Messages of a server, what the container runtime reads, and what a shell or `man` reads.
        const OTHERS: [&str; 5] = ["node", "gateway", "cni", "completion", "man"];
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/testdata");
        let files: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let command = Cli::command();
        let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        for name in &names {
            let has_file = files.iter().any(|file| {
                file.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', '-']))
            });
            assert_eq!(has_file, !OTHERS.contains(name), "{name}: {files:?}");
        }
        assert!(OTHERS.iter().all(|other| names.contains(other)) && names.len() > 20, "{names:?}");
    }

    /// Of what exports: every variable that is read, and no other one.
    #[test]
    fn help_names_the_variables_of_opentelemetry_that_are_read() {
        use std::{cell::RefCell, collections::BTreeSet};
        let read = RefCell::new(BTreeSet::new());
        let get = |name: &str| {
            let general = ["LOGS_", "TRACES_"].into_iter().fold(name.to_owned(), |name, of| {
                name.replace(&format!("OTEL_EXPORTER_OTLP_{of}"), "OTEL_EXPORTER_OTLP_")
            });
            read.borrow_mut().insert(general);
            // So that all the others are asked for.
            name.ends_with("_EXPORTER").then(|| "otlp".to_owned())
        };
        assert!(crate::otlp::Settings::read(&get, "test", &[]).unwrap().is_on());
        let read = read.into_inner();
        assert!(read.len() > 10, "{read:?}");
        let mut command = Cli::command();
        command.build();
        for name in ["node", "gateway", "status"] {
            let page = command.find_subcommand_mut(name).unwrap().render_long_help().to_string();
            let words = page.split(|c: char| !c.is_ascii_uppercase() && c != '_');
            let named: BTreeSet<String> = words
                .filter(|word| word.starts_with("OTEL_") && !word.ends_with('_'))
                .map(str::to_owned)
                .collect();
            let expected = if name == "status" { BTreeSet::new() } else { read.clone() };
            assert_eq!(named, expected, "{name}");
        }
    }

    /// One syntax for whatever is a time: what takes another one would say so by its name.
    #[test]
    fn every_time_is_a_duration() {
        use clap::error::ErrorKind::ValueValidation;
        fn look(command: &clap::Command, path: &[&str], seen: &mut usize) {
            for argument in command.get_arguments() {
                let Some(option) = argument.get_long().map(|long| format!("--{long}")) else {
                    continue;
                };
                for name in argument.get_value_names().unwrap_or_default() {
                    let place = format!("{} {option} {name}", path.join(" "));
                    for wrong in ["SECOND", "MINUTE", "HOUR", "MILLIS", "MS"] {
                        assert!(!name.contains(wrong), "{place}");
                    }
                    if !name.contains("DURATION") {
                        continue;
                    }
                    *seen += 1;
                    let error = |value: &str| {
                        let value = format!("{option}={value}");
                        Cli::try_parse_from([path, &[&*value]].concat()).err()
                    };
                    // Another option may be missing: that is another error.
                    for good in ["30s", "1m30s", "30000ms"] {
                        let wrong =
                            error(good).is_some_and(|error| error.kind() == ValueValidation);
                        assert!(!wrong, "{place} {good}");
                    }
                    for bad in ["30", "30 s", "half an hour", "-1s"] {
                        let error =
                            error(bad).unwrap_or_else(|| panic!("{place} {bad}")).to_string();
                        assert!(error.contains("500ms, 10s or 1h30m"), "{place}: {error}");
                    }
                }
            }
            for below in command.get_subcommands() {
                look(below, &[path, &[below.get_name()]].concat(), seen);
            }
        }
        let mut seen = 0;
        look(&Cli::command(), &["egress-agent"], &mut seen);
        assert!(seen >= 10, "{seen}");
    }

    /// What is said of a command line, without its first word.
    fn error_of(words: &[&str]) -> String {
        let line = [&["egress-agent"], words].concat();
        let error = parse(line.iter().map(OsString::from)).err();
        error.unwrap_or_else(|| panic!("{words:?} is a command line")).to_string()
    }

    #[test]
    fn an_error_shows_the_usage_of_the_command_that_it_is_about() {
        let mut command = Cli::command();
        command.build();
        let mut paths = Vec::new();
        each(&mut command, "", &mut |command, path| {
            let is_help = path.split(' ').any(|word| word == "help");
            if !is_help {
                let options = command
                    .get_arguments()
                    .filter(|option| !option.is_hide_set() && option.get_action().takes_values());
                let option = options.filter_map(clap::Arg::get_long).next().map(str::to_owned);
                paths.push((path.trim().to_owned(), option));
            }
        });
        assert!(paths.len() > 22, "{paths:?}");
        for (path, option) in &paths {
            let words: Vec<&str> = path.split_whitespace().collect();
            let usage = format!(
                "\nUsage: {}",
                ["egress-agent"].into_iter().chain(words.clone()).collect::<Vec<_>>().join(" ")
            );
            // An option that there is none of, and what looks like one that there is.
            let near = option.as_ref().map(|option| format!("--{option}x"));
            for wrong in ["--no-such-option", "-Z"].into_iter().chain(near.as_deref()) {
                let error = error_of(&[&words[..], &[wrong]].concat());
                let told = error.split_once(&usage).map(|(_, rest)| rest.trim_start_matches('\n'));
                let rest = told.unwrap_or_else(|| panic!("{path} {wrong}: {error}"));
                // Not that of a command with a longer name.
                assert!(rest.starts_with([' ', '\n']), "{path} {wrong}: {error}");
            }
        }
    }

    /// They are found once all is parsed.
    #[test]
    fn options_that_contradict_each_other_show_the_usage_of_their_command() {
        for command in ["flows", "suggest"] {
            for (words, told) in [
                (&["--not"][..], "found `--not` without an option"),
                (&["--since", "1m", "--until", "1h"], "found a `--since` that is later"),
            ] {
                let error = error_of(&[&[command], words].concat());
                assert!(error.contains(told), "{error}");
                let usage = format!("\nUsage: egress-agent {command} [OPTIONS]\n");
                assert!(error.contains(&usage), "{error}");
            }
        }
    }

    #[test]
    fn a_command_is_required() {
        assert!(Cli::try_parse_from(["egress-agent"]).is_err());
        assert!(Cli::try_parse_from(["egress-agent", "detach"]).is_ok());
    }
}

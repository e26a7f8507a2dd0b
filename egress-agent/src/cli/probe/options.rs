//! The command line of `probe`.

use std::{net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use anyhow::bail;
use clap::{ArgAction, ValueEnum};

use crate::{
    probe::{ATTEMPTS, Case},
    types::duration_within,
};

const HELP: &str = "\
Each attempt ends as one of these:
  answered        it got out, and an answer came back
  refused         the own kernel refused it: LAYER says which hook
  no answer       it was sent and is lost; whether it arrived,
                  only the canary can tell
  intercepted     something other than the canary answered: the
                  gateway, if there is one
  not applicable  it can't be made here: DETAIL says what is missing
  error           it should have been possible, and the probe failed

Each attempt carries a token, by which the canary recognises it in any
encapsulation. Run the canary on an external host, with CAP_NET_RAW so that it
sees every protocol. What it prints decides where the table says `no answer`.

Exit code: 0 nothing got out; 1 something got out; 2 usage; 3 nothing got out,
but the connection of --allow-check failed too, so the result proves nothing.

Examples:
  # On an external host, 203.0.113.9:
  egress-agent probe --canary-server

  # In the pod: every technique, and a connection that must work.
  egress-agent probe 203.0.113.9 2001:db8::9 --gateway 10.0.0.7 \\
      --allow-check 198.51.100.7:443

  # One kind of attempt only.
  egress-agent probe 203.0.113.9 --only udplite --only packet";

/// Options of `probe`.
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct ProbeArgs {
    /// The canary's address: one of IPv4, one of IPv6, or both. With --canary-server: where to
    /// listen [default: every own address].
    #[arg(value_name = "ADDRESS", value_parser = address)]
    pub(super) addresses: Vec<IpAddr>,
    /// Be the other end: answer what can be answered, and print what arrives.
    #[arg(long, conflicts_with_all = ["list", "only", "skip", "gateway", "allow_check", "hold"])]
    pub(super) canary_server: bool,
    /// Make only this attempt, `tcp` or `tcp-v6`; may be repeated.
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    only: Vec<String>,
    /// Don't make this attempt; may be repeated.
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    skip: Vec<String>,
    /// Print every attempt, what it does and what it needs, and end.
    #[arg(long)]
    pub(super) list: bool,
    /// The canary's ports, `7777` or `7000-7099`; attempts take them in turn. The same at both ends.
    #[arg(long, value_name = "PORTS", default_value = "7777")]
    pub(super) ports: Ports,
    /// How long an attempt waits for an answer.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = timeout)]
    pub(super) timeout: Duration,
    /// A gateway's address: tries its admin ports and other protocols.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(super) gateway: Option<IpAddr>,
    /// An address and port that must be reachable, so that a dead network is not taken for enforcement.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) allow_check: Option<String>,
    /// Also make attempts that disturb neighbours where nothing stops them.
    #[arg(long)]
    pub(super) risky: bool,
    /// How results are printed.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
    /// Attempts at a time [default: 16].
    #[arg(long, value_name = "NUMBER")]
    pub(super) jobs: Option<usize>,
    /// Open sockets, print `holding`, wait for a line on standard input, and only then use them.
    #[arg(long, conflicts_with = "sockets_from")]
    pub(super) hold: bool,
    /// Hand sockets to the first who asks on this Unix socket, and end.
    #[arg(long, value_name = "PATH", hide = true)]
    pub(super) pass_sockets: Option<PathBuf>,
    /// Use sockets that `--pass-sockets` of another process hands out.
    #[arg(long, value_name = "PATH", hide = true)]
    pub(super) sockets_from: Option<PathBuf>,
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[value(alias = "text")]
    Table,
    /// One JSON object; the canary prints one a line.
    Json,
}

/// Ports, at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ports(pub(super) Vec<u16>);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| {
            let port = text.trim().parse().ok().filter(|port: &u16| *port != 0);
            port.ok_or_else(|| format!("found {text:?}, expected a port from 1 to 65535"))
        };
        let mut ports = Vec::new();
        for part in text.split(',') {
            match part.split_once('-') {
                None => ports.push(port(part)?),
                Some((first, last)) => {
                    let (first, last) = (port(first)?, port(last)?);
                    if first > last {
                        return Err(format!("{part} is empty: did you mean {last}-{first}?"));
                    }
                    ports.extend(first..=last);
                }
            }
        }
        Ok(Self(ports))
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(10)..=Duration::from_secs(600);
    duration_within(text, range, "from 10ms to 10m")
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("found `{text}`, expected an IP address"))
}

impl ProbeArgs {
    /// The targets, at most one of each family.
    pub(super) fn targets(&self) -> anyhow::Result<Vec<IpAddr>> {
        for v6 in [false, true] {
            let of_family = self.addresses.iter().filter(|addr| addr.is_ipv6() == v6);
            if of_family.count() > 1 {
                let family = if v6 { "IPv6" } else { "IPv4" };
                bail!("two {family} addresses: name one canary a run");
            }
        }
        Ok(self.addresses.clone())
    }

    /// The cases that `--only` and `--skip` leave.
    pub(super) fn select(&self, mut cases: Vec<Case>) -> anyhow::Result<Vec<Case>> {
        let named =
            |case: &Case, name: &String| case.attempt.name == name.as_str() || case.name() == *name;
        for name in self.only.iter().chain(&self.skip) {
            if !cases.iter().any(|case| named(case, name)) {
                bail!("{}", unknown(name));
            }
        }
        cases.retain(|case| {
            (self.only.is_empty() || self.only.iter().any(|name| named(case, name)))
                && !self.skip.iter().any(|name| named(case, name))
        });
        if cases.is_empty() {
            bail!("--only and --skip leave nothing to try");
        }
        Ok(cases)
    }
}

fn unknown(name: &str) -> String {
    let names = ATTEMPTS.iter().flat_map(|attempt| {
        let full = attempt.families.all().iter().map(|family| attempt.full_name(*family));
        [attempt.name.to_owned()].into_iter().chain(full)
    });
    let scored = names.map(|known| (strsim::jaro_winkler(name, &known), known));
    let nearest = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    let hint = match nearest {
        Some((score, known)) if score > 0.75 => format!("did you mean {known}?"),
        _ => "`egress-agent probe --list` shows all".into(),
    };
    format!("there is no attempt {name}; {hint}")
}

//! The `flows` command: what happened, in the manner of `hubble observe`.

mod feed;
pub(super) mod filter;
pub(super) mod saved;
mod server;
pub(super) mod source;
mod summary;

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::SystemTime,
};

use anyhow::Context;
use clap::ValueEnum;

use self::{
    filter::Filter,
    server::{REMOTE_SHELL, Server, remote_shell},
    source::Sources,
    summary::Summary,
};
use super::{
    exit::{FAILURE, USAGE},
    output::{complain, stdout},
    reasons::meaning,
    wrap::{fitted, line_width},
};
use crate::{
    admin::control::Line,
    bpf::DEFAULT_BPFFS,
    telemetry::{FlowRecord, FlowVerdict},
    types::printable,
};

/// Options of `flows`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Flows of a node are its refusals and connects; flows of a gateway are its
refusals, and all requests and connections while somebody follows. Agents
remember the last 4096 refusals and the last 4096 others. On a host with both
agents, both are asked.

Without a running node agent, the events that the kernel has kept since are read
from the pins. That takes them out: the next call shows newer ones.

Examples:
  # What was refused in the last five minutes?
  egress-agent flows --verdict denied,failed --since 5m

  # What would enforcement refuse, while audit mode is on?
  egress-agent flows --verdict denied --summary

  # Whatever one workload does, from now on.
  egress-agent flows --follow --last 0 --pod shop/web

  # Of several hosts, by time: two by SSH, and what was saved of a third one.
  egress-agent flows --server root@node-1 --server root@node-2 \\
      --server node-3=/tmp/flows.json

  # By labels, from the pods of a DaemonSet.
  egress-agent flows --label app=web --server egress-node-7x2kq \\
      --remote-shell 'kubectl -n egress-enforcer exec {} -- /egress-agent'

  # What a namespace was refused in an hour and a half, but for its look-ups of
  # names.
  egress-agent flows -n shop --verdict denied --since 1h30m --not --port 53

Exit codes: 0 shown (also if nothing matched), 1 nobody or not every --server
could be asked, 2 wrong options.")]
pub(super) struct FlowsArgs {
    #[command(flatten)]
    filter: Filter,
    /// Go on with what happens from now on, until it is interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Of those that are remembered and match, the last N alone.
    #[arg(long, value_name = "N", value_parser = number_of_flows)]
    last: Option<usize>,
    /// One row for each workload, destination and reason: how often, when first, when last. With
    /// `--verdict denied` in audit mode it lists what enforcement would refuse.
    #[arg(long, conflicts_with = "follow")]
    summary: bool,
    /// How they are written.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// The agent's control socket [default: those of a node agent and of a gateway on this host].
    #[arg(long, value_name = "PATH", conflicts_with = "server")]
    control: Option<PathBuf>,
    /// Ask this host, by the remote shell; or read this control socket, or file that `-o json` wrote.
    /// May be given several times: flows are shown by time, with the host's name before them.
    #[arg(long, value_name = "[NAME=]HOST|PATH")]
    server: Vec<Server>,
    /// The command that runs this program on the host {}.
    #[arg(long, value_name = "COMMAND", default_value = REMOTE_SHELL, value_parser = remote_shell)]
    remote_shell: String,
    /// Where the node agent pins, to read from while it doesn't run.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
}

/// `--last`.
fn number_of_flows(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("found `{text}`, expected a number of flows"))
}

/// `--output`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Output {
    /// A line each.
    #[value(alias = "compact")]
    Text,
    /// A line each, with what the reason means.
    Wide,
    /// A JSON object a line.
    #[value(alias = "jsonpb")]
    Json,
    /// As agents send them: for `--server`, on the other host.
    #[value(hide = true)]
    Lines,
}

impl Output {
    fn is_for_people(self) -> bool {
        match self {
            Self::Text | Self::Wide => true,
            Self::Json | Self::Lines => false,
        }
    }
}

/// Prints them.
///
/// # Errors
/// No agent could be asked.
pub(super) fn run(args: FlowsArgs) -> anyhow::Result<ExitCode> {
    if let Some(wrong) = contradiction(&args, SystemTime::now()) {
        complain(format_args!("error: {wrong}"));
        return Ok(ExitCode::from(USAGE));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    let is_complete = runtime.block_on(show(&args))?;
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) })
}

/// What of the options cannot be meant together.
fn contradiction(args: &FlowsArgs, now: SystemTime) -> Option<String> {
    let is_again =
        |at: usize, server: &Server| args.server.iter().take(at).any(|other| other == server);
    let mut servers = args.server.iter().enumerate();
    if let Some((_, twice)) = servers.find(|(at, server)| is_again(*at, server)) {
        let name = printable(&twice.name);
        return Some(format!("found `--server` twice for {name}, expected each host once"));
    }
    (args.follow && args.filter.is_of_the_past(now)).then(|| {
        "found `--follow` with a time that ends before now, so that nothing new would be shown, expected one of \
         both"
            .to_owned()
    })
}

/// Whether everybody who was to be asked was there.
async fn show(args: &FlowsArgs) -> anyhow::Result<bool> {
    let mut sources = if args.server.is_empty() {
        Sources::open(args.control.as_deref(), &args.bpffs, args.follow).await?
    } else {
        Sources::of_servers(&args.server, &args.remote_shell, args.follow).await?
    };
    let (history, lost) = sources.history().await?;
    let remembered = history.len();
    let mut screen = FlowPrinter {
        out: stdout(),
        output: args.output,
        hints: args.output == Output::Text && io::stdout().is_terminal(),
        colours: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        width: line_width(&io::stdout()),
        server_width: args.server.iter().map(|server| server.name.chars().count()).max(),
        reasons: BTreeSet::new(),
    };
    let shown = selected(history, &args.filter, args.last, SystemTime::now());
    if lost > 0 {
        screen.lost_before(lost)?;
    }
    if args.summary {
        let summary = Summary::of(&shown);
        match args.output {
            Output::Json | Output::Lines => summary.write_json(&mut screen.out)?,
            Output::Text | Output::Wide => summary.write_text(&mut screen.out)?,
        }
        screen.out.flush()?;
        return Ok(!sources.is_incomplete());
    }
    for flow in &shown {
        screen.flow(flow)?;
    }
    screen.live()?;
    screen.out.flush()?;
    if !args.follow {
        if shown.is_empty() && args.output.is_for_people() {
            complain(format_args!("{}", nothing(remembered, &args.filter)));
        }
        screen.footer();
        return Ok(!sources.is_incomplete());
    }
    while let Some(line) = sources.next().await? {
        match line {
            Line::Flow(flow) if args.filter.matches(&flow, SystemTime::now()) => {
                screen.flow(&flow)?;
            }
            Line::Flow(_) | Line::Live => continue,
            Line::Lost(lost) => screen.lost(lost)?,
        }
        screen.out.flush()?;
    }
    Ok(!sources.is_incomplete())
}

/// Those that match, and of them the last.
fn selected(
    mut history: Vec<FlowRecord>,
    filter: &Filter,
    last: Option<usize>,
    now: SystemTime,
) -> Vec<FlowRecord> {
    history.retain(|flow| filter.matches(flow, now));
    let surplus = history.len().saturating_sub(last.unwrap_or(usize::MAX));
    history.split_off(surplus)
}

fn nothing(remembered: usize, filter: &Filter) -> String {
    if remembered == 0 || filter.is_empty() {
        "no flows yet; --follow waits for them".into()
    } else {
        format!("none of {remembered} flows match; leave an option out, or --follow for new ones")
    }
}

/// Where flows are written.
struct FlowPrinter<W> {
    out: W,
    output: Output,
    /// Whether to say at the end where more is to be found.
    hints: bool,
    /// Whether verdicts are coloured.
    colours: bool,
    /// How many columns a line for people may have.
    width: usize,
    /// Of the longest name of a host, where several are asked.
    server_width: Option<usize>,
    /// Of the refusals that were shown.
    reasons: BTreeSet<String>,
}

impl<W: Write> FlowPrinter<W> {
    fn flow(&mut self, flow: &FlowRecord) -> io::Result<()> {
        if flow.is_refusal() {
            self.reasons.extend(flow.reason.as_deref().map(str::to_owned));
        }
        match self.output {
            Output::Text => {
                let text = fitted(&self.line(flow), self.width);
                self.out.write_all(text.as_bytes())
            }
            Output::Wide => {
                let meaning = flow.reason.as_deref().map(meaning).unwrap_or_default();
                let text = fitted(&format!("{} | {meaning}", self.line(flow)), self.width);
                self.out.write_all(text.as_bytes())
            }
            Output::Json => {
                writeln!(self.out, "{}", serde_json::to_string(flow).unwrap_or_default())
            }
            Output::Lines => self.raw(&Line::Flow(flow)),
        }
    }

    /// A line as agents send it.
    fn raw(&mut self, line: &Line<&FlowRecord>) -> io::Result<()> {
        writeln!(self.out, "{}", serde_json::to_string(line).unwrap_or_default())
    }

    /// What comes now is new.
    fn live(&mut self) -> io::Result<()> {
        match self.output {
            Output::Lines => self.raw(&Line::Live),
            Output::Text | Output::Wide | Output::Json => Ok(()),
        }
    }

    /// A flow for people.
    fn line(&self, flow: &FlowRecord) -> String {
        let text = flow.text();
        let text = if self.colours { coloured(&text, flow) } else { text };
        match self.server_width {
            Some(width) => {
                let server = printable(flow.server.as_deref().unwrap_or_default());
                format!("{server:<width$}  {text}")
            }
            None => text,
        }
    }

    /// Flows are missing at this place.
    fn lost(&mut self, lost: u64) -> io::Result<()> {
        match self.output {
            Output::Json | Output::Lines => writeln!(self.out, "{{\"lost\":{lost}}}"),
            Output::Text | Output::Wide => writeln!(self.out, "lost {lost} events"),
        }
    }

    /// Flows are missing somewhere in what comes, or before.
    fn lost_before(&mut self, lost: u64) -> io::Result<()> {
        match self.output {
            Output::Json | Output::Lines => writeln!(self.out, "{{\"lost\":{lost}}}"),
            Output::Text | Output::Wide => {
                writeln!(self.out, "lost {lost} events since the counting began")
            }
        }
    }

    /// To standard error, for people.
    fn footer(&self) {
        if self.hints
            && let Some(reason) = self.reasons.first()
        {
            let all: Vec<&str> = self.reasons.iter().map(String::as_str).collect();
            complain(format_args!(
                "\nWhat {} means and what to do: egress-agent reasons {reason}",
                all.join(", ")
            ));
        }
    }
}

/// The line with its verdict in colour: the words after the protocol.
fn coloured(line: &str, flow: &FlowRecord) -> String {
    let (words, colour) = match (flow.verdict, flow.audit) {
        (FlowVerdict::Deny, true) => ("AUDIT would deny", "33"),
        (FlowVerdict::Fail, true) => ("AUDIT would fail", "33"),
        (FlowVerdict::Redirect, true) => ("AUDIT would redirect", "36"),
        (FlowVerdict::Allow, true) => ("AUDIT would allow", "36"),
        (FlowVerdict::Deny, false) => ("DENIED", "1;31"),
        (FlowVerdict::Fail, false) => ("FAILED", "31"),
        (FlowVerdict::Redirect, false) => ("REDIRECTED", "32"),
        (FlowVerdict::Allow, false) => ("ALLOWED", "32"),
    };
    let plain = format!(" {} {words}", flow.protocol);
    let painted = format!(" {} \x1b[{colour}m{words}\x1b[0m", flow.protocol);
    line.replacen(&plain, &painted, 1)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{
        super::{
            testing::{documented, golden},
            wrap::WIDTH,
        },
        *,
    };
    use crate::telemetry::flow_tests::{dropped, redirected};

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: FlowsArgs,
    }

    #[test]
    fn last_is_a_number_of_flows() {
        let read = |value: &str| Command::try_parse_from(["flows", &format!("--last={value}")]);
        assert_eq!(read("20").unwrap().args.last, Some(20));
        assert_eq!(read("0").unwrap().args.last, Some(0));
        for wrong in ["x", "", "-1", "1.5", "99999999999999999999"] {
            let error = read(wrong).err().unwrap().to_string();
            let wanted = format!("found `{wrong}`, expected a number of flows");
            assert!(error.contains(&wanted), "{wrong}: {error}");
        }
    }

    #[test]
    fn options_that_cannot_be_meant_together_are_named() {
        let of = |args: &[&str]| {
            let all = ["flows"].into_iter().chain(args.iter().copied());
            contradiction(&Command::parse_from(all).args, SystemTime::now())
        };
        let follow = of(&["--follow", "--until", "5m"]).unwrap();
        assert!(follow.contains("found `--follow`") && follow.contains("expected"), "{follow}");
        assert!(of(&["--follow", "--not", "--since", "5m"]).is_some());
        let twice = of(&["--server", "a", "--server", "b", "--server", "a"]).unwrap();
        assert_eq!(twice, "found `--server` twice for a, expected each host once");
        for sound in [
            &["--until", "5m"][..],
            &["--follow", "--since", "5m"],
            &["--follow", "--until", "2999-01-01T00:00:00Z"],
            &["--server", "a", "--server", "root@a"],
            &["--server", "a=/tmp/1.json", "--server", "a=/tmp/2.json"],
        ] {
            assert_eq!(of(sound), None, "{sound:?}");
        }
    }

    fn screen(output: Output) -> FlowPrinter<Vec<u8>> {
        let reasons = BTreeSet::new();
        FlowPrinter {
            out: Vec::new(),
            output,
            hints: false,
            colours: false,
            width: usize::MAX,
            server_width: None,
            reasons,
        }
    }

    #[test]
    fn the_last_of_those_that_match_are_shown() {
        let history = || vec![dropped(), redirected(), dropped(), redirected()];
        let now = SystemTime::UNIX_EPOCH;
        let all = Filter::default();
        assert_eq!(selected(history(), &all, None, now).len(), 4);
        assert_eq!(selected(history(), &all, Some(0), now).len(), 0);
        assert_eq!(selected(history(), &all, Some(1), now), [redirected()]);
        assert_eq!(selected(history(), &all, Some(9), now).len(), 4);
    }

    #[test]
    fn colours_are_of_the_verdict_and_on_a_terminal_alone() {
        let mut plain = screen(Output::Text);
        plain.flow(&dropped()).unwrap();
        let mut painted = FlowPrinter { colours: true, ..screen(Output::Text) };
        painted.flow(&dropped()).unwrap();
        painted.flow(&FlowRecord { audit: true, ..redirected() }).unwrap();
        let text = |screen: FlowPrinter<Vec<u8>>| String::from_utf8(screen.out).unwrap();
        let (plain, painted) = (text(plain), text(painted));
        assert!(!plain.contains('\x1b'), "{plain}");
        assert!(painted.contains(" TCP \x1b[1;31mDENIED\x1b[0m (not_redirected)"), "{painted}");
        assert!(painted.contains(" TCP \x1b[36mAUDIT would redirect\x1b[0m (routed)"), "{painted}");
        let mut json = FlowPrinter { colours: true, ..screen(Output::Json) };
        json.flow(&dropped()).unwrap();
        assert!(!text(json).contains('\x1b'));
    }

    /// As a terminal of 80 columns shows them.
    #[test]
    fn a_line_goes_on_below_on_a_narrow_terminal() {
        let mut text = Vec::new();
        for output in [Output::Text, Output::Wide] {
            let mut narrow = FlowPrinter { width: WIDTH, out: text, ..screen(output) };
            for flow in [dropped(), redirected(), FlowRecord { audit: true, ..dropped() }] {
                narrow.flow(&flow).unwrap();
            }
            narrow.lost(3).unwrap();
            narrow.lost_before(12).unwrap();
            text = narrow.out;
        }
        golden("flows.txt", &String::from_utf8(text).unwrap());
        // A colour is no column.
        let mut painted = FlowPrinter { width: WIDTH, colours: true, ..screen(Output::Text) };
        let mut plain = FlowPrinter { width: WIDTH, ..screen(Output::Text) };
        for screen in [&mut painted, &mut plain] {
            screen.flow(&dropped()).unwrap();
        }
        let lines =
            |screen: FlowPrinter<Vec<u8>>| String::from_utf8(screen.out).unwrap().lines().count();
        assert_eq!(lines(painted), lines(plain));
    }

    #[test]
    fn hosts_are_a_column_where_several_are_asked() {
        let mut several = FlowPrinter { server_width: Some(6), ..screen(Output::Text) };
        several.flow(&FlowRecord { server: Some("a".into()), ..dropped() }).unwrap();
        several.flow(&FlowRecord { server: Some("node-2".into()), ..dropped() }).unwrap();
        let text = String::from_utf8(several.out).unwrap();
        let starts: Vec<&str> = text.lines().filter_map(|line| line.get(..12)).collect();
        assert_eq!(starts, ["a       Jan ", "node-2  Jan "], "{text}");

        let mut lines = screen(Output::Lines);
        lines.flow(&dropped()).unwrap();
        lines.live().unwrap();
        let text = String::from_utf8(lines.out).unwrap();
        let lines: Vec<Line> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, [Line::Flow(Box::new(dropped())), Line::Live]);
    }

    #[test]
    fn each_output_has_its_form() {
        let text = |screen: FlowPrinter<Vec<u8>>| String::from_utf8(screen.out).unwrap();
        let mut plain = screen(Output::Text);
        plain.flow(&dropped()).unwrap();
        plain.lost(12).unwrap();
        assert_eq!(plain.reasons.first().map(String::as_str), Some("not_redirected"));
        assert_eq!(text(plain), format!("{}\nlost 12 events\n", dropped().text()));

        let mut wide = screen(Output::Wide);
        wide.flow(&dropped()).unwrap();
        let wide = text(wide);
        assert!(wide.contains("interface veth-web | A packet to an external address"), "{wide}");

        let mut json = screen(Output::Json);
        json.flow(&dropped()).unwrap();
        json.lost(12).unwrap();
        let json = text(json);
        documented("flows -o json", &serde_json::from_str(json.lines().next().unwrap()).unwrap());
        let full = FlowRecord {
            pid: Some(7),
            executable: Some("/bin/x".into()),
            command: Some("x".into()),
            container: Some("aa".into()),
            host: Some("a.example".into()),
            ech: true,
            upstream: Some("192.0.2.1:443".parse().unwrap()),
            response_code: Some(403),
            response_flags: Some("NR".into()),
            detail: Some("no".into()),
            server: Some("node-1".into()),
            set: Some("default".into()),
            ..dropped()
        };
        documented("flows -o json", &serde_json::to_value(full).unwrap());
        assert!(json.ends_with("{\"lost\":12}\n"), "{json}");
    }
}

//! The status for people.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    super::wrap::{columns, wrap},
    assess::{Assessment, Verdict},
    found::{Agent, Node, StatusFindings},
    paint::ColorChoice,
};
use crate::{
    admin::control::{
        Configuration, GatewayReport, LimitReport, NodeReport, Process, TunnelReport,
    },
    bpf::{Action, Inspection, MapFill},
};

/// Refusals that are shown, the most frequent first.
const MOST_REFUSALS: usize = 5;
/// Maps that are shown, the fullest first.
const MOST_MAPS: usize = 5;
/// Places with the same programs that are shown by name.
const MOST_PLACES: usize = 2;
/// Where the value of a fact begins.
const VALUE: &str = "                 ";

/// Of what is in maps of a layout that this program does not know.
const UNKNOWN: &str = "not known: the maps are of another layout";

/// Longer lines than `width` are broken between words.
pub(super) fn render(
    found: &StatusFindings,
    assessment: &Assessment,
    now: SystemTime,
    paint: ColorChoice,
    width: usize,
) -> String {
    let mut page = Page { text: String::new(), now, paint, width };
    page.judgement(assessment);
    if let Some(node) = &found.node {
        page.node(node);
    }
    if let Some(gateway) = &found.gateway {
        page.gateway(gateway);
    }
    page.text
}

struct Page {
    text: String,
    now: SystemTime,
    paint: ColorChoice,
    width: usize,
}

impl Page {
    fn judgement(&mut self, assessment: &Assessment) {
        let paint = self.paint;
        let headline = match assessment.verdict {
            Verdict::Healthy => paint.good("HEALTHY"),
            Verdict::Degraded => paint.odd("DEGRADED"),
            Verdict::Wrong => paint.bad("PROBLEMS"),
            Verdict::NotAttached => paint
                .bad("NOTHING IS ATTACHED: workloads reach the network as if nothing were here"),
        };
        self.line(format_args!("{headline}"));
        for problem in &assessment.problems {
            self.line(format_args!("{} {problem}", paint.bad("  problem:")));
        }
        for exposure in &assessment.exposures {
            self.line(format_args!("{} {exposure}", paint.odd("  exposed:")));
        }
        for warning in &assessment.warnings {
            self.line(format_args!("{} {warning}", paint.odd("  warning:")));
        }
    }

    fn node(&mut self, node: &Node) {
        let Node { bpffs, inspection, agent } = node;
        if inspection.programs.is_empty() && *agent == Agent::Dead {
            self.line(format_args!("\nNothing is pinned at {}.", bpffs.display()));
            return;
        }
        self.line(format_args!("\nNode"));
        match agent {
            Agent::Runs(report) => self.fact("agent", &self.process(&report.process)),
            Agent::Dead => self.fact(
                "agent",
                &self.paint.bad("no agent is running; enforcement is in force as it was left"),
            ),
            Agent::Mute { pid, .. } => {
                self.fact("agent", &format!("runs (pid {pid}), and doesn't answer"));
            }
            Agent::Failed(error) => self.fact("agent", &self.paint.bad(error)),
        }
        let versions: Vec<String> = inspection.versions.iter().map(u32::to_string).collect();
        self.fact("pins", &format!("{} (map layout {})", bpffs.display(), versions.join(" and ")));
        let another = inspection.is_of_another_layout();
        let held = match inspection.held {
            Some(held) => held.to_string(),
            None if another => UNKNOWN.to_owned(),
            None => "no configuration".to_owned(),
        };
        self.fact("maps hold", &held);
        match agent {
            Agent::Runs(report) => self.report(report, another || inspection.held.is_some()),
            Agent::Dead | Agent::Mute { .. } | Agent::Failed(_) => self.modes(inspection),
        }
        let lost = inspection.lost;
        let lost = match another {
            true => UNKNOWN.to_owned(),
            false => {
                format!("{} over the limit, {} because the buffer was full", lost.rate, lost.full)
            }
        };
        self.fact("events lost", &lost);
        if let Agent::Runs(report) = agent {
            self.gateways(report);
        }
        self.programs(inspection);
        self.maps(inspection);
        self.refusals(inspection);
    }

    fn report(&mut self, report: &NodeReport, held: bool) {
        self.configuration(&report.configuration, held);
        for (index, set) in report.enforcement.iter().enumerate() {
            let mode = match set.mode.as_str() {
                "enforce" => "enforce".to_owned(),
                "exempt" => self.paint.odd("exempt: nothing is judged"),
                other => self
                    .paint
                    .bad(&format!("{}: nothing is refused, only reported", other.to_uppercase())),
            };
            let name = if index == 0 { "enforcement" } else { "" };
            self.fact(name, &format!("{}: {mode}", set.name));
        }
        for (index, exemption) in report.exemptions.iter().enumerate() {
            self.fact(if index == 0 { "exempt" } else { "" }, exemption);
        }
        self.fact("repairs", &format!("{} attachments", report.repairs));
        self.fact("sockets", &format!("{} closed that weren't allowed", report.sockets_destroyed));
        if let Some(tunnel) = &report.tunnel {
            self.tunnel(tunnel, "to gateways");
        }
    }

    fn modes(&mut self, inspection: &Inspection) {
        if inspection.is_of_another_layout() {
            self.fact("enforcement", UNKNOWN);
        } else if inspection.modes.is_empty() {
            self.fact("enforcement", "enforce, for all policies");
        }
        for (policy, mode) in &inspection.modes {
            let mode = self.paint.bad(&mode.to_uppercase());
            self.fact("enforcement", &format!("policy {policy}: {mode}, nothing is refused"));
        }
    }

    /// `held`: the kernel's maps hold one, whoever put it there.
    fn configuration(&mut self, configuration: &Configuration, held: bool) {
        let state = match (configuration.in_force, configuration.current) {
            (false, _) if held => self.paint.bad("what the maps hold is in force"),
            (false, _) => self.paint.bad("none is in force"),
            (true, true) => "in force".to_owned(),
            (true, false) => self.paint.bad("an earlier one is in force"),
        };
        let Configuration { directory, accepted, rejected, .. } = configuration;
        self.fact(
            "configuration",
            &format!("{directory}: {state}; {accepted} accepted, {rejected} rejected"),
        );
        let Some(last) = &configuration.last_reload else { return };
        let result = match last.accepted {
            true => "accepted".to_owned(),
            false => self.paint.bad("REJECTED"),
        };
        self.fact("last reload", &format!("{}: {result}", self.when(last.at)));
        for problem in &last.problems {
            for line in problem.lines() {
                self.fact("", &format!("  {line}"));
            }
        }
    }

    fn gateways(&mut self, report: &NodeReport) {
        if report.gateways.is_empty() {
            return;
        }
        let mut rows = vec![["GATEWAY", "ADDRESS", "HEALTH"].map(str::to_owned)];
        rows.extend(report.gateways.iter().map(|gateway| {
            let health = match gateway.healthy {
                true => self.paint.good("healthy"),
                false => self.paint.bad("NOT HEALTHY"),
            };
            [gateway.service.clone(), gateway.address.clone(), health]
        }));
        self.table(&rows);
    }

    /// What is attached where; places that have the same are one row.
    fn programs(&mut self, inspection: &Inspection) {
        let mut places: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for program in &inspection.programs {
            let place = program.target.as_deref().unwrap_or("something that is gone");
            places.entry(place).or_default().insert(&program.name);
        }
        let mut alike: BTreeMap<BTreeSet<&str>, Vec<&str>> = BTreeMap::new();
        for (place, programs) in places {
            alike.entry(programs).or_default().push(place);
        }
        let mut rows = vec![["ATTACHED TO", "PROGRAMS"].map(str::to_owned)];
        rows.extend(alike.into_iter().map(|(programs, places)| {
            let (shown, others) = places.split_at(places.len().min(MOST_PLACES));
            let others = match others.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let programs: Vec<&str> = programs.into_iter().collect();
            [format!("{}{others}", shown.join(", ")), programs.join(", ")]
        }));
        self.table(&rows);
    }

    fn maps(&mut self, inspection: &Inspection) {
        let mut counted: Vec<_> =
            inspection.maps.iter().filter_map(|map| Some((map, map.entries?))).collect();
        if counted.is_empty() {
            return;
        }
        let percent =
            |map: &MapFill, entries: u32| u64::from(entries) * 100 / u64::from(map.capacity.max(1));
        counted.sort_by_key(|(map, entries)| Reverse((map.is_full(), percent(map, *entries))));
        let others = counted.split_off(counted.len().min(MOST_MAPS));
        let mut rows = vec![["MAP", "ENTRIES", "CAPACITY", "FILL"].map(str::to_owned)];
        rows.extend(counted.into_iter().map(|(map, entries)| {
            let percent = percent(map, entries);
            let fill = match (map.is_full(), map.is_nearly_full()) {
                (true, _) => self.paint.bad("FULL"),
                (false, true) => self.paint.odd(&format!("{percent}%")),
                (false, false) => format!("{percent}%"),
            };
            [map.name.clone(), entries.to_string(), map.capacity.to_string(), fill]
        }));
        self.table(&rows);
        if let Some((fullest, entries)) = others.first() {
            let percent = percent(fullest, *entries);
            self.line(format_args!("{} more, {percent}% full at most", others.len()));
        }
    }

    fn refusals(&mut self, inspection: &Inspection) {
        let mut refusals: Vec<_> =
            inspection.verdicts.iter().filter(|verdict| verdict.action == Action::Deny).collect();
        if refusals.is_empty() {
            return;
        }
        refusals.sort_by_key(|verdict| Reverse(verdict.count));
        let mut rows = vec![["REFUSED AT", "REASON", "TIMES"].map(str::to_owned)];
        rows.extend(refusals.into_iter().take(MOST_REFUSALS).map(|verdict| {
            let audit = if verdict.audit { " (audit: passed)" } else { "" };
            let reason = format!("{}{audit}", verdict.reason.name());
            [verdict.hook.name().to_owned(), reason, verdict.count.to_string()]
        }));
        self.table(&rows);
        self.line(format_args!(
            "Since the maps were made. `egress-agent flows` shows single ones, `egress-agent reasons \
             NAME` explains."
        ));
    }

    fn gateway(&mut self, gateway: &GatewayReport) {
        self.line(format_args!("\nGateway"));
        self.fact("agent", &self.process(&gateway.process));
        let state = match gateway.state.as_str() {
            "LIVE" => self.paint.good("LIVE"),
            other => self.paint.bad(other),
        };
        self.fact("state", &state);
        self.configuration(&gateway.configuration, false);
        self.fact("capture", &gateway.capture);
        let [admin, health, metrics] = gateway.ports;
        self.fact("ports", &format!("admin {admin}, health {health}, metrics {metrics}"));
        match &gateway.tunnel {
            Some(tunnel) => self.tunnel(tunnel, "of nodes"),
            None => self.fact("tunnel", "off"),
        }
        let GatewayReport { workers, connections, requests, .. } = gateway;
        self.fact(
            "load",
            &format!(
                "{workers} workers, {connections} connections to external hosts, {requests} requests"
            ),
        );
        self.limits(&gateway.limits);
    }

    fn limits(&mut self, limits: &[LimitReport]) {
        if limits.is_empty() {
            return;
        }
        let mut rows = vec![["SHARED", "USED", "BOUND", "REFUSED", "CLOSED"].map(str::to_owned)];
        rows.extend(limits.iter().map(|limit| {
            let LimitReport { resource, used, bound, refused, closed } = limit;
            let bound = if *bound == 0 { "none".to_owned() } else { bound.to_string() };
            [resource.clone(), used.to_string(), bound, refused.to_string(), closed.to_string()]
        }));
        self.table(&rows);
    }

    fn tunnel(&mut self, tunnel: &TunnelReport, whose: &str) {
        let TunnelReport { listen, connections, streams } = tunnel;
        let listen = listen.join(", ");
        self.fact(
            "tunnel",
            &format!("{listen}; {connections} open {whose}, {streams} connections in them"),
        );
    }

    fn process(&self, process: &Process) -> String {
        let Process { pid, version, since } = process;
        format!("running (pid {pid}, version {version}, since {})", self.when(*since))
    }

    fn when(&self, time: SystemTime) -> String {
        let age = self.now.duration_since(time).unwrap_or_default();
        format!("{}, {} ago", stamp(time), rough(age))
    }

    fn fact(&mut self, name: &str, value: &str) {
        let line = format!("  {name:<14} {value}");
        if columns(&line) <= self.width {
            self.line(format_args!("{line}"));
        } else {
            self.text.push_str(&wrap(value, &format!("  {name:<14} "), VALUE, self.width));
        }
    }

    /// The last column may be painted; the others are padded.
    fn table<const N: usize>(&mut self, rows: &[[String; N]]) {
        self.text.push('\n');
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..N).map(width).collect();
        for row in rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                // Writing to a string can't fail.
                write!(line, "{cell:<width$}  ").ok();
            }
            self.line(format_args!("{}", line.trim_end()));
        }
    }

    fn line(&mut self, args: fmt::Arguments<'_>) {
        let line = args.to_string();
        if columns(&line) <= self.width {
            self.text.push_str(&line);
            self.text.push('\n');
        } else {
            let indent = &line[..line.len() - line.trim_start().len()];
            self.text.push_str(&wrap(&line, indent, &format!("{indent}  "), self.width));
        }
    }
}

fn stamp(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or_default().to_zoned(TimeZone::UTC);
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `42 s`, `5 min`, `3 h`, `2 d`.
fn rough(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

//! What is wrong: pure, from what was found.

use std::collections::BTreeMap;

use egress_ebpf::abi::ABI_VERSION;

use super::found::{Agent, Node, StatusFindings};
use crate::{
    admin::control::{Configuration, GatewayHealth, GatewayReport, NodeReport, SetReport},
    bpf::Inspection,
    enforcement::{Exposure, first_start},
};

/// The judgement on a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Assessment {
    pub(super) verdict: Verdict,
    /// Each makes the verdict [`Verdict::Wrong`].
    pub(super) problems: Vec<String>,
    /// Each makes it [`Verdict::Degraded`] at best.
    pub(super) exposures: Vec<Exposure>,
    /// These don't.
    pub(super) warnings: Vec<String>,
}

/// In a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// All that was found is in force and works.
    Healthy,
    /// All that can be enforced here is, but not all that is promised.
    Degraded,
    /// There are problems.
    Wrong,
    /// There is neither enforcement nor a gateway.
    NotAttached,
}

/// Judges. `version` is this program's.
pub(super) fn assess(found: &StatusFindings, version: &str) -> Assessment {
    let (problems, exposures, warnings) = (Vec::new(), Vec::new(), Vec::new());
    let mut notes = StatusNotes { problems, exposures, warnings, version };
    let attached = found.node.as_ref().is_some_and(|node| notes.node(node));
    if let Some(gateway) = &found.gateway {
        notes.gateway(gateway);
    }
    notes.units(found, attached);
    let StatusNotes { problems, exposures, warnings, .. } = notes;
    let verdict = match (attached || found.gateway.is_some(), problems.is_empty()) {
        (true, true) if exposures.is_empty() => Verdict::Healthy,
        (true, true) => Verdict::Degraded,
        (true, false) => Verdict::Wrong,
        // An agent that enforces nothing is worse than none.
        (false, false) => Verdict::Wrong,
        (false, true) => Verdict::NotAttached,
    };
    Assessment { verdict, problems, exposures, warnings }
}

struct StatusNotes<'a> {
    problems: Vec<String>,
    exposures: Vec<Exposure>,
    warnings: Vec<String>,
    version: &'a str,
}

impl StatusNotes<'_> {
    fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    fn warning(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// Whether something is attached.
    fn node(&mut self, node: &Node) -> bool {
        let Node { bpffs, inspection, agent } = node;
        let attached = !inspection.programs.is_empty();
        match agent {
            Agent::Runs(report) => {
                if !attached && !report.first_start {
                    self.problem(format!(
                        "an agent runs, but nothing is attached at {}",
                        bpffs.display()
                    ));
                }
                self.agent(report, inspection);
            }
            Agent::Dead if attached => {
                self.problem(
                    "no agent is running; enforcement is in force as it was left. Changes of the \
                     configuration, of gateways' health and of interfaces are not followed",
                );
                self.modes(inspection);
            }
            Agent::Dead => return false,
            Agent::Mute { pid, control } => {
                self.problem(format!(
                    "an agent (pid {pid}) owns {}, but nobody answers on {}; give its --control",
                    bpffs.display(),
                    control.display()
                ));
                self.modes(inspection);
            }
            Agent::Failed(error) => {
                self.problem(format!("the agent can't be asked: {error}"));
                self.modes(inspection);
            }
        }
        let first_start = matches!(agent, Agent::Runs(report) if report.first_start);
        self.pins(inspection, first_start);
        attached
    }

    /// Units whose agents should answer, and do not. Where the host has nothing else that would be healthy, its
    /// verdict says enough, and they only say why.
    fn units(&mut self, found: &StatusFindings, attached: bool) {
        let is_dead = found.node.as_ref().is_some_and(|node| node.agent == Agent::Dead);
        let node = found.units.node().filter(|_| is_dead).map(|state| match attached {
            true => state,
            false => format!(
                "nothing is attached, so workloads of this host reach the network as if nothing were here: \
                 {state}"
            ),
        });
        let gateway = found.units.gateway().filter(|_| found.gateway.is_none());
        for state in node.into_iter().chain(gateway) {
            match attached || found.gateway.is_some() {
                true => self.problem(state),
                false => self.warning(state),
            }
        }
    }

    fn agent(&mut self, report: &NodeReport, inspection: &Inspection) {
        match inspection.held {
            Some(_) | None if report.first_start => {
                let last = report.configuration.last_reload.as_ref();
                let state = first_start(last.map(|last| last.accepted));
                self.problem(format!(
                    "{state}; what appears meanwhile is denied everything external"
                ));
            }
            Some(held) if !report.configuration.in_force => {
                self.problem(format!("{}; {held} stays in force", not_accepted(report)));
            }
            None if !report.configuration.in_force && inspection.is_of_another_layout() => {
                self.problem(format!(
                    "{}; what the maps hold stays in force",
                    not_accepted(report)
                ));
            }
            Some(_) | None => {
                self.configuration(&report.configuration, "everything external is denied");
            }
        }
        // What the settings exempt is meant, and listed.
        let is_meant = |set: &&SetReport| {
            let name = format!("{} (", set.name);
            set.mode == "exempt" && report.exemptions.iter().any(|one| one.starts_with(&name))
        };
        let lenient = report.enforcement.iter().filter(|set| set.mode != "enforce");
        for set in lenient.filter(|set| !is_meant(set)) {
            self.problem(format!(
                "{} mode is on for the workload set `{}`: nothing is refused there, only reported",
                set.mode.to_uppercase(),
                set.name
            ));
        }
        for problem in &report.problems {
            self.problem(problem.clone());
        }
        if report.maps_behind && report.problems.is_empty() {
            self.problem("the maps don't hold the whole configuration; see the agent's log");
        }
        self.exposures.extend(report.exposures.iter().cloned());
        self.warnings.extend(report.warnings.iter().cloned());
        self.gateways(&report.gateways, &report.enforcement);
        if report.process.version != self.version {
            self.warning(format!(
                "the agent is of version {}, this program of {}",
                report.process.version, self.version
            ));
        }
        let events = report.events;
        if events.lost_output > 0 {
            self.warning(format!(
                "{} events weren't printed, since nobody read the agent's standard output in time",
                events.lost_output
            ));
        }
        if events.lost_unknown > 0 {
            self.warning(format!(
                "{} events are of a kind that the agent doesn't know; is it older than its programs?",
                events.lost_unknown
            ));
        }
    }

    fn configuration(&mut self, configuration: &Configuration, without: &str) {
        if !configuration.in_force {
            self.problem(format!("no configuration is in force, so {without}"));
        } else if !configuration.current {
            self.problem(
                "the configuration as it is now was rejected; the last good one stays in force",
            );
        }
    }

    fn gateways(&mut self, gateways: &[GatewayHealth], sets: &[SetReport]) {
        let enforced = sets.iter().filter(|set| set.mode == "enforce").count();
        let becomes = match enforced {
            0 if !sets.is_empty() => {
                "pass in audit mode; enforcement would refuse them with no_healthy_gateway"
            }
            _ if enforced < sets.len() => {
                "are refused with no_healthy_gateway, except those of sets in audit mode"
            }
            _ => "are refused with no_healthy_gateway",
        };
        let mut services: BTreeMap<&str, Vec<&GatewayHealth>> = BTreeMap::new();
        for gateway in gateways {
            services.entry(&gateway.service).or_default().push(gateway);
        }
        for (service, endpoints) in services {
            let sick: Vec<&str> = endpoints
                .iter()
                .filter(|endpoint| !endpoint.healthy)
                .map(|endpoint| endpoint.address.as_str())
                .collect();
            if sick.len() == endpoints.len() {
                self.problem(format!(
                    "no gateway of {service} is healthy ({}): connections that it routes {becomes}",
                    sick.join(", ")
                ));
            } else if !sick.is_empty() {
                self.warning(format!("gateways of {service} aren't healthy: {}", sick.join(", ")));
            }
        }
    }

    /// Of a node that has no agent to tell their names.
    fn modes(&mut self, inspection: &Inspection) {
        for (policy, mode) in &inspection.modes {
            self.problem(format!(
                "{} mode is on for policy {policy}: nothing is refused there",
                mode.to_uppercase()
            ));
        }
    }

    /// `first_start`: what ran before is not under enforcement yet.
    fn pins(&mut self, inspection: &Inspection, first_start: bool) {
        self.problems.extend(inspection.problems.iter().cloned());
        if !inspection.programs.is_empty() {
            self.versions(&inspection.versions);
        }
        for map in &inspection.maps {
            let full = format!("map {} is full", map.name);
            if map.is_full() {
                // The agent says more about it, if there is one.
                if !self.problems.iter().any(|problem| problem.starts_with(&full)) {
                    self.problem(format!("{full}: {} entries", map.capacity));
                }
            } else if map.is_nearly_full() {
                let entries = map.entries.unwrap_or_default();
                self.warning(format!(
                    "map {} is nearly full: {entries} of {}",
                    map.name, map.capacity
                ));
            }
        }
        if !inspection.maps.is_empty() && inspection.held.is_none() && !first_start {
            self.problem(
                "no configuration was ever put into the maps: everything external is denied",
            );
        }
        for program in inspection.programs.iter().filter(|program| program.target.is_none()) {
            self.warning(format!("{} is attached to something that is gone", program.name));
        }
        let lost = inspection.lost;
        if lost.rate > 0 {
            self.warning(format!(
                "{} events were lost over the limit (--events-per-second); verdicts are counted all \
                 the same",
                lost.rate
            ));
        }
        if lost.full > 0 {
            self.warning(format!(
                "{} events were lost because nobody read them in time",
                lost.full
            ));
        }
    }

    fn versions(&mut self, versions: &[u32]) {
        if !versions.contains(&ABI_VERSION) {
            self.warning(format!(
                "the pins are of map layout {versions:?}; this program knows {ABI_VERSION} and can't \
                 read the maps: which configuration and modes they hold is not known"
            ));
        } else if versions.len() > 1 {
            self.warning(format!(
                "pins of the map layouts {versions:?} stand side by side: an upgrade isn't complete \
                 before the new agent has put a configuration in force"
            ));
        }
    }

    fn gateway(&mut self, report: &GatewayReport) {
        if report.configuration.in_force {
            self.configuration(&report.configuration, "everything is refused");
        }
        for problem in &report.problems {
            self.problem(format!("gateway: {problem}"));
        }
        self.warnings.extend(report.warnings.iter().map(|warning| format!("gateway: {warning}")));
        if report.process.version != self.version {
            self.warning(format!(
                "the gateway is of version {}, this program of {}",
                report.process.version, self.version
            ));
        }
    }
}

/// Why what an earlier agent left is still in force.
fn not_accepted(report: &NodeReport) -> &'static str {
    match &report.configuration.last_reload {
        Some(_) => "the configuration was rejected, and none was accepted since the agent started",
        None => "the agent hasn't read its configuration yet",
    }
}

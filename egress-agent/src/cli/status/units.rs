//! The units that start the agents on this host: whether systemd has one that should run and no agent answers.

use std::{collections::BTreeMap, path::Path, process::Command};

use super::super::uninstall::{GATEWAY_UNIT, NODE_UNIT};

/// There where systemd is process 1 (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
const PROPERTIES: &str = "--property=LoadState,UnitFileState,ActiveState,Result,NRestarts";

/// What systemd says of a unit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct UnitState {
    /// `enabled`, `disabled`, …
    enabled: String,
    /// `active`, `activating`, `failed`, `inactive`, …
    active: String,
    /// Of its last end: `success`, `exit-code`, …
    result: String,
    /// Restarts by systemd itself.
    restarts: String,
}

/// The units of both roles; `None` where one isn't installed, or another program starts the agents.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Units {
    pub(super) node: Option<UnitState>,
    pub(super) gateway: Option<UnitState>,
}

impl Units {
    /// Asks systemd.
    pub(super) fn find() -> Self {
        if !Path::new(BOOTED).is_dir() {
            return Self::default();
        }
        let of = |unit| {
            // One that hangs is not waited for as long as sd-bus would by itself.
            let done = Command::new("systemctl")
                .env("SYSTEMD_BUS_TIMEOUT", "3s")
                .args(["show", PROPERTIES, unit])
                .output();
            // Without an answer nothing is known of units, and what else was found is said.
            let said = done.ok().filter(|done| done.status.success())?;
            UnitState::parse(&String::from_utf8_lossy(&said.stdout))
        };
        Self { node: of(NODE_UNIT), gateway: of(GATEWAY_UNIT) }
    }

    /// Of the node's agent, which does not answer.
    pub(super) fn node(&self) -> Option<String> {
        self.node.as_ref()?.unanswered(NODE_UNIT)
    }

    /// Of the gateway, which does not answer.
    pub(super) fn gateway(&self) -> Option<String> {
        self.gateway.as_ref()?.unanswered(GATEWAY_UNIT)
    }
}

impl UnitState {
    /// From `NAME=VALUE` on lines.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let all: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.split_once('=')).collect();
        let of = |name: &str| all.get(name).map(|value| (*value).to_owned()).unwrap_or_default();
        (of("LoadState") == "loaded").then(|| Self {
            enabled: of("UnitFileState"),
            active: of("ActiveState"),
            result: of("Result"),
            restarts: of("NRestarts"),
        })
    }

    /// Says how the unit is, where its agent should answer: it is enabled, or is not just stopped.
    fn unanswered(&self, unit: &str) -> Option<String> {
        let Self { enabled, active, result, restarts } = self;
        if enabled != "enabled" && active == "inactive" {
            return None;
        }
        let mut facts = vec![active.clone()];
        if !result.is_empty() && result != "success" {
            facts.push(format!("its last result is {result}"));
        }
        if !restarts.is_empty() && restarts != "0" {
            facts.push(format!("systemd has started it again {restarts} times"));
        }
        let facts = facts.join(", ");
        let is_enabled = if enabled == "enabled" { "enabled and " } else { "" };
        Some(format!(
            "{unit} is {is_enabled}{facts}, and no agent of it answers; `systemctl status {unit}` says why"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Option<String> {
        UnitState::parse(text)?.unanswered(NODE_UNIT)
    }

    #[test]
    fn a_unit_whose_agent_should_answer_is_named_with_its_state() {
        let failed = "LoadState=loaded\nUnitFileState=enabled\nActiveState=activating\nResult=exit-code\n\
                      NRestarts=7\n";
        assert_eq!(
            said(failed).unwrap(),
            "egress-node.service is enabled and activating, its last result is exit-code, systemd has \
             started it again 7 times, and no agent of it answers; `systemctl status egress-node.service` \
             says why"
        );
        let with = |enabled: &str, active: &str| {
            said(&format!(
                "LoadState=loaded\nUnitFileState={enabled}\nActiveState={active}\nResult=success\nNRestarts=0\n"
            ))
        };
        assert!(
            with("enabled", "inactive").unwrap().contains("is enabled and inactive, and no agent")
        );
        assert!(with("disabled", "failed").unwrap().contains("is failed, and no agent"));
        // Nobody wants an agent: what was never enabled, or was stopped and disabled, or isn't installed.
        assert_eq!(with("disabled", "inactive"), None);
        assert_eq!(said("LoadState=not-found\nUnitFileState=\nActiveState=inactive\n"), None);
        assert_eq!(said(""), None);
    }
}

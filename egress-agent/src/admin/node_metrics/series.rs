//! The node's values, family by family.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use egress_ebpf::verdict::Mode;

use super::{
    super::{
        certificate_metrics, event_losses, exposition::Exposition, otlp_metrics, process_metrics,
        tunnel_metrics,
    },
    sources::{AgentSources, Sources},
};
use crate::{
    bpf::{Error, Lost, MapFill, Repair, Verdicts},
    enforcement::{Exposure, ExposureKind, Modes, WorkloadIndex, mode_name},
    pods::UnknownInterface,
};

/// All metrics, as of now.
pub(super) fn render(sources: &Sources) -> Result<String, Error> {
    let verdicts = sources.counters.verdicts()?;
    let (lost, shares) = (sources.counters.lost()?, sources.shares.lost()?);
    let mut out = Exposition::default();
    let written = write(&sources.agent, &verdicts, lost, &shares, &mut out);
    debug_assert!(written.is_ok(), "a text in memory takes everything");
    Ok(out.into_text())
}

fn write(
    sources: &AgentSources,
    counted: &[Verdicts],
    events: Lost,
    shares: &[(crate::bpf::EventOrigin, Lost)],
    out: &mut Exposition,
) -> fmt::Result {
    let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
    let tally = &sources.tally;
    verdicts(out, counted)?;
    lost(out, events, load(&tally.dropped), load(&tally.unreadable))?;
    event_losses::write(shares, &workload_index(sources), out)?;
    gateways(sources, out)?;
    enforcement(out, &sources.modes.borrow())?;
    let loaded = sources.loaded.borrow();
    let help = "Whether the files, as last read, are what is in force.";
    out.single("egress_config_current", "gauge", help, u64::from(loaded.current))?;
    process_metrics::reloads(loaded.accepted, loaded.rejected, out)?;
    let help =
        "1 while the kernel does not hold the whole configuration; what is missing is denied.";
    out.single("egress_maps_behind", "gauge", help, load(&tally.behind))?;
    let help = "Attempts to bring the configuration into the kernel that failed.";
    out.single("egress_map_update_failures_total", "counter", help, load(&tally.failures))?;
    maps(out, &sources.fills.get())?;
    let name = "egress_repairs_total";
    out.family(name, "counter", "What was repaired, by kind.")?;
    for (repair, count) in Repair::ALL.iter().zip(&tally.repairs) {
        out.sample(name, &[("kind", repair.name())], load(count))?;
    }
    let help = "Sockets that were closed: open before the enforcement, and not allowed.";
    out.single("egress_sockets_destroyed_total", "counter", help, load(&tally.sockets_destroyed))?;
    let certificates = sources.credentials.states();
    if !certificates.is_empty() {
        certificate_metrics::write(&certificates, SystemTime::now(), out)?;
    }
    let is_ready = sources.condition.unready(&loaded).is_empty();
    out.single("egress_ready", "gauge", "Whether this process is ready.", u64::from(is_ready))?;
    exposed(out, &sources.condition.exposures())?;
    unknown(out, &sources.unknown.borrow(), SystemTime::now())?;
    let help = "Times that the processes of workloads were looked at.";
    out.single("egress_process_looks_total", "counter", help, sources.condition.looks())?;
    tunnel_metrics::write(&sources.tunnel, out)?;
    otlp_metrics::write(sources.exports.as_deref(), out)?;
    process_metrics::write("node", out)
}

/// Workloads by name.
fn workload_index(sources: &AgentSources) -> WorkloadIndex {
    let loaded = sources.loaded.borrow();
    let mesh = loaded.snapshot.as_ref().map(|snapshot| &snapshot.mesh);
    mesh.map(|mesh| WorkloadIndex::new(mesh, &sources.pods)).unwrap_or_default()
}

fn gateways(sources: &AgentSources, out: &mut Exposition) -> fmt::Result {
    let name = "egress_gateway_healthy";
    out.family(name, "gauge", "Whether the gateway answers its health check.")?;
    let (loaded, healthy) = (sources.loaded.borrow(), sources.healthy.borrow());
    let gateways = loaded.snapshot.iter().flat_map(|snapshot| &snapshot.mesh.gateways);
    for gateway in gateways {
        let service = gateway.service.to_string();
        for addr in &gateway.endpoints {
            let (address, value) = (addr.to_string(), u8::from(healthy.contains(addr)));
            out.sample(name, &[("service", &service), ("address", &address)], value)?;
        }
    }
    Ok(())
}

/// How full the kernel's maps are. Those that are always whole have no entries to count.
fn maps(out: &mut Exposition, fills: &[MapFill]) -> fmt::Result {
    let name = "egress_map_entries";
    out.family(name, "gauge", "Entries of a map of the kernel, as last counted.")?;
    for fill in fills {
        if let Some(entries) = fill.entries {
            out.sample(name, &[("map", &fill.name)], entries)?;
        }
    }
    let name = "egress_map_capacity";
    out.family(name, "gauge", "Entries that a map of the kernel takes.")?;
    for fill in fills.iter().filter(|fill| fill.entries.is_some()) {
        out.sample(name, &[("map", &fill.name)], fill.capacity)?;
    }
    Ok(())
}

/// How many interfaces are unknown, and for how long the oldest of them.
fn unknown(out: &mut Exposition, interfaces: &[UnknownInterface], now: SystemTime) -> fmt::Result {
    let help = "Interfaces whose pods are not known.";
    out.single("egress_unknown_interfaces", "gauge", help, interfaces.len())?;
    let ages =
        interfaces.iter().map(|one| now.duration_since(one.since).map_or(0, |age| age.as_secs()));
    let name = "egress_unknown_interface_oldest_seconds";
    let help = "For how long the oldest of these interfaces has not been known.";
    out.single(name, "gauge", help, ages.max().unwrap_or(0))
}

/// For each promise whether it doesn't hold on this node, and for how many workloads.
fn exposed(out: &mut Exposition, exposures: &[Exposure]) -> fmt::Result {
    let find =
        |promise: ExposureKind| exposures.iter().find(|found| found.promise == promise.name());
    for (name, help, of) in [
        (
            "egress_exposed",
            "1 for a promise that does not hold on this node.",
            (|_| 1) as fn(&Exposure) -> u64,
        ),
        (
            "egress_exposed_workloads",
            "Workloads for which a promise does not hold on this node.",
            |exposure| exposure.count,
        ),
    ] {
        out.family(name, "gauge", help)?;
        for promise in ExposureKind::ALL {
            let value = find(promise).map_or(0, of);
            out.sample(name, &[("promise", promise.name())], value)?;
        }
    }
    Ok(())
}

fn verdicts(out: &mut Exposition, verdicts: &[Verdicts]) -> fmt::Result {
    let name = "egress_verdicts_total";
    out.family(name, "counter", "Verdicts of the programs, by hook, action and reason.")?;
    for Verdicts { hook, action, reason, audit, count } in verdicts {
        let audit = if *audit { "true" } else { "false" };
        let labels = [
            ("hook", hook.name()),
            ("action", action.name()),
            ("reason", reason.name()),
            ("audit", audit),
        ];
        out.sample(name, &labels, count)?;
    }
    Ok(())
}

/// One series for each mode of each set, so that an alert can ask for any that is in audit.
fn enforcement(out: &mut Exposition, sets: &Modes) -> fmt::Result {
    let name = "egress_enforcement_mode";
    out.family(
        name,
        "gauge",
        "1 for the mode that a set of workloads is in, as the kernel has it.",
    )?;
    for set in sets {
        for mode in [Mode::Enforce, Mode::Audit, Mode::AuditRedirect, Mode::Exempt] {
            let value = u8::from(set.mode == mode);
            out.sample(name, &[("set", &set.name), ("mode", mode_name(mode))], value)?;
        }
    }
    Ok(())
}

fn lost(out: &mut Exposition, lost: Lost, dropped: u64, unreadable: u64) -> fmt::Result {
    let name = "egress_events_lost_total";
    out.family(name, "counter", "Flow events that were not printed, by cause.")?;
    let causes =
        [("rate", lost.rate), ("full", lost.full), ("output", dropped), ("unknown", unreadable)];
    for (cause, count) in causes {
        out.sample(name, &[("cause", cause)], count)?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use egress_ebpf::reason::Reason;
    use tokio::sync::watch;

    use super::{super::fills::MapFillCounter, *};
    use crate::{
        bpf::{Action, Hook},
        enforcement::SetMode,
    };

    /// What the reference shows: every family, whether it has a value yet or not.
    pub(crate) fn families() -> String {
        let sources = AgentSources {
            pods: Vec::new(),
            tally: Default::default(),
            condition: Default::default(),
            loaded: watch::channel(Default::default()).1,
            healthy: watch::channel(Default::default()).1,
            modes: watch::channel(Default::default()).1,
            credentials: Default::default(),
            tunnel: Default::default(),
            fills: MapFillCounter::new("/no/such/directory".into()),
            unknown: watch::channel(Default::default()).1,
            exports: None,
        };
        let mut out = Exposition::default();
        write(&sources, &[], Lost { rate: 0, full: 0 }, &[], &mut out).unwrap();
        certificate_metrics::write(&[], SystemTime::now(), &mut out).unwrap();
        out.into_text()
    }

    #[test]
    fn a_map_that_is_always_whole_has_no_fill() {
        let map = |name: &str, entries| MapFill {
            name: name.into(),
            entries,
            capacity: 100,
            evicts: false,
        };
        let mut out = Exposition::default();
        maps(&mut out, &[map("ROUTES", Some(7)), map("GLOBALS", None)]).unwrap();
        let text = out.into_text();
        assert!(text.contains("egress_map_entries{map=\"ROUTES\"} 7\n"), "{text}");
        assert!(text.contains("egress_map_capacity{map=\"ROUTES\"} 100\n"), "{text}");
        assert!(!text.contains("GLOBALS"), "{text}");
    }

    #[test]
    fn every_promise_is_a_series_whether_it_holds_or_not() {
        let exposure = Exposure {
            promise: "net_admin".into(),
            text: "they can".into(),
            count: 7,
            workloads: vec!["shop/vpn".into()],
        };
        let mut out = Exposition::default();
        exposed(&mut out, &[exposure]).unwrap();
        let text = out.into_text();
        assert!(text.contains("egress_exposed{promise=\"net_admin\"} 1\n"), "{text}");
        assert!(text.contains("egress_exposed_workloads{promise=\"net_admin\"} 7\n"), "{text}");
        assert!(text.contains("egress_exposed{promise=\"sockets\"} 0\n"), "{text}");
    }

    #[test]
    fn every_verdict_has_its_own_series() {
        let mut out = Exposition::default();
        let denied = Verdicts {
            hook: Hook::Pod,
            action: Action::Deny,
            reason: Reason::Protocol,
            audit: false,
            count: 7,
        };
        verdicts(&mut out, &[denied]).unwrap();
        lost(&mut out, Lost { rate: 1, full: 2 }, 3, 4).unwrap();
        assert_eq!(
            out.into_text(),
            "# HELP egress_verdicts_total Verdicts of the programs, by hook, action and reason.\n\
             # TYPE egress_verdicts_total counter\n\
             egress_verdicts_total{hook=\"pod\",action=\"deny\",reason=\"protocol\",audit=\"false\"} 7\n\
             # HELP egress_events_lost_total Flow events that were not printed, by cause.\n\
             # TYPE egress_events_lost_total counter\n\
             egress_events_lost_total{cause=\"rate\"} 1\n\
             egress_events_lost_total{cause=\"full\"} 2\n\
             egress_events_lost_total{cause=\"output\"} 3\n\
             egress_events_lost_total{cause=\"unknown\"} 4\n"
        );
    }

    #[test]
    fn each_set_is_in_one_mode() {
        let mut out = Exposition::default();
        let set = |name: &str, mode| SetMode { name: name.into(), mode };
        enforcement(&mut out, &vec![set("default", Mode::Enforce), set("batch", Mode::Audit)])
            .unwrap();
        assert_eq!(
            out.into_text(),
            "# HELP egress_enforcement_mode 1 for the mode that a set of workloads is in, as the \
             kernel has it.\n# TYPE egress_enforcement_mode gauge\n\
             egress_enforcement_mode{set=\"default\",mode=\"enforce\"} 1\n\
             egress_enforcement_mode{set=\"default\",mode=\"audit\"} 0\n\
             egress_enforcement_mode{set=\"default\",mode=\"audit_redirect\"} 0\n\
             egress_enforcement_mode{set=\"default\",mode=\"exempt\"} 0\n\
             egress_enforcement_mode{set=\"batch\",mode=\"enforce\"} 0\n\
             egress_enforcement_mode{set=\"batch\",mode=\"audit\"} 1\n\
             egress_enforcement_mode{set=\"batch\",mode=\"audit_redirect\"} 0\n\
             egress_enforcement_mode{set=\"batch\",mode=\"exempt\"} 0\n"
        );
    }
}

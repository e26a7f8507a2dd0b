use std::time::Duration;

use egress_ebpf::{abi::ABI_VERSION, reason::Reason};

use super::{
    super::testing::{documented, golden},
    found::{Agent, Node, StatusFindings},
    units::{UnitState, Units},
    *,
};
use crate::{
    admin::control::{
        Configuration, EventsReport, GatewayHealth, GatewayReport, NodeReport, Process, SetReport,
        TunnelReport,
    },
    bpf::{Action, AttachedProgram, Hook, Inspection, Lost, MapFill, Verdicts},
    enforcement::Exposure,
    types::ConfigurationStamp,
};

const VERSION: &str = "0.1.0";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000)
}

fn process() -> Process {
    Process { pid: 4711, version: VERSION.into(), since: now() - Duration::from_secs(7500) }
}

fn configuration() -> Configuration {
    Configuration {
        directory: "/etc/egress/config".into(),
        in_force: true,
        current: true,
        accepted: 3,
        rejected: 0,
        last_reload: None,
    }
}

fn report() -> NodeReport {
    let gateway = |address: &str| GatewayHealth {
        service: "gw.example".into(),
        address: address.into(),
        healthy: true,
    };
    NodeReport {
        process: process(),
        bpffs: "/sys/fs/bpf/egress-agent".into(),
        configuration: configuration(),
        enforcement: vec![SetReport { name: "default".into(), mode: "enforce".into() }],
        gateways: vec![gateway("10.10.0.11"), gateway("10.10.0.12")],
        events: EventsReport::default(),
        first_start: false,
        maps_behind: false,
        problems: Vec::new(),
        warnings: Vec::new(),
        exemptions: Vec::new(),
        exposures: Vec::new(),
        repairs: 0,
        sockets_destroyed: 0,
        tunnel: Some(TunnelReport {
            listen: vec!["10.10.0.2:15001".into(), "[fd00:10::2]:15001".into()],
            connections: 2,
            streams: 14,
        }),
    }
}

fn inspection() -> Inspection {
    Inspection {
        versions: vec![ABI_VERSION],
        programs: vec![AttachedProgram {
            name: "pod_ingress".into(),
            id: Some(12),
            target: Some("interface veth-web".into()),
            link: Some(34),
            loaded_at: Some(now() - Duration::from_secs(60)),
            tag: Some(0x0123_4567_89ab_cdef),
            version: ABI_VERSION,
        }],
        maps: vec![MapFill {
            name: "DENIED".into(),
            entries: Some(2),
            capacity: 16_384,
            evicts: false,
        }],
        held: Some(ConfigurationStamp::default()),
        verdicts: vec![Verdicts {
            hook: Hook::Connect,
            action: Action::Deny,
            reason: Reason::NoRoute,
            audit: false,
            count: 7,
        }],
        ..Inspection::default()
    }
}

fn gateway() -> GatewayReport {
    GatewayReport {
        warnings: Vec::new(),
        process: process(),
        state: "LIVE".into(),
        configuration: configuration(),
        capture: "sk-lookup".into(),
        ports: [15000, 15021, 15090],
        workers: 2,
        connections: 3,
        requests: 1,
        tunnel: Some(TunnelReport {
            listen: vec!["port 15008".into()],
            connections: 3,
            streams: 4,
        }),
        limits: Vec::new(),
        problems: Vec::new(),
    }
}

fn found(agent: Agent, inspection: Inspection) -> StatusFindings {
    let node = Node { bpffs: "/sys/fs/bpf/egress-agent".into(), inspection, agent };
    StatusFindings { node: Some(node), gateway: None, units: Units::default() }
}

fn runs(change: impl FnOnce(&mut NodeReport)) -> StatusFindings {
    let mut report = report();
    change(&mut report);
    found(Agent::Runs(Box::new(report)), inspection())
}

fn pinned(change: impl FnOnce(&mut Inspection)) -> StatusFindings {
    let mut inspection = inspection();
    change(&mut inspection);
    found(Agent::Runs(Box::new(report())), inspection)
}

/// The one problem there is.
fn problem(found: &StatusFindings) -> String {
    let assessment = assess(found, VERSION);
    assert_eq!(assessment.verdict, Verdict::Wrong, "{assessment:?}");
    assert_eq!(assessment.problems.len(), 1, "{assessment:?}");
    assessment.problems[0].clone()
}

/// The one warning of a healthy host.
fn warning(found: &StatusFindings) -> String {
    let assessment = assess(found, VERSION);
    assert_eq!(assessment.verdict, Verdict::Healthy, "{assessment:?}");
    assert_eq!(assessment.warnings.len(), 1, "{assessment:?}");
    assessment.warnings[0].clone()
}

#[test]
fn a_host_in_order_is_healthy() {
    let fine = assess(&runs(|_| {}), VERSION);
    assert_eq!((fine.verdict, fine.problems, fine.warnings), (Verdict::Healthy, vec![], vec![]));
    let alone = StatusFindings { node: None, gateway: Some(gateway()), units: Units::default() };
    assert_eq!(assess(&alone, VERSION).verdict, Verdict::Healthy);
}

#[test]
fn nothing_attached_has_a_verdict_of_its_own() {
    let nothing = found(Agent::Dead, Inspection::default());
    assert_eq!(assess(&nothing, VERSION).verdict, Verdict::NotAttached);
    // On a gateway's host that is as it should be.
    let gateway = StatusFindings { gateway: Some(gateway()), ..nothing };
    assert_eq!(assess(&gateway, VERSION).verdict, Verdict::Healthy);
    // An agent that enforces nothing is a problem.
    let empty = found(Agent::Runs(Box::new(report())), Inspection::default());
    assert!(problem(&empty).contains("nothing is attached at /sys/fs/bpf/egress-agent"));
}

/// A host is not in order where an agent should run and does not, whatever else is.
#[test]
fn a_unit_without_its_agent_is_never_healthy() {
    let state = |enabled: &str, active: &str| {
        let text = format!("LoadState=loaded\nUnitFileState={enabled}\nActiveState={active}\n");
        UnitState::parse(&text)
    };
    let with = |findings: StatusFindings, node, gateway| StatusFindings {
        units: Units { node, gateway },
        ..findings
    };
    let (dead, own) = (|| found(Agent::Dead, Inspection::default()), || Some(gateway()));
    let both = || StatusFindings { gateway: own(), ..dead() };

    // The gateway is fine, and the node's agent never came up.
    let failed = problem(&with(both(), state("enabled", "failed"), None));
    assert!(failed.contains("nothing is attached, so workloads of this host"), "{failed}");
    assert!(failed.contains("egress-node.service is enabled and failed"), "{failed}");
    let stopped = problem(&with(both(), state("enabled", "inactive"), None));
    assert!(stopped.contains("egress-node.service is enabled and inactive"), "{stopped}");
    // The other way round.
    let failed = problem(&with(runs(|_| {}), None, state("disabled", "failed")));
    assert!(failed.starts_with("egress-gateway.service is failed"), "{failed}");
    // Enforcement is as it was left: that, what the maps hold, and the unit.
    let left = with(found(Agent::Dead, inspection()), state("enabled", "failed"), None);
    let assessment = assess(&left, VERSION);
    assert_eq!((assessment.verdict, assessment.problems.len()), (Verdict::Wrong, 2));
    assert!(assessment.problems[1].starts_with("egress-node.service is enabled and failed"));
    let page = text::render(&left, &assessment, now(), ColorChoice(false), 80);
    assert!(page.contains("maps hold      configuration 0 (digest"), "{page}");

    // The twins: units that nobody wants, and units whose agents answer.
    for (node, gateway) in [(None, None), (state("disabled", "inactive"), None)] {
        assert_eq!(assess(&with(both(), node, gateway), VERSION).verdict, Verdict::Healthy);
    }
    let fine =
        with(StatusFindings { gateway: own(), ..runs(|_| {}) }, state("enabled", "active"), None);
    assert_eq!(assess(&fine, VERSION).verdict, Verdict::Healthy);
    // Where nothing is attached at all the verdict stays, and the unit says why.
    let nothing = assess(&with(dead(), state("enabled", "failed"), None), VERSION);
    assert_eq!((nothing.verdict, nothing.warnings.len()), (Verdict::NotAttached, 1));
}

#[test]
fn a_dead_agent_is_told_from_a_mute_one() {
    let dead = found(Agent::Dead, inspection());
    assert!(problem(&dead).contains("no agent is running; enforcement is in force as it was left"));
    let mute = Agent::Mute { pid: 99, control: "/run/x.sock".into() };
    let told = problem(&found(mute, inspection()));
    assert!(told.contains("pid 99") && told.contains("/run/x.sock"), "{told}");
    assert!(problem(&found(Agent::Failed("odd".into()), inspection())).contains("odd"));
}

#[test]
fn audit_is_reported_prominently_with_and_without_an_agent() {
    let audit = runs(|report| {
        report.enforcement.push(SetReport { name: "batch".into(), mode: "audit".into() });
    });
    assert!(problem(&audit).starts_with("AUDIT mode is on for the workload set `batch`"));
    let mut left = inspection();
    left.modes.insert(1, "audit");
    let assessment = assess(&found(Agent::Dead, left), VERSION);
    assert!(assessment.problems[1].starts_with("AUDIT mode is on for policy 1"), "{assessment:?}");
}

/// What ran before is not denied, so nothing may say that everything is.
#[test]
fn what_a_first_start_has_not_under_enforcement_is_said_and_nothing_else() {
    let starts = |first_start: bool| {
        let mut found = runs(|report| {
            report.first_start = first_start;
            report.configuration.in_force = false;
        });
        let inspection = &mut found.node.as_mut().unwrap().inspection;
        inspection.held = None;
        inspection.programs.clear();
        found
    };
    assert_eq!(
        problem(&starts(true)),
        "what ran before the first start is not under enforcement until the configuration is read; what \
         appears meanwhile is denied everything external"
    );
    // Once it has been read, nobody waits for that.
    for accepted in [true, false] {
        let mut found = starts(true);
        let node = found.node.as_mut().unwrap();
        let Agent::Runs(report) = &mut node.agent else { panic!("it runs") };
        let at = "2026-11-18T00:00:00Z";
        let last = serde_json::json!({"at": at, "accepted": accepted, "problems": []});
        report.configuration.last_reload = serde_json::from_value(last).unwrap();
        let told = problem(&found);
        assert!(told.contains("before the first start is not under enforcement"), "{told}");
        assert!(!told.contains("until the configuration is read"), "{told}");
        assert_eq!(told.contains("is refused"), !accepted, "{told}");
    }
    // The twin: in force, and without a configuration.
    let told = assess(&starts(false), VERSION).problems;
    assert!(told.iter().any(|told| told.contains("everything external is denied")), "{told:?}");
    assert!(!told.iter().any(|told| told.contains("before the first start")), "{told:?}");
}

#[test]
fn each_thing_that_is_wrong_is_a_problem() {
    assert!(problem(&runs(|report| report.configuration.current = false)).contains("rejected"));
    // What an earlier agent left is in force, until this one has accepted something.
    let mut none = runs(|report| report.configuration.in_force = false);
    let told = problem(&none);
    assert!(told.contains("stays in force") && !told.contains("denied"), "{told}");
    none.node.as_mut().unwrap().inspection.held = None;
    assert!(assess(&none, VERSION).problems[0].contains("no configuration is in force"));
    assert!(problem(&runs(|report| report.maps_behind = true)).contains("maps don't hold"));
    let sick = runs(|report| report.gateways.iter_mut().for_each(|one| one.healthy = false));
    assert!(
        problem(&sick).contains("no gateway of gw.example is healthy (10.10.0.11, 10.10.0.12)")
    );
    assert!(problem(&pinned(|found| found.held = None)).contains("ever put into the maps"));
    let hole = pinned(|found| found.problems.push("connect6 isn't attached".into()));
    assert_eq!(problem(&hole), "connect6 isn't attached");
    let full = pinned(|found| found.maps[0].entries = Some(16_384));
    assert_eq!(problem(&full), "map DENIED is full: 16384 entries");
    let mut draining = gateway();
    draining.problems.push("it is draining".into());
    let draining = StatusFindings { node: None, gateway: Some(draining), units: Units::default() };
    assert_eq!(problem(&draining), "gateway: it is draining");
}

/// In audit mode nothing is refused, whatever becomes of the gateways.
#[test]
fn what_becomes_of_connections_without_a_gateway_depends_on_the_modes() {
    let with = |modes: &[&str]| {
        let sick = runs(|report| {
            report.gateways.iter_mut().for_each(|one| one.healthy = false);
            report.enforcement = (modes.iter().zip(0..))
                .map(|(mode, n)| SetReport { name: format!("set{n}"), mode: (*mode).into() })
                .collect();
        });
        let problems = assess(&sick, VERSION).problems;
        problems.into_iter().find(|problem| problem.contains("gw.example")).unwrap()
    };
    let refused = "routes are refused with no_healthy_gateway";
    assert!(with(&["enforce", "enforce"]).ends_with(refused));
    assert!(with(&["enforce", "audit"]).ends_with("except those of sets in audit mode"));
    for audits in [&["audit"][..], &["audit", "audit_redirect"]] {
        let told = with(audits);
        assert!(
            told.contains("routes pass in audit mode") && !told.contains("are refused"),
            "{told}"
        );
    }
}

/// The agent that pinned them may audit, or hold no configuration: it isn't guessed.
#[test]
fn what_pins_of_another_layout_hold_is_not_known() {
    let another = Inspection {
        versions: vec![ABI_VERSION + 1],
        programs: inspection().programs,
        ..Inspection::default()
    };
    let dead = found(Agent::Dead, another.clone());
    let page = |found: &StatusFindings| {
        text::render(found, &assess(found, VERSION), now(), ColorChoice(false), usize::MAX)
    };
    let shown = page(&dead);
    for field in ["maps hold      ", "enforcement    ", "events lost    "] {
        assert!(shown.contains(&format!("{field}not known")), "{field}: {shown}");
    }
    let value = json::value(&dead, &assess(&dead, VERSION));
    documented("status -o json", &value);
    for field in ["configured", "held", "modes", "events_lost"] {
        assert_eq!(value["node"][field], serde_json::Value::Null, "{field}");
    }
    let mut waiting = report();
    waiting.configuration.in_force = false;
    let waiting = found(Agent::Runs(Box::new(waiting)), another);
    let told = assess(&waiting, VERSION).problems;
    assert!(
        told.iter().all(|problem| !problem.contains("everything external is denied")),
        "{told:?}"
    );
    // Of this layout they are.
    let own = page(&found(Agent::Dead, inspection()));
    assert!(!own.contains("not known") && own.contains("enforce, for all policies"), "{own}");
}

#[test]
fn what_the_kernel_lacks_is_never_healthy() {
    let exposure = Exposure {
        promise: "net_admin".into(),
        text: "they can act in the node's network".into(),
        count: 40,
        workloads: vec!["shop/vpn".into(), "shop/cni".into()],
    };
    let exposed = runs(|report| report.exposures.push(exposure.clone()));
    let assessment = assess(&exposed, VERSION);
    assert_eq!((assessment.verdict, &assessment.problems), (Verdict::Degraded, &vec![]));
    let page = text::render(&exposed, &assessment, now(), ColorChoice(false), usize::MAX);
    let line = "DEGRADED\n  exposed: they can act in the node's network: shop/vpn, shop/cni and 38 \
                more\n";
    assert!(page.starts_with(line), "{page}");
    let value = json::value(&exposed, &assessment);
    documented("status -o json", &value);
    assert_eq!(value["verdict"], "degraded");
    assert_eq!(value["exposures"][0]["promise"], "net_admin");
    assert_eq!(value["exposures"][0]["workloads"][1], "shop/cni");
    // With a problem it is one.
    let worse = runs(|report| {
        report.exposures.push(exposure);
        report.maps_behind = true;
    });
    let assessment = assess(&worse, VERSION);
    assert_eq!((assessment.verdict, assessment.exposures.len()), (Verdict::Wrong, 1));
}

#[test]
fn a_full_map_is_told_once() {
    let mut found = pinned(|found| found.maps[0].entries = Some(16_384));
    let told = "map DENIED is full: 5 more entries don't fit";
    if let Some(Node { agent: Agent::Runs(report), .. }) = &mut found.node {
        report.problems.push(told.into());
    }
    assert_eq!(problem(&found), told);
}

#[test]
fn what_works_all_the_same_is_a_warning() {
    let one = runs(|report| report.gateways[1].healthy = false);
    assert!(warning(&one).contains("aren't healthy: 10.10.0.12"));
    assert!(warning(&runs(|report| report.process.version = "9".into())).contains("version 9"));
    assert!(warning(&runs(|report| report.events.lost_output = 5)).contains("5 events"));
    assert!(
        warning(&pinned(|found| found.lost = Lost { rate: 12, full: 0 })).contains("12 events")
    );
    assert!(warning(&pinned(|found| found.lost = Lost { rate: 0, full: 3 })).contains("3 events"));
    assert!(warning(&pinned(|found| found.maps[0].entries = Some(16_000))).contains("nearly full"));
    assert!(warning(&pinned(|found| found.programs[0].target = None)).contains("is gone"));
    assert!(warning(&pinned(|found| found.versions.insert(0, 1))).contains("side by side"));
    assert!(warning(&pinned(|found| found.versions = vec![99])).contains("[99]"));
}

#[test]
fn the_page_for_people_holds_all_of_it() {
    let mut found = runs(|report| {
        report.enforcement.push(SetReport { name: "batch".into(), mode: "audit".into() });
    });
    found.gateway = Some(gateway());
    let assessment = assess(&found, VERSION);
    let page = text::render(&found, &assessment, now(), ColorChoice(false), usize::MAX);
    for part in [
        "PROBLEMS\n  problem: AUDIT mode is on for the workload set `batch`",
        "agent          running (pid 4711, version 0.1.0, since 2026-11-18 09:01:40 UTC, 2 h ago)",
        "pins           /sys/fs/bpf/egress-agent (map layout ",
        "configuration  /etc/egress/config: in force; 3 accepted, 0 rejected",
        "enforcement    default: enforce\n                 batch: AUDIT: nothing is refused",
        "gw.example  10.10.0.11  healthy",
        "interface veth-web  pod_ingress\n",
        "DENIED  2        16384     0%",
        "connect     no_route  7",
        "tunnel         10.10.0.2:15001, [fd00:10::2]:15001; 2 open to gateways, 14 connections in them",
        "state          LIVE",
        "tunnel         port 15008; 3 open of nodes, 4 connections in them",
        "capture        sk-lookup",
        "2 workers, 3 connections to external hosts, 1 requests",
    ] {
        assert!(page.contains(part), "{part}\nis not in\n{page}");
    }
    assert!(!page.contains('\x1b'));
    let painted = text::render(&found, &assessment, now(), ColorChoice(true), usize::MAX);
    assert!(painted.starts_with("\x1b[1;31mPROBLEMS\x1b[0m"), "{painted}");
}

/// A node with a hundred pods and everything wrong: it fits a terminal, and nothing is lost.
#[test]
fn the_page_fits_a_screen() {
    let mut found = runs(|report| {
        report.gateways[0].healthy = false;
        report.exposures.push(Exposure {
            promise: "net_admin".into(),
            text:
                "workloads with CAP_NET_ADMIN can change the node's network; take it from them, or \
                   give them a user namespace"
                    .into(),
            count: 1,
            workloads: vec!["shop/web".into()],
        });
    });
    found.gateway = Some(gateway());
    let inspection = &mut found.node.as_mut().unwrap().inspection;
    let program = inspection.programs[0].clone();
    for number in 0..100 {
        for name in ["pod_ingress", "pod_egress"] {
            let target = Some(format!("interface veth-{number:03}"));
            let name = name.to_owned();
            inspection.programs.push(AttachedProgram { name, target, ..program.clone() });
        }
    }
    for name in ["cgroup_egress", "connect4", "connect6", "sendmsg4", "sendmsg6", "sock_ops"] {
        let target = Some("cgroup /sys/fs/cgroup/kubepods.slice".to_owned());
        inspection.programs.push(AttachedProgram { name: name.into(), target, ..program.clone() });
    }
    for (number, name) in
        ["ROUTES", "GATEWAYS", "INTERNAL", "FLOWS", "SLOTS", "WORKLOADS"].into_iter().enumerate()
    {
        let entries = u32::try_from(number * 1000).ok();
        let map = inspection.maps[0].clone();
        inspection.maps.push(MapFill { name: name.into(), entries, ..map });
    }
    let assessment = assess(&found, VERSION);
    let page = text::render(&found, &assessment, now(), ColorChoice(false), 80);
    // The layout's number is of this build.
    let layout = format!("map layout {ABI_VERSION}");
    golden("status.txt", &page.replace(&layout, "map layout N"));
    assert!(page.lines().count() <= 60, "{}", page.lines().count());
    // Without a terminal lines are whole.
    let whole = text::render(&found, &assessment, now(), ColorChoice(false), usize::MAX);
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&whole), words(&page));
}

#[test]
fn a_rejected_reload_shows_its_problems() {
    let found = runs(|report| {
        report.configuration.current = false;
        report.configuration.rejected = 1;
        report.configuration.last_reload = serde_json::from_value(serde_json::json!({
            "at": "2026-11-18T11:06:00Z",
            "accepted": false,
            "problems": ["a.yaml:11: error: unknown protocol\n    found \"HTTSP\""],
        }))
        .unwrap();
    });
    let page =
        text::render(&found, &assess(&found, VERSION), now(), ColorChoice(false), usize::MAX);
    assert!(
        page.contains("last reload    2026-11-18 11:06:00 UTC, 40 s ago: REJECTED\n"),
        "{page}"
    );
    assert!(page.contains("a.yaml:11: error: unknown protocol\n"), "{page}");
    assert!(page.contains("found \"HTTSP\"\n"), "{page}");
}

#[test]
fn a_host_without_anything_says_so_in_a_line() {
    let found = found(Agent::Dead, Inspection::default());
    let page =
        text::render(&found, &assess(&found, VERSION), now(), ColorChoice(false), usize::MAX);
    assert_eq!(
        page,
        "NOTHING IS ATTACHED: workloads reach the network as if nothing were here\n\nNothing is \
         pinned at /sys/fs/bpf/egress-agent.\n"
    );
}

#[test]
fn programs_get_values() {
    let mut found = runs(|_| {});
    found.gateway = Some(gateway());
    let value = json::value(&found, &assess(&found, VERSION));
    assert_eq!(value["verdict"], "healthy");
    assert_eq!(value["node"]["agent"]["process"]["pid"], 4711);
    assert_eq!(value["node"]["programs"][0]["id"], 12);
    assert_eq!(value["node"]["maps"][0]["capacity"], 16_384);
    assert_eq!(value["node"]["verdicts"][0]["reason"], "no_route");
    assert_eq!(value["gateway"]["state"], "LIVE");
    documented("status -o json", &value);
}

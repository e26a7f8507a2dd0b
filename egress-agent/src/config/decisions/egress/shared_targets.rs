//! Raw TCP to one name or network that resources route to different ports of a gateway, each for other workloads.

use egress_ebpf::reason::Reason;

use super::tests::{JOB, SERVICE, SLEEP, STRANGER, WEB, gateway, istio, policy};
use crate::{
    config::{
        Severity,
        testing::{Gateway, MESH, file, original},
    },
    policy::{DirectTarget, Hop, NodeAction, PortMode},
    types::{GatewayPort, OriginalDst, Port},
};

const HOST: &str = "db.example";

/// Resources of a namespace for raw TCP on port 5432 of the host: to port `at` of the gateway, and from there to port
/// `to` of the host.
fn resources(namespace: &str, entry: &str, [at, to]: [u16; 2], only: &str) -> Vec<String> {
    let full = format!("{namespace}/db");
    vec![
        istio("ServiceEntry", &full, &format!(
            "{{hosts: [{HOST}], exportTo: ['.'], ports: [{{number: 5432, name: t, protocol: TCP}}, {{number: 5433, name: u, protocol: TCP}}], {entry}}}"
        )),
        istio("Gateway", &full, &format!(
            "{{selector: {{istio: egressgateway}}, servers: [{{port: {{number: {at}, name: t, protocol: TCP}}, hosts: [{HOST}]}}]}}"
        )),
        istio("VirtualService", &full, &format!(
            "{{hosts: [{HOST}], exportTo: ['.'], gateways: [mesh, db], tcp: [
              {{match: [{{gateways: [mesh], port: 5432{only}}}], route: [{{destination: {{host: {SERVICE}, port: {{number: {at}}}}}}}]}},
              {{match: [{{gateways: [db], port: {at}}}], route: [{{destination: {{host: {HOST}, port: {{number: {to}}}}}}}]}}]}}"
        )),
    ]
}

const BY_NAME: &str = "resolution: DNS";

fn by_net(net: &str) -> String {
    format!("resolution: STATIC, endpoints: [{{address: 198.51.100.5}}], addresses: ['{net}']")
}

fn policy_for(full: &str, app: &str, host: &str) -> String {
    policy(
        full,
        &format!(
            "{{podSelector: {{matchLabels: {{app: {app}}}}}, rules: [{{hosts: [{host}], ports: [{{port: 5432, protocol: TCP}}]}}]}}"
        ),
    )
}

fn pick(gateway: &Gateway, is_meant: impl Fn(&DirectTarget) -> Option<u8>) -> Option<NodeAction> {
    let routes = &gateway.0.snapshot().node.routes;
    let routes = routes.iter().filter(|route| route.port == Some(original(5432)));
    let ranked = routes.filter_map(|route| Some((is_meant(&route.target)?, route.action)));
    // The first of equals.
    ranked.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, action)| action)
}

/// Where the node routes what dials an address of the host.
fn by_name(gateway: &Gateway) -> Option<NodeAction> {
    pick(gateway, |target| match target {
        DirectTarget::Any => Some(0),
        DirectTarget::Net(_) => None,
        DirectTarget::Name(name) => (name.to_string() == HOST).then_some(1),
    })
}

/// Where the node routes what dials this address, which is of no name that it knows.
fn by_address(gateway: &Gateway, addr: &str) -> Option<NodeAction> {
    let addr: std::net::IpAddr = addr.parse().unwrap();
    pick(gateway, |target| match target {
        DirectTarget::Any => Some(0),
        DirectTarget::Net(net) => net.contains(&addr).then(|| 1 + net.prefix_len()),
        DirectTarget::Name(_) => None,
    })
}

/// The port that a workload reaches: of which the node knows nothing.
fn reached(gateway: &Gateway, from: &str, action: Option<NodeAction>) -> Result<u16, Reason> {
    let Some(NodeAction::Redirect { group: 0, port: Some(GatewayPort(at)), hop: Hop::Plain }) =
        action
    else {
        panic!("{action:?}")
    };
    let at = original(Port::get(at));
    assert_eq!(gateway.0.port_mode(at), PortMode::Tcp);
    let route = gateway.0.tcp(&gateway.source(from), at).map_err(|denied| denied.reason)?;
    let name = route.cluster.name.0.to_string();
    let [_, port, ..] = name.split('|').collect::<Vec<_>>()[..] else { panic!("{name}") };
    Ok(port.parse().unwrap())
}

#[test]
fn each_namespace_goes_its_own_way_to_a_host() {
    for entry in [BY_NAME, &by_net("198.51.100.0/28")] {
        let (apps, shop) = (
            resources("apps", entry, [15432, 5432], ""),
            resources("shop", entry, [15433, 5433], ""),
        );
        for all in [[&apps[..], &shop].concat(), [&shop[..], &apps].concat()] {
            let one = gateway(&all);
            let action =
                if entry == BY_NAME { by_name(&one) } else { by_address(&one, "198.51.100.7") };
            assert_eq!(reached(&one, SLEEP, action), Ok(5432), "{entry}");
            assert_eq!(reached(&one, JOB, action), Ok(5432), "{entry}");
            assert_eq!(reached(&one, WEB, action), Ok(5433), "{entry}");
            assert_eq!(reached(&one, STRANGER, action), Err(Reason::NoRoute), "{entry}");
        }
    }
}

#[test]
fn each_workload_of_a_namespace_goes_its_own_way_to_a_host() {
    let sleep = resources("apps", BY_NAME, [15432, 5432], ", sourceLabels: {app: sleep}");
    let job = resources("apps", BY_NAME, [15433, 5433], ", sourceLabels: {app: job}");
    let job = job.into_iter().skip(1).map(|text| {
        text.replace("name: db,", "name: job,")
            .replace("mesh, db", "mesh, job")
            .replace("gateways: [db]", "gateways: [job]")
    });
    let all: Vec<String> = sleep.into_iter().chain(job).collect();
    let one = gateway(&all);
    let action = by_name(&one);
    assert_eq!(reached(&one, SLEEP, action), Ok(5432));
    assert_eq!(reached(&one, JOB, action), Ok(5433));
    assert_eq!(reached(&one, WEB, action), Err(Reason::NoRoute));
}

#[test]
fn a_smaller_network_of_one_namespace_leaves_the_larger_one_to_another() {
    let apps = resources("apps", &by_net("198.51.100.0/24"), [15432, 5432], "");
    let shop = resources("shop", &by_net("198.51.100.0/28"), [15433, 5433], "");
    let one = gateway(&[&apps[..], &shop].concat());
    let (inner, outer) = (by_address(&one, "198.51.100.7"), by_address(&one, "198.51.100.77"));
    assert_eq!(reached(&one, SLEEP, inner), Ok(5432));
    assert_eq!(reached(&one, WEB, inner), Ok(5433));
    assert_eq!(reached(&one, SLEEP, outer), Ok(5432));
    assert_eq!(reached(&one, WEB, outer), Err(Reason::NoRoute));
    assert_eq!(by_address(&one, "203.0.113.1"), None);
    // Of a network that everybody sees the address says enough: it needs no port besides its own.
    let shown = shop.iter().map(|text| {
        text.replace("exportTo: ['.']", "exportTo: ['*']").replace(HOST, "log.example")
    });
    let all: Vec<String> = apps.iter().cloned().chain(shown).collect();
    assert!(gateway(&all).0.snapshot().rules.shared_tcp.is_empty());
}

#[test]
fn a_policy_goes_its_own_way_to_a_host_of_a_service_entry() {
    for (entry, host) in [(BY_NAME, HOST), (&*by_net("198.51.100.0/28"), "198.51.100.7")] {
        let apps = resources("apps", entry, [15432, 5433], ", sourceLabels: {app: sleep}");
        let more = [policy_for("shop/db", "web", host), policy_for("apps/db", "job", host)];
        let one = gateway(&[&apps[..], &more].concat());
        let action = if entry == BY_NAME { by_name(&one) } else { by_address(&one, host) };
        assert_eq!(reached(&one, SLEEP, action), Ok(5433), "{host}");
        assert_eq!(reached(&one, JOB, action), Ok(5432), "{host}");
        assert_eq!(reached(&one, WEB, action), Ok(5432), "{host}");
        assert_eq!(reached(&one, STRANGER, action), Err(Reason::NoRoute), "{host}");
        if entry != BY_NAME {
            let beside = by_address(&one, "198.51.100.8");
            assert_eq!(reached(&one, SLEEP, beside), Ok(5433));
            assert_eq!(reached(&one, WEB, beside), Err(Reason::NoRoute));
        }
    }
}

/// A rule that asks for identity decides for all: what one name has goes one way.
#[test]
fn the_stricter_hop_counts_for_all_of_a_host() {
    let (apps, shop) = (
        resources("apps", BY_NAME, [15432, 5432], ""),
        resources("shop", BY_NAME, [15433, 5433], ""),
    );
    let rule = istio(
        "DestinationRule",
        "shop/hop",
        &format!(
            "{{host: {SERVICE}, exportTo: ['.'], trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}}}}}"
        ),
    );
    for all in [[&apps[..], &shop].concat(), [&shop[..], &apps].concat()] {
        let one = gateway(&[&all[..], std::slice::from_ref(&rule)].concat());
        let action = by_name(&one);
        assert!(
            matches!(action, Some(NodeAction::Redirect { hop: Hop::Tunnel, .. })),
            "{action:?}"
        );
        let dialled = OriginalDst("203.0.113.9:5432".parse().unwrap());
        for (from, to) in [(SLEEP, "5432"), (WEB, "5433")] {
            let route = one.0.tunnel_tcp(&one.source(from), dialled).unwrap();
            assert_eq!(&*route.cluster.name.0, format!("outbound|{to}||{HOST}"));
        }
        assert!(one.0.tunnel_tcp(&one.source(STRANGER), dialled).is_err());
    }
}

/// A wildcard has no address that the node could find: it doesn't make a name ambiguous.
#[test]
fn a_wildcard_on_the_port_leaves_the_only_name_what_it_has() {
    let wildcard = resources("apps", "resolution: NONE", [15433, 5433], "");
    let wildcard = wildcard.into_iter().map(|text| {
        text.replace(HOST, "'*.wild.example'")
            .replace("name: db,", "name: wild,")
            .replace("mesh, db", "mesh, wild")
            .replace("gateways: [db]", "gateways: [wild]")
    });
    let all: Vec<String> =
        resources("apps", BY_NAME, [15432, 5432], "").into_iter().chain(wildcard).collect();
    let one = gateway(&all);
    assert_eq!(reached(&one, SLEEP, by_name(&one)), Ok(5432));
}

/// The node sees no workloads: what one name has goes to one gateway.
#[test]
fn a_host_that_is_routed_to_two_gateways_goes_to_the_first() {
    let other = "other.istio-system.svc.cluster.local";
    let gateways =
        format!("- service: {other}\n  labels: {{istio: other}}\n  endpoints: [192.0.2.11]\n");
    let mesh = MESH.replace("workloads:\n", &format!("{gateways}workloads:\n"));
    let second = resources("shop", BY_NAME, [15433, 5433], "")
        .into_iter()
        .map(|text| text.replace(SERVICE, other).replace("egressgateway}", "other}"));
    let files: Vec<_> = resources("apps", BY_NAME, [15432, 5432], "")
        .into_iter()
        .chain(second)
        .enumerate()
        .map(|(number, text)| file(&format!("{number}.yaml"), &text))
        .collect();
    let compiled = crate::config::compile(&files, Some(&file("mesh.yaml", &mesh))).unwrap();
    let said: Vec<_> = compiled
        .warnings
        .iter()
        .filter(|problem| problem.severity == Severity::Refusal)
        .map(ToString::to_string)
        .collect();
    assert!(
        said.iter().any(|text| text.contains("the node sees no workloads")
            && text.contains("VirtualService apps/db")),
        "{said:?}"
    );
    // Nor does a policy route it elsewhere, by name or by address.
    for (entry, host) in [(BY_NAME, HOST), (&*by_net("198.51.100.7"), "198.51.100.7")] {
        let spec = format!(
            "{{gateway: {{name: GATEWAY, namespace: istio-system}}, rules: [{{hosts: [{host}], ports: [{{port: 5432, protocol: TCP}}]}}]}}"
        );
        let refusals = |name: &str| {
            let policy = policy("shop/a", &spec.replace("GATEWAY", name));
            let texts = resources("apps", entry, [15432, 5432], "").into_iter().chain([policy]);
            let files: Vec<_> =
                texts.enumerate().map(|(at, text)| file(&format!("{at}.yaml"), &text)).collect();
            let mesh = file("mesh.yaml", &mesh);
            let all = crate::config::compile(&files, Some(&mesh)).unwrap().warnings.into_iter();
            let refused = all.filter(|problem| problem.severity == Severity::Refusal);
            refused.map(|problem| problem.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(refusals("istio-egressgateway"), Vec::<String>::new(), "{host}");
        let said = refusals("other");
        let [said] = &said[..] else { panic!("{host}: {said:?}") };
        assert!(
            said.contains("goes to another gateway because of VirtualService apps/db"),
            "{said}"
        );
    }
}

/// Who does not see a service reaches it by neither hop, whatever its routes say: the gateway's namespace, which sees
/// it, opens it to nobody else.
#[test]
fn raw_tcp_is_for_those_who_see_its_service_and_its_route() {
    let everywhere = ["'.'", "'*'", "shop", "'.', shop", "'.', istio-system"];
    let tunnel = istio(
        "DestinationRule",
        "apps/hop",
        &format!("{{host: {SERVICE}, trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}}}}}"),
    );
    let net = by_net("198.51.100.0/28");
    let dialled = OriginalDst("198.51.100.7:5432".parse().unwrap());
    for entry in [BY_NAME, &net] {
        for (to, route_to) in everywhere.iter().flat_map(|to| everywhere.map(|other| (*to, other)))
        {
            let export = |text: String, to: &str| {
                text.replace("exportTo: ['.']", &format!("exportTo: [{to}]"))
            };
            let [service, server, routes] =
                resources("apps", entry, [15432, 5432], "").try_into().unwrap();
            let texts = [export(service, to), server, export(routes, route_to)];
            let plain = gateway(&texts);
            let inside = gateway(&[&texts[..], std::slice::from_ref(&tunnel)].concat());
            for (from, namespace) in [(SLEEP, "apps"), (JOB, "apps"), (WEB, "shop")] {
                let sees = |to: &str| {
                    to.contains('*')
                        || to.contains(namespace)
                        || (namespace == "apps" && to.contains("'.'"))
                };
                let expected = sees(to) && sees(route_to);
                let what = format!("{from}, the entry exported to {to}, the route to {route_to}");
                let by_port = plain.0.tcp(&plain.source(from), original(15432));
                assert_eq!(by_port.is_ok(), expected, "{what}: {by_port:?}");
                let by_tunnel = inside.0.tunnel_tcp(&inside.source(from), dialled);
                assert_eq!(by_tunnel.is_ok(), expected, "{what}, in the tunnel: {by_tunnel:?}");
            }
        }
    }
}

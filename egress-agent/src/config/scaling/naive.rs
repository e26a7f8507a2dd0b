//! What compilation finds in its indexes, compared with a search through everything.

use std::collections::BTreeSet;

use ipnet::IpNet;
use proptest::prelude::*;

use super::random::configuration;
use crate::{
    config::{Compiled, testing::compile_with},
    policy::{
        Destination, Direct, DirectTarget, Exported, Hop, HostPattern, HttpOutcome, NodeAction,
        NodeRoute, Protocol, RouteSet, ServerProtocol, Service, Snapshot, StageRules, Target,
        has_labels,
    },
    types::{GatewayPort, Namespace, Port},
};

fn meets(host: &HostPattern, set: &RouteSet) -> bool {
    set.hosts.iter().any(|own| meet(own, host))
}

/// Whether rules for both have a host in common.
fn meet(a: &HostPattern, b: &HostPattern) -> bool {
    let others = b.rule_hosts();
    a.rule_hosts().iter().any(|a| others.iter().any(|b| a.intersect(b).is_some()))
}

/// Whether some namespace sees both, and neither, or each, is its own.
fn overlap(a: &RouteSet, b: &RouteSet) -> bool {
    ["apps", "team", "istio-system", "another"].into_iter().any(|name| {
        let namespace = Namespace(name.into());
        a.exported.includes(Some(&namespace))
            && b.exported.includes(Some(&namespace))
            && (a.namespace == namespace) == (b.namespace == namespace)
    })
}

fn kinds(rules: &StageRules) -> [bool; 3] {
    [!rules.http.is_empty(), !rules.tls.is_empty(), !rules.tcp.is_empty()]
}

/// Hosts that two virtual services route, as they are reported.
fn conflicts(snapshot: &Snapshot) -> BTreeSet<String> {
    let routes = &snapshot.rules.routes;
    let mut found = BTreeSet::new();
    for (index, set) in routes.iter().enumerate() {
        for host in &set.hosts {
            let first = (0..3).filter(|kind| kinds(&set.mesh)[*kind]).find_map(|kind| {
                routes[..index].iter().find(|other| {
                    kinds(&other.mesh)[kind] && other.hosts.contains(host) && overlap(other, set)
                })
            });
            if let Some(other) = first {
                found.insert(format!("{} {} {host}", set.name, other.name));
            }
        }
    }
    found
}

fn targets(rules: &StageRules) -> Vec<(&Target, Protocol)> {
    let http = rules.http.iter().flat_map(|rule| match &rule.outcome {
        HttpOutcome::Route(targets) => targets.as_slice(),
        HttpOutcome::Redirect(_) | HttpOutcome::Respond(..) => &[],
    });
    let tls = rules.tls.iter().flat_map(|rule| &rule.targets);
    let tcp = rules.tcp.iter().flat_map(|rule| &rule.targets);
    let http = http.map(|weighted| (&weighted.target, Protocol::Http));
    let tls = tls.map(|weighted| (&weighted.target, Protocol::Tls));
    http.chain(tls).chain(tcp.map(|weighted| (&weighted.target, Protocol::Tcp))).collect()
}

/// Whether a gateway's rules for a protocol and port are for the host too.
fn leads_on(
    set: &RouteSet,
    gateway: &str,
    protocol: Protocol,
    port: Port,
    host: &HostPattern,
) -> bool {
    let here = |wanted: Option<Port>| wanted.is_none_or(|wanted| wanted == port);
    let mut own = set.gateways.iter().filter(|(name, _)| **name == *gateway);
    meets(host, set)
        && own.any(|(_, rules)| match protocol {
            Protocol::Http => {
                let mut http = rules.http.iter();
                http.any(|r| r.matches.is_empty() || r.matches.iter().any(|m| here(m.port)))
            }
            Protocol::Tls => rules.tls.iter().any(|r| r.matches.iter().any(|m| here(m.port))),
            Protocol::Tcp => {
                let mut tcp = rules.tcp.iter();
                tcp.any(|r| r.matches.is_empty() || r.matches.iter().any(|m| here(m.port)))
            }
        })
}

/// Hosts that a rule leads to a gateway's port where they end, as they are reported.
fn dead_ends(snapshot: &Snapshot) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for set in &snapshot.rules.routes {
        for (target, protocol) in targets(&set.mesh) {
            let Target::Gateway { group, port, .. } = target else { continue };
            for host in &set.hosts {
                let labels = &snapshot.mesh.gateways[*group].labels;
                let server = snapshot.rules.servers.iter().find(|server| {
                    server.port == *port
                        && has_labels(labels, &server.selector)
                        && server.hosts.iter().any(|(_, own)| meet(own, host))
                });
                let good = server.is_some_and(|server| {
                    let fits = match server.protocol {
                        ServerProtocol::Http { .. } => protocol == Protocol::Http,
                        ServerProtocol::Passthrough(_) => protocol == Protocol::Tls,
                        ServerProtocol::Tcp => protocol != Protocol::Http,
                        ServerProtocol::Terminate(_) => unreachable!("none of these"),
                    };
                    let GatewayPort(port) = *port;
                    let carries = server.protocol.carries();
                    let mut routes = snapshot.rules.routes.iter();
                    fits && routes.any(|set| leads_on(set, &server.gateway, carries, port, host))
                });
                if !good {
                    found.insert(format!("{} {host} {port}", set.name));
                }
            }
        }
    }
    found
}

/// Hosts that a gateway of a virtual service doesn't serve.
fn unserved(snapshot: &Snapshot) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for set in &snapshot.rules.routes {
        for (gateway, _) in &set.gateways {
            let servers = snapshot.rules.servers.iter();
            let own: Vec<_> = servers.filter(|server| server.gateway == *gateway).collect();
            for host in set.hosts.iter().filter(|_| !own.is_empty()) {
                let mut hosts = own.iter().flat_map(|server| &server.hosts);
                if !hosts.any(|(_, served)| meet(served, host)) {
                    found.insert(format!("{} {gateway} {host}", set.name));
                }
            }
        }
    }
    found
}

/// What was reported, with the resource and the words of a message at these places.
fn reported(compiled: &Compiled, within: &str, words: &[usize]) -> BTreeSet<String> {
    let all = compiled.warnings.iter().filter(|problem| problem.message.contains(within));
    all.map(|problem| {
        let resource = problem.resource.as_deref().unwrap_or_default();
        let mut parts = vec![resource.strip_prefix("VirtualService ").unwrap_or(resource)];
        let message: Vec<&str> = problem.message.split(' ').collect();
        parts.extend(words.iter().map(|at| message[*at].trim_end_matches(',')));
        parts.join(" ")
    })
    .collect()
}

/// The service entries for a host and port: the most specific host's first, then the oldest.
fn providers<'s>(snapshot: &'s Snapshot, wanted: &HostPattern, port: Port) -> Vec<&'s Service> {
    let mut found: Vec<&Service> = Vec::new();
    for service in &snapshot.rules.services {
        if service.port.0 != port || !service.host.covers(wanted) {
            continue;
        }
        match found.iter_mut().find(|known| known.name == service.name) {
            Some(known) if known.host.covers(&service.host) => *known = service,
            Some(_) => {}
            None => found.push(service),
        }
    }
    // All cover one host, so that of two that differ one covers the other.
    found.sort_by_key(|service| {
        let others = snapshot.rules.services.iter().map(|other| &other.host);
        let narrower = others.filter(|other| other.covers(wanted) && service.host.covers(other));
        narrower.collect::<BTreeSet<_>>().len()
    });
    found
}

fn check_destination(snapshot: &Snapshot, destination: &Destination) {
    let name = destination.providers[0].others.cluster.name.0.to_string();
    let parts: Vec<&str> = name.split('|').collect();
    let port = Port::new(parts[1].parse().unwrap()).unwrap();
    let wanted = HostPattern::parse(parts[3]).unwrap();
    let found: Vec<(&HostPattern, &Namespace, &Exported)> = destination
        .providers
        .iter()
        .map(|provider| (&provider.host, &provider.namespace, &provider.exported))
        .collect();
    let expected: Vec<_> = providers(snapshot, &wanted, port)
        .into_iter()
        .map(|service| (&service.host, &service.namespace, &service.exported))
        .collect();
    assert_eq!(found, expected, "{name}");
}

/// Service entries with hosts and ports that are not let out directly because of what a rule asks for, as they
/// are reported.
fn beyond_the_node(compiled: &Compiled) -> BTreeSet<String> {
    let found = compiled.warnings.iter().filter_map(|problem| {
        let (_, place) = problem.message.split_once(" does not open ")?;
        let words: Vec<&str> = place.split(' ').collect();
        let resource = problem.resource.as_deref()?.strip_prefix("ServiceEntry ")?;
        Some(format!("{resource} {} {}", words[0], words[2].trim_matches([',', ':'])))
    });
    found.collect()
}

/// The hosts of destination rules that ask for TLS or a limit, by their texts.
fn asking(text: &str) -> Vec<HostPattern> {
    let rules = text.split("---\n").filter(|part| part.contains("kind: DestinationRule"));
    let asking =
        rules.filter(|rule| rule.contains("tls: {mode") || rule.contains("maxConnections"));
    let hosts = asking.filter_map(|rule| rule.split("host: '").nth(1)?.split('\'').next());
    hosts.map(|host| HostPattern::parse(host).unwrap()).collect()
}

/// What the node lets out directly, where services without a route may be.
fn direct(snapshot: &Snapshot, beyond: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let is_beyond = |service: &Service| {
        let place = format!("{} {} {}", service.name, service.host, service.port.0);
        beyond.contains(&place)
    };
    // A name that is not opened for one is opened for no other.
    let is_closed = |service: &Service| {
        let mut all = snapshot.rules.services.iter();
        all.any(|other| {
            other.host == service.host && other.port == service.port && is_beyond(other)
        })
    };
    let closed = snapshot.rules.services.iter().filter(|service| is_beyond(service));
    let closed: Vec<_> = closed
        .flat_map(|service| service.addresses.iter().map(|net| (service.port, *net)))
        .collect();
    for service in &snapshot.rules.services {
        let port = service.port.0;
        let here = |wanted: Option<Port>| wanted.is_none_or(|wanted| wanted == port);
        let covering = |set: &&std::sync::Arc<RouteSet>| {
            set.hosts.iter().any(|host| host.rules(&service.host))
        };
        let routed =
            snapshot.rules.routes.iter().filter(covering).any(|set| match service.protocol {
                Protocol::Http => true,
                Protocol::Tls => {
                    set.mesh.tls.iter().any(|rule| rule.matches.iter().any(|m| here(m.port)))
                }
                Protocol::Tcp => {
                    let mut rules = set.mesh.tcp.iter();
                    rules.any(|r| r.matches.is_empty() || r.matches.iter().any(|m| here(m.port)))
                }
            });
        if routed || is_beyond(service) || service.protocol == Protocol::Http {
            continue;
        }
        let is_open = |net: &&IpNet| {
            !closed.iter().any(|(closed, own)| {
                *closed == service.port && (net.contains(own) || own.contains(*net))
            })
        };
        found.extend(service.addresses.iter().filter(is_open).map(|net| format!("{net} {port}")));
        let by_name = service.addresses.is_empty() && !is_closed(service);
        if let Some(host) = service.host.exact().filter(|_| by_name) {
            found.insert(format!("{host} {port}"));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn what_is_found_is_what_a_search_finds((text, mesh) in configuration()) {
        let Ok(compiled) = compile_with(&[&text], mesh) else { return Ok(()) };
        let snapshot = &compiled.snapshot;

        let conflicting = reported(&compiled, "at the mesh stage too", &[1, 3]);
        prop_assert_eq!(conflicting, conflicts(snapshot), "{}", text);
        let dead = reported(&compiled, "is routed to the gateway's port", &[0, 7]);
        prop_assert_eq!(dead, dead_ends(snapshot), "{}", text);
        let unwilling = reported(&compiled, "doesn't serve", &[1, 4]);
        prop_assert_eq!(unwilling, unserved(snapshot), "{}", text);

        for set in &snapshot.rules.routes {
            let stages = set.gateways.iter().map(|(_, rules)| rules).chain([&set.mesh]);
            for (target, _) in stages.flat_map(targets) {
                match target {
                    Target::Cluster { destination, .. } => check_destination(snapshot, destination),
                    Target::Gateway { hop, .. } => prop_assert_eq!(*hop, Hop::Plain),
                    Target::Refused { .. } => {}
                }
            }
        }

        let routes = &snapshot.node.routes;
        let unique: std::collections::HashSet<&NodeRoute> = routes.iter().collect();
        prop_assert_eq!(unique.len(), routes.len(), "a route is there twice");
        let let_out: BTreeSet<String> = routes
            .iter()
            .filter(|route| route.action == NodeAction::Direct)
            .map(|route| match &route.target {
                DirectTarget::Net(net) => format!("{net} {}", route.port.unwrap()),
                DirectTarget::Name(host) => format!("{host} {}", route.port.unwrap()),
                DirectTarget::Any => "everything".into(),
            })
            .collect();
        let beyond = beyond_the_node(&compiled);
        for place in &beyond {
            let host = HostPattern::parse(place.split(' ').nth(1).unwrap()).unwrap();
            let is_asked = asking(&text).iter().any(|asked| meet(asked, &host));
            prop_assert!(is_asked, "{}: {}", place, text);
        }
        let expected = match snapshot.mesh.direct {
            Direct::Registry => direct(snapshot, &beyond),
            Direct::Deny => BTreeSet::new(),
        };
        // A rule's wish holds for a port of TLS that goes to a gateway, and is not reported.
        let is_led = |port: Port| {
            routes.iter().any(|route| {
                let is_here = route.port.is_some_and(|led| led.0 == port);
                is_here && route.target == DirectTarget::Any
            })
        };
        let asking = asking(&text);
        let led = snapshot.rules.services.iter().filter(|service| {
            let is_asked = asking.iter().any(|host| meet(host, &service.host));
            service.protocol == Protocol::Tls && is_asked && is_led(service.port.0)
        });
        let led: BTreeSet<String> = led
            .flat_map(|service| {
                let nets = service.addresses.iter().map(ToString::to_string);
                nets.chain([service.host.to_string()])
                    .map(|place| format!("{place} {}", service.port.0))
                    .collect::<Vec<_>>()
            })
            .collect();
        let apart = |all: BTreeSet<String>| &all - &led;
        prop_assert_eq!(apart(let_out), apart(expected), "{}", text);
    }
}

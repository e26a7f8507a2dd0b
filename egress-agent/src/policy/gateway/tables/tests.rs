use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;

fn hosts() -> impl Strategy<Value = Vec<HostPattern>> {
    let texts = [
        "*",
        "a.example",
        "b.a.example",
        "*.a.example",
        "*a.example",
        "*.example",
        "*.b.a.example",
        "x.test",
    ];
    let pattern = select(texts.to_vec()).prop_map(|text| HostPattern::parse(text).unwrap());
    vec(pattern, 1..4).prop_map(|mut hosts| {
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    })
}

fn namespace() -> impl Strategy<Value = Namespace> {
    select(vec!["apps", "team"]).prop_map(|name| Namespace(name.into()))
}

fn gateway() -> impl Strategy<Value = Arc<str>> {
    select(vec!["apps/one", "apps/two", "team/one"]).prop_map(Into::into)
}

fn server() -> impl Strategy<Value = Arc<Server>> {
    (gateway(), hosts(), option::of(namespace())).prop_map(|(gateway, hosts, namespace)| {
        Arc::new(Server {
            gateway,
            selector: [].into(),
            port: GatewayPort(Port::new(443).unwrap()),
            hosts: hosts.into_iter().map(|host| (namespace.clone(), host)).collect(),
            protocol: ServerProtocol::Tcp,
            owner: None,
            place: crate::policy::ResourcePath::default(),
        })
    })
}

fn set() -> impl Strategy<Value = Arc<RouteSet>> {
    (namespace(), hosts(), vec(gateway(), 0..3)).prop_map(|(namespace, hosts, mut gateways)| {
        gateways.sort_unstable();
        gateways.dedup();
        Arc::new(RouteSet {
            name: "apps/set".into(),
            label: "VirtualService apps/set".into(),
            namespace,
            exported: Exported::All,
            hosts,
            mesh: StageRules::default(),
            gateways: gateways.into_iter().map(|name| (name, StageRules::default())).collect(),
        })
    })
}

/// Server, route set, and the hosts that both name.
type Found = (*const Server, *const RouteSet, HostPattern, usize);

/// Every server asked about every route set.
fn searched(servers: &[&Arc<Server>], routes: &[Arc<RouteSet>]) -> Vec<Found> {
    let mut found = Vec::new();
    for server in servers {
        for set in routes {
            if !set.gateways.iter().any(|(name, _)| *name == server.gateway) {
                continue;
            }
            for (namespace, served) in &server.hosts {
                if namespace.as_ref().is_some_and(|namespace| *namespace != set.namespace) {
                    continue;
                }
                for wanted in &set.hosts {
                    let itself = || wanted.rules(served).then(|| served.clone());
                    if let Some(host) = served.intersect(wanted).or_else(itself) {
                        let (server, set) = (Arc::as_ptr(server), Arc::as_ptr(set));
                        found.push((server, set, host, precision(wanted)));
                    }
                }
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn servers_and_route_sets_meet_as_in_a_search(
        servers in vec(server(), 0..5), routes in vec(set(), 0..6),
    ) {
        let servers: Vec<&Arc<Server>> = servers.iter().collect();
        let found: Vec<Found> = bindings(&servers, &routes)
            .into_iter()
            .map(|one| (std::ptr::from_ref(one.server), Arc::as_ptr(one.set), one.host, one.precision))
            .collect();
        prop_assert_eq!(found, searched(&servers, &routes));
    }
}

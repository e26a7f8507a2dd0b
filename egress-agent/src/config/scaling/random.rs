//! Configurations of all sorts: wildcards, scopes, overlaps, delegates, references to nothing.

use proptest::{collection::vec, option, prelude::*, sample::select};

const API: &str = "networking.istio.io/v1";
const HOSTS: [&str; 10] = [
    "a.example",
    "b.a.example",
    "*.a.example",
    "*a.example",
    "*.example",
    "c.b.a.example",
    "x.example",
    "b.test",
    "*.test",
    "absent.invalid",
];
const GATEWAY: &str = "istio-egressgateway.istio-system.svc.cluster.local";
const NAMESPACES: [&str; 3] = ["apps", "team", "istio-system"];
/// Of a request, by itself.
const CONDITIONS: [&str; 4] =
    ["method: {exact: POST}", "method: {exact: GET}", "uri: {prefix: /v1}", "uri: {exact: /}"];
const SUBSETS: [&str; 2] = ["one", "two"];

fn host() -> impl Strategy<Value = &'static str> {
    select(HOSTS.to_vec())
}

fn namespace() -> impl Strategy<Value = &'static str> {
    select(NAMESPACES.to_vec())
}

/// Distinct ones.
fn hosts() -> impl Strategy<Value = String> {
    vec(host(), 1..4).prop_map(|mut hosts| {
        hosts.sort_unstable();
        hosts.dedup();
        hosts.iter().map(|host| format!("'{host}'")).collect::<Vec<_>>().join(", ")
    })
}

fn export_to() -> impl Strategy<Value = String> {
    let scopes =
        ["", "exportTo: ['*']", "exportTo: ['.']", "exportTo: [apps]", "exportTo: [team, .]"];
    select(scopes.to_vec()).prop_map(Into::into)
}

/// A kind's document; the number makes the name.
type Document = (&'static str, &'static str, Vec<String>);

fn entry() -> impl Strategy<Value = Document> {
    let ports = [
        "{number: 80, name: http, protocol: HTTP}",
        "{number: 443, name: tls, protocol: TLS}",
        "{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: HTTPS}",
        "{number: 5432, name: tcp, protocol: TCP}",
        "{number: 443, name: http, protocol: HTTP}",
    ];
    let addresses = option::of(select(vec!["192.0.2.7", "198.51.100.0/24"]));
    (namespace(), hosts(), select(ports.to_vec()), export_to(), addresses).prop_map(
        |(namespace, hosts, ports, exported, addresses)| {
            let addresses = addresses.map(|net| format!("addresses: [{net}]")).unwrap_or_default();
            let spec =
                vec![format!("hosts: [{hosts}]"), format!("ports: [{ports}]"), exported, addresses];
            ("ServiceEntry", namespace, spec)
        },
    )
}

fn rule() -> impl Strategy<Value = Document> {
    let policies = [
        "",
        "trafficPolicy: {tls: {mode: SIMPLE}}",
        "trafficPolicy: {loadBalancer: {simple: RANDOM}}",
        "trafficPolicy: {portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE}}]}",
        "trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}",
    ];
    let subsets = [
        "",
        "subsets: [{name: one}]",
        "subsets: [{name: two, trafficPolicy: {tls: {mode: SIMPLE}}}, {name: one}]",
    ];
    let to = prop_oneof![5 => host(), 1 => Just(GATEWAY)];
    (namespace(), to, export_to(), select(policies.to_vec()), select(subsets.to_vec())).prop_map(
        |(namespace, host, exported, policy, subsets)| {
            let spec = vec![format!("host: '{host}'"), exported, policy.into(), subsets.into()];
            ("DestinationRule", namespace, spec)
        },
    )
}

fn gateway() -> impl Strategy<Value = Document> {
    let labels = ["istio: egressgateway", "istio: other"];
    let kinds = [
        "port: {number: 80, name: http, protocol: HTTP}",
        "port: {number: 443, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}",
        "port: {number: 5432, name: tcp, protocol: TCP}",
    ];
    let server = (select(kinds.to_vec()), hosts(), option::of(namespace())).prop_map(
        |(kind, hosts, namespace)| {
            let hosts = match namespace {
                Some(namespace) => hosts.replacen('\'', &format!("'{namespace}/"), 1),
                None => hosts,
            };
            format!("{{{kind}, hosts: [{hosts}]}}")
        },
    );
    (namespace(), select(labels.to_vec()), vec(server, 1..4)).prop_map(
        |(namespace, labels, servers)| {
            let spec = vec![
                format!("selector: {{{labels}}}"),
                format!("servers: [{}]", servers.join(", ")),
            ];
            ("Gateway", namespace, spec)
        },
    )
}

fn destination() -> impl Strategy<Value = String> {
    let to = prop_oneof![2 => host(), 3 => Just(GATEWAY)];
    let port = option::of(select(vec![80u16, 443, 5432]));
    (to, port, option::weighted(0.2, select(SUBSETS.to_vec()))).prop_map(|(host, port, subset)| {
        let port = port.map(|port| format!(", port: {{number: {port}}}")).unwrap_or_default();
        let subset = subset.map(|subset| format!(", subset: {subset}")).unwrap_or_default();
        format!("route: [{{destination: {{host: '{host}'{port}{subset}}}}}]")
    })
}

/// `gateways` and `port` of a match.
fn place() -> impl Strategy<Value = String> {
    let gateways =
        ["", "gateways: [mesh]", "gateways: [apps/gateway-0]", "gateways: [team/gateway-1]"];
    let port = option::of(select(vec![80u16, 443, 5432]));
    (select(gateways.to_vec()), port).prop_map(|(gateways, port)| {
        let port = port.map(|port| format!("port: {port}")).unwrap_or_default();
        [gateways.to_owned(), port]
            .into_iter()
            .filter(|s| !s.is_empty())
            .collect::<Vec<_>>()
            .join(", ")
    })
}

fn http() -> impl Strategy<Value = String> {
    let what = prop_oneof![
        6 => destination(),
        1 => Just("delegate: {name: delegate-0, namespace: apps}".to_owned()),
        1 => Just("delegate: {name: delegate-1, namespace: team}".to_owned()),
        1 => Just("directResponse: {status: 403}".to_owned()),
    ];
    let condition = option::weighted(0.3, select(CONDITIONS.to_vec()));
    (option::weighted(0.8, place()), condition, what).prop_map(|(place, condition, what)| {
        let parts = place.iter().map(String::as_str).chain(condition).filter(|s| !s.is_empty());
        let conditions = parts.collect::<Vec<_>>().join(", ");
        match (place.is_some(), condition) {
            (false, None) => format!("{{{what}}}"),
            _ => format!("{{match: [{{{conditions}}}], {what}}}"),
        }
    })
}

fn service() -> impl Strategy<Value = Document> {
    let tls = (place(), host(), destination()).prop_map(|(place, sni, to)| {
        let comma = if place.is_empty() { "" } else { ", " };
        (sni, format!("{{match: [{{{place}{comma}sniHosts: ['{sni}']}}], {to}}}"))
    });
    let tcp = (option::of(place()), destination()).prop_map(|(place, to)| match place {
        Some(place) => format!("{{match: [{{{place}}}], {to}}}"),
        None => format!("{{{to}}}"),
    });
    let gateways = [
        "",
        "gateways: [mesh, apps/gateway-0]",
        "gateways: [mesh, team/gateway-1]",
        "gateways: [apps/gateway-0]",
        "gateways: [mesh, apps/gateway-0, team/gateway-1, apps/absent]",
    ];
    let rules = (vec(http(), 0..3), vec(tls, 0..2), vec(tcp, 0..2));
    (namespace(), hosts(), export_to(), select(gateways.to_vec()), rules).prop_map(
        |(namespace, hosts, exported, gateways, (http, tls, tcp))| {
            let tls: Vec<_> = tls
                .into_iter()
                .filter(|(sni, _)| hosts.contains(&format!("'{sni}'")))
                .map(|(_, rule)| rule)
                .collect();
            let lists = [("http", http), ("tls", tls), ("tcp", tcp)];
            let mut spec = vec![format!("hosts: [{hosts}]"), exported, gateways.into()];
            let given = lists.into_iter().filter(|(_, rules)| !rules.is_empty());
            spec.extend(given.map(|(kind, rules)| format!("{kind}: [{}]", rules.join(", "))));
            if spec.len() == 3 {
                spec.push(format!("http: [{{route: [{{destination: {{host: {GATEWAY}}}}}]}}]"));
            }
            ("VirtualService", namespace, spec)
        },
    )
}

fn delegate() -> impl Strategy<Value = Document> {
    (select(vec!["apps", "team"]), vec(destination(), 1..3), export_to()).prop_map(
        |(namespace, routes, exported)| {
            let rules: Vec<_> = routes.iter().map(|route| format!("{{{route}}}")).collect();
            ("Delegate", namespace, vec![format!("http: [{}]", rules.join(", ")), exported])
        },
    )
}

fn text(number: usize, (kind, namespace, spec): Document) -> String {
    let name = kind.to_ascii_lowercase();
    let kind = if kind == "Delegate" { "VirtualService" } else { kind };
    let spec: String =
        spec.iter().filter(|line| !line.is_empty()).map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: {API}\nkind: {kind}\nmetadata: {{name: {name}-{number}, namespace: \
         {namespace}}}\nspec:\n{spec}---\n"
    )
}

/// The text of a file, and more lines of `mesh.yaml`.
pub(crate) fn configuration() -> impl Strategy<Value = (String, &'static str)> {
    fn all(
        one: impl Strategy<Value = Document>,
        most: usize,
    ) -> impl Strategy<Value = Vec<String>> {
        vec(one, 0..most)
            .prop_map(|all| all.into_iter().enumerate().map(|(n, one)| text(n, one)).collect())
    }
    let kinds =
        (all(entry(), 6), all(rule(), 5), all(gateway(), 3), all(service(), 6), all(delegate(), 3));
    let mesh = ["", "direct: registry\n"];
    (kinds, select(mesh.to_vec()))
        .prop_map(|((a, b, c, d, e), mesh)| ([a, b, c, d, e].concat().concat(), mesh))
}

//! The steps that compilation takes grow as the configuration does, in every shape that one can have.

use std::{fmt::Write as _, sync::Arc};

use crate::{
    config::{RawFile, compile, testing::MESH},
    policy::GatewayPolicy,
    types::{GatewayIdentity, Namespace, steps},
};

const API: &str = "apiVersion: networking.istio.io/v1";
const GATEWAY: &str = "istio-egressgateway.istio-system.svc.cluster.local";

fn resource(kind: &str, name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "{API}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn entry(name: &str, hosts: &str) -> String {
    let ports = "{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}";
    resource("ServiceEntry", name, &format!("hosts: [{hosts}], resolution: DNS, ports: [{ports}]"))
}

fn gateway(name: &str, hosts: &str) -> String {
    let servers = format!(
        "{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{hosts}]}}, {{port: {{number: \
         443, name: tls, protocol: TLS}}, tls: {{mode: PASSTHROUGH}}, hosts: [{hosts}]}}"
    );
    resource("Gateway", name, &format!("selector: {{istio: egressgateway}}, servers: [{servers}]"))
}

/// Through a gateway, to the host: HTTP and TLS.
fn route(name: &str, gateway: &str, host: &str, more: &str) -> String {
    let to = |host: &str, port| {
        format!("route: [{{destination: {{host: {host}, port: {{number: {port}}}{more}}}}}]")
    };
    let on = |host: &str, port| {
        format!("route: [{{destination: {{host: {host}, port: {{number: {port}}}}}}}]")
    };
    let spec = format!(
        "hosts: [{host}], gateways: [mesh, {gateway}], http: [{{match: [{{gateways: [mesh]}}], {}}}, \
         {{match: [{{gateways: [{gateway}], port: 80}}], {}}}], tls: [{{match: [{{gateways: [mesh], \
         port: 443, sniHosts: [{host}]}}], {}}}, {{match: [{{gateways: [{gateway}], port: 443, \
         sniHosts: [{host}]}}], {}}}]",
        to(GATEWAY, 80),
        on(host, 80),
        to(GATEWAY, 443),
        on(host, 443),
    );
    resource("VirtualService", name, &spec)
}

fn host(number: usize) -> String {
    format!("h{number}.zone{}.example", number % 7)
}

/// Every host with resources of its own, behind one gateway.
fn of_its_own(count: usize) -> String {
    let mut text = gateway("apps/egress", "'*'");
    for number in 0..count {
        let host = host(number);
        text += &entry(&format!("apps/e{number}"), &host);
        text += &route(&format!("apps/r{number}"), "apps/egress", &host, "");
        let policy = format!("host: {host}, trafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}");
        text += &resource("DestinationRule", &format!("apps/d{number}"), &policy);
    }
    text
}

/// A gateway for each host.
fn gateways(count: usize) -> String {
    let each = (0..count).map(|number| {
        let host = host(number);
        let name = format!("apps/g{number}");
        gateway(&name, &host)
            + &entry(&format!("apps/e{number}"), &host)
            + &route(&format!("apps/r{number}"), &name, &host, "")
    });
    each.collect()
}

/// A gateway with a server for each host.
fn servers(count: usize) -> String {
    let server = |number| {
        format!(
            "{{port: {{number: 443, name: tls{number}, protocol: TLS}}, tls: {{mode: PASSTHROUGH}}, \
             hosts: [{}]}}",
            host(number)
        )
    };
    let servers: Vec<_> = (0..count).map(server).collect();
    let spec = format!("selector: {{istio: egressgateway}}, servers: [{}]", servers.join(", "));
    let each = (0..count).map(|number| {
        let host = host(number);
        entry(&format!("apps/e{number}"), &host)
            + &route(&format!("apps/r{number}"), "apps/egress", &host, "")
    });
    resource("Gateway", "apps/egress", &spec) + &each.collect::<String>()
}

/// All hosts in the lists of one resource of each kind.
fn lists(count: usize) -> String {
    let hosts = (0..count).map(host).collect::<Vec<_>>().join(", ");
    gateway("apps/egress", &hosts)
        + &entry("apps/all", &hosts)
        + &route("apps/all", "apps/egress", &hosts, "")
            .replace(&format!("host: {hosts}"), &format!("host: {}", host(0)))
}

/// A subset of the gateway's rule for each host, as Istio's walkthrough has it.
fn subsets(count: usize) -> String {
    let all: Vec<_> = (0..count).map(|number| format!("{{name: s{number}}}")).collect();
    let spec = format!("host: {GATEWAY}, subsets: [{}]", all.join(", "));
    let each = (0..count).map(|number| {
        let (host, subset) = (host(number), format!(", subset: s{number}"));
        entry(&format!("apps/e{number}"), &host)
            + &route(&format!("apps/r{number}"), "apps/egress", &host, &subset)
    });
    resource("DestinationRule", "apps/gateway", &spec)
        + &gateway("apps/egress", "'*'")
        + &each.collect::<String>()
}

/// References to nothing: each is reported.
fn dangling(count: usize) -> String {
    let each = (0..count).map(|number| {
        let host = host(number);
        route(&format!("apps/r{number}"), &format!("apps/g{number}"), &host, "")
            + &resource("DestinationRule", &format!("apps/d{number}"), &format!("host: {host}"))
            + &entry(&format!("apps/e{number}"), &format!("other-{host}"))
    });
    each.collect()
}

/// Every rule delegated.
fn delegates(count: usize) -> String {
    let mut text = gateway("apps/egress", "'*'");
    for number in 0..count {
        let host = host(number);
        text += &entry(&format!("apps/e{number}"), &host);
        let spec = format!(
            "hosts: [{host}], gateways: [mesh, apps/egress], http: [{{match: [{{gateways: [mesh]}}], \
             route: [{{destination: {{host: {GATEWAY}, port: {{number: 80}}}}}}]}}, {{match: \
             [{{gateways: [apps/egress]}}], delegate: {{name: l{number}, namespace: team}}}}]"
        );
        text += &resource("VirtualService", &format!("apps/r{number}"), &spec);
        let leaf =
            format!("http: [{{route: [{{destination: {{host: {host}, port: {{number: 80}}}}}}]}}]");
        text += &resource("VirtualService", &format!("team/l{number}"), &leaf);
    }
    text
}

/// Each host declared and routed by a namespace that keeps it to itself, all of them the same one.
fn tenants(count: usize) -> String {
    let own = |text: String| text.replace("spec: {", "spec: {exportTo: ['.'], ");
    let mut text = gateway("istio-system/egress", "'*'");
    for number in 0..count {
        let name = format!("team{number}/shared");
        text += &own(entry(&name, "shared.example"));
        text += &own(route(&name, "istio-system/egress", "shared.example", ""));
    }
    text
}

/// Policies that name service entries.
fn targeted(count: usize) -> String {
    let each = (0..count).map(|number| {
        let policy = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: \
             p{number}, namespace: apps}}\nspec: {{targetRefs: [{{kind: ServiceEntry, name: \
             e{number}}}], action: ALLOW}}\n---\n"
        );
        entry(&format!("apps/e{number}"), &host(number)) + &policy
    });
    each.collect()
}

/// Raw TCP by address, each at a port of the gateway's own or directly.
fn raw(count: usize) -> String {
    let each = (0..count).map(|number| {
        let spec = format!(
            "hosts: [{}], addresses: [198.51.{}.{}], resolution: DNS, ports: [{{number: 5432, name: \
             tcp, protocol: TCP}}, {{number: 443, name: tls, protocol: TLS}}]",
            host(number),
            number / 250,
            number % 250,
        );
        resource("ServiceEntry", &format!("apps/e{number}"), &spec)
    });
    each.collect()
}

fn steps_of(text: String, more_mesh: &str) -> u64 {
    let files = [RawFile { path: "all.yaml".into(), text }];
    let mesh = RawFile { path: "mesh.yaml".into(), text: format!("{MESH}{more_mesh}") };
    let identity = GatewayIdentity {
        labels: [("istio".to_owned(), "egressgateway".to_owned())].into(),
        namespace: Namespace("istio-system".into()),
        addresses: Vec::new(),
    };
    let work = || {
        let compiled = compile(&files, Some(&mesh)).unwrap_or_else(|problems| panic!("{problems}"));
        GatewayPolicy::new(Arc::new(compiled.snapshot), &identity)
    };
    steps::of(work).1
}

/// Twice and four times as much takes twice and four times the steps, within a few of a hundred.
fn assert_linear(what: &str, steps: impl Fn(usize) -> u64) {
    const FEW: usize = 60;
    let [one, two, four] = [1, 2, 4].map(|times| steps(FEW * times));
    let report = format!("{what}: {one}, {two}, {four} steps");
    assert!(one >= u64::try_from(FEW).unwrap(), "nothing is counted: {report}");
    assert!(two * 100 <= one * 2 * 105 && four * 100 <= two * 2 * 105, "{report}");
}

#[test]
fn steps_grow_with_the_hosts() {
    for (what, text) in [
        ("resources for each host", of_its_own as fn(usize) -> String),
        ("a gateway for each host", gateways),
        ("a server for each host", servers),
        ("lists of hosts", lists),
        ("a subset for each host", subsets),
        ("references to nothing", dangling),
        ("a delegate for each host", delegates),
        ("a host of many tenants", tenants),
        ("policies for service entries", targeted),
        ("raw TCP", raw),
    ] {
        assert_linear(what, |count| steps_of(text(count), ""));
        let what = format!("{what}, directly");
        assert_linear(&what, |count| steps_of(text(count), "direct: registry\n"));
    }
}

#[test]
fn steps_grow_with_the_workloads_that_rules_ask_for() {
    assert_linear("source labels", |count| {
        let (mut text, mut mesh) = (of_its_own(count), String::new());
        for number in 0..count {
            let label = format!("sourceLabels: {{app: a{number}}}, gateways: [mesh]");
            text = text.replacen("{gateways: [mesh]}", &format!("{{{label}}}"), 1);
            let workload = format!(
                "- {{name: w{number}, namespace: apps, addresses: [10.2.{}.{}], labels: {{app: \
                 a{number}, all: x}}}}",
                number / 250,
                number % 250
            );
            writeln!(mesh, "{workload}").unwrap();
        }
        steps_of(text, &mesh)
    });
}

#[test]
fn a_search_would_be_noticed() {
    let every = |count: usize| {
        let hosts: Vec<_> = (0..count)
            .map(|number| crate::policy::HostPattern::parse(&host(number)).unwrap())
            .collect();
        let all =
            || hosts.iter().map(|a| hosts.iter().filter(|b| a.covers(b)).count()).sum::<usize>();
        steps::of(all).1
    };
    assert_eq!((every(40), every(80)), (1600, 6400));
}

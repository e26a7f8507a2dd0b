//! The walkthrough with mutual TLS between the node and the gateway: what goes through the tunnel,
//! what comes out of it, and that nothing of it is served in clear.

use egress_ebpf::reason::Reason;

use super::super::{
    compile,
    testing::{Gateway, MESH, compiled, errors, file, original, problems},
};
use crate::{
    policy::{
        CredentialSource, Denied, DirectTarget, EntryPoint, Hop, HttpRequest, HttpRoute,
        NodeAction, NodeRoute, PortMode, TlsConnection, TlsRoute,
    },
    types::{AssertedWorkload, Host, Namespace, OriginalDst, Source, SpiffeId},
};

const HOST: &str = "edition.cnn.com";

const HTTP: [&str; 3] = [
    include_str!("../testdata/1-http/registry.yaml"),
    include_str!("../testdata/1-http/egress-mtls.yaml"),
    include_str!("../testdata/1-http/routes.yaml"),
];
const ORIGINATION: [&str; 3] = [
    include_str!("../testdata/2-tls-origination/registry.yaml"),
    include_str!("../testdata/2-tls-origination/egress-mtls.yaml"),
    include_str!("../testdata/2-tls-origination/routes.yaml"),
];
const HTTPS: [&str; 2] = [
    include_str!("../testdata/3-https/registry.yaml"),
    include_str!("../testdata/3-https/egress-and-routes-mtls.yaml"),
];

/// Two nodes with an identity each, and two that share one.
const NODES: &str = "
nodes:
- {name: n1, principal: spiffe://cluster.local/ns/kube-system/sa/node-1}
- {name: n2, principal: spiffe://cluster.local/ns/kube-system/sa/node-2}
- {name: n3, principal: spiffe://cluster.local/ns/kube-system/sa/node, addresses: [10.1.0.3]}
- {name: n4, principal: spiffe://cluster.local/ns/kube-system/sa/node, addresses: [10.1.0.4]}
- name: n5
  principal: spiffe://cluster.local/ns/kube-system/sa/node-5
  addresses: [10.1.0.5, \"fd00::5\"]
";
const WORKLOADS: &str = "\
- {name: one, namespace: apps, addresses: [10.0.1.1], node: n1, serviceAccount: one}
- {name: three, namespace: apps, addresses: [10.0.1.3], node: n3}
- {name: host, namespace: apps, cgroups: [/pods/host], node: n1}
- {name: system, namespace: apps, cgroups: [/pods/system], node: n5}
- {name: nowhere, namespace: apps, addresses: [10.0.1.9]}
";

fn mesh() -> String {
    format!("{WORKLOADS}{NODES}")
}

fn gateway(texts: &[&str]) -> Gateway {
    Gateway::new(texts, &mesh())
}

fn id(account: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://cluster.local/ns/{account}")).unwrap()
}

fn claim(name: &str) -> AssertedWorkload {
    AssertedWorkload {
        cluster: None,
        namespace: Namespace("apps".into()),
        name: name.into(),
        service_account: None,
    }
}

fn claimed(
    gateway: &Gateway,
    client: &str,
    peer: &str,
    claim: Option<&AssertedWorkload>,
    forwarded: Option<&str>,
) -> Result<Source, Denied> {
    let forwarded = forwarded.map(|addr| addr.parse().unwrap());
    gateway.0.claimed(&id(client), peer.parse().unwrap(), claim, forwarded)
}

/// The workload `one`, as its node vouches for it.
fn one(gateway: &Gateway) -> Source {
    claimed(gateway, "kube-system/sa/node-1", "10.1.0.1", Some(&claim("one")), None).unwrap()
}

fn get(
    gateway: &Gateway,
    source: &Source,
    entry: EntryPoint<'_>,
    to: u16,
) -> Result<HttpRoute, Denied> {
    gateway.0.http(&HttpRequest {
        source,
        entry,
        port: original(to),
        host: &Host::parse(HOST).unwrap(),
        authority: HOST,
        scheme: "http",
        method: &http::Method::GET,
        path_and_query: "/",
        headers: &http::HeaderMap::new(),
        server_name: None,
        remote: None,
    })
}

fn tls(gateway: &Gateway, source: &Source, hop: Hop, to: u16) -> Result<TlsRoute, Denied> {
    let server_name = &Host::parse(HOST).unwrap();
    let port = original(to);
    gateway.0.tls(&TlsConnection { source, port, server_name, hop, encrypted: false })
}

fn dialled(text: &str) -> OriginalDst {
    OriginalDst(text.parse().unwrap())
}

fn route(to: u16, hop: Hop) -> NodeRoute {
    NodeRoute {
        port: Some(original(to)),
        target: DirectTarget::Any,
        action: NodeAction::Redirect { group: 0, port: None, hop },
    }
}

#[test]
fn the_walkthrough_goes_through_the_tunnel() {
    for (texts, to) in [(&HTTP[..], 80), (&ORIGINATION, 80), (&HTTPS, 443)] {
        let compiled = compiled(texts, &mesh());
        // The original has an old spelling in one of its files.
        let old = |message: &str| message.starts_with("old spelling of a field");
        let other: Vec<_> = compiled.warnings.iter().filter(|p| !old(&p.message)).collect();
        let [unspoken] = other[..] else { panic!("{other:#?}") };
        let who = "apps/sleep, apps/nowhere: no `node`";
        assert!(unspoken.message.starts_with(who), "{unspoken:#?}");
        let snapshot = compiled.snapshot;
        assert!(snapshot.node.routes.contains(&route(to, Hop::Tunnel)), "{:?}", snapshot.node);
        let tunnel = snapshot.mesh.gateways[0].tunnel.as_ref().unwrap();
        assert_eq!(tunnel.credential, CredentialSource::Own);
        assert_eq!(&*tunnel.namespace.0, "istio-system");
        assert!(tunnel.expects(&id("istio-system/sa/istio-egressgateway-service-account")));
        assert!(!tunnel.expects(&id("apps/sa/default")));
    }
}

#[test]
fn workloads_that_no_node_speaks_for_are_told_once() {
    // What the tests' settings have before their workloads.
    let (settings, _) = MESH.split_once("workloads:").unwrap();
    let warned = |mesh: &str| -> Vec<String> {
        let files: Vec<_> = HTTP.iter().map(|text| file("walkthrough.yaml", text)).collect();
        let mesh = file("mesh.yaml", &format!("{settings}{mesh}"));
        let all = compile(&files, Some(&mesh)).unwrap().warnings.into_iter();
        let all = all.map(|problem| problem.message);
        all.filter(|message| message.contains("claimed_workload")).collect()
    };
    let [none] = &warned("")[..] else { panic!("{:?}", warned("")) };
    assert!(none.starts_with("there are no `workloads`"), "{none}");
    let spoken = "workloads:\n- {name: one, addresses: [10.0.1.1], node: n1}\n";
    assert!(warned(&format!("{spoken}{NODES}")).is_empty());
    let more: String = (2..7)
        .map(|n| format!("- {{name: w{n}, namespace: apps, addresses: [10.0.1.{n}]}}\n"))
        .collect();
    let many = warned(&format!("{spoken}{more}{NODES}"));
    assert!(many[0].starts_with("apps/w2, apps/w3, apps/w4 and 2 more: no `node`"), "{many:?}");
    assert_eq!(many.len(), 1);
    // Without a tunnel nobody has to speak for anybody.
    let plain = [HTTP[0], include_str!("../testdata/1-http/egress.yaml"), HTTP[2]];
    assert!(problems(&plain, "").is_empty());
}

#[test]
fn http_is_served_out_of_the_tunnel_and_refused_in_clear() {
    for (texts, upstream) in [(&HTTP, 80), (&ORIGINATION, 443)] {
        let gateway = gateway(texts);
        let source = one(&gateway);
        let route = get(&gateway, &source, EntryPoint::Tunnel, 80).unwrap();
        assert_eq!(&*route.cluster.name.0, format!("outbound|{upstream}||{HOST}"));
        assert_eq!(route.cluster.tls.is_some(), upstream == 443);
        let plain = get(&gateway, &source, EntryPoint::Mesh, 80).unwrap_err();
        assert_eq!(plain.reason, Reason::PlaintextHop);
        assert!(plain.detail.contains("the node's tunnel"), "{}", plain.detail);
    }
}

#[test]
fn tls_of_the_application_is_led_on_untouched() {
    let gateway = gateway(&HTTPS);
    let source = one(&gateway);
    assert_eq!(gateway.0.tunnel_mode(&source, dialled("198.51.100.7:443")), PortMode::Detect);
    match tls(&gateway, &source, Hop::Tunnel, 443).unwrap() {
        TlsRoute::Forward(to) => assert_eq!(&*to.cluster.name.0, format!("outbound|443||{HOST}")),
        other @ TlsRoute::Terminate(_) => panic!("{other:?}"),
    }
    let plain = tls(&gateway, &source, Hop::Plain, 443).unwrap_err();
    assert_eq!(plain.reason, Reason::PlaintextHop);
}

#[test]
fn a_wildcard_is_led_on_by_its_server_name() {
    let texts = HTTPS.map(|text| {
        text.replace(HOST, "\"*.cnn.com\"").replace("resolution: DNS", "resolution: NONE")
    });
    let gateway = gateway(&texts.each_ref().map(String::as_str));
    let source = one(&gateway);
    match tls(&gateway, &source, Hop::Tunnel, 443).unwrap() {
        TlsRoute::Forward(to) => {
            assert_eq!(&*to.cluster.name.0, "outbound|443||*.cnn.com");
            assert_eq!(to.host, Some(Host::parse(HOST).unwrap()));
        }
        other @ TlsRoute::Terminate(_) => panic!("{other:?}"),
    }
    let plain = tls(&gateway, &source, Hop::Plain, 443).unwrap_err();
    assert_eq!(plain.reason, Reason::PlaintextHop);
}

#[test]
fn what_needs_no_tunnel_may_come_through_it() {
    let plain: [&str; 3] = [HTTP[0], include_str!("../testdata/1-http/egress.yaml"), HTTP[2]];
    let gateway = gateway(&plain);
    let source = one(&gateway);
    for entry in [EntryPoint::Mesh, EntryPoint::Tunnel] {
        assert!(get(&gateway, &source, entry, 80).is_ok());
    }
    let node = compiled(&plain, "").snapshot.node;
    assert!(node.routes.contains(&route(80, Hop::Plain)));
}

#[test]
fn without_the_rule_http_to_a_server_for_tls_stays_refused() {
    let disabled = HTTP[1].replace("mode: ISTIO_MUTUAL", "mode: DISABLE");
    let found = problems(&[HTTP[0], &disabled, HTTP[2]], "");
    assert!(found.iter().any(|p| p.code == Some("IST0132")), "{found:#?}");
    let gateway = gateway(&[HTTP[0], &disabled, HTTP[2]]);
    let source = one(&gateway);
    for entry in [EntryPoint::Mesh, EntryPoint::Tunnel] {
        assert_eq!(get(&gateway, &source, entry, 80).unwrap_err().reason, Reason::WrongProtocol);
    }
}

#[test]
fn names_that_a_server_asks_for_are_asked_of_the_workload() {
    let with = |more: &str| {
        HTTP[1].replace(
            "    tls:\n      mode: MUTUAL\n",
            &format!("    tls:\n      mode: MUTUAL\n      {more}\n"),
        )
    };
    let reason = |more: &str| {
        let text = with(more);
        assert_ne!(text, HTTP[1]);
        let gateway = gateway(&[HTTP[0], &text, HTTP[2]]);
        let source = one(&gateway);
        get(&gateway, &source, EntryPoint::Tunnel, 80).map(|_| ()).map_err(|denied| denied.reason)
    };
    assert_eq!(reason("subjectAltNames: ['spiffe://cluster.local/ns/apps/sa/one']"), Ok(()));
    let other = "subjectAltNames: ['spiffe://cluster.local/ns/apps/sa/two']";
    assert_eq!(reason(other), Err(Reason::ClientIdentity));
    let pin = "verifyCertificateSpki: [NvqYIYSbgK2vCJpQhObf77vv+bQWtc5ek5RIOwPiC9A=]";
    assert_eq!(reason(pin), Err(Reason::ClientIdentity));
}

#[test]
fn a_node_speaks_for_its_own_workloads_alone() {
    let gateway = gateway(&HTTP);
    let (n1, n2) = ("kube-system/sa/node-1", "kube-system/sa/node-2");
    let shared = "kube-system/sa/node";
    let source = one(&gateway);
    assert_eq!(source.addr.to_string(), "10.0.1.1");
    assert_eq!(source.principal, Some(id("apps/sa/one")));
    assert_eq!(source.namespace(), Some(&Namespace("apps".into())));
    let allowed = |client, peer, name: &str, forwarded| {
        claimed(&gateway, client, peer, Some(&claim(name)), forwarded).is_ok()
    };
    let denied = |client, peer, name: &str, forwarded| {
        let denied = claimed(&gateway, client, peer, Some(&claim(name)), forwarded).unwrap_err();
        assert_eq!(denied.reason, Reason::ClaimedWorkload);
        denied.detail
    };
    assert!(allowed(n1, "10.1.0.9", "one", Some("10.0.1.1")));
    assert!(allowed(n1, "10.1.0.9", "host", Some("10.1.0.9")));
    // On the host's network: by which of the node's addresses is believed, no other address is.
    for (forwarded, believed) in [("fd00::5", "fd00::5"), ("10.0.1.1", "10.1.0.5")] {
        let system = Some(&claim("system"));
        let n5 = "kube-system/sa/node-5";
        let source = claimed(&gateway, n5, "10.1.0.5", system, Some(forwarded)).unwrap();
        assert_eq!(source.addr.to_string(), believed);
    }
    assert!(allowed(shared, "10.1.0.3", "three", None));
    assert!(denied(n2, "10.1.0.9", "one", None).contains("whose identity is"));
    assert!(denied(n1, "10.1.0.9", "three", None).contains("it runs on n3"));
    // Nodes of one identity are told apart by their addresses.
    assert!(denied(shared, "10.1.0.4", "three", None).contains("none of that node's addresses"));
    assert!(denied(n1, "10.1.0.9", "one", Some("10.0.1.3")).contains("none of its addresses"));
    assert!(denied(n1, "10.1.0.9", "nobody", None).contains("isn't known"));
    assert!(denied(n1, "10.1.0.9", "nowhere", None).contains("no node is known"));
    let foreign = "apps/sa/other";
    assert!(denied(foreign, "10.0.1.1", "one", None).contains("whose identity is"));
    // A service account that isn't the workload's.
    let other = AssertedWorkload { service_account: Some("admin".into()), ..claim("one") };
    assert!(claimed(&gateway, n1, "10.1.0.9", Some(&other), None).is_err());
    let other = AssertedWorkload { namespace: Namespace("kube-system".into()), ..claim("one") };
    assert!(claimed(&gateway, n1, "10.1.0.9", Some(&other), None).is_err());
}

#[test]
fn without_a_claim_the_address_says_who_it_is() {
    let gateway = gateway(&HTTP);
    let n1 = "kube-system/sa/node-1";
    let by_address = claimed(&gateway, n1, "10.1.0.9", None, Some("10.0.1.1")).unwrap();
    assert_eq!(by_address, one(&gateway));
    assert!(claimed(&gateway, n1, "10.1.0.9", None, Some("10.0.1.3")).is_err());
    assert!(claimed(&gateway, n1, "10.1.0.9", None, Some("10.0.9.9")).is_err());
    assert!(claimed(&gateway, n1, "10.1.0.9", None, None).is_err());
    // A workload speaks for itself, from its own address.
    let own = claimed(&gateway, "apps/sa/one", "10.0.1.1", None, None).unwrap();
    assert_eq!(own, one(&gateway));
    assert!(claimed(&gateway, "apps/sa/one", "10.0.1.1", Some(&claim("one")), None).is_ok());
    assert!(claimed(&gateway, "apps/sa/one", "10.0.1.2", Some(&claim("one")), None).is_err());
    assert!(claimed(&gateway, "apps/sa/default", "10.0.1.1", None, None).is_err());
}

/// Raw TCP to a server that terminates TLS, two services on one port, and one that has only a name.
const RAW: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db}
spec:
  hosts: [db.example]
  addresses: [198.51.100.0/28]
  ports: [{number: 5432, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 198.51.100.4}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: queue}
spec:
  hosts: [queue.example]
  ports: [{number: 5672, name: tcp, protocol: TCP}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress}
spec:
  selector: {istio: egressgateway}
  servers:
  - port: {number: 15432, name: db, protocol: TLS}
    hosts: [db.example]
    tls: {mode: ISTIO_MUTUAL}
  - port: {number: 15672, name: queue, protocol: TCP}
    hosts: [queue.example]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: hop}
spec:
  host: istio-egressgateway.istio-system.svc.cluster.local
  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db}
spec:
  hosts: [db.example]
  gateways: [mesh, egress]
  tcp:
  - match: [{gateways: [mesh], port: 5432}]
    route:
    - destination: {host: istio-egressgateway.istio-system.svc.cluster.local, port: {number: 15432}}
  - match: [{gateways: [egress], port: 15432}]
    route: [{destination: {host: db.example, port: {number: 5432}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: queue}
spec:
  hosts: [queue.example]
  gateways: [mesh, egress]
  tcp:
  - match: [{gateways: [mesh], port: 5672}]
    route:
    - destination: {host: istio-egressgateway.istio-system.svc.cluster.local, port: {number: 15672}}
  - match: [{gateways: [egress], port: 15672}]
    route: [{destination: {host: queue.example, port: {number: 5672}}}]
";

#[test]
fn raw_tcp_is_known_by_what_was_dialled() {
    let gateway = gateway(&[RAW]);
    let source = one(&gateway);
    let ask = |to: &str| gateway.0.tunnel_tcp(&source, dialled(to));
    let mode = |to: &str| gateway.0.tunnel_mode(&source, dialled(to));
    assert_eq!(mode("198.51.100.7:5432"), PortMode::Tcp);
    assert_eq!(&*ask("198.51.100.7:5432").unwrap().cluster.name.0, "outbound|5432||db.example");
    // A name that the node resolved: the only one on the port.
    assert_eq!(mode("203.0.113.1:5672"), PortMode::Tcp);
    assert_eq!(&*ask("203.0.113.1:5672").unwrap().cluster.name.0, "outbound|5672||queue.example");
    for to in ["203.0.113.1:5432", "198.51.100.7:15432", "198.51.100.7:22"] {
        assert_eq!(mode(to), PortMode::Closed(Reason::NoRoute), "{to}");
        assert_eq!(ask(to).unwrap_err().reason, Reason::NoRoute, "{to}");
    }
    // In clear it comes on the gateway's own port.
    for port in [15432, 15672] {
        assert_eq!(gateway.tcp(port).unwrap_err().reason, Reason::PlaintextHop);
    }
    let routes = compiled(&[RAW], "").snapshot.node.routes;
    // Besides, applications may speak TLS to the gateway's own server for it.
    let own = |route: &NodeRoute| route.port == Some(original(15432));
    let routes: Vec<_> = routes.into_iter().filter(|route| !own(route)).collect();
    assert_eq!(routes.len(), 2);
    for route in routes {
        assert!(matches!(route.action, NodeAction::Redirect { hop: Hop::Tunnel, .. }), "{route:?}");
    }
}

#[test]
fn one_of_two_names_on_a_port_is_nobodys() {
    // Both have the port 5672, and the gateway's ports stay different.
    let two =
        RAW.replace(" 5432", " 5672").replace("  addresses: [198.51.100.0/28]\n", "").replace(
            "  resolution: STATIC\n  endpoints: [{address: 198.51.100.4}]\n",
            "  resolution: DNS\n",
        );
    let gateway = gateway(&[&two]);
    let source = one(&gateway);
    let to = dialled("203.0.113.1:5672");
    let denied = gateway.0.tunnel_tcp(&source, to).unwrap_err();
    assert_eq!(denied.reason, Reason::NoRoute);
    assert_eq!(gateway.0.tunnel_mode(&source, to), PortMode::Closed(Reason::NoRoute));
    // Whoever sees one of them alone is led to it, whatever address was dialled.
    let own =
        two.replacen("  hosts: [db.example]\n", "  hosts: [db.example]\n  exportTo: ['.']\n", 1);
    let gateway = self::gateway(&[&own]);
    let source = one(&gateway);
    assert_eq!(gateway.0.tunnel_mode(&source, to), PortMode::Tcp);
    let route = gateway.0.tunnel_tcp(&source, to).unwrap();
    assert_eq!(&*route.cluster.name.0, "outbound|5672||queue.example");
    let routes = &gateway.0.snapshot().node.routes;
    let whole = routes
        .iter()
        .find(|route| route.port == Some(original(5672)) && route.target == DirectTarget::Any);
    let Some(NodeRoute { action: NodeAction::Redirect { hop: Hop::Tunnel, .. }, .. }) = whole
    else {
        panic!("{routes:?}")
    };
}

fn rule(tls: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: hop}}
spec:
  host: istio-egressgateway.istio-system.svc.cluster.local
  trafficPolicy: {{tls: {{{tls}}}}}
"
    )
}

#[test]
fn settings_of_the_tunnel() {
    let files =
        "mode: MUTUAL, clientCertificate: /c.pem, privateKey: /k.pem, caCertificates: /r.pem";
    let mesh = compiled(&[&rule(files)], "").snapshot.mesh;
    let gateway = &mesh.gateways[0];
    assert_eq!(gateway.hop, Hop::Tunnel);
    let credential = &gateway.tunnel.as_ref().unwrap().credential;
    let CredentialSource::Files(read) = credential else { panic!("{credential:?}") };
    assert_eq!(read.certificate.to_str(), Some("/c.pem"));
    assert_eq!(read.ca_certificates.as_ref().unwrap().to_str(), Some("/r.pem"));
    assert_eq!(compiled(&[&rule("mode: DISABLE")], "").snapshot.mesh.gateways[0].tunnel, None);
    for (tls, message) in [
        ("mode: SIMPLE", "both ends prove who they are"),
        ("mode: MUTUAL, clientCertificate: /c, privateKey: /k", "caCertificates"),
        ("mode: ISTIO_MUTUAL, caCertificates: /r", "the node's own certificate"),
        ("mode: ISTIO_MUTUAL, insecureSkipVerify: true", "always verified"),
    ] {
        let found = errors(&[&rule(tls)]);
        assert!(found.iter().any(|p| p.message.contains(message)), "{tls}: {found:#?}");
    }
    let two = format!("{}---\n{}", rule("mode: ISTIO_MUTUAL"), rule(files).replace("hop", "hop2"));
    let found = errors(&[&two]);
    assert!(found.iter().any(|p| p.message.contains("one tunnel to a gateway")), "{found:#?}");
}

#[test]
fn the_stricter_hop_holds_for_a_whole_port() {
    // Another host, whose rules lead to the same port of the gateway without the subset.
    let plain = [HTTP[0], include_str!("../testdata/1-http/egress.yaml"), HTTP[2]].map(|text| {
        let text = text.replace(HOST, "www.example.com").replace("subset: cnn", "subset: www");
        text.replace("  - istio-egressgateway\n", "  - www\n")
            .replace("      - istio-egressgateway\n", "      - www\n")
            .replace("name: cnn\n", "name: www\n")
            .replace("name: istio-egressgateway\n", "name: www\n")
            .replace("egressgateway-for-cnn", "egressgateway-for-www")
            .replace("direct-cnn-through-egress-gateway", "www")
    });
    let plain = plain.each_ref().map(String::as_str);
    assert_eq!(compiled(&plain, "").snapshot.node.routes, [route(80, Hop::Plain)]);
    for texts in [[HTTP, plain].concat(), [plain, HTTP].concat()] {
        let node = compiled(&texts, "").snapshot.node;
        assert_eq!(node.routes, [route(80, Hop::Tunnel)]);
    }
}

#[test]
fn nodes_are_told_apart() {
    let with = |nodes: &str| {
        let mesh = format!("nodes:\n{nodes}");
        let found = problems(&[], &mesh);
        found.into_iter().map(|p| p.message).collect::<Vec<_>>().join("\n")
    };
    let id = "spiffe://cluster.local/ns/a/sa/b";
    let good = format!("- {{name: a, principal: {id}, addresses: [10.0.0.1]}}\n");
    assert_eq!(with(&good), "");
    assert_eq!(with(&format!("{good}- {{name: b, principal: {id}, addresses: [10.0.0.2]}}\n")), "");
    for (nodes, message) in [
        (format!("{good}- {{name: b, principal: {id}}}\n"), "nobody could tell which of them"),
        (format!("- {{name: b, principal: {id}}}\n{good}"), "nobody could tell which of them"),
        (
            format!("{good}- {{name: b, principal: {id}, addresses: ['::ffff:10.0.0.1']}}\n"),
            "has this address and this identity too",
        ),
        (format!("{good}- {{name: a, principal: {id}2}}\n"), "two nodes have this name"),
        ("- {name: a, principal: 'https://a'}\n".into(), "not a SPIFFE ID"),
        ("- {name: a, principal: 'spiffe://other/ns/a/sa/b'}\n".into(), "isn't the mesh's"),
    ] {
        let found = with(&nodes);
        assert!(found.contains(message), "{nodes}: {found}");
    }
    let found = problems(&[], "- {name: w, addresses: [10.0.0.9], node: n9}\n");
    assert!(found.iter().any(|p| p.message.contains("no node of this name")), "{found:#?}");
    let found = problems(&[], "- {name: w, addresses: [10.0.0.9], serviceAccount: a/b}\n");
    assert!(found.iter().any(|p| p.message.contains("no identity can be made")), "{found:#?}");
}

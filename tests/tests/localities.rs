//! Where a gateway is follows from the labels of its node in Kubernetes: it prefers the endpoints near it.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{cell::Cell, collections::BTreeSet};

use egress_tests::{
    access_log,
    kubernetes::{TestCluster, documents, node},
    plan,
    wait::{SOON, until_is},
};
use serde_json::{Value, json};

const HOST: &str = "near.example.com";
/// Requests of a round.
const ROUND: usize = 6;

/// The host has an endpoint in either region, and faults are looked for, without which no locality is preferred.
fn routes() -> Vec<Value> {
    let gateway = "istio-egressgateway.istio-system.svc.cluster.local";
    let (us, eu) = (plan::WEB, plan::TCP_SERVICE);
    documents(&format!(
        "kind: ServiceEntry
metadata: {{name: near, namespace: shop}}
spec:
  hosts: [{HOST}]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: {us}, locality: us/a}}, {{address: {eu}, locality: eu/a}}]
---
kind: DestinationRule
metadata: {{name: near, namespace: shop}}
spec:
  host: {HOST}
  trafficPolicy: {{loadBalancer: {{simple: ROUND_ROBIN}}, outlierDetection: {{consecutive5xxErrors: 5}}}}
---
kind: Gateway
metadata: {{name: near, namespace: shop}}
spec:
  selector: {{istio: egressgateway}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{HOST}]}}]
---
kind: VirtualService
metadata: {{name: near, namespace: shop}}
spec:
  hosts: [{HOST}]
  gateways: [mesh, near]
  http:
  - match: [{{gateways: [mesh], port: 80}}]
    route: [{{destination: {{host: {gateway}, port: {{number: 80}}}}}}]
  - match: [{{gateways: [near], port: 80}}]
    route: [{{destination: {{host: {HOST}, port: {{number: 80}}}}}}]
"
    ))
    .unwrap()
}

/// The gateway's node is in this region, or nowhere.
fn at(region: Option<&str>) -> Value {
    let mut node = node("gateway", plan::GATEWAYS[0], "10.244.9.0/24");
    if let Some(region) = region {
        node["metadata"]["labels"] =
            json!({"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": "a"});
    }
    node
}

#[test]
fn the_labels_of_its_node_say_which_endpoints_are_near() {
    let mut cluster = TestCluster::new().unwrap();
    routes().into_iter().for_each(|object| cluster.api.apply(object));
    cluster.api.apply(at(Some("us")));
    let gateway = cluster.start_gateway(&[]).unwrap();
    let _node = cluster.start_node(&[]).unwrap();
    cluster.run_pod().unwrap();
    let (us, eu) = (format!("{}:80", plan::WEB), format!("{}:80", plan::TCP_SERVICE));
    let served = Cell::new(0);
    let dial = || {
        let at = format!("{HOST}:80:{}", plan::WEB);
        let seen = cluster.curl(&["--resolve", &at, &format!("http://{HOST}/")]).unwrap();
        served.set(served.get() + usize::from(seen == "301"));
        seen
    };
    let of_host = || {
        let lines = access_log::lines(&gateway.stdout()).into_iter();
        lines.filter(|line| line.authority == HOST && line.code == 301).collect::<Vec<_>>()
    };
    until_is(SOON, "the host to be served", dial, |seen| seen == "301").unwrap();
    // Where a round of requests went.
    let round = || {
        let before = served.get();
        for _ in 0..ROUND {
            assert_eq!(dial(), "301");
        }
        // Lines follow their requests, and those before may, too.
        let all = until_is(SOON, "the lines", of_host, |all| all.len() == served.get()).unwrap();
        all[before..].iter().map(|line| line.upstream_host.clone()).collect::<BTreeSet<_>>()
    };
    for (region, expected) in
        [(Some("us"), vec![&us]), (Some("eu"), vec![&eu]), (None, vec![&us, &eu])]
    {
        cluster.api.apply(at(region));
        let expected = expected.into_iter().cloned().collect();
        let what = format!("requests of a gateway in {region:?}");
        until_is(SOON, &what, round, |seen| *seen == expected).unwrap();
    }
}

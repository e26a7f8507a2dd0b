//! Istio's task "Kubernetes Services for Egress Traffic": a Service of type ExternalName, through the gateway.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use egress_tests::{
    kubernetes::{TestCluster, documents},
    plan::WEB,
    wait::{SOON, until_is},
};
use serde_json::json;

/// The host in the cluster.
const HOST: &str = "news.shop.svc.cluster.local";

fn routes() -> Vec<serde_json::Value> {
    let gateway = "istio-egressgateway.istio-system.svc.cluster.local";
    documents(&format!(
        "kind: Gateway\nmetadata: {{name: news, namespace: shop}}\nspec:\n  \
         selector: {{istio: egressgateway}}\n  servers:\n  \
         - port: {{number: 80, name: http, protocol: HTTP}}\n    hosts: [{HOST}]\n---\n\
         kind: VirtualService\nmetadata: {{name: news, namespace: shop}}\nspec:\n  \
         hosts: [{HOST}]\n  gateways: [mesh, news]\n  http:\n  \
         - match: [{{gateways: [mesh], port: 80}}]\n    \
         route: [{{destination: {{host: {gateway}, port: {{number: 80}}}}}}]\n  \
         - match: [{{gateways: [news], port: 80}}]\n    \
         rewrite: {{authority: edition.cnn.com}}\n    \
         route: [{{destination: {{host: {HOST}, port: {{number: 80}}}}}}]\n"
    ))
    .unwrap()
}

fn service(external: &str) -> serde_json::Value {
    json!({
        "kind": "Service", "metadata": {"name": "news", "namespace": "shop"},
        "spec": {
            "type": "ExternalName", "externalName": external,
            "ports": [{"name": "http", "port": 80}],
        },
    })
}

#[test]
fn an_external_name_is_reached_through_the_gateway_alone() {
    let mut cluster = TestCluster::new().unwrap();
    routes().into_iter().for_each(|object| cluster.api.apply(object));
    let more = ["--external-name-services"];
    let gateway = cluster.start_gateway(&more).unwrap();
    let node = cluster.start_node(&more).unwrap();
    cluster.run_pod().unwrap();
    // The cluster's DNS answers with the external host's address.
    let at = |host: &str| format!("{host}:80:{WEB}");
    let dial = |host: &str| {
        let url = format!("http://{host}/politics");
        cluster.curl(&["--resolve", &at(host), &url]).unwrap()
    };
    let refused = |seen: &String| {
        seen.starts_with("curl: ") || seen == "403" || seen == "404" || seen == "503"
    };
    let is_served = || {
        until_is(SOON, "the host to be served", || dial(HOST), |seen| seen == "301")
            .unwrap_or_else(|error| panic!("{error:#}\n{}{}", gateway.stderr(), node.stderr()));
    };
    let is_refused = |host: &str| {
        until_is(SOON, "the host to be refused", || dial(host), refused).unwrap();
    };
    is_refused(HOST);
    cluster.api.apply(service("edition.cnn.com"));
    is_served();
    // Neither another Service's name, nor the external name itself, which nothing routes.
    is_refused("other.shop.svc.cluster.local");
    is_refused("edition.cnn.com");
    // A Service of another type is no host of the registry, and one that is gone neither.
    let mut internal = service("edition.cnn.com");
    internal["spec"]["type"] = json!("ClusterIP");
    cluster.api.apply(internal);
    is_refused(HOST);
    cluster.api.apply(service("edition.cnn.com"));
    is_served();
    assert!(cluster.api.delete("services", "shop", "news"));
    is_refused(HOST);
}

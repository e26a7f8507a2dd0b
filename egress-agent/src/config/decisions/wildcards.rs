//! Hosts that begin with a `*`.

use crate::config::testing::{Gateway, errors};

fn entry(host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e, namespace: apps}}\nspec:\n  \
         hosts: ['{host}']\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n"
    )
}

/// Suffixes within a label, as Envoy's virtual hosts take them.
#[test]
fn a_wildcard_may_begin_within_a_label() {
    let gateway = Gateway::new(&[&entry("*-pay.a.example")], "direct: registry\n");
    let ask = |host: &str| gateway.get(80, host, "/").map(|route| route.cluster.name.to_string());
    let own = "outbound|80||*-pay.a.example";
    assert_eq!(ask("de-pay.a.example").unwrap(), own);
    assert_eq!(ask("x.de-pay.a.example").unwrap(), own);
    for other in ["pay.a.example", "de-pay.a.example.evil.example", "depay.a.example"] {
        assert!(ask(other).is_err(), "{other}");
    }
    // The longer suffix is the more exact one.
    let both = [entry("*pay.a.example"), entry("*.a.example").replace("name: e", "name: f")];
    let gateway = Gateway::new(&[&both[0], &both[1]], "direct: registry\n");
    let ask = |host: &str| gateway.get(80, host, "/").map(|route| route.cluster.name.to_string());
    assert_eq!(ask("de-pay.a.example").unwrap(), "outbound|80||*pay.a.example");
    assert_eq!(ask("de.a.example").unwrap(), "outbound|80||*.a.example");
}

#[test]
fn gateways_and_egress_policies_take_whole_labels() {
    let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: apps}\nspec: \
                   {selector: {istio: egressgateway}, servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: ['*.a.example']}]}\n";
    let policy = "apiVersion: egress-enforcer.io/v1alpha1\nkind: EgressPolicy\nmetadata: {name: p, namespace: apps}\n\
                  spec: {rules: [{hosts: ['*.a.example'], ports: [{port: 80, protocol: HTTP}]}]}\n";
    for text in [gateway, policy] {
        assert!(!errors(&[text]).iter().any(|found| found.message.contains("whole labels")));
        let partial = text.replace("*.a", "*a");
        let found = errors(&[&partial]);
        assert!(found.iter().any(|found| found.message.contains("whole labels")), "{found:?}");
    }
}

//! The walkthrough, step by step: what each set of resources allows, and that nothing is left of it
//! once they are deleted.

use egress_ebpf::reason::Reason;

use super::testing::{Gateway, compiled, original, problems};
use crate::{
    policy::{
        ClientTlsMode, Denied, DirectTarget, Discovery, Hop, HttpAction, NodeAction, NodeRoute,
        PortMode, Upgrades,
    },
    types::Host,
};

const REGISTRY: &str = "direct: registry\n";
const HOST: &str = "edition.cnn.com";

const HTTP: [&str; 3] = [
    include_str!("testdata/1-http/registry.yaml"),
    include_str!("testdata/1-http/egress.yaml"),
    include_str!("testdata/1-http/routes.yaml"),
];
const ORIGINATION: [&str; 3] = [
    include_str!("testdata/2-tls-origination/registry.yaml"),
    include_str!("testdata/2-tls-origination/egress.yaml"),
    include_str!("testdata/2-tls-origination/routes.yaml"),
];
const HTTPS: [&str; 2] = [
    include_str!("testdata/3-https/registry.yaml"),
    include_str!("testdata/3-https/egress-and-routes.yaml"),
];

fn reason<T: std::fmt::Debug>(result: Result<T, Denied>) -> Reason {
    result.unwrap_err().reason
}

/// The same resources in each version of the API.
fn versions<const N: usize>(texts: [&str; N]) -> Vec<Vec<String>> {
    ["v1", "v1beta1", "v1alpha3"]
        .map(|version| {
            texts
                .map(|text| text.replace("istio.io/v1alpha3", &format!("istio.io/{version}")))
                .into()
        })
        .into()
}

fn refs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn redirect(port: u16) -> NodeRoute {
    NodeRoute {
        port: Some(original(port)),
        target: DirectTarget::Any,
        action: NodeAction::Redirect { group: 0, port: None, hop: Hop::Plain },
    }
}

#[test]
fn a_service_entry_alone_is_served_as_a_sidecar_would() {
    for texts in versions([HTTP[0]]) {
        let node = compiled(&refs(&texts), REGISTRY).snapshot.node;
        let direct = NodeRoute {
            port: Some(original(443)),
            target: DirectTarget::Name(Host::parse(HOST).unwrap()),
            action: NodeAction::Direct,
        };
        assert_eq!(node.routes, [redirect(80), direct]);

        let gateway = Gateway::new(&refs(&texts), REGISTRY);
        let route = gateway.get(80, HOST, "/politics").unwrap();
        assert_eq!(route.cluster.name.to_string(), "outbound|80||edition.cnn.com");
        assert_eq!(route.cluster.tls, None);
        assert_eq!(gateway.mode(80), PortMode::Detect);
        assert_eq!(reason(gateway.get(80, "other.example", "/")), Reason::HostNotInRegistry);
        assert_eq!(reason(gateway.get(8080, HOST, "/")), Reason::HostNotInRegistry);
        assert_eq!(gateway.mode(8080), PortMode::Closed(Reason::NoRoute));
    }
}

#[test]
fn a_service_entry_alone_is_refused_by_default() {
    assert_eq!(compiled(&HTTP[..1], "").snapshot.node.routes, []);
    let gateway = Gateway::new(&HTTP[..1], "");
    assert_eq!(reason(gateway.get(80, HOST, "/")), Reason::NoGatewayRoute);
    assert_eq!(reason(gateway.tls(443, HOST)), Reason::NoGatewayRoute);
}

#[test]
fn http_goes_through_the_gateway() {
    for texts in versions(HTTP) {
        let compiled = compiled(&refs(&texts), "");
        assert_eq!(compiled.warnings, []);
        assert_eq!(compiled.snapshot.node.routes, [redirect(80)]);
        let gateway = Gateway::new(&refs(&texts), "");
        let route = gateway.get(80, HOST, "/politics").unwrap();
        assert_eq!(route.cluster.name.to_string(), "outbound|80||edition.cnn.com");
        assert_eq!(
            route.cluster.discovery,
            Discovery::Dns(vec![(Host::parse(HOST).unwrap(), original(80).0)])
        );
        assert_eq!((route.cluster.tls.clone(), route.timeout), (None, None));
        assert_eq!(route.retry.attempts, 2);
        let upgrades = Upgrades::WebSocket;
        assert_eq!(*route.action, HttpAction { upgrades, ..HttpAction::default() });

        assert_eq!(reason(gateway.tls(80, HOST)), Reason::WrongProtocol);
        assert_eq!(reason(gateway.get(443, HOST, "/")), Reason::WrongProtocol);
        assert_eq!(reason(gateway.tls(443, HOST)), Reason::NoGatewayRoute);
        assert_eq!(reason(gateway.get(80, "cnn.com", "/")), Reason::HostNotInRegistry);
        assert_eq!(
            reason(gateway.get(80, "edition.cnn.com.evil.example", "/")),
            Reason::HostNotInRegistry
        );
    }
}

#[test]
fn tls_on_a_port_declared_http_fails() {
    let gateway = Gateway::new(&ORIGINATION[..1], REGISTRY);
    assert!(gateway.get(80, HOST, "/").is_ok());
    assert!(gateway.get(443, HOST, "/").is_ok());
    assert_eq!(reason(gateway.tls(443, HOST)), Reason::WrongProtocol);
    let node = compiled(&ORIGINATION[..1], REGISTRY).snapshot.node;
    assert_eq!(node.routes, [redirect(80), redirect(443)]);
}

#[test]
fn the_gateway_originates_tls() {
    for texts in versions(ORIGINATION) {
        let compiled = compiled(&refs(&texts), "");
        assert_eq!(compiled.warnings, []);
        assert_eq!(compiled.snapshot.node.routes, [redirect(80)]);
        let gateway = Gateway::new(&refs(&texts), "");
        let route = gateway.get(80, HOST, "/politics").unwrap();
        assert_eq!(route.cluster.name.to_string(), "outbound|443||edition.cnn.com");
        assert_eq!(route.host, Host::parse(HOST).unwrap());
        let tls = route.cluster.tls.as_ref().unwrap();
        assert_eq!(tls.mode, ClientTlsMode::Simple);
        assert!(!tls.insecure_skip_verify);
        assert_eq!((&tls.sni, &tls.ca_certificates), (&None, &None));
        assert_eq!(reason(gateway.tls(80, HOST)), Reason::WrongProtocol);
    }
}

#[test]
fn https_is_passed_through() {
    for texts in versions(HTTPS) {
        let compiled = compiled(&refs(&texts), "");
        let messages: Vec<_> = compiled.warnings.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(messages, ["old spelling of a field; it is accepted"; 2]);
        assert_eq!(compiled.snapshot.node.routes, [redirect(443)]);
        let gateway = Gateway::new(&refs(&texts), "");
        let route = gateway.tls(443, HOST).unwrap();
        assert_eq!(route.cluster.name.to_string(), "outbound|443||edition.cnn.com");
        assert_eq!(route.host, Some(Host::parse(HOST).unwrap()));
        assert_eq!(reason(gateway.get(443, HOST, "/")), Reason::WrongProtocol);
        assert_eq!(reason(gateway.tls(443, "cnn.com")), Reason::HostNotInRegistry);
        assert_eq!(reason(gateway.tls(80, HOST)), Reason::HostNotInRegistry);
    }
}

#[test]
fn whatever_is_deleted_first_is_refused_from_then_on() {
    for without in 0..3 {
        for (texts, port) in [(HTTP, 80), (ORIGINATION, 80)] {
            let left: Vec<_> =
                texts.iter().enumerate().filter(|(i, _)| *i != without).map(|(_, t)| *t).collect();
            let gateway = Gateway::new(&left, "");
            assert!(gateway.get(port, HOST, "/").is_err(), "without {without}");
        }
    }
    for without in 0..2 {
        let gateway = Gateway::new(&[HTTPS[1 - without]], "");
        assert!(gateway.tls(443, HOST).is_err(), "without {without}");
    }
    let gateway = Gateway::new(&[], "");
    assert_eq!(gateway.mode(80), PortMode::Closed(Reason::NoRoute));
    assert_eq!(reason(gateway.get(80, HOST, "/")), Reason::HostNotInRegistry);
    assert_eq!(compiled(&[], REGISTRY).snapshot.node.routes, []);
}

#[test]
fn what_is_left_after_a_deletion_says_what_is_missing() {
    let without_gateway = problems(&[HTTP[0], HTTP[2]], "");
    let codes: Vec<_> = without_gateway.iter().filter_map(|p| p.code).collect();
    assert_eq!(codes, ["IST0101", "IST0101"], "{without_gateway:#?}");
    let without_entry = problems(&[HTTP[1], HTTP[2]], "");
    assert!(without_entry.iter().any(|p| p.message.contains("no ServiceEntry has the host")));
    // The node still sends port 80 to the gateway, whose answer says what is wrong.
    let gateway = Gateway::new(&[HTTP[1], HTTP[2]], "");
    assert_eq!(gateway.mode(80), PortMode::Detect);
    assert_eq!(reason(gateway.get(80, HOST, "/")), Reason::HostNotInRegistry);
}

#[test]
fn another_gateway_process_serves_nothing() {
    let gateway = Gateway::with_labels(&HTTP, "", &[("istio", "ingressgateway")]);
    assert_eq!(reason(gateway.get(80, HOST, "/")), Reason::HostNotServed);
    let gateway = Gateway::with_labels(&HTTP, "", &[]);
    assert_eq!(reason(gateway.get(80, HOST, "/")), Reason::HostNotServed);
}

//! What is accepted, what is refused, and how it is said.

use egress_ebpf::reason::Reason;

use super::testing::{Gateway, compiled, errors, problems};

fn entry(name: &str, spec: &str) -> String {
    resource("ServiceEntry", name, spec)
}

fn resource(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

#[test]
fn raw_tcp_needs_a_route() {
    let text = entry(
        "db",
        "{hosts: [db.example], addresses: [198.51.100.5], ports: [{number: 5432, name: tcp, protocol: TCP}], resolution: NONE}",
    );
    assert_eq!(errors(&[&text]), []);
    let gateway = Gateway::new(&[&text], "");
    assert_eq!(gateway.tcp(5432).unwrap_err().reason, Reason::NoRoute);
    assert_eq!(problems(&[&text], ""), []);
    assert_eq!(compiled(&[&text], "").snapshot.node.routes, []);
}

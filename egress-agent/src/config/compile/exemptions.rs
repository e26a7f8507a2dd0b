//! `exemptions` of `mesh.yaml`: who reaches what past the gateways.

use super::{
    super::{
        decode::{Cx, SourcePosition, Spanned},
        mesh::{ExemptPort, ExemptProtocol, ExemptTo, MeshExemption},
        names,
    },
    workloads::{MAX_SETS, set_name},
};
use crate::{
    policy::{EnforcementOverride, ExemptDestination, Exemption, Transport},
    types::{Namespace, Selector},
};

/// Destinations of one exemption: networks times ports.
const MAX_DESTINATIONS: usize = 1024;

/// The exemptions, in file order.
pub(super) fn exemptions(
    given: &[MeshExemption],
    overrides: &[EnforcementOverride],
    cx: &mut Cx<'_>,
) -> Vec<Exemption> {
    let mut all: Vec<Exemption> = Vec::new();
    for (number, one) in given.iter().enumerate() {
        if number == MAX_SETS {
            let found = given.len().to_string();
            cx.wrong(&one.at, found, format!("at most {MAX_SETS}"), "too many exemptions");
            break;
        }
        let MeshExemption { at, name, namespaces, labels, service_accounts, to } = one;
        let taken: Vec<&str> = overrides
            .iter()
            .map(|set| &*set.name)
            .chain(all.iter().map(|exemption| &*exemption.name))
            .collect();
        let Some(name) = name.as_ref().filter(|name| set_name(name, &taken, cx)) else { continue };
        let namespaces = namespaces.iter().flatten();
        let selector = Selector {
            namespaces: namespaces.map(|name| Namespace(name.value.as_str().into())).collect(),
            labels: names::labels(labels),
        };
        let accounts: Vec<_> =
            service_accounts.iter().map(|account| account.value.as_str().into()).collect();
        if !is_narrow(at, &selector, accounts.is_empty(), cx) {
            continue;
        }
        let to = to.as_ref().map(|to| destinations(at, &to.0, cx));
        let exemption = Exemption {
            name: name.value.as_str().into(),
            selector,
            service_accounts: accounts,
            to,
        };
        if exemption.to.is_none() {
            cx.warn(at, format!("exemption {exemption}"));
        }
        all.push(exemption);
    }
    all
}

/// An exemption has to say who has it, and all of it has to be understood: a condition that is misspelt
/// would be none.
fn is_narrow(at: &SourcePosition, selector: &Selector, any_account: bool, cx: &mut Cx<'_>) -> bool {
    if cx.has_told(&format!("{}[", at.path)) {
        cx.error(at, "an exemption with a field that isn't known: it could mean fewer workloads");
    } else if selector.namespaces.is_empty() {
        let expected = "at least one namespace";
        cx.wrong(&at.field("namespaces"), "none", expected, "it would hold in every namespace");
    } else if selector.labels.is_empty() && any_account {
        let expected = "labels or serviceAccounts";
        cx.wrong(at, "neither", expected, "every workload of these namespaces would be exempt");
    } else {
        return true;
    }
    false
}

fn destinations(at: &SourcePosition, to: &[ExemptTo], cx: &mut Cx<'_>) -> Vec<ExemptDestination> {
    let mut all = Vec::new();
    if to.is_empty() {
        let expected = "at least one destination, or the field left out";
        cx.wrong(&at.field("to"), "[]", expected, "an exemption to nothing");
    }
    for ExemptTo { at, cidrs, ports } in to {
        let nets: Vec<_> = cidrs.iter().filter_map(|text| names::network(text, cx)).collect();
        for (field, is_empty) in
            [("cidrs", cidrs.iter().next().is_none()), ("ports", ports.0.is_empty())]
        {
            if is_empty {
                cx.wrong(&at.field(field), "nothing", "at least one", "an exemption to nothing");
            }
        }
        for ExemptPort { at: _, port, protocol } in &ports.0 {
            let Some(Spanned { value: port, .. }) = port else { continue };
            let transport = match protocol.as_ref().map(|protocol| protocol.value) {
                None | Some(ExemptProtocol::Tcp) => Transport::Tcp,
                Some(ExemptProtocol::Udp) => Transport::Udp,
            };
            all.extend(nets.iter().map(|net| ExemptDestination {
                net: *net,
                port: *port,
                transport,
            }));
        }
    }
    if all.len() > MAX_DESTINATIONS {
        let expected = format!("at most {MAX_DESTINATIONS} networks times ports");
        cx.wrong(&at.field("to"), all.len().to_string(), expected, "too many destinations");
    }
    all
}

#[cfg(test)]
mod tests {
    use crate::config::{RawFile, compile};

    fn mesh(exemptions: &str) -> RawFile {
        RawFile { path: "mesh.yaml".into(), text: format!("exemptions:\n{exemptions}\n") }
    }

    #[test]
    fn an_exemption_is_compiled_with_what_it_opens() {
        let text = "\
- {name: dns, namespaces: [kube-system], labels: {k8s-app: kube-dns}, serviceAccounts: [coredns],
   to: [{cidrs: [192.0.2.53], ports: [{port: 53, protocol: UDP}, {port: 53}]}]}
- {name: cni, namespaces: [kube-system], labels: {k8s-app: cni}}";
        let compiled = compile(&[], Some(&mesh(text))).unwrap();
        let shown: Vec<String> =
            compiled.snapshot.mesh.exemptions.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown[0],
            "dns (namespaces kube-system; labels k8s-app=kube-dns; service accounts coredns) reaches \
             192.0.2.53/32 at UDP port 53, 192.0.2.53/32 at TCP port 53"
        );
        assert!(shown[1].contains("is not judged"), "{shown:?}");
        // What is open altogether is never silent.
        let warned: Vec<String> = compiled.warnings.iter().map(ToString::to_string).collect();
        assert!(warned.iter().any(|text| text.contains("exemption cni")), "{warned:?}");
        assert!(!warned.iter().any(|text| text.contains("exemption dns")), "{warned:?}");
    }

    #[test]
    fn an_exemption_that_could_mean_more_than_it_says_is_refused() {
        for (text, why) in [
            ("- {name: a, labels: {b: c}}", "namespaces"),
            ("- {name: a, namespaces: [], labels: {b: c}}", "every namespace"),
            ("- {name: a, namespaces: [b]}", "every workload of these namespaces"),
            ("- {name: a, namespaces: [b], label: {c: d}, serviceAccounts: [e]}", "isn't known"),
            ("- {name: default, namespaces: [b], labels: {c: d}}", "in no set"),
            (
                "- {name: a, namespaces: [b], labels: {c: d}}\n- {name: a, namespaces: [b], labels: {c: d}}",
                "two sets",
            ),
            ("- {name: a, namespaces: [b], labels: {c: d}, to: []}", "to nothing"),
            (
                "- {name: a, namespaces: [b], labels: {c: d}, to: [{cidrs: [], ports: [{port: 1}]}]}",
                "to nothing",
            ),
            ("- {name: a, namespaces: [b], labels: {c: d}, to: [{cidrs: [192.0.2.1]}]}", "ports"),
            (
                "- {name: a, namespaces: [b], labels: {c: d}, to: [{cidrs: [x], ports: [{port: 1}]}]}",
                "not an address",
            ),
            (
                "- {name: a, namespaces: [b], labels: {c: d}, to: [{cidrs: [192.0.2.1], ports: [{port: 1, protocol: SCTP}]}]}",
                "TCP UDP",
            ),
        ] {
            let problems = compile(&[], Some(&mesh(text))).expect_err(text).to_string();
            assert!(problems.contains(why), "{text}: {problems}");
        }
    }
}

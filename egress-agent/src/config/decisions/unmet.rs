//! A refusal says which condition of the nearest rule failed, and `check` which rules nobody can fulfil.

use egress_ebpf::reason::Reason;

use super::tests::{SERVICE, entry, gateway, on, resource, routes, to, with_rules};
use crate::config::{
    Severity, compile,
    testing::{Gateway, MESH, file, problems},
};

fn refused(gateway: &Gateway, source: &str, path: &str) -> String {
    let source = gateway.source(source);
    let denied = gateway.ask(&source, "GET", 80, "a.example", path, &[("x-token", "t")]);
    denied.expect_err("no rule matches").detail
}

#[test]
fn a_refusal_names_the_condition_that_failed() {
    let labelled = with_rules(&on("sourceLabels: {app: other}", &to("b.example")));
    let known = refused(&labelled, "10.0.0.5", "/");
    assert!(
        known.ends_with("asks for sourceLabels app=other (apps/sleep has app=sleep)"),
        "{known}"
    );
    let stranger = refused(&labelled, "10.9.9.9", "/");
    assert!(stranger.ends_with("app=other (no workload is known at 10.9.9.9)"), "{stranger}");

    let path = with_rules(&on("uri: {prefix: /api/}, method: {exact: GET}", &to("b.example")));
    let wrong = refused(&path, "10.0.0.5", "/admin");
    assert!(
        wrong.ends_with("the nearest one, http[1], asks for uri \"/api/\" at its start"),
        "{wrong}"
    );
    assert!(path.get(80, "a.example", "/api/x").is_ok());

    // Of several rules the one of which the least is missing.
    let rules = [
        on("uri: {exact: /a}, method: {exact: POST}", &to("b.example")),
        on("method: {exact: PUT}", &to("b.example")),
    ];
    let nearest = refused(&with_rules(&rules.join(",")), "10.0.0.5", "/b");
    assert!(nearest.ends_with("the nearest one, http[2], asks for method \"PUT\""), "{nearest}");
}

/// What a header must be may be a secret; the sentence goes to the client.
#[test]
fn a_refusal_tells_no_value_of_a_header() {
    let rule = on("headers: {x-token: {exact: hunter2}}", &to("b.example"));
    let detail = refused(&with_rules(&rule), "10.0.0.5", "/");
    assert!(detail.ends_with("asks for header x-token"), "{detail}");
}

/// Warnings of an otherwise sound configuration.
fn warnings(texts: &[&str], mesh: &str) -> Vec<String> {
    let all = problems(texts, mesh);
    assert!(all.iter().all(|problem| problem.severity == Severity::Warning), "{all:#?}");
    all.into_iter().map(|problem| problem.message).collect()
}

#[test]
fn a_condition_that_no_workload_fulfils_is_a_warning() {
    let of = |condition: &str| {
        let texts = [
            entry("a", "a.example", "resolution: DNS"),
            gateway("'*'"),
            routes("v", "a.example", &on(condition, &to("a.example"))),
        ];
        warnings(&texts.each_ref().map(String::as_str), "")
    };
    assert_eq!(of("sourceLabels: {app: sleep}"), Vec::<String>::new());
    assert_eq!(of("sourceNamespace: apps"), Vec::<String>::new());
    let never = |who: &str| vec![format!("no workload in mesh.yaml is {who}: this never matches")];
    assert_eq!(of("sourceLabels: {app: slep}"), never("app=slep"));
    assert_eq!(of("sourceNamespace: shop"), never("namespace shop"));
    let both = "sourceNamespace: shop, sourceLabels: {app: sleep}";
    assert_eq!(of(both), never("namespace shop, app=sleep"));
}

#[test]
fn a_service_that_nothing_leads_to_is_a_warning() {
    let of = |hosts: &str, routed: &str, mesh: &str| {
        let texts = [
            entry("a", hosts, "resolution: DNS"),
            gateway("'*'"),
            routes("v", routed, &on("port: 80", &to("a.example"))),
        ];
        warnings(&texts.each_ref().map(String::as_str), mesh)
    };
    assert_eq!(of("a.example", "a.example", ""), Vec::<String>::new());
    let unrouted = of("a.example, b.example", "a.example", "");
    assert_eq!(unrouted.len(), 1, "{unrouted:?}");
    assert!(
        unrouted[0].contains("no VirtualService leads b.example ports 80, 443 to a gateway"),
        "{unrouted:?}"
    );
    // A rule of the mesh that leads to the service itself, past every gateway, does not count; one that leads
    // to a gateway does.
    let by = |destination: &str| {
        let rule = format!("http: [{{{}}}]", to(destination));
        let route = resource("VirtualService", "own", &format!("{{hosts: [a.example], {rule}}}"));
        let texts = [entry("a", "a.example", "resolution: DNS"), gateway("'*'"), route];
        let told = problems(&texts.each_ref().map(String::as_str), "").into_iter();
        told.filter(|problem| problem.message.contains("to a gateway, and `direct`")).count()
    };
    assert_eq!((by("a.example"), by(SERVICE)), (1, 0));
    // What a delegate routes to is reached.
    let shared = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: shared, \
                  namespace: apps}\nspec: {http: [{route: [{destination: {host: b.example, port: {number: 80}}}]}]}\n";
    let root = on("port: 80", "delegate: {name: shared}");
    let texts = [
        entry("a", "a.example, b.example", "resolution: DNS"),
        gateway("'*'"),
        routes("v", "a.example", &root),
        shared.to_owned(),
    ];
    let told = problems(&texts.each_ref().map(String::as_str), "");
    assert!(
        told.iter().all(|problem| !problem.message.contains("to a gateway, and `direct`")),
        "{told:#?}"
    );
    // Without `direct: deny` it is reached without a route.
    let direct = of("a.example, b.example", "a.example", "direct: registry\n");
    assert_eq!(direct, Vec::<String>::new());
}

/// A rule of the mesh without a destination is asked at a gateway, which answers by itself. One of a gateway's stage is
/// never asked, where nothing leads there.
#[test]
fn a_rule_that_answers_by_itself_counts_where_it_is_asked() {
    let of = |stage: &str, answer: &str| {
        let rule = format!("{{hosts: [a.example], gateways: [{stage}], http: [{{{answer}}}]}}");
        let texts = [
            entry("a", "a.example", "resolution: DNS"),
            gateway("'*'"),
            resource("VirtualService", "own", &rule),
        ];
        let texts = texts.each_ref().map(String::as_str);
        let told = problems(&texts, "").into_iter();
        let told = told.filter(|problem| problem.message.contains("to a gateway, and `direct`"));
        let gateway = Gateway::new(&texts, "");
        let answers = gateway
            .get(80, "a.example", "/")
            .map(|route| route.action.redirect.is_some() || route.action.respond.is_some());
        let routed = !gateway.0.snapshot().node.routes.is_empty();
        (told.count(), routed, answers.map_err(|denied| denied.reason))
    };
    for answer in ["redirect: {uri: /new}", "directResponse: {status: 404}"] {
        assert_eq!(of("mesh", answer), (0, true, Ok(true)), "{answer}");
        let refused = Err(Reason::NoGatewayRoute);
        assert_eq!(of("egress", answer), (1, false, refused), "{answer}");
    }
}

/// Labels of several pairs have to be one workload's; each kind of rule is asked.
#[test]
fn every_kind_of_rule_and_all_of_its_labels_are_asked() {
    let of = |kind: &str, source: &str| {
        let rule = match kind {
            "http" => format!("http: [{{match: [{{port: 80, {source}}}], {}}}]", to(SERVICE)),
            "tls" => format!(
                "tls: [{{match: [{{port: 443, sniHosts: [a.example], {source}}}], {}}}]",
                to(SERVICE).replace("80", "443")
            ),
            _ => format!("tcp: [{{match: [{{port: 80, {source}}}], {}}}]", to(SERVICE)),
        };
        let route = resource("VirtualService", "own", &format!("{{hosts: [a.example], {rule}}}"));
        let texts = [entry("a", "a.example", "resolution: DNS"), gateway("'*'"), route];
        let all = problems(&texts.each_ref().map(String::as_str), "");
        let told = all.into_iter().filter(|problem| problem.message.ends_with("never matches"));
        told.map(|problem| problem.message).collect::<Vec<_>>()
    };
    for kind in ["http", "tls", "tcp"] {
        assert_eq!(of(kind, "sourceLabels: {app: sleep}"), Vec::<String>::new(), "{kind}");
        let none = of(kind, "sourceLabels: {app: sleep, version: v9}");
        let who = "no workload in mesh.yaml is app=sleep, version=v9: this never matches";
        assert_eq!(none, [who], "{kind}");
    }
}

#[test]
fn a_port_that_no_service_entry_has_is_a_warning() {
    let with = |hosts: &str, port: u16| {
        let rule = format!("http: [{{match: [{{port: {port}}}], {}}}]", to(SERVICE));
        let route = resource("VirtualService", "own", &format!("{{hosts: [{hosts}], {rule}}}"));
        let texts = [entry("a", "a.example, b.example", "resolution: DNS"), gateway("'*'"), route];
        let all = problems(&texts.each_ref().map(String::as_str), "").into_iter();
        // That no rule of the gateway follows is another subject.
        let told = all.filter(|problem| problem.message.starts_with("no "));
        told.map(|problem| (problem.field, problem.message)).collect::<Vec<_>>()
    };
    assert_eq!(with("a.example, b.example", 80), []);
    // Below a wildcard there is one that has it, or none.
    assert_eq!(with("'*.example'", 443), []);
    for (hosts, named) in [
        ("a.example, b.example", "a.example, b.example"),
        ("'*.example'", "*.example"),
        ("'*'", "*"),
    ] {
        let told = with(hosts, 8443);
        let field = "spec.http[0].match[0].port".to_owned();
        let message = format!("no ServiceEntry has port 8443 of {named}: this never matches");
        assert_eq!(told.last(), Some(&(Some(field), message)), "{told:?}");
        // So none of what the entry has is routed either.
        let unrouted =
            "no VirtualService leads a.example ports 80, 443 to a gateway, and `direct` is `deny`";
        assert!(told.iter().any(|(_, message)| message.starts_with(unrouted)), "{told:?}");
        assert_eq!(told.len(), 3, "{told:?}");
    }
    // At a gateway the port is one of its servers'.
    let rules = on("port: 443", &to("a.example"));
    let texts = [
        entry("a", "a.example", "resolution: DNS")
            .replace(", {number: 443, name: s, protocol: HTTPS}", ""),
        gateway("'*'"),
        routes("v", "a.example", &rules),
    ];
    let told = problems(&texts.each_ref().map(String::as_str), "");
    assert!(
        told.iter().all(|problem| !problem.message.starts_with("no ServiceEntry has port")),
        "{told:?}"
    );
}

#[test]
fn a_route_for_a_host_outside_of_the_registry_is_a_warning() {
    let of = |host: &str, mesh: &str| {
        let texts = [
            entry("a", "a.example", "resolution: DNS"),
            gateway("'*'"),
            routes("v", &format!("a.example, {host}"), &on("port: 80", &to("a.example"))),
        ];
        warnings(&texts.each_ref().map(String::as_str), mesh)
    };
    let unknown = of("typo.example", "");
    assert_eq!(unknown.len(), 1, "{unknown:?}");
    assert!(unknown[0].contains("no ServiceEntry has typo.example"), "{unknown:?}");
    // A wildcard that covers an entry's host is known in part, one that covers none is not.
    let covering = of("'*.example'", "");
    assert_eq!(covering.len(), 2, "{covering:?}");
    for expected in ["it overlaps with a.example", "ServiceEntries have single hosts of *.example"]
    {
        assert!(covering.iter().any(|told| told.starts_with(expected)), "{covering:?}");
    }
    let wildcard = of("'*.typo.example'", "");
    assert_eq!(wildcard.len(), 1, "{wildcard:?}");
    assert!(wildcard[0].contains("no ServiceEntry has *.typo.example"), "{wildcard:?}");
    // A service in the cluster is no host outside.
    assert_eq!(of("reviews.apps.svc.cluster.local", ""), Vec::<String>::new());
    // With `ALLOW_ANY` there need be none.
    let any = Some(&file("mesh.yaml", &MESH.replace("REGISTRY_ONLY", "ALLOW_ANY")));
    let texts = [gateway("'*'"), routes("v", "typo.example", &on("port: 80", &to("typo.example")))];
    let files = texts.map(|text| file("1.yaml", &text));
    let told = match compile(&files, any) {
        Ok(compiled) => compiled.warnings,
        Err(problems) => problems.0,
    };
    assert!(
        told.iter().all(|problem| !problem.message.contains("these rules are never asked")),
        "{told:#?}"
    );
}

#[test]
fn a_wildcard_that_leads_to_one_host_wants_an_entry_of_its_own() {
    let of = |host: &str, to_host: &str, more: &str| {
        let texts = [
            entry("www", "www.a.example", "resolution: DNS"),
            gateway("'*'"),
            routes("v", host, &on("port: 80", &to(to_host))),
            more.to_owned(),
        ];
        let mut told = warnings(&texts.each_ref().map(String::as_str), "");
        told.retain(|message| message.contains("single hosts"));
        told
    };
    let one = "www.a.example";
    for host in ["'*.a.example'", "'*a.example'"] {
        assert_eq!(of(host, one, "").len(), 1, "{host}");
    }
    let told = of("'*.a.example'", one, "");
    assert!(told[0].ends_with("One with the host '*.a.example' is missing"), "{told:?}");
    // All names are known, or only the one is asked for.
    for all in ["*.a.example", "*.example", "*a.example"] {
        let all = entry("all", &format!("'{all}'"), "resolution: NONE");
        assert_eq!(of("'*.a.example'", one, &all), Vec::<String>::new());
    }
    assert_eq!(of(one, one, ""), Vec::<String>::new());
}

#[test]
fn a_gateway_that_no_gateway_resource_selects_is_a_warning() {
    let of = |labels: &str, mesh: &str| {
        let texts = [
            entry("a", "a.example", "resolution: DNS"),
            gateway("'*'").replace("{istio: egressgateway}", labels),
            routes("v", "a.example", &on("port: 80", &to("a.example"))),
        ];
        let mesh = file("mesh.yaml", &MESH.replace("REGISTRY_ONLY", mesh));
        let files = texts.each_ref().map(|text| file("1.yaml", text));
        let told = match compile(&files, Some(&mesh)) {
            Ok(compiled) => compiled.warnings,
            Err(problems) => problems.0,
        };
        let unselected = told.into_iter().filter(|it| it.message.starts_with("no Gateway selects"));
        unselected.map(|problem| (problem.file, problem.line, problem.field)).collect::<Vec<_>>()
    };
    assert_eq!(of("{istio: egressgateway}", "REGISTRY_ONLY"), []);
    let told = of("{istio: other}", "REGISTRY_ONLY");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (told[0].0.as_str(), told[0].2.as_deref()),
        ("mesh.yaml", Some("gateways[0].labels"))
    );
    // An empty selector is for no process.
    assert_eq!(of("{}", "REGISTRY_ONLY"), told);
    // With `ALLOW_ANY` a gateway needs no servers.
    assert_eq!(of("{istio: other}", "ALLOW_ANY"), []);
}

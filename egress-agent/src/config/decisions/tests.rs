//! What compiled resources decide: each thing that is allowed, with its refused twin.

use std::collections::BTreeMap;

use egress_ebpf::reason::Reason;
use proptest::prelude::*;

use crate::config::testing::{Gateway, compile_with, compiled, file, original, port};
use crate::{
    policy::{
        DirectTarget, HeaderText, Hop, HttpRoute, NodeAction, NodeRoute, PortMode, SharedPort,
        Upgrades,
    },
    types::{GatewayPort, Host, OriginalPort, SpiffeId},
};

pub(super) const SERVICE: &str = "istio-egressgateway.istio-system.svc.cluster.local";

pub(super) fn resource(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: apps}}\nspec: {spec}\n"
    )
}

pub(super) fn entry(name: &str, hosts: &str, more: &str) -> String {
    let ports =
        "ports: [{number: 80, name: h, protocol: HTTP}, {number: 443, name: s, protocol: HTTPS}]";
    resource("ServiceEntry", name, &format!("{{hosts: [{hosts}], {ports}, {more}}}"))
}

pub(super) fn gateway(hosts: &str) -> String {
    resource("Gateway", "egress", &format!(
        "{{selector: {{istio: egressgateway}}, servers: [
          {{port: {{number: 80, name: h, protocol: HTTP}}, hosts: [{hosts}]}},
          {{port: {{number: 443, name: s, protocol: TLS}}, hosts: [{hosts}], tls: {{mode: PASSTHROUGH}}}}]}}"
    ))
}

/// A virtual service whose mesh stage leads all HTTP to the gateway; `rules` are the gateway's.
pub(super) fn routes(name: &str, hosts: &str, rules: &str) -> String {
    resource("VirtualService", name, &format!(
        "{{hosts: [{hosts}], gateways: [mesh, egress], http: [
          {{match: [{{gateways: [mesh], port: 80}}], route: [{{destination: {{host: {SERVICE}, port: {{number: 80}}}}}}]}},
          {rules}]}}"
    ))
}

/// Such a gateway's rule, with conditions and more.
pub(super) fn on(conditions: &str, more: &str) -> String {
    format!("{{match: [{{gateways: [egress], {conditions}}}], {more}}}")
}

pub(super) fn to(host: &str) -> String {
    format!("route: [{{destination: {{host: '{host}', port: {{number: 80}}}}}}]")
}

/// A gateway with one host and these rules at its stage.
pub(super) fn with_rules(rules: &str) -> Gateway {
    let texts = [
        entry("a", "a.example", "resolution: DNS"),
        entry("b", "b.example", "resolution: DNS"),
        gateway("'*'"),
        routes("v", "a.example", rules),
    ];
    Gateway::new(&texts.each_ref().map(String::as_str), "")
}

fn cluster(route: &HttpRoute) -> &str {
    &route.cluster.name.0
}

#[test]
fn conditions_hold_or_not() {
    for (conditions, yes, no) in [
        ("uri: {exact: /a}", "/a", "/a/b"),
        ("uri: {exact: /a}", "/a?q=/b", "/b?q=/a"),
        ("uri: {prefix: /a/}", "/a/b", "/a"),
        ("uri: {prefix: /A}, ignoreUriCase: true", "/a", "/b"),
        ("uri: {regex: '/a+'}", "/aaa", "/aaab"),
        ("uri: {regex: 'b|/a'}", "/a", "/ab"),
        ("queryParams: {q: {exact: '1'}}", "/?x=2&q=1", "/?q=2&q=1"),
        ("queryParams: {q: {}}", "/?q", "/?x=q"),
        ("queryParams: {q: {regex: '[0-9]+'}}", "/?q=12", "/?q=1a"),
    ] {
        let gateway = with_rules(&on(conditions, &to("b.example")));
        let route =
            gateway.get(80, "a.example", yes).unwrap_or_else(|e| panic!("{conditions}: {e:?}"));
        assert_eq!(cluster(&route), "outbound|80||b.example");
        assert_eq!(route.host, Host::parse("b.example").unwrap());
        let denied = gateway.get(80, "a.example", no).unwrap_err();
        assert_eq!(denied.reason, Reason::NoMatchingRule, "{conditions} {no}");
    }
    let ask = |conditions: &str, method: &str, headers: &[(&'static str, &'static str)]| {
        let gateway = with_rules(&on(conditions, &to("b.example")));
        gateway.ask(&gateway.stranger(), method, 80, "a.example", "/", headers).is_ok()
    };
    for (conditions, method, headers, expected) in [
        ("method: {exact: POST}", "POST", &[][..], true),
        ("method: {exact: POST}", "GET", &[], false),
        ("method: {regex: 'GET|HEAD'}", "HEAD", &[], true),
        ("authority: {exact: a.example}", "GET", &[], true),
        ("authority: {prefix: b.}", "GET", &[], false),
        ("scheme: {exact: http}", "GET", &[], true),
        ("scheme: {exact: https}", "GET", &[], false),
        ("headers: {x-user: {exact: jason}}", "GET", &[("x-user", "jason")], true),
        ("headers: {X-User: {exact: jason}}", "GET", &[("x-user", "jason2")], false),
        ("headers: {x-user: {}}", "GET", &[("x-user", "")], true),
        ("headers: {x-user: {}}", "GET", &[], false),
        ("headers: {x-user: {exact: 'a,b'}}", "GET", &[("x-user", "a"), ("x-user", "b")], true),
        ("headers: {x-user: {exact: a}}", "GET", &[("x-user", "a"), ("x-user", "b")], false),
        ("headers: {x-user: {prefix: j}, x-b: {}}", "GET", &[("x-user", "jason")], false),
        ("withoutHeaders: {x-user: {}}", "GET", &[], true),
        ("withoutHeaders: {x-user: {}}", "GET", &[("x-user", "a")], false),
        ("withoutHeaders: {x-user: {exact: a}}", "GET", &[("x-user", "b")], true),
        // Bytes beyond ASCII do not make it another value.
        ("withoutHeaders: {x-user: {prefix: evil}}", "GET", &[("x-user", "evil\u{e9}")], false),
        ("withoutHeaders: {x-user: {regex: 'evil.*'}}", "GET", &[("x-user", "evil\u{e9}")], false),
        (
            "withoutHeaders: {x-user: {prefix: evil}}",
            "GET",
            &[("x-user", "evil"), ("x-user", "\u{e9}")],
            false,
        ),
        ("withoutHeaders: {x-user: {prefix: evil}}", "GET", &[("x-user", "\u{e9}evil")], true),
        ("headers: {x-user: {exact: 'j\u{e9}'}}", "GET", &[("x-user", "j\u{e9}")], true),
        ("headers: {x-user: {exact: j}}", "GET", &[("x-user", "j\u{e9}")], false),
        ("port: 80", "GET", &[], true),
        ("port: 8080", "GET", &[], false),
    ] {
        assert_eq!(ask(conditions, method, headers), expected, "{conditions} {headers:?}");
    }
}

/// No rule sees what the gateway takes out: that it is absent would always be true.
#[test]
fn a_header_that_no_rule_sees_is_no_condition() {
    let said = |conditions: &str| {
        let rules = on(conditions, &to("b.example"));
        let texts = [
            entry("a", "a.example", "resolution: DNS"),
            entry("b", "b.example", "resolution: DNS"),
            gateway("'*'"),
            routes("v", "a.example", &rules),
        ];
        match compile_with(&texts.each_ref().map(String::as_str), "") {
            Ok(compiled) => {
                Ok(compiled.warnings.iter().map(ToString::to_string).collect::<String>())
            }
            Err(problems) => Err(problems.to_string()),
        }
    };
    let taken_out = "the gateway takes this header out before rules see a request";
    for name in [
        "host",
        "content-length",
        "connection",
        "x-forwarded-for",
        "x_forwarded_for",
        "x-original-url",
    ] {
        let refused = said(&format!("withoutHeaders: {{{name}: {{prefix: a}}}}")).unwrap_err();
        assert!(refused.contains(taken_out), "{name}: {refused}");
        let warned = said(&format!("headers: {{{name}: {{prefix: a}}}}")).unwrap();
        assert!(
            warned.contains(&format!("{taken_out}: the condition never holds")),
            "{name}: {warned}"
        );
    }
    for field in ["headers", "withoutHeaders"] {
        let fine = said(&format!("{field}: {{x-user: {{prefix: a}}, cookie: {{}}}}")).unwrap();
        assert!(!fine.contains(taken_out), "{field}: {fine}");
    }
}

#[test]
fn paths_that_two_servers_read_differently_are_not_judged() {
    let gateway = with_rules(&on("uri: {prefix: /public/}", &to("b.example")));
    assert!(gateway.get(80, "a.example", "/public/..a/b.c/...").is_ok());
    assert!(gateway.get(80, "a.example", "/public/?x=/../").is_ok());
    for path in [
        "/public/../secret",
        "/public/..",
        "/public/./x",
        "/public/%2e%2e/secret",
        "/public/.%2E/secret",
        "/public/..%2fsecret",
        "/public/..%5Csecret",
        "/public\\..\\secret",
        "/public/%00",
        "/public/..;/secret",
        "/public/%252e%252e/secret",
        "/public/%c0%ae%c0%ae/secret",
        "/public/%",
        "//public/x",
    ] {
        let denied = gateway.get(80, "a.example", path).unwrap_err();
        assert_eq!(denied.reason, Reason::BadRequest, "{path}");
    }
    // Where no rule asks for the path, it is the destination's business.
    let gateway = with_rules(&on("port: 80", &to("b.example")));
    assert!(gateway.get(80, "a.example", "/public/../secret").is_ok());
}

#[test]
fn a_rewritten_path_stays_below_its_prefix() {
    let rewrite = |uri: &str| format!("rewrite: {{uri: {uri}}}, {}", to("b.example"));
    let gateway = with_rules(&on("uri: {prefix: /api}", &rewrite("/v1/")));
    let route = gateway.get(80, "a.example", "/api/x").unwrap();
    assert_eq!(route.action.rewrite_path.as_deref(), Some("/v1//x"));
    for path in ["/api../secret", "/api..", "/api..?q"] {
        let denied = gateway.get(80, "a.example", path).unwrap_err();
        assert_eq!(denied.reason, Reason::BadRequest, "{path}");
    }
    let regex = "rewrite: {uriRegexRewrite: {match: '^/(.*)$', rewrite: '/tenant/$1'}}";
    let gateway = with_rules(&on("port: 80", &format!("{regex}, {}", to("b.example"))));
    assert!(gateway.get(80, "a.example", "/x").is_ok());
    for path in ["/..%2fsecret", "/..;/secret", "/%252e%252e/secret"] {
        assert!(gateway.get(80, "a.example", path).is_err(), "{path}");
    }
}

#[test]
fn sources_are_known_or_not_meant() {
    let rules = |condition: &str| with_rules(&on(condition, &to("b.example")));
    for (condition, expected) in [
        ("sourceLabels: {app: sleep}", true),
        ("sourceLabels: {app: other}", false),
        ("sourceLabels: {app: sleep, v: '1'}", false),
        ("sourceNamespace: apps", true),
        ("sourceNamespace: other", false),
        ("sourceNamespace: apps, sourceLabels: {app: sleep}", true),
    ] {
        let gateway = rules(condition);
        let known = gateway.source("10.0.0.5");
        assert_eq!(known.workload.as_ref().unwrap().name.as_ref(), "sleep");
        let answer = gateway.ask(&known, "GET", 80, "a.example", "/", &[]);
        assert_eq!(answer.is_ok(), expected, "{condition}");
        let mapped = gateway.source("::ffff:10.0.0.5");
        assert_eq!(gateway.ask(&mapped, "GET", 80, "a.example", "/", &[]).is_ok(), expected);
        assert!(gateway.get(80, "a.example", "/").is_err(), "{condition}");
    }
}

#[test]
fn exports_are_for_their_namespaces() {
    for (export, known, stranger) in [
        ("'*'", true, true),
        ("'.'", true, false),
        ("other", false, false),
        ("other, apps", true, false),
    ] {
        let texts = [
            entry("a", "a.example", &format!("resolution: DNS, exportTo: [{export}]")),
            gateway("'*'"),
            routes("v", "a.example", &on("port: 80", &to("a.example"))),
        ];
        let gateway = Gateway::new(&texts.each_ref().map(String::as_str), "");
        let source = gateway.source("10.0.0.5");
        let answer = gateway.ask(&source, "GET", 80, "a.example", "/", &[]);
        assert_eq!(answer.is_ok(), known, "{export}");
        let answer = gateway.get(80, "a.example", "/");
        assert_eq!(answer.is_ok(), stranger, "{export}");
        if let Err(denied) = answer {
            assert_eq!(denied.reason, Reason::HostNotInRegistry);
        }
    }
}

#[test]
fn the_first_rule_that_matches_wins_and_matches_are_alternatives() {
    let rules = format!(
        "{{match: [{{gateways: [egress], uri: {{exact: /x}}}}, {{gateways: [egress], uri: {{exact: /y}}}}], {}}}, {}",
        to("b.example"),
        on("port: 80", &to("a.example"))
    );
    let gateway = with_rules(&rules);
    for (path, wanted) in [("/x", "b"), ("/y", "b"), ("/z", "a")] {
        let route = gateway.get(80, "a.example", path).unwrap();
        assert_eq!(cluster(&route), format!("outbound|80||{wanted}.example"));
    }
}

#[test]
fn weights_share_the_load() {
    let destination = |host: &str, weight: u32| {
        format!("{{destination: {{host: {host}, port: {{number: 80}}}}, weight: {weight}}}")
    };
    let route = format!(
        "route: [{}, {}, {}]",
        destination("a.example", 90),
        destination("b.example", 10),
        destination("b.example", 0)
    );
    let gateway = with_rules(&on("port: 80", &route));
    let mut counts = BTreeMap::new();
    for _ in 0..10_000 {
        let route = gateway.get(80, "a.example", "/").unwrap();
        *counts.entry(cluster(&route).to_owned()).or_insert(0) += 1;
    }
    let few = counts["outbound|80||b.example"];
    assert!((700..1300).contains(&few), "{counts:?}");
    assert_eq!(counts.values().sum::<i32>(), 10_000);
}

#[test]
fn what_a_rule_does_on_the_way() {
    let more = format!(
        "name: n, timeout: 3s, retries: {{attempts: 1, perTryTimeout: 2s, retryOn: '5xx,418'}}, rewrite: {{uri: /new, authority: other.example}}, headers: {{request: {{set: {{x: y}}, remove: [z]}}}}, {}",
        to("b.example")
    );
    let gateway = with_rules(&on("uri: {prefix: /old}", &more));
    let route = gateway.get(80, "a.example", "/old/x?q=1").unwrap();
    assert_eq!(route.name.as_deref(), Some("n"));
    assert_eq!(route.timeout.unwrap().as_secs(), 3);
    assert_eq!((route.retry.attempts, route.retry.per_try_timeout.unwrap().as_secs()), (1, 2));
    let status = |code| http::StatusCode::from_u16(code).unwrap();
    assert!(route.retry.retry_on.status(status(500)) && route.retry.retry_on.status(status(418)));
    assert!(!route.retry.retry_on.status(status(404)));
    assert_eq!(route.action.rewrite_path.as_deref(), Some("/new/x?q=1"));
    assert_eq!(route.action.rewrite_authority.as_deref(), Some("other.example"));
    let fixed = HeaderText::Fixed(http::HeaderValue::from_static("y"));
    assert_eq!(route.action.request_headers.set[0].1, fixed);
    assert_eq!(route.action.request_headers.remove[0], "z");
    assert_eq!(route.action.upgrades, Upgrades::WebSocket);

    for (conditions, rewrite, wanted) in [
        ("port: 80", "{uri: /new}", "/newold/x?q=1"),
        ("uri: {}", "{uri: /new/}", "/new/old/x?q=1"),
        ("uri: {exact: /old/x}", "{uri: /new}", "/new?q=1"),
        ("uri: {regex: '/old/.*'}", "{uri: /new}", "/new?q=1"),
        ("uri: {prefix: /old/}", "{uri: /}", "/x?q=1"),
        ("port: 80", "{uriRegexRewrite: {match: '[lx]', rewrite: '_'}}", "/o_d/_?q=1"),
    ] {
        let gateway =
            with_rules(&on(conditions, &format!("rewrite: {rewrite}, {}", to("b.example"))));
        let route = gateway.get(80, "a.example", "/old/x?q=1").unwrap();
        assert_eq!(route.action.rewrite_path.as_deref(), Some(wanted), "{conditions} {rewrite}");
    }

    for (changes, wanted) in [
        ("headers: {request: {set: {Host: h.example}}}", "h.example"),
        ("headers: {request: {add: {':authority': h.example}}}", "h.example"),
        (
            "headers: {request: {set: {host: h.example}}}, rewrite: {authority: r.example}",
            "r.example",
        ),
    ] {
        let gateway = with_rules(&on("port: 80", &format!("{changes}, {}", to("b.example"))));
        let route = gateway.get(80, "a.example", "/").unwrap();
        assert_eq!(route.action.rewrite_authority.as_deref(), Some(wanted), "{changes}");
        assert_eq!(route.action.request_headers.set, []);
        assert_eq!(route.action.request_headers.add, []);
    }

    // A destination's changes come after the rule's where it is the only one, and else before; the rule's authority
    // counts in both.
    let own = "{set: {x: own, Host: own.example}, add: {y: own}, remove: [w]}";
    for (rule, several, set, add, authority) in [
        ("{set: {z: rule}}", false, &["z rule", "x own"][..], &["y own"][..], "own.example"),
        ("{set: {x: rule}}", false, &["x rule", "x own"], &["y own"], "own.example"),
        ("{set: {x: rule}}", true, &["x rule"], &["y own"], "own.example"),
        ("{set: {z: rule}}", true, &["x own", "z rule"], &["y own"], "own.example"),
        ("{remove: [x], add: {y: rule}}", true, &[], &["y own", "y rule"], "own.example"),
        ("{set: {Host: r.example}}", false, &["x own"], &["y own"], "r.example"),
        ("{set: {Host: r.example}}", true, &["x own"], &["y own"], "r.example"),
    ] {
        let destination = "destination: {host: b.example, port: {number: 80}}";
        let one = |weight: &str| format!("{{{destination}, headers: {{request: {own}}}{weight}}}");
        let route = match several {
            true => format!("{}, {}", one(", weight: 50"), one(", weight: 50")),
            false => one(""),
        };
        let rule_text = format!("headers: {{request: {rule}}}, route: [{route}]");
        let gateway = with_rules(&on("port: 80", &rule_text));
        let action = gateway.get(80, "a.example", "/").unwrap().action;
        let shown = |all: &[(http::HeaderName, HeaderText)]| -> Vec<String> {
            let text = |text: &HeaderText| match text {
                HeaderText::Fixed(value) => value.to_str().unwrap().to_owned(),
                HeaderText::Format(_) => panic!("{text:?}"),
            };
            all.iter().map(|(name, value)| format!("{name} {}", text(value))).collect()
        };
        let ops = &action.request_headers;
        assert_eq!(shown(&ops.set), set, "{rule} {several}");
        assert_eq!(shown(&ops.add), add, "{rule} {several}");
        assert!(ops.remove.iter().any(|name| name == "w"), "{rule} {several}");
        assert_eq!(action.rewrite_authority.as_deref(), Some(authority), "{rule} {several}");
    }

    let regex = "rewrite: {uriRegexRewrite: {match: '^/user/([0-9]+)', rewrite: '/id/\\1$'}}, ";
    let gateway = with_rules(&on("port: 80", &format!("{regex}{}", to("b.example"))));
    let route = gateway.get(80, "a.example", "/user/42/x?q").unwrap();
    assert_eq!(route.action.rewrite_path.as_deref(), Some("/id/42$/x?q"));
    let gateway = with_rules(&on("headers: {upgrade: {exact: websocket}}", &to("b.example")));
    let source = gateway.stranger();
    let route = gateway.ask(&source, "GET", 80, "a.example", "/", &[("upgrade", "websocket")]);
    assert_eq!(route.unwrap().action.upgrades, Upgrades::Anything);
}

/// As in Istio WebSocket is allowed, and nothing else; a rule, or the mesh, may say otherwise.
#[test]
fn what_clients_may_upgrade_to() {
    let value = |text: &'static str| http::HeaderValue::from_static(text);
    let of = |more: &str, mesh: &str| {
        let rules = on("port: 80", &format!("{more}{}", to("b.example")));
        let texts = [
            entry("a", "a.example, b.example", "resolution: DNS"),
            gateway("'*'"),
            routes("v", "a.example", &rules),
        ];
        let gateway = Gateway::new(&texts.each_ref().map(String::as_str), mesh);
        let upgrades = gateway.get(80, "a.example", "/").unwrap().action.upgrades;
        ["websocket", "WebSocket", "h2c, websocket", "other"]
            .map(|text| upgrades.allow(&value(text)))
    };
    let (none, web_socket, all) = ([false; 4], [true, true, false, false], [true; 4]);
    for (more, mesh, expected) in [
        ("", "", web_socket),
        ("", "webSocket: allow\n", web_socket),
        ("", "webSocket: deny\n", none),
        ("websocketUpgrade: true, ", "webSocket: deny\n", all),
        ("websocketUpgrade: false, ", "", none),
    ] {
        assert_eq!(of(more, mesh), expected, "{more} {mesh}");
    }
}

#[test]
fn rules_that_answer_themselves() {
    for (redirect, wanted) in [
        ("{uri: /b}", "http://a.example/b"),
        ("{scheme: https}", "https://a.example/x?q"),
        ("{scheme: https, port: 8443}", "https://a.example:8443/x?q"),
        ("{scheme: https, derivePort: FROM_REQUEST_PORT}", "https://a.example:80/x?q"),
        ("{authority: b.example, uri: /}", "http://b.example/"),
        ("{port: 80}", "http://a.example/x?q"),
    ] {
        let gateway = with_rules(&on("port: 80", &format!("redirect: {redirect}")));
        let route = gateway.get(80, "a.example", "/x?q").unwrap();
        let (status, location) = route.action.redirect.clone().unwrap();
        assert_eq!((status.as_u16(), &*location), (301, wanted), "{redirect}");
    }
    let gateway =
        with_rules(&on("port: 80", "directResponse: {status: 418, body: {string: teapot}}"));
    let route = gateway.get(80, "a.example", "/").unwrap();
    let (status, body) = route.action.respond.clone().unwrap();
    assert_eq!((status.as_u16(), &*body), (418, &b"teapot"[..]));
    let bytes = on("port: 80", "directResponse: {status: 200, body: {bytes: AP/+}}");
    let route = with_rules(&bytes).get(80, "a.example", "/").unwrap();
    assert_eq!(&*route.action.respond.clone().unwrap().1, [0, 0xff, 0xfe]);
    let fault = format!(
        "fault: {{delay: {{fixedDelay: 2s, percentage: {{value: 100}}}}, abort: {{httpStatus: 503, percentage: {{value: 100}}}}}}, {}",
        to("b.example")
    );
    let route = with_rules(&on("port: 80", &fault)).get(80, "a.example", "/").unwrap();
    assert_eq!(route.action.delay.unwrap().as_secs(), 2);
    assert_eq!(route.action.respond.as_ref().unwrap().0.as_u16(), 503);
    assert_eq!(route.action.grpc_status, None);
    let grpc = fault.replace("httpStatus: 503", "grpcStatus: UNAVAILABLE");
    let route = with_rules(&on("port: 80", &grpc)).get(80, "a.example", "/").unwrap();
    assert_eq!(route.action.grpc_status, Some(14));
    assert_eq!(route.action.respond.as_ref().unwrap().0.as_u16(), 200);
    // Each request waits for another time, as long on average, and never ten times as long.
    let exponential = with_rules(&on("port: 80", &fault.replace("fixedDelay", "exponentialDelay")));
    let delays: Vec<f64> = (0..2000)
        .map(|_| exponential.get(80, "a.example", "/").unwrap().action.delay.unwrap())
        .map(|delay| delay.as_secs_f64())
        .collect();
    let mean = delays.iter().sum::<f64>() / 2000.0;
    assert!((1.7..2.3).contains(&mean), "{mean}");
    assert!(delays.iter().all(|delay| *delay <= 20.0));
    let short = delays.iter().filter(|delay| **delay < 1.386).count();
    assert!((850..1150).contains(&short), "{short} of 2000 below the median");
    // Without a percentage the fault is for no request, as in Istio.
    for never in ["percentage: {value: 0}", "percentage: {}", "percent: 0"] {
        let never = fault.replace("percentage: {value: 100}", never);
        let route = with_rules(&on("port: 80", &never)).get(80, "a.example", "/").unwrap();
        assert_eq!((route.action.delay, route.action.respond.clone()), (None, None), "{never}");
    }
    let never = fault.replace(", percentage: {value: 100}", "");
    let route = with_rules(&on("port: 80", &never)).get(80, "a.example", "/").unwrap();
    assert_eq!((route.action.delay, route.action.respond.clone()), (None, None));
}

#[test]
fn an_http_server_may_redirect_to_https() {
    let server = "{selector: {istio: egressgateway}, servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: ['*'], tls: {httpsRedirect: true}}]}";
    let texts = [
        entry("a", "a.example", "resolution: DNS"),
        resource("Gateway", "egress", server),
        routes("v", "a.example", &on("port: 80", &to("a.example"))),
    ];
    let gateway = Gateway::new(&texts.each_ref().map(String::as_str), "");
    let route = gateway.get(80, "a.example", "/x").unwrap();
    assert_eq!(&*route.action.redirect.clone().unwrap().1, "https://a.example/x");
}

#[test]
fn wildcards_go_through_the_gateway() {
    let texts = [
        entry("w", "'*.wild.example'", ""),
        gateway("'*.wild.example'"),
        routes("v", "'*.wild.example'", &on("port: 80", &to("*.wild.example"))),
    ];
    let gateway = Gateway::new(&texts.each_ref().map(String::as_str), "");
    let route = gateway.get(80, "x.y.wild.example", "/").unwrap();
    assert_eq!(cluster(&route), "outbound|80||*.wild.example");
    assert_eq!(route.host, Host::parse("x.y.wild.example").unwrap());
    for host in ["wild.example", "xwild.example", "a.example", "10.0.0.1"] {
        assert_eq!(
            gateway.get(80, host, "/").unwrap_err().reason,
            Reason::HostNotInRegistry,
            "{host}"
        );
    }
}

#[test]
fn the_most_specific_route_wins() {
    let texts = [
        entry("w", "'*.wild.example'", ""),
        entry("one", "one.wild.example", "resolution: DNS"),
        gateway("'*'"),
        routes("v", "'*.wild.example'", &on("port: 80", &to("*.wild.example"))),
        routes("one", "one.wild.example", &on("port: 80", &to("one.wild.example"))),
    ];
    let gateway = Gateway::new(&texts.each_ref().map(String::as_str), "");
    assert_eq!(
        cluster(&gateway.get(80, "one.wild.example", "/").unwrap()),
        "outbound|80||one.wild.example"
    );
    assert_eq!(
        cluster(&gateway.get(80, "two.wild.example", "/").unwrap()),
        "outbound|80||*.wild.example"
    );
}

#[test]
fn a_gateway_serves_only_its_hosts_and_namespaces() {
    for (hosts, expected) in [
        ("a.example", true),
        ("b.example", false),
        ("./a.example", true),
        ("apps/a.example", true),
        ("other/a.example", false),
        ("'*/*.example'", true),
    ] {
        let texts = [
            entry("a", "a.example", "resolution: DNS"),
            gateway(hosts),
            routes("v", "a.example", &on("port: 80", &to("a.example"))),
        ];
        let gateway = Gateway::new(&texts.each_ref().map(String::as_str), "");
        let answer = gateway.get(80, "a.example", "/");
        assert_eq!(answer.is_ok(), expected, "{hosts}");
        assert_eq!(gateway.0.port_mode(original(80)), PortMode::Detect);
    }
}

#[test]
fn plain_http_is_not_sent_to_a_port_declared_tls() {
    let to_443 = "route: [{destination: {host: a.example, port: {number: 443}}}]";
    let texts = [
        entry("a", "a.example", "resolution: DNS"),
        gateway("'*'"),
        routes("v", "a.example", &on("port: 80", to_443)),
    ];
    let mut texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let denied = Gateway::new(&texts, "").get(80, "a.example", "/").unwrap_err();
    assert_eq!(denied.reason, Reason::WrongProtocol);
    let rule = resource(
        "DestinationRule",
        "r",
        "{host: a.example, trafficPolicy: {portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE}}]}}",
    );
    texts.push(&rule);
    let route = Gateway::new(&texts, "").get(80, "a.example", "/").unwrap();
    assert!(route.cluster.tls.is_some());
}

#[test]
fn allow_any_serves_unknown_hosts_through_the_gateway_only() {
    let any = "";
    let mesh = crate::config::testing::MESH.replace("REGISTRY_ONLY", "ALLOW_ANY");
    let files = [file("a.yaml", &entry("a", "a.example", "resolution: DNS"))];
    let compiled =
        crate::config::compile(&files, Some(&file("m.yaml", &format!("{mesh}{any}")))).unwrap();
    let everything = NodeRoute {
        port: None,
        target: DirectTarget::Any,
        action: NodeAction::Redirect { group: 0, port: None, hop: Hop::Plain },
    };
    assert_eq!(compiled.snapshot.node.routes, [everything]);
    let gateway = Gateway::of(compiled.snapshot);
    let route = gateway.get(8080, "unknown.example", "/").unwrap();
    assert_eq!(cluster(&route), "PassthroughCluster");
    assert!(gateway.tls(8443, "unknown.example").is_ok());
    assert_eq!(gateway.mode(9), PortMode::Detect);
    // What the registry knows still needs its route.
    assert_eq!(gateway.get(80, "a.example", "/").unwrap_err().reason, Reason::NoGatewayRoute);
}

fn raw_tcp(more: &str) -> [String; 3] {
    [
        resource("ServiceEntry", "db", "{hosts: [db.example], addresses: [198.51.100.0/28], ports: [{number: 5432, name: t, protocol: TCP}], resolution: STATIC, endpoints: [{address: 198.51.100.5}]}"),
        resource("Gateway", "egress", "{selector: {istio: egressgateway}, servers: [{port: {number: 15432, name: t, protocol: TCP}, hosts: [db.example]}]}"),
        resource("VirtualService", "db", &format!("{{hosts: [db.example], gateways: [mesh, egress], tcp: [
            {{match: [{{gateways: [mesh], port: 5432{more}}}], route: [{{destination: {{host: {SERVICE}, port: {{number: 15432}}}}}}]}},
            {{match: [{{gateways: [egress], port: 15432}}], route: [{{destination: {{host: db.example, port: {{number: 5432}}}}}}]}}]}}")),
    ]
}

#[test]
fn raw_tcp_is_told_apart_by_its_port_at_the_gateway() {
    let texts = raw_tcp("");
    let texts = texts.each_ref().map(String::as_str);
    let snapshot = compiled(&texts, "").snapshot;
    let redirect = |net: &str| NodeRoute {
        port: Some(original(5432)),
        target: DirectTarget::Net(net.parse().unwrap()),
        action: NodeAction::Redirect {
            group: 0,
            port: Some(GatewayPort(port(15432))),
            hop: Hop::Plain,
        },
    };
    assert_eq!(snapshot.node.routes, [redirect("198.51.100.0/28")]);
    let gateway = Gateway::of(snapshot);
    assert_eq!(gateway.mode(15432), PortMode::Tcp);
    assert_eq!(&*gateway.tcp(15432).unwrap().cluster.name.0, "outbound|5432||db.example");
    assert_eq!(gateway.mode(5432), PortMode::Closed(Reason::NoRoute));
    assert_eq!(gateway.tcp(5432).unwrap_err().reason, Reason::NoRoute);

    let narrowed = raw_tcp(", destinationSubnets: [198.51.100.4/32]");
    let narrowed = narrowed.each_ref().map(String::as_str);
    assert_eq!(compiled(&narrowed, "").snapshot.node.routes, [redirect("198.51.100.4/32")]);

    let labelled = raw_tcp(", sourceLabels: {app: sleep}");
    let gateway = Gateway::new(&labelled.each_ref().map(String::as_str), "");
    assert!(gateway.tcp(15432).is_err());
    assert!(gateway.0.tcp(&gateway.source("10.0.0.5"), original(15432)).is_ok());
}

/// Raw TCP without addresses.
fn named_tcp(name: &str, at: u16, more: &str) -> [String; 3] {
    raw_tcp(more).map(|text| {
        text.replace("db.example", &format!("{name}.example"))
            .replace(", addresses: [198.51.100.0/28]", "")
            .replace("resolution: STATIC, endpoints: [{address: 198.51.100.5}]", "resolution: DNS")
            .replace("name: db,", &format!("name: {name},"))
            .replace("name: egress,", &format!("name: {name}-gateway,"))
            .replace("egress]", &format!("{name}-gateway]"))
            .replace("15432", &at.to_string())
    })
}

#[test]
fn raw_tcp_by_name_has_all_of_its_port_unless_another_name_is_on_it() {
    let by_name = |name: &str, at: u16| named_tcp(name, at, "");
    let route = |target: DirectTarget, at: u16| NodeRoute {
        port: Some(original(5432)),
        target,
        action: NodeAction::Redirect {
            group: 0,
            port: Some(GatewayPort(port(at))),
            hop: Hop::Plain,
        },
    };
    let name = |text: &str| DirectTarget::Name(Host::parse(text).unwrap());
    let routes = |texts: &[String], mesh: &str| {
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        compiled(&texts, mesh).snapshot.node.routes
    };
    let one = by_name("db", 15432);
    assert_eq!(routes(&one, ""), [route(DirectTarget::Any, 15432)]);
    let two: Vec<_> = one.iter().cloned().chain(by_name("log", 15433)).collect();
    let apart = [route(name("db.example"), 15432), route(name("log.example"), 15433)];
    let found = routes(&two, "");
    assert_eq!(found[..2], apart);
    // Any other address goes to a port that is neither's.
    let [.., NodeRoute { port, target: DirectTarget::Any, action }] = &found[..] else {
        panic!("{found:?}")
    };
    let NodeAction::Redirect { group: 0, port: Some(shared), hop: Hop::Plain } = action else {
        panic!("{action:?}")
    };
    assert_eq!((*port, found.len()), (Some(original(5432)), 3));
    assert!((20_000..30_000).contains(&shared.0.get()), "{shared:?}");
    // One that has addresses is told apart by them, and leaves the rest of the port.
    let net = raw_tcp("").map(|text| {
        let text = text.replace("db.example", "net.example").replace("name: db,", "name: net,");
        let text = text.replace("name: egress,", "name: net-gateway,");
        text.replace("egress]", "net-gateway]").replace("15432", "15433")
    });
    let both: Vec<_> = one.iter().cloned().chain(net).collect();
    let of_net = DirectTarget::Net("198.51.100.0/28".parse().unwrap());
    let found = routes(&both, "");
    assert_eq!(found.len(), 2);
    assert!(found.contains(&route(DirectTarget::Any, 15432)), "{found:?}");
    assert!(found.contains(&route(of_net, 15433)), "{found:?}");
    // What is on a port besides it may go elsewhere: then addresses decide as well.
    let mesh = crate::config::testing::MESH.replace("REGISTRY_ONLY", "ALLOW_ANY");
    let files: Vec<_> = one.iter().map(|text| file("one.yaml", text)).collect();
    let compiled = crate::config::compile(&files, Some(&file("mesh.yaml", &mesh))).unwrap();
    let any = compiled.snapshot.node.routes;
    assert!(any.contains(&route(name("db.example"), 15432)), "{any:?}");
}

/// Two names on a port, of which a rule for one is for some workloads.
#[test]
fn an_address_that_is_of_no_service_leads_to_the_only_name_of_the_port_that_the_workload_is_allowed()
 {
    let sleep = ", sourceLabels: {app: sleep}";
    let all = |more: &str| -> Vec<String> {
        named_tcp("db", 15432, more).into_iter().chain(named_tcp("log", 15433, sleep)).collect()
    };
    let asked = |texts: &[String], from: &str| {
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let gateway = Gateway::new(&texts, "");
        let shared = &gateway.0.snapshot().rules.shared_tcp;
        let (at, dialled) = shared.first_key_value().unwrap();
        let any = SharedPort { port: original(5432), target: DirectTarget::Any };
        assert_eq!((shared.len(), dialled), (1, &any));
        let at = OriginalPort(at.0);
        assert_eq!(gateway.0.port_mode(at), PortMode::Tcp);
        let route = gateway.0.tcp(&gateway.source(from), at);
        route.map(|route| route.cluster.name.0.to_string()).map_err(|denied| denied.reason)
    };
    assert_eq!(asked(&all(""), "10.9.9.9").unwrap(), "outbound|5432||db.example");
    // Who is allowed both could mean either, and who is allowed none is refused.
    assert_eq!(asked(&all(""), "10.0.0.5"), Err(Reason::NoRoute));
    assert_eq!(asked(&all(sleep), "10.9.9.9"), Err(Reason::NoRoute));
    // An identity that a rule asks for is not left out on this way either.
    let rule = resource(
        "DestinationRule",
        "hop",
        &format!("{{host: {SERVICE}, trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}}}}}"),
    );
    let tunnelled: Vec<String> = all("").into_iter().chain([rule]).collect();
    let tunnelled: Vec<_> = tunnelled.iter().map(String::as_str).collect();
    let snapshot = compiled(&tunnelled, "").snapshot;
    assert!(snapshot.rules.shared_tcp.is_empty());
    let whole = |route: &&NodeRoute| {
        route.port == Some(original(5432)) && route.target == DirectTarget::Any
    };
    let whole: Vec<_> = snapshot.node.routes.iter().filter(whole).collect();
    let [NodeRoute { action: NodeAction::Redirect { hop: Hop::Tunnel, .. }, .. }] = whole[..]
    else {
        panic!("{whole:?}")
    };
}

#[test]
fn raw_tcp_has_its_port_at_the_gateway_to_itself() {
    let first = raw_tcp("");
    let second = first.clone().map(|text| {
        text.replace("name: db,", "name: db2,")
            .replace("name: egress,", "name: egress2,")
            .replace("[mesh, egress]", "[mesh, egress2]")
            .replace("[egress]", "[egress2]")
            .replace("db.example", "db2.example")
    });
    let all: Vec<_> = first.iter().chain(&second).map(String::as_str).collect();
    let found = compile_with(&all, "").unwrap_err();
    assert!(found.to_string().contains("belongs to VirtualService apps/db already"), "{found}");
    let http = [
        entry("a", "a.example", "resolution: DNS").replace("number: 80", "number: 15432"),
        resource(
            "VirtualService",
            "a",
            &format!(
                "{{hosts: [a.example], http: [{{match: [{{port: 15432}}], route: [{{destination: {{host: {SERVICE}, port: {{number: 80}}}}}}]}}]}}"
            ),
        ),
    ];
    let all: Vec<_> = first.iter().chain(&http).map(String::as_str).collect();
    let found = compile_with(&all, "").unwrap_err();
    assert!(found.to_string().contains("is used for HTTP or TLS"), "{found}");
}

#[test]
fn one_port_goes_to_one_gateway() {
    let more = "- service: other.istio-system.svc.cluster.local\n  labels: {istio: other}\n  endpoints: [192.0.2.11]\n";
    let mesh = crate::config::testing::MESH.replace("workloads:\n", &format!("{more}workloads:\n"));
    let one = |name: &str, host: &str, service: &str| {
        resource(
            "VirtualService",
            name,
            &format!(
                "{{hosts: [{host}], http: [{{match: [{{port: 80}}], route: [{{destination: {{host: {service}, port: {{number: 80}}}}}}]}}]}}"
            ),
        )
    };
    let texts = [
        entry("a", "a.example", "resolution: DNS"),
        entry("b", "b.example", "resolution: DNS"),
        one("a", "a.example", SERVICE),
        one("b", "b.example", "other.istio-system.svc.cluster.local"),
    ];
    let files: Vec<_> = texts.iter().enumerate().map(|(i, t)| file(&i.to_string(), t)).collect();
    let found = crate::config::compile(&files, Some(&file("mesh.yaml", &mesh))).unwrap_err();
    assert!(found.to_string().contains("all of one port goes to one gateway"), "{found}");
    assert!(crate::config::compile(&files[..3], Some(&file("mesh.yaml", &mesh))).is_ok());
}

#[test]
fn addresses_that_are_never_dialled() {
    let gateway = Gateway::new(&[], "clusterCidrs: [10.0.0.0/8]\n");
    for addr in ["127.0.0.1", "10.1.1.1", "169.254.169.254", "192.0.2.10", "::1", "::ffff:10.1.1.1"]
    {
        assert!(!gateway.0.may_dial(addr.parse().unwrap()), "{addr}");
    }
    assert!(gateway.0.may_dial("198.51.100.1".parse().unwrap()));
    assert!(gateway.0.may_dial("192.168.0.1".parse().unwrap()));
}

fn label() -> impl Strategy<Value = String> {
    "[abc]"
}

fn host() -> impl Strategy<Value = String> {
    proptest::collection::vec(label(), 1..4)
        .prop_map(|labels| format!("{}.example", labels.join(".")))
}

fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![host(), host().prop_map(|host| format!("*.{host}"))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever routes say: without a service entry for host and port nothing is routed.
    #[test]
    fn nothing_outside_the_registry_is_routed(
        registered in proptest::collection::btree_set(pattern(), 0..4),
        routed in proptest::collection::btree_set(pattern(), 0..4),
        wanted in host(),
        number in prop_oneof![Just(80_u16), Just(443), Just(8080)],
        direct in any::<bool>(),
    ) {
        let mut texts = vec![gateway("'*'")];
        for (i, host) in registered.iter().enumerate() {
            texts.push(entry(&format!("e{i}"), &format!("'{host}'"), ""));
        }
        for (i, host) in routed.iter().enumerate() {
            texts.push(routes(&format!("v{i}"), &format!("'{host}'"), &on("port: 80", &to(host))));
        }
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let gateway = Gateway::new(&texts, if direct { "direct: registry\n" } else { "" });
        let is_registered = registered.iter().any(|p| {
            *p == wanted || (p.starts_with("*.") && wanted.ends_with(&p[1..]))
        });
        let answer = gateway.get(number, &wanted, "/");
        if !is_registered || number == 8080 {
            prop_assert_eq!(answer.unwrap_err().reason, Reason::HostNotInRegistry);
        } else if let Ok(route) = answer {
            // Where it goes is registered too.
            prop_assert_eq!(number, 80);
            let target = route.cluster.name.0.rsplit('|').next().unwrap().to_owned();
            let covered = registered.iter().any(|p| {
                *p == target || (p.starts_with("*.") && target.ends_with(&p[1..]))
            });
            prop_assert!(covered, "{}", target);
        }
        if !is_registered {
            prop_assert!(gateway.tls(number, &wanted).is_err());
        }
    }
}

const FILES: &str = "serverCertificate: /c, privateKey: /k, caCertificates: /r";

/// A gateway that terminates TLS on port 443 for `a.example` in this mode, and asks nothing of
/// clients for `open.example`. Raw bytes for `raw.example` come in on port 8443.
fn terminating(mode: &str) -> Gateway {
    let servers = format!(
        "{{selector: {{istio: egressgateway}}, servers: [
          {{port: {{number: 443, name: s, protocol: HTTPS}}, hosts: [a.example], tls: {{{mode}}}}},
          {{port: {{number: 443, name: o, protocol: HTTPS}}, hosts: [open.example], tls: {{mode: SIMPLE, {FILES}}}}},
          {{port: {{number: 8443, name: r, protocol: TLS}}, hosts: [raw.example], tls: {{mode: SIMPLE, credentialName: raw}}}}]}}"
    );
    let rules = |host: &str| {
        resource(
            "VirtualService",
            &host.replace('.', "-"),
            &format!(
                "{{hosts: [{host}], gateways: [egress], http: [{{route: [{{destination: {{host: a.example, port: {{number: 80}}}}}}]}}]}}"
            ),
        )
    };
    let raw = resource(
        "VirtualService",
        "raw",
        "{hosts: [raw.example], gateways: [egress], tcp: [{match: [{port: 8443}], route: [{destination: {host: a.example, port: {number: 80}}}]}]}",
    );
    let texts = [
        entry("a", "a.example", "resolution: DNS"),
        entry("hidden", "hidden.example", "resolution: DNS, exportTo: ['.']"),
        resource("Gateway", "egress", &servers),
        rules("a.example"),
        rules("open.example"),
        raw,
    ];
    Gateway::new(&texts.each_ref().map(String::as_str), "")
}

#[test]
fn tls_for_a_server_that_ends_it_ends_there() {
    let gateway = terminating(&format!("mode: MUTUAL, {FILES}"));
    let to = gateway.terminated(443, "a.example");
    assert_eq!((to.port.0, to.tls.mode.to_string()), (port(443), "MUTUAL".into()));
    let route = gateway.get_inside(&to, "a.example", "/").unwrap();
    assert_eq!(&*route.cluster.name.0, "outbound|80||a.example");
    assert_eq!(gateway.mode(443), PortMode::Detect);
    // Another name, another port, and what isn't TLS.
    let stranger = gateway.stranger();
    let refused = |port, name: &str| gateway.tls_route(&stranger, port, name).unwrap_err().reason;
    assert_eq!(refused(443, "other.example"), Reason::HostNotInRegistry);
    assert_eq!(refused(80, "a.example"), Reason::WrongProtocol);
    assert_eq!(refused(9443, "a.example"), Reason::HostNotInRegistry);
    assert!(gateway.get(443, "a.example", "/").is_err());
}

#[test]
fn a_lenient_server_is_no_way_to_what_a_strict_one_guards() {
    let gateway = terminating(&format!("mode: MUTUAL, {FILES}"));
    let open = gateway.terminated(443, "open.example");
    assert!(gateway.get_inside(&open, "open.example", "/").is_ok());
    let denied = gateway.get_inside(&open, "a.example", "/").unwrap_err();
    assert_eq!(denied.reason, Reason::HostNotServed);
    assert!(denied.detail.contains("connect with a.example as the server name"), "{denied:?}");
    let strict = gateway.terminated(443, "a.example");
    assert!(gateway.get_inside(&strict, "open.example", "/").is_err());
    assert!(gateway.get_inside(&strict, "other.example", "/").is_err());
    // Equal settings are one server: HTTP/2 clients share connections between its hosts.
    let same = terminating(&format!("mode: SIMPLE, {FILES}"));
    let open = same.terminated(443, "open.example");
    assert!(same.get_inside(&open, "a.example", "/").is_ok());
}

#[test]
fn any_bytes_inside_tls_are_routed_by_the_server_name() {
    let gateway = terminating("mode: ISTIO_MUTUAL");
    let to = gateway.terminated(8443, "raw.example");
    let (raw, other) = (Host::parse("raw.example").unwrap(), Host::parse("a.example").unwrap());
    let route = gateway.0.tcp_inside(&to, &raw, &gateway.stranger()).unwrap();
    assert_eq!(&*route.cluster.name.0, "outbound|80||a.example");
    assert!(gateway.0.tcp_inside(&to, &other, &gateway.stranger()).is_err());
    assert!(gateway.get_inside(&to, "raw.example", "/").is_err());
}

#[test]
fn what_is_hidden_from_a_source_stays_hidden_behind_tls() {
    let texts = [
        entry("h", "a.example", "resolution: DNS, exportTo: ['.']"),
        resource(
            "Gateway",
            "egress",
            &format!(
                "{{selector: {{istio: egressgateway}}, servers: [{{port: {{number: 443, name: s, protocol: HTTPS}}, hosts: ['*'], tls: {{mode: SIMPLE, {FILES}}}}}]}}"
            ),
        ),
        resource(
            "VirtualService",
            "v",
            "{hosts: [a.example], gateways: [egress], http: [{route: [{destination: {host: a.example, port: {number: 80}}}]}]}",
        ),
    ];
    let gateway = Gateway::new(&texts.each_ref().map(String::as_str), "");
    // A workload of the same namespace sees it, a stranger doesn't.
    let (own, stranger) = (gateway.source("10.0.0.5"), gateway.stranger());
    assert!(gateway.tls_route(&own, 443, "a.example").is_ok());
    assert!(gateway.tls_route(&stranger, 443, "a.example").is_err());
    // Until it proves that it is of that namespace.
    let proven =
        |id: &str| gateway.0.authenticated(stranger.clone(), &SpiffeId::parse(id).unwrap());
    for (id, sees) in [
        ("spiffe://cluster.local/ns/apps/sa/sleep", true),
        ("spiffe://cluster.local/ns/other/sa/sleep", false),
        ("spiffe://other.example/ns/apps/sa/sleep", false),
    ] {
        assert_eq!(gateway.tls_route(&proven(id), 443, "a.example").is_ok(), sees, "{id}");
    }
    // What it proves counts for more than its address.
    let elsewhere = SpiffeId::parse("spiffe://cluster.local/ns/other/sa/x").unwrap();
    let moved = gateway.0.authenticated(own, &elsewhere);
    assert!(gateway.tls_route(&moved, 443, "a.example").is_err());
}

#[test]
fn nodes_let_applications_reach_ports_where_tls_ends() {
    let servers = |tls: &str| {
        resource(
            "Gateway",
            "egress",
            &format!(
                "{{selector: {{istio: egressgateway}}, servers: [{{port: {{number: 9443, name: s, protocol: HTTPS}}, hosts: [a.example], tls: {{{tls}}}}}]}}"
            ),
        )
    };
    let routes = |tls: &str| compiled(&[&servers(tls)], "").snapshot.node.routes;
    let action = NodeAction::Redirect { group: 0, port: None, hop: Hop::Plain };
    let route = NodeRoute { port: Some(original(9443)), target: DirectTarget::Any, action };
    assert!(routes(&format!("mode: SIMPLE, {FILES}")).contains(&route));
    assert!(!routes("mode: PASSTHROUGH").contains(&route));
}

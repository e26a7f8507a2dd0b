//! Fields of Istio's resources whose effect is on traffic, each with the right answer and its twin.

use super::{
    h2::{echo, get},
    harness::{Setup, answering, local, until, upstream},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const DESTINATION: &str = "    route: [{destination: {host: a.example, port: {number: 80}}}]\n";
const OTHER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother";

/// The rules of another virtual service stand in the place of the one that names it, with the conditions of both.
#[test]
fn a_delegate_decides_about_requests() {
    local(async {
        let ((a, at_a), (b, at_b)) = (answering(OK).await, answering(OTHER).await);
        let setup = Setup::new().http("a.example", a).http("b.example", b);
        let delegating = "    delegate: {name: team}\n";
        let rules = "{http: [{match: [{uri: {prefix: /api/b}}], route: [{destination: {host: b.example, port: {number: 80}}}]}, {match: [{uri: {prefix: /api/a}}], directResponse: {status: 418}}]}";
        let setup = setup.route_on("a.example", ", uri: {prefix: /api}", delegating).resource(
            "VirtualService",
            "team",
            rules,
        );
        let gateway = setup.start().await;
        let mut client = gateway.connect().await;
        for (path, status, text) in [
            ("/api/b/x", 200, Some("other")),
            ("/api/a", 418, None),
            ("/api/c", 404, None),
            ("/b", 404, None),
        ] {
            client.send(&format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
            let answer = client.answer().await.unwrap();
            assert_eq!(answer.status, status, "{path}");
            assert!(text.is_none_or(|text| answer.text() == text), "{path}: {}", answer.text());
        }
        assert!(at_a.requests.borrow().is_empty());
        assert_eq!(at_b.requests.borrow().len(), 1);
    });
}

/// The bytes of a `directResponse` are those that the base64 stands for.
#[test]
fn a_direct_response_has_its_bytes() {
    local(async {
        let (a, at_a) = answering(OK).await;
        let rule = "    directResponse: {status: 203, body: {bytes: AAH/Cg==}}\n";
        let gateway = Setup::new().http("a.example", a).route("a.example", rule).start().await;
        let answer = gateway.get("a.example").await;
        assert_eq!((answer.status, &answer.body[..]), (203, &[0, 1, 255, 10][..]));
        assert!(at_a.requests.borrow().is_empty());
    });
}

/// A fault without `percentage` is for no request, and one of 100 % for every one.
#[test]
fn a_fault_is_for_the_percentage_that_it_names() {
    local(async {
        let (addr, seen) = answering(OK).await;
        // The delay is longer than the route's timeout.
        for (fault, status, flags) in
            [("abort: {httpStatus: 418", 418, "FI"), ("delay: {fixedDelay: 3h", 504, "UT,DI")]
        {
            for percentage in ["", ", percentage: {}", ", percentage: {value: 0}"] {
                let rule = format!("    fault: {{{fault}{percentage}}}}}\n{DESTINATION}");
                let setup = Setup::new().http("a.example", addr).route("a.example", &rule);
                let gateway = setup.start().await;
                let before = seen.requests.borrow().len();
                for _ in 0..10 {
                    assert_eq!(gateway.get("a.example").await.text(), "hello", "{rule}");
                }
                assert_eq!(seen.requests.borrow().len(), before + 10, "{rule}");
                for line in gateway.log(10).await {
                    assert_eq!(line["response_flags"], "-", "{rule}");
                }
            }
            let rule = format!(
                "    timeout: 100ms\n    fault: {{{fault}, percentage: {{value: 100}}}}}}\n{DESTINATION}"
            );
            let setup = Setup::new().http("a.example", addr).route("a.example", &rule);
            let gateway = setup.start().await;
            let before = seen.requests.borrow().len();
            for _ in 0..10 {
                assert_eq!(gateway.get("a.example").await.status, status, "{rule}");
            }
            assert_eq!(seen.requests.borrow().len(), before, "{rule}");
            for line in gateway.log(10).await {
                assert_eq!(line["response_flags"], flags, "{rule}");
            }
        }
    });
}

/// The operators of the log in a header's value are what the upstream receives; the value is another for another
/// request.
#[test]
fn operators_in_headers_have_the_values_of_the_request() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let rule = format!(
            "    headers:
      request:
        set:
          x-start: '%START_TIME%'
          x-from: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'
          x-said: '%REQ(USER-AGENT)% %REQ(:PATH)%'
          x-percent: '100%%'
          x-all: '[%START_TIME(%Y)%] %REQ(USER-AGENT)% 5%%'
{DESTINATION}"
        );
        let gateway = Setup::new().http("a.example", addr).route("a.example", &rule).start().await;
        for (number, source) in [[127, 0, 0, 1], [127, 0, 0, 9]].into_iter().enumerate() {
            let mut client = gateway.connect_from(source).await;
            let request = format!(
                "GET /{number} HTTP/1.1\r\nHost: a.example\r\nUser-Agent: curl/{number}\r\n\
                 X-From: 192.0.2.1\r\n\r\n"
            );
            client.send(&request).await;
            assert_eq!(client.answer().await.unwrap().status, 200);
            let log = gateway.log(number + 1).await;
            let start = log[number]["start_time"].as_str().unwrap();
            let head = seen.heads()[number].clone();
            for (name, value) in [
                ("x-start", start.to_owned()),
                ("x-from", format!("127.0.0.{}", source[3])),
                ("x-said", format!("curl/{number} /{number}")),
                ("x-percent", "100%".to_owned()),
                ("x-all", format!("[{}] curl/{number} 5%", &start[..4])),
            ] {
                assert_eq!(values(&head, name), [&*value], "{name}: {head}");
            }
        }
    });
}

/// Any header of the request, and of the response in a response's headers; what is removed goes first.
#[test]
fn values_of_headers_show_any_header() {
    local(async {
        const ANSWER: &str =
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Build: b7\r\nServer: own\r\n\r\nhello";
        let (addr, seen) = answering(ANSWER).await;
        let rule = format!(
            "    headers:
      request:
        set:
          x-tenant: 'of %REQ(X-Team)%'
          x-either: '%REQ(X-None?X-Team):3%'
          x-none: '%REQ(X-None)%'
          x-team: '%REQ(X-Gone)%replaced'
          x-kept: kept
        add: {{x-team: '%REQ(x-team)%'}}
        remove: [x-gone, x-kept]
      response:
        set:
          x-seen: '%RESP(X-Build)% for %REQ(X-Team)% %RESP(:STATUS)%'
          x-server: '%RESP(Server)%'
        remove: [server]
{DESTINATION}"
        );
        let gateway = Setup::new().http("a.example", addr).route("a.example", &rule).start().await;
        for team in ["blue", "green"] {
            let mut client = gateway.connect().await;
            client
                .send(&format!(
                    "GET / HTTP/1.1\r\nHost: a.example\r\nX-Team: {team}\r\nX-Gone: 1\r\nX-Kept: old\r\n\r\n"
                ))
                .await;
            let answer = client.answer().await.unwrap();
            let head = seen.heads().pop().unwrap();
            for (name, expected) in [
                ("x-tenant", &[&*format!("of {team}")][..]),
                ("x-either", &[&team[..3]]),
                ("x-none", &[]),
                // Every value is made of the headers as they came.
                ("x-team", &["replaced", team]),
                ("x-gone", &[]),
                ("x-kept", &["kept"]),
            ] {
                assert_eq!(values(&head, name), expected, "{name}: {head}");
            }
            for (name, expected) in [
                ("x-seen", &["b7 for replaced 200"][..]),
                ("x-server", &[]),
                ("server", &[]),
                ("x-build", &["b7"]),
            ] {
                assert_eq!(values(&answer.head, name), expected, "{name}: {}", answer.head);
            }
        }
    });
}

/// The values of a header, in their order.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
}

/// What the upstream is asked for after `rewrite`: exactly this, while the log has what the client asked for.
#[test]
fn rewrites_are_seen_by_the_upstream_as_they_are_written() {
    local(async {
        let (addr, seen) = answering(OK).await;
        for (condition, rewrite, line) in [
            ("", "", "/old/x?q=1"),
            // Without a match on the path the first slash is what is replaced.
            ("", "{uri: /new}", "/newold/x?q=1"),
            ("", "{uri: /new/}", "/new/old/x?q=1"),
            (", uri: {prefix: /old}", "{uri: /new}", "/new/x?q=1"),
            (", uri: {exact: /old/x}", "{uri: /new}", "/new?q=1"),
            // All matches, and none in the query.
            ("", "{uriRegexRewrite: {match: '[lxq]', rewrite: '_'}}", "/o_d/_?q=1"),
            ("", "{uriRegexRewrite: {match: '/', rewrite: '/1/'}}", "/1/old/1/x?q=1"),
            ("", "{uriRegexRewrite: {match: '^/none', rewrite: '/'}}", "/old/x?q=1"),
        ] {
            let changes = match rewrite {
                "" => String::new(),
                rewrite => format!("    rewrite: {rewrite}\n"),
            };
            let rule = format!("{changes}{DESTINATION}");
            let setup = Setup::new().http("a.example", addr);
            let gateway = setup.route_on("a.example", condition, &rule).start().await;
            let mut client = gateway.connect().await;
            client.send("GET /old/x?q=1 HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
            assert_eq!(client.answer().await.unwrap().status, 200);
            let head = seen.heads().pop().unwrap();
            assert!(head.starts_with(&format!("GET {line} HTTP/1.1\r\n")), "{rule}: {head}");
            assert_eq!(gateway.log(1).await[0]["path"], "/old/x?q=1", "{rule}");
        }
    });
}

/// `Host` and `:authority` in header operations change the request's authority, once, and not where it goes.
#[test]
fn header_operations_change_the_authority() {
    local(async {
        let ((addr, seen), (other, at_other)) = (answering(OK).await, answering(OTHER).await);
        for (changes, host) in [
            ("", "a.example"),
            ("    headers: {request: {set: {Host: h.example}}}\n", "h.example"),
            ("    headers: {request: {set: {':authority': h.example}}}\n", "h.example"),
            ("    headers: {request: {add: {host: h.example}}}\n", "h.example"),
            (
                "    headers: {request: {set: {Host: h.example}}}\n    rewrite: {authority: r.example}\n",
                "r.example",
            ),
        ] {
            let setup = Setup::new().http("a.example", addr).http("h.example", other);
            let rule = format!("{changes}{DESTINATION}");
            let gateway = setup.route("a.example", &rule).start().await;
            assert_eq!(gateway.get("a.example").await.text(), "hello", "{changes}");
            let head = seen.heads().pop().unwrap();
            assert_eq!(values(&head, "host"), [host], "{changes}: {head}");
            assert!(!head.contains(":authority"), "{head}");
            let line = &gateway.log(1).await[0];
            assert_eq!(line["upstream_cluster"], "outbound|80||a.example", "{changes}");
        }
        assert!(at_other.requests.borrow().is_empty());
    });
}

/// Towards HTTP/2 it is `:authority`, of every try, and of a copy with the suffix that Envoy gives it.
#[test]
fn header_operations_change_the_authority_of_http2() {
    local(async {
        let (addr, seen) = upstream(|io, _, seen| echo(io, seen)).await;
        let (copies, at_copies) = upstream(|io, _, seen| echo(io, seen)).await;
        for (changes, host) in [
            ("", "a.example"),
            ("    headers: {request: {set: {Host: h.example}}}\n", "h.example"),
            ("    headers: {request: {set: {':authority': h.example}}}\n", "h.example"),
            ("    headers: {request: {add: {host: h.example}}}\n", "h.example"),
            ("    rewrite: {authority: r.example}\n", "r.example"),
        ] {
            let rule = format!(
                "{changes}    retries: {{attempts: 1, retryOn: '200'}}\n    mirror: {{host: m.example, port: {{number: 80}}}}\n{DESTINATION}"
            );
            let setup = Setup::new().service("a.example", "HTTP2", Some(addr), "");
            let setup = setup.service("m.example", "HTTP2", Some(copies), "");
            let gateway = setup.route("a.example", &rule).start().await;
            let client = gateway.connect_h2().await;
            assert_eq!(get(&client, "http://a.example/x").await.0, 200, "{changes}");
            until(|| !at_copies.requests.borrow().is_empty()).await;
            let asked = std::mem::take(&mut *seen.requests.borrow_mut());
            let copied = std::mem::take(&mut *at_copies.requests.borrow_mut());
            assert_eq!((asked.len(), copied.len()), (2, 1), "{changes}: {asked:?}");
            let shadow = format!("{host}-shadow");
            let all = asked.iter().map(|one| (one, host)).chain([(&copied[0], &*shadow)]);
            for ((head, _), host) in all {
                assert!(head.starts_with(&format!("GET http://{host}/x ")), "{changes}: {head}");
                assert!(!head.contains("\"host\""), "{changes}: {head}");
            }
        }
    });
}

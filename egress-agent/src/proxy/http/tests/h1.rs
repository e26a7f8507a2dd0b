//! HTTP/1 from the pod: what is allowed arrives, what isn't is told why.

use std::rc::Rc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
    time::timeout,
};

use super::harness::{SOON, Setup, answering, head, local, until, upstream};
use crate::telemetry::ClusterCounter;

const OK: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: outside\r\nKeep-Alive: timeout=5\r\n\r\nhello";
const CLUSTER: &str = "outbound|80||a.example";

#[test]
fn an_allowed_host_is_reached_and_another_is_refused() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let mut client = gateway.connect().await;
        client
            .send(
                "GET /path?q=1 HTTP/1.1\r\nHost: A.Example\r\nUser-Agent: test/1\r\n\
                 Connection: keep-alive, X-Hop\r\nX-Hop: secret\r\nProxy-Authorization: x\r\n\
                 Accept: */*\r\n\r\n",
            )
            .await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "hello"));
        assert!(answer.head.contains("server: outside\r\n"), "{}", answer.head);
        for absent in ["keep-alive", "via", "x-envoy", "date"] {
            assert!(!answer.head.contains(absent), "{absent}: {}", answer.head);
        }
        let heads = seen.heads();
        let sent = &heads[0];
        assert!(sent.starts_with("GET /path?q=1 HTTP/1.1\r\nhost: a.example\r\n"), "{sent}");
        assert!(sent.contains("accept: */*\r\n") && sent.contains("x-request-id: "), "{sent}");
        for absent in ["x-hop", "proxy-", "x-forwarded", "connection", "via", "x-envoy"] {
            assert!(!sent.contains(absent), "{absent}: {sent}");
        }

        // The second request of the same connection has its own verdict.
        client.send("GET / HTTP/1.1\r\nHost: b.example\r\n\r\n").await;
        let refused = client.answer().await.unwrap();
        assert_eq!(refused.status, 403);
        assert!(refused.text().contains("b.example"), "{}", refused.text());
        assert!(refused.text().contains("host_not_in_registry"), "{}", refused.text());
        assert_eq!(refused.text().lines().count(), 1);
        assert!(refused.head.contains("content-type: text/plain\r\n"));
        // And the third is allowed again, on the upstream's first connection.
        client.send("GET /again HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().status, 200);
        assert_eq!(seen.connections.get(), 1);
        assert_eq!(seen.requests.borrow().len(), 2);

        let log = gateway.log(3).await;
        assert_eq!(log[0]["response_code"], 200);
        assert_eq!(log[0]["response_flags"], "-");
        assert_eq!(log[0]["response_code_details"], "via_upstream");
        assert_eq!(log[0]["method"], "GET");
        assert_eq!(log[0]["path"], "/path?q=1");
        assert_eq!(log[0]["protocol"], "HTTP/1.1");
        assert_eq!(log[0]["authority"], "A.Example");
        assert_eq!(log[0]["user_agent"], "test/1");
        assert_eq!(log[0]["bytes_sent"], 5);
        assert_eq!(log[0]["upstream_host"], "198.51.100.1:80");
        assert_eq!(log[0]["upstream_cluster"], CLUSTER);
        assert_eq!(log[1]["response_code"], 403);
        assert_eq!(log[1]["response_flags"], "NR");
        assert_eq!(log[1]["response_code_details"], "route_not_found");
        assert_eq!(log[1]["upstream_cluster"], "BlackHoleCluster");
        assert_eq!(gateway.cluster("BlackHoleCluster", ClusterCounter::RqTotal), 1);
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::RqTotal), 2);
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::Rq2xx), 2);
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::CxTotal), 1);
        until(|| gateway.cluster(CLUSTER, ClusterCounter::RqActive) == 0).await;
    });
}

#[test]
fn connections_are_reused_across_clients() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        for _ in 0..5 {
            assert_eq!(gateway.get("a.example").await.text(), "hello");
        }
        assert_eq!(seen.connections.get(), 1);
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::CxTotal), 1);
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::RqTotal), 5);
    });
}

#[test]
fn one_request_a_connection_where_the_rule_says_so() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let policy = "{connectionPool: {http: {maxRequestsPerConnection: 1}}}";
        let gateway = Setup::new().service("a.example", "HTTP", Some(addr), policy).start().await;
        for _ in 0..3 {
            assert_eq!(gateway.get("a.example").await.status, 200);
        }
        assert_eq!(seen.connections.get(), 3);
    });
}

#[test]
fn pipelined_requests_are_answered_in_order_and_decided_one_by_one() {
    local(async {
        let (addr, seen) = upstream(|mut io, _, seen| async move {
            let mut read = Vec::new();
            while let Ok(head) = head(&mut io, &mut read).await {
                let path = head.split(' ').nth(1).unwrap().to_owned();
                seen.requests.borrow_mut().push((head, Vec::new()));
                let text =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
                io.write_all(text.as_bytes()).await.unwrap();
            }
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let mut client = gateway.connect().await;
        let mut text = String::new();
        for (path, host) in
            [("/1", "a.example"), ("/2", "b.example"), ("/3", "a.example"), ("/4", "a.example")]
        {
            text += &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        }
        client.send(&text).await;
        let mut answers = Vec::new();
        for _ in 0..4 {
            let answer = client.answer().await.unwrap();
            answers.push((answer.status, answer.body));
        }
        assert_eq!(answers[0], (200, b"/1".to_vec()));
        assert_eq!(answers[1].0, 403);
        assert_eq!(answers[2], (200, b"/3".to_vec()));
        assert_eq!(answers[3], (200, b"/4".to_vec()));
        assert_eq!(seen.requests.borrow().len(), 3);
    });
}

#[test]
fn bodies_go_both_ways_whole() {
    local(async {
        let (addr, seen) = upstream(|mut io, _, seen| async move {
            let mut read = Vec::new();
            while let Ok(request) = super::harness::request(&mut io, &mut read).await {
                let body = "x".repeat(request.1.len());
                seen.requests.borrow_mut().push(request);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                io.write_all(head.as_bytes()).await.unwrap();
                io.write_all(body.as_bytes()).await.unwrap();
            }
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let mut client = gateway.connect().await;
        let body = "b".repeat(3_000_000);
        let head =
            format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n", body.len());
        client.send(&head).await;
        client.send(&body).await;
        assert_eq!(client.answer().await.unwrap().body.len(), body.len());
        assert_eq!(seen.requests.borrow()[0].1, body.as_bytes());

        // Chunked, with an extension and a trailer.
        client
            .send(
                "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
            )
            .await;
        assert_eq!(client.answer().await.unwrap().status, 200);
        let requests = seen.requests.borrow().clone();
        let text = std::str::from_utf8(&requests[1].1).unwrap();
        assert!(requests[1].0.contains("transfer-encoding: chunked"));
        assert!(!text.contains("x=y"), "extensions end here");
        assert!(text.contains("hello") && text.contains(" world") && text.ends_with("0\r\n\r\n"));
        let log = gateway.log(2).await;
        assert_eq!(log[0]["bytes_received"], 3_000_000);
        assert_eq!(log[0]["bytes_sent"], 3_000_000);
        assert_eq!(log[1]["bytes_received"], 11);
    });
}

#[test]
fn responses_without_body_keep_the_connection() {
    local(async {
        let (addr, _) = upstream(|mut io, _, _| async move {
            let mut read = Vec::new();
            while let Ok(head) = head(&mut io, &mut read).await {
                let answer: &str = if head.starts_with("HEAD") {
                    "HTTP/1.1 200 OK\r\nContent-Length: 150000\r\n\r\n"
                } else if head.starts_with("GET /304") {
                    "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"
                } else if head.starts_with("GET /hints") {
                    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
                     HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
                } else {
                    "HTTP/1.1 204 No Content\r\n\r\n"
                };
                io.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let mut client = gateway.connect().await;
        client.send("HEAD / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert!(client.head().await.unwrap().contains("content-length: 150000\r\n"));
        client.send("GET /304 HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().status, 304);
        client.send("DELETE / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().status, 204);
        client.send("GET /hints HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        let hints = client.head().await.unwrap();
        assert!(hints.starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n"), "{hints}");
        assert_eq!(client.answer().await.unwrap().status, 200);
        client.send("HEAD / HTTP/1.1\r\nHost: b.example\r\n\r\n").await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 403"));
        client.send("GET /304 HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().status, 304, "a HEAD's refusal has no body");
    });
}

#[test]
fn a_body_is_invited_only_where_it_may_go() {
    local(async {
        let (addr, seen) = upstream(|mut io, _, seen| async move {
            let mut read = Vec::new();
            let head = head(&mut io, &mut read).await.unwrap();
            seen.requests.borrow_mut().push((head, Vec::new()));
            io.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            io.read_exact(&mut [0; 4]).await.unwrap();
            io.write_all(OK.as_bytes()).await.unwrap();
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let ask = |host: &str| {
            format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
            )
        };
        let mut client = gateway.connect().await;
        client.send(&ask("a.example")).await;
        assert_eq!(client.head().await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("body").await;
        assert_eq!(client.answer().await.unwrap().status, 200);
        assert!(seen.heads()[0].contains("expect: 100-continue\r\n"));
        client.send(&ask("b.example")).await;
        let refused = client.answer().await.unwrap();
        assert_eq!(refused.status, 403);
        assert!(refused.head.contains("connection: close"), "the body may follow or not");
        assert!(client.is_closed().await);
    });
}

#[test]
fn where_a_setting_says_so_the_gateway_tells_who_expects_it_to_continue() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let mut setup = Setup::new().http("a.example", addr);
        setup.mesh = "proxy100Continue: false\n".into();
        let gateway = setup.start().await;
        let ask = |host: &str| {
            format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
            )
        };
        let mut client = gateway.connect().await;
        client.send(&ask("a.example")).await;
        assert_eq!(client.head().await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("body").await;
        assert_eq!(client.answer().await.unwrap().status, 200);
        assert!(!seen.heads()[0].contains("expect"), "{}", seen.heads()[0]);
        // Not before the request has its route.
        client.send(&ask("b.example")).await;
        assert_eq!(client.answer().await.unwrap().status, 403);
    });
}

#[test]
fn old_clients_get_what_they_understand() {
    local(async {
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let (addr, _) = answering(chunked).await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = client.answer().await.unwrap();
        assert!(!answer.head.contains("chunked") && answer.head.contains("connection: close"));
        assert_eq!(answer.text(), "hello");
        assert!(client.is_closed().await);
        // With a length it can stay.
        let (addr, _) = answering(OK).await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let mut client = gateway.connect().await;
        for _ in 0..2 {
            client
                .send("GET / HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n")
                .await;
            let answer = client.answer().await.unwrap();
            assert!(answer.head.contains("connection: keep-alive"));
        }
        client.send("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n").await;
        assert!(client.answer().await.unwrap().head.contains("connection: close"));
        assert!(client.is_closed().await);
    });
}

/// `Trailer` and trailers: announced where they can follow, and not where they cannot.
#[test]
fn trailers_are_announced_only_where_they_can_follow() {
    const ANNOUNCED: &str = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";
    const HEAD: &str = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n";
    const LENGTH: &str = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nContent-Length: 5\r\n\r\nhello";
    for (method, version, response, announced) in [
        ("GET", "1.1", ANNOUNCED, true),
        ("GET", "1.0", ANNOUNCED, false),
        ("HEAD", "1.1", HEAD, true),
        ("HEAD", "1.0", HEAD, false),
        ("GET", "1.1", LENGTH, false),
        ("GET", "1.0", LENGTH, false),
    ] {
        local(async {
            let (addr, _) = answering(response).await;
            let gateway = Setup::new().http("a.example", addr).start().await;
            let mut client = gateway.connect().await;
            let fields = "Host: a.example\r\nConnection: close";
            client.send(&format!("{method} / HTTP/{version}\r\n{fields}\r\n\r\n")).await;
            let mut all = String::new();
            let read = timeout(SOON, client.io.read_to_string(&mut all));
            read.await.expect("an end").unwrap();
            let case = format!("{method} {version}: {all}");
            assert!(all.starts_with("HTTP/1.1 200 "), "{case}");
            assert_eq!(all.contains("trailer: X-Sum\r\n"), announced, "{case}");
            let follow = all.ends_with("0\r\nx-sum: 1\r\n\r\n");
            assert_eq!(follow, announced && method == "GET", "{case}");
            assert_eq!(all.contains("hello"), method == "GET", "{case}");
        });
    }
}

/// The same of requests: a client of HTTP/2 may send trailers after a body of a stated length.
#[test]
fn an_upstream_is_announced_trailers_only_where_they_can_follow() {
    for (length, announced) in [(None, true), (Some(5), false)] {
        local(async {
            let (addr, seen) = answering(OK).await;
            let gateway = Setup::new().http("a.example", addr).start().await;
            let mut client = gateway.connect_h2().await.ready().await.unwrap();
            let mut asked = http::Request::post("http://a.example/").header("trailer", "x-sum");
            if let Some(length) = length {
                asked = asked.header("content-length", length);
            }
            let (response, mut body) = client.send_request(asked.body(()).unwrap(), false).unwrap();
            body.send_data("hello".into(), false).unwrap();
            let trailers = [("x-sum".parse().unwrap(), "1".parse().unwrap())];
            body.send_trailers(trailers.into_iter().collect()).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
            let (head, body) = seen.requests.borrow()[0].clone();
            assert_eq!(head.contains("trailer: x-sum\r\n"), announced, "{head}");
            let body = String::from_utf8(body).unwrap();
            assert_eq!(body.contains("x-sum: 1\r\n"), announced, "{body}");
            assert!(body.contains("hello"), "{body}");
        });
    }
}

#[test]
fn a_response_that_ends_with_the_connection_is_chunked() {
    local(async {
        let (addr, seen) = upstream(|mut io, _, _| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            io.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await.unwrap();
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let mut client = gateway.connect().await;
        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
            let answer = client.answer().await.unwrap();
            assert!(answer.head.contains("transfer-encoding: chunked"));
            assert_eq!(answer.text(), "hello");
        }
        assert_eq!(seen.connections.get(), 2);
    });
}

#[test]
fn upgrades_are_refused_unless_a_route_allows_them() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let mut setup = Setup::new().http("a.example", addr);
        setup.mesh = "webSocket: deny\n".into();
        let strict = setup.start().await;
        let mut client = strict.connect().await;
        let upgrade = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\n";
        client.send(&format!("{upgrade}Upgrade: websocket\r\n\r\n")).await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, 403);
        assert!(answer.text().contains("upgrade_refused"), "{}", answer.text());
        // By itself a rule allows WebSocket and nothing else.
        let gateway = Setup::new().http("a.example", addr).start().await;
        let [list, other] = ["websocket, other", "other"]
            .map(|protocol| format!("{upgrade}Upgrade: {protocol}\r\n\r\n"));
        for request in [
            list.as_str(),
            other.as_str(),
            "CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n",
            "CONNECT a.example:22 HTTP/1.1\r\nHost: a.example:22\r\n\r\n",
        ] {
            let mut client = gateway.connect().await;
            client.send(request).await;
            let answer = client.answer().await.unwrap();
            assert_eq!(answer.status, 403, "{request}");
            assert!(answer.text().contains("upgrade_refused"), "{}", answer.text());
        }
        assert_eq!(seen.connections.get(), 0);
        // An Upgrade that Connection doesn't name is no upgrade; it goes nowhere.
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().status, 200);
        assert!(!seen.heads()[0].contains("upgrade"));
    });
}

#[test]
fn upgrades_to_http2_and_tls_are_ignored() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        // As curl --http2 and the JDK's client send it.
        for upgrade in ["h2c", "H2C", "TLS/1.2", "h2c, TLS/1.0"] {
            let mut client = gateway.connect().await;
            client
                .send(&format!(
                    "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                     Upgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
                ))
                .await;
            assert_eq!(client.answer().await.unwrap().status, 200, "{upgrade}");
        }
        for head in seen.heads() {
            assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
        }
    });
}

#[test]
fn a_body_is_refused_by_the_upstream_before_it_is_sent() {
    local(async {
        let refusal = "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n";
        let (addr, _) = upstream(move |mut io, _, _| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            io.write_all(refusal.as_bytes()).await.unwrap();
            io.read_to_end(&mut Vec::new()).await.unwrap();
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let mut client = gateway.connect().await;
        client
            .send(
                "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\
                 Expect: 100-continue\r\n\r\n",
            )
            .await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, 417, "no 100 of the gateway's own comes before it");
        assert!(answer.head.contains("connection: close"));
    });
}

#[test]
fn everyday_request_lines_arrive_as_they_were_sent() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        for (line, sent) in [
            ("GET http://a.example", "GET / HTTP/1.1\r\n"),
            ("OPTIONS http://a.example", "OPTIONS * HTTP/1.1\r\n"),
            ("GET http://a.example:80/x", "GET /x HTTP/1.1\r\n"),
            ("GET /q?a={\"<>\\`|^}", "GET /q?a={\"<>\\`|^} HTTP/1.1\r\n"),
            ("GET /{\"<>`|^}", "GET /{\"<>`|^} HTTP/1.1\r\n"),
        ] {
            let mut client = gateway.connect().await;
            client.send(&format!("{line} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
            assert_eq!(client.answer().await.unwrap().status, 200, "{line}");
            let last = seen.heads().pop().unwrap();
            assert!(last.starts_with(sent), "{line}: {last}");
        }
        let mut client = gateway.connect().await;
        for (method, says) in [("POST", true), ("PUT", true), ("PATCH", true), ("DELETE", false)] {
            client.send(&format!("{method} / HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
            assert_eq!(client.answer().await.unwrap().status, 200);
            let last = seen.heads().pop().unwrap();
            assert_eq!(last.contains("content-length: 0\r\n"), says, "{last}");
        }
    });
}

#[test]
fn a_path_is_judged_and_forwarded_in_its_normal_form() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let rules = "    directResponse: {status: 403}
  - match: [{gateways: [a-example], port: 80}]
    route:
    - destination: {host: a.example, port: {number: 80}}";
        let setup = Setup::new().http("a.example", addr);
        let gateway = setup.route_on("a.example", ", uri: {prefix: /admin}", rules).start().await;
        let mut requests = 0;
        for (path, status) in [
            ("/admin/x", 403),
            ("/%61dmin/x", 403),
            ("/adm%69n/x", 403),
            ("/x/../admin", 403),
            ("/x/%2e%2E/admin", 403),
            ("/\\..\\admin", 403),
            ("//admin/x", 400),
            ("/x/..;/admin", 400),
            ("/;/admin", 400),
            ("/%2fadmin", 400),
            ("/x%2f..%2fadmin", 400),
            ("/%2561dmin", 400),
            ("/%%361dmin", 400),
            ("/%c0%afadmin", 400),
            ("/x%00", 400),
            ("/public/../other?q=/../admin", 200),
            ("/administration-free", 403),
            ("/public//x;y/admin", 200),
        ] {
            let mut client = gateway.connect().await;
            client.send(&format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
            assert_eq!(client.answer().await.unwrap().status, status, "{path}");
            requests += 1;
        }
        let heads = seen.heads();
        assert_eq!(heads.len(), 2, "{heads:?}");
        assert!(heads[0].starts_with("GET /other?q=/../admin HTTP/1.1\r\n"), "{}", heads[0]);
        assert!(heads[1].starts_with("GET /public//x;y/admin HTTP/1.1\r\n"), "{}", heads[1]);
        let log = gateway.log(requests).await;
        // As the client sent it.
        assert!(log.iter().any(|line| line["path"] == "/%61dmin/x"));
        let ambiguous = log.iter().find(|line| line["path"] == "//admin/x").unwrap();
        assert_eq!(ambiguous["response_code_details"], "path_normalization_failed");
        assert_eq!(ambiguous["response_flags"], "DPE");
        assert_eq!(ambiguous["reason"], "bad_request");
    });
}

#[test]
fn what_a_client_claims_of_itself_is_neither_sent_on_nor_logged() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let mut client = gateway.connect().await;
        client
            .send(
                "POST / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 192.0.2.66\r\n\
                 x-forwarded-for: 192.0.2.67\r\nX_Forwarded_For: 192.0.2.68\r\n\
                 X-Forwarded-Client-Cert: By=x\r\nX-Forwarded-Host: b\r\n\
                 Forwarded: for=192.0.2.69\r\nX-Real-IP: 192.0.2.70\r\n\
                 X-Envoy-Original-Path: /x\r\nX-Original-URL: /admin\r\nX-Own: y\r\n\
                 Transfer-Encoding: chunked\r\n\r\n0\r\nX-Forwarded-For: 192.0.2.71\r\n\
                 X-Sum: 1\r\n\r\n",
            )
            .await;
        assert_eq!(client.answer().await.unwrap().status, 200);
        let (head, body) = seen.requests.borrow()[0].clone();
        let body = String::from_utf8(body).unwrap();
        for text in [&head, &body] {
            for absent in ["192.0.2.", "forwarded", "real-ip", "envoy", "original-url"] {
                assert!(!text.to_ascii_lowercase().contains(absent), "{absent}: {text}");
            }
        }
        assert!(head.contains("x-own: y\r\n") && body.to_ascii_lowercase().contains("x-sum: 1"));
        // In Istio's format this field is the client's address.
        let log = gateway.log(1).await;
        assert_eq!(log[0]["x_forwarded_for"], "127.0.0.1");
    });
}

#[test]
fn a_fault_of_the_gateway_is_answered_and_logged_and_ends_no_other_request() {
    local(async {
        let (addr, _) = answering(OK).await;
        let setup = Setup::new().http("a.example", addr).unknown("panic.example");
        let gateway = setup.start().await;
        let mut other = gateway.connect().await;
        other.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(other.answer().await.unwrap().status, 200);
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: panic.example\r\n\r\n").await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, 500);
        assert!(answer.head.contains("connection: close"));
        assert!(client.is_closed().await);
        let mut client = gateway.connect_h2().await;
        let request = http::Request::get("http://panic.example/").body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 500);
        other.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(other.answer().await.unwrap().status, 200);
        let log = gateway.log(4).await;
        let failed: Vec<_> =
            log.iter().filter(|line| line["authority"] == "panic.example").collect();
        assert_eq!(failed.len(), 2);
        for line in failed {
            assert_eq!(line["response_code"], 500);
            assert_eq!(line["response_code_details"], "internal_error");
        }
        assert!(gateway.cluster("outbound|80||panic.example", ClusterCounter::RqActive) == 0);
    });
}

#[test]
fn a_client_that_only_stops_sending_is_served() {
    local(async {
        // The upstream answers once the client has ended, and ends its answer once the client has its
        // beginning. So the gateway has seen the client's end when it goes on with the answer.
        let client_ended = Rc::new(Notify::new());
        let begun = Rc::new(Notify::new());
        let waits = [Rc::clone(&client_ended), Rc::clone(&begun)];
        let (addr, _) = upstream(move |mut io, _, _| {
            let [client_ended, begun] = waits.clone();
            async move {
                head(&mut io, &mut Vec::new()).await.unwrap();
                let (first, rest) = OK.split_at(OK.len() - 3);
                client_ended.notified().await;
                io.write_all(first.as_bytes()).await.unwrap();
                begun.notified().await;
                io.write_all(rest.as_bytes()).await.unwrap();
            }
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        client.io.shutdown().await.unwrap();
        client_ended.notify_one();
        let head = client.head().await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(client.take(2).await.unwrap(), b"he");
        begun.notify_one();
        assert_eq!(client.take(3).await.unwrap(), b"llo");
        assert!(client.is_closed().await);
        assert_eq!(gateway.log(1).await[0]["response_flags"], "-");
    });
}

#[test]
fn what_runs_is_finished_when_the_worker_drains() {
    local(async {
        let (addr, _) = upstream(|mut io, _, _| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            io.read_exact(&mut [0; 4]).await.unwrap();
            io.write_all(OK.as_bytes()).await.unwrap();
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let mut idle = gateway.connect().await;
        let mut busy = gateway.connect().await;
        busy.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\n").await;
        until(|| gateway.cluster(CLUSTER, ClusterCounter::CxTotal) == 1).await;
        gateway.worker.drain.start();
        assert!(idle.is_closed().await);
        busy.send("body").await;
        let answer = busy.answer().await.unwrap();
        assert_eq!(answer.text(), "hello");
        assert!(answer.head.contains("connection: close\r\n"));
        assert!(busy.is_closed().await);
    });
}

#[test]
fn what_still_runs_at_the_deadline_is_reset() {
    local(async {
        let (addr, _) = upstream(|mut io, _, _| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            io.write_all(b"HTTP/1.1 200 OK\r\n\r\npart").await.unwrap();
            let _closed = io.read(&mut [0]).await;
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n").await;
        client.head().await.unwrap();
        assert_eq!(client.take(4).await.unwrap(), b"part");
        gateway.worker.drain.start();
        gateway.worker.drain.expire();
        let error = client.io.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn an_idle_connection_is_small() {
    local(async {
        let (addr, _) = answering(OK).await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        assert!(gateway.connection_size().await <= 1200, "{}", gateway.connection_size().await);
    });
}

#[test]
fn routes_set_headers_with_the_operators_of_the_log() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let rule = "    headers:
      request:
        set: {x-from: 'ip %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%', x-agent: '%REQ(USER-AGENT)%', x-half: 50%%, x-none: '%REQUESTED_SERVER_NAME%'}
        add: {x-more: '%REQ(:METHOD)% %PROTOCOL%'}
        remove: [x-secret]
      response:
        set: {x-route: '%ROUTE_NAME%:%RESPONSE_CODE%'}
    name: the-route
    route: [{destination: {host: a.example, port: {number: 80}}}]
";
        let gateway = Setup::new().http("a.example", addr).route("a.example", rule).start().await;
        let mut client = gateway.connect().await;
        client
            .send("GET / HTTP/1.1\r\nHost: a.example\r\nUser-Agent: curl\r\nX-Secret: 1\r\nX-More: own\r\n\r\n")
            .await;
        let answer = client.answer().await.unwrap();
        assert!(answer.head.contains("x-route: the-route:200"), "{}", answer.head);
        let head = seen.heads()[0].clone();
        for line in [
            "x-from: ip 127.0.0.1\r\n",
            "x-agent: curl\r\n",
            "x-half: 50%\r\n",
            "x-more: own\r\n",
            "x-more: get http/1.1\r\n",
        ] {
            assert!(head.to_ascii_lowercase().contains(line), "{line}: {head}");
        }
        assert!(!head.contains("x-none") && !head.contains("x-secret"), "{head}");
    });
}

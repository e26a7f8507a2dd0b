//! Timeouts, retries, and connections that the upstream has closed in the meantime.

use std::{net::SocketAddr, rc::Rc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
};

use super::{
    answers::grpc,
    harness::{Setup, answer_all, answering, head, local, request, until, upstream},
};
use crate::telemetry::ClusterCounter;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const CLUSTER: &str = "outbound|80||a.example";
const DESTINATION: &str = "    route: [{destination: {host: a.example, port: {number: 80}}}]\n";

#[test]
fn a_stale_connection_is_replaced_once() {
    local(async {
        // The first connection answers once and closes when the second request arrives.
        let (addr, seen) = upstream(|mut io, number, seen| async move {
            if number > 0 {
                return answer_all(io, seen, OK).await;
            }
            head(&mut io, &mut Vec::new()).await.unwrap();
            io.write_all(OK.as_bytes()).await.unwrap();
            head(&mut io, &mut Vec::new()).await.unwrap();
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        assert_eq!(gateway.get("a.example").await.status, 200);
        assert_eq!(gateway.get("a.example").await.status, 200);
        assert_eq!(seen.connections.get(), 2);
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::RqRetry), 0, "no retry of the route's");
    });
}

#[test]
fn without_a_word_about_retries_they_are_those_of_istio() {
    local(async {
        // A status that the upstream sent is its answer: it may have acted.
        let rule = DESTINATION;
        for status in ["503 Busy", "502 Bad Gateway", "504 Gateway Timeout", "500 Error"] {
            let (addr, seen) = upstream(move |io, _, seen| async move {
                let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                answer_all(io, seen, Box::leak(text.into_boxed_str())).await;
            })
            .await;
            let gateway =
                Setup::new().http("a.example", addr).route("a.example", rule).start().await;
            assert_eq!(gateway.get("a.example").await.status.to_string(), status[..3]);
            assert_eq!(seen.requests.borrow().len(), 1, "{status}");
            assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::RqRetry), 0, "{status}");
        }
        // A connection that can't be made is tried twice more.
        let setup = Setup::new().service("a.example", "HTTP", None, "");
        let gateway = setup.route("a.example", rule).start().await;
        assert_eq!(gateway.get("a.example").await.status, 503);
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::RqRetry), 2);
        assert_eq!(gateway.log(1).await[0]["response_flags"], "UF,URX");
    });
}

/// Of gRPC's codes these are `unavailable` and `cancelled`: two more tries. Others are the upstream's answer.
#[test]
fn without_a_word_about_retries_two_codes_of_grpc_are_tried_again() {
    local(async {
        // Codes in their order, the last one for all further requests; the client's, how often it was sent, the flags.
        for (codes, code, sent, flags) in [
            (&["14"][..], "14", 3, "URX"),
            (&["1"], "1", 3, "URX"),
            (&["14", "1", "0"], "0", 3, "-"),
            (&["14", "13"], "13", 2, "-"),
            (&["0"], "0", 1, "-"),
            (&["4"], "4", 1, "-"),
            (&["8"], "8", 1, "-"),
            (&["13"], "13", 1, "-"),
        ] {
            let (addr, seen) = upstream(move |io, _, seen| async move {
                let mut connection = h2::server::handshake(io).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let number = seen.requests.borrow().len().min(codes.len() - 1);
                    seen.requests.borrow_mut().push((request.uri().to_string(), Vec::new()));
                    let response = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", codes[number]);
                    respond.send_response(response.body(()).unwrap(), true).unwrap();
                }
            })
            .await;
            let setup = Setup::new().service("a.example", "GRPC", Some(addr), "");
            let gateway = setup.route("a.example", DESTINATION).start().await;
            let (status, answered, _) = grpc(&gateway).await;
            assert_eq!((status.as_u16(), answered.as_deref()), (200, Some(code)), "{codes:?}");
            assert_eq!(seen.requests.borrow().len(), sent, "{codes:?}");
            let retries = gateway.cluster(CLUSTER, ClusterCounter::RqRetry);
            assert_eq!(usize::try_from(retries).unwrap(), sent - 1, "{codes:?}");
            assert_eq!(gateway.log(1).await[0]["response_flags"], flags, "{codes:?}");
        }
    });
}

#[test]
fn no_more_retries_are_under_way_than_a_budget_allows() {
    local(async {
        const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";
        let rule =
            format!("    retries: {{attempts: 2, retryOn: 5xx, backoff: 1ms}}\n{DESTINATION}");
        for (policy, sent) in [
            ("{retryBudget: {percent: 0, minRetryConcurrency: 0}}", 1),
            ("{retryBudget: {percent: 0, minRetryConcurrency: 1}}", 3),
            ("{retryBudget: {percent: 100, minRetryConcurrency: 0}}", 3),
            ("{connectionPool: {http: {maxRetries: 1}}}", 3),
        ] {
            let (addr, seen) = answering(BUSY).await;
            let setup = Setup::new().service("a.example", "HTTP", Some(addr), policy);
            let gateway = setup.route("a.example", &rule).start().await;
            let answer = gateway.get("a.example").await;
            assert_eq!(answer.status, 503, "{policy}");
            assert_eq!(seen.requests.borrow().len(), sent, "{policy}");
            let refused = gateway.cluster(CLUSTER, ClusterCounter::RqRetryOverflow);
            assert_eq!(refused, u64::from(sent == 1), "{policy}");
            // What the upstream said is the answer.
            let flags = if sent == 1 { "UO" } else { "URX" };
            let log = gateway.log(1).await;
            assert_eq!((answer.text(), &log[0]["response_flags"]), ("busy", &flags.into()));
        }
    });
}

/// `maxRetries` and the share of `retryBudget` are for all requests of a cluster together: what is beyond them has
/// its first answer.
#[test]
fn no_more_retries_are_under_way_than_a_pool_or_a_share_of_its_requests() {
    local(async {
        const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";
        let (refused, retried) = ((503, "busy", "UO", 1), (200, "hello", "-", 0));
        const HALF: &str = "{retryBudget: {percent: 50, minRetryConcurrency: 0}}";
        // Of three requests one may be a retry, of four two.
        for (policy, silent, expected) in [
            ("{connectionPool: {http: {maxRetries: 1}}}", 0, refused),
            ("{connectionPool: {http: {maxRetries: 2}}}", 0, retried),
            (HALF, 1, refused),
            (HALF, 2, retried),
        ] {
            // Each path is refused once; the retry of `/held` waits, and `/silent` is never answered.
            let go = Rc::new(Notify::new());
            let held = Rc::clone(&go);
            let (addr, seen) = upstream(move |mut io, _, seen| {
                let held = Rc::clone(&held);
                async move {
                    let mut read = Vec::new();
                    while let Ok(asked) = request(&mut io, &mut read).await {
                        let line = asked.0.lines().next().unwrap().to_owned();
                        let is_again =
                            seen.heads().iter().any(|head| head.starts_with(line.as_str()));
                        seen.requests.borrow_mut().push(asked);
                        if line.contains("/silent") {
                            std::future::pending::<()>().await;
                        }
                        if is_again && line.contains("/held") {
                            held.notified().await;
                        }
                        let answer = if is_again { OK } else { BUSY };
                        io.write_all(answer.as_bytes()).await.unwrap();
                    }
                }
            })
            .await;
            let rule =
                format!("    retries: {{attempts: 1, retryOn: 5xx, backoff: 1ms}}\n{DESTINATION}");
            let setup = Setup::new().service("a.example", "HTTP", Some(addr), policy);
            let gateway = setup.route("a.example", &rule).start().await;
            let mut unanswered = Vec::new();
            for _ in 0..silent {
                let mut client = gateway.connect().await;
                client.send("GET /silent HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
                unanswered.push(client);
            }
            until(|| seen.requests.borrow().len() == silent).await;
            let mut waiting = gateway.connect().await;
            waiting.send("GET /held HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
            until(|| seen.requests.borrow().len() == silent + 2).await;
            let answer = gateway.get("a.example").await;
            let overflow = gateway.cluster(CLUSTER, ClusterCounter::RqRetryOverflow);
            let flags = gateway.log(1).await[0]["response_flags"].clone();
            let seen = (answer.status, answer.text(), flags.as_str().unwrap(), overflow);
            assert_eq!(seen, expected, "{policy}");
            go.notify_one();
            assert_eq!(waiting.answer().await.unwrap().status, 200, "{policy}");
            // Its place is free again.
            waiting.send("GET /later HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
            assert_eq!(waiting.answer().await.unwrap().status, 200, "{policy}");
        }
    });
}

#[test]
fn what_may_have_been_processed_is_not_sent_twice() {
    local(async {
        let (addr, seen) = upstream(|mut io, _, seen| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            io.write_all(OK.as_bytes()).await.unwrap();
            let second = request(&mut io, &mut Vec::new()).await.unwrap();
            seen.requests.borrow_mut().push(second);
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        assert_eq!(gateway.get("a.example").await.status, 200);
        let mut client = gateway.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\nbody").await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, 503);
        assert_eq!(seen.requests.borrow().len(), 1);
        assert_eq!(seen.connections.get(), 1);
        assert_eq!(gateway.log(2).await[1]["response_flags"], "UC");
    });
}

#[test]
fn routes_try_again() {
    local(async {
        let (addr, seen) = upstream(|io, number, seen| async move {
            let answer =
                if number < 2 { "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n" } else { OK };
            answer_all(io, seen, answer).await;
        })
        .await;
        let rule = format!("    retries: {{attempts: 2, retryOn: 5xx}}\n{DESTINATION}");
        let gateway = Setup::new().http("a.example", addr).route("a.example", &rule).start().await;
        assert_eq!(gateway.get("a.example").await.status, 200);
        assert_eq!(seen.requests.borrow().len(), 3);
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::RqRetry), 2);

        // Without retries the first answer is the last.
        let (addr, seen) = answering("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
        let rule = format!("    retries: {{attempts: 0}}\n{DESTINATION}");
        let gateway = Setup::new().http("a.example", addr).route("a.example", &rule).start().await;
        let answer = gateway.get("a.example").await;
        assert_eq!((answer.status, answer.text()), (503, ""));
        assert_eq!(seen.requests.borrow().len(), 1);
        assert_eq!(gateway.log(1).await[0]["response_code_details"], "via_upstream");
    });
}

#[test]
fn routes_time_out() {
    local(async {
        let (addr, _) = upstream(|mut io, _, _| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            let _closed = io.read(&mut [0]).await;
        })
        .await;
        let rule = format!("    timeout: 0.1s\n    retries: {{attempts: 0}}\n{DESTINATION}");
        let gateway = Setup::new().http("a.example", addr).route("a.example", &rule).start().await;
        let answer = gateway.get("a.example").await;
        assert_eq!(answer.status, 504);
        let log = gateway.log(1).await;
        assert_eq!(log[0]["response_flags"], "UT");
        assert_eq!(log[0]["response_code_details"], "response_timeout");
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::RqTimeout), 1);

        let (addr, seen) = upstream(|mut io, number, seen| async move {
            if number > 0 {
                return answer_all(io, seen, OK).await;
            }
            head(&mut io, &mut Vec::new()).await.unwrap();
            let _closed = io.read(&mut [0]).await;
        })
        .await;
        let rule = format!(
            "    retries: {{attempts: 1, perTryTimeout: 0.1s, retryOn: reset}}\n{DESTINATION}"
        );
        let gateway = Setup::new().http("a.example", addr).route("a.example", &rule).start().await;
        assert_eq!(gateway.get("a.example").await.status, 200);
        assert_eq!(seen.connections.get(), 2);
    });
}

#[test]
fn a_response_that_takes_too_long_is_broken_off() {
    local(async {
        let (addr, _) = upstream(|mut io, _, _| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart").await.unwrap();
            let _closed = io.read(&mut [0]).await;
        })
        .await;
        let rule = format!("    timeout: 0.2s\n{DESTINATION}");
        let gateway = Setup::new().http("a.example", addr).route("a.example", &rule).start().await;
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert!(client.answer().await.is_err());
        assert_eq!(gateway.log(1).await[0]["response_flags"], "UT");
    });
}

#[test]
fn routes_change_requests_and_answer_by_themselves() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let rule = format!(
            "    rewrite: {{uri: /new, authority: b.example}}
    headers: {{request: {{set: {{x-set: one}}, remove: [x-gone]}}, response: {{add: {{x-added: two}}}}}}
{DESTINATION}"
        );
        let gateway = Setup::new().http("a.example", addr).route("a.example", &rule).start().await;
        let mut client = gateway.connect().await;
        client.send("GET /old HTTP/1.1\r\nHost: a.example\r\nX-Gone: 1\r\n\r\n").await;
        let answer = client.answer().await.unwrap();
        assert!(answer.head.contains("x-added: two\r\n"), "{}", answer.head);
        let heads = seen.heads();
        // Without a match on the path, the rule's `/` is what is replaced.
        assert!(heads[0].starts_with("GET /newold HTTP/1.1\r\n"), "{}", heads[0]);
        assert!(heads[0].contains("host: b.example\r\n"), "{}", heads[0]);
        assert!(heads[0].contains("x-set: one\r\n") && !heads[0].contains("x-gone"));
        assert_eq!(gateway.log(1).await[0]["path"], "/old");

        let rule = "    redirect: {authority: b.example, redirectCode: 302}\n";
        let gateway = Setup::new().http("a.example", addr).route("a.example", rule).start().await;
        let answer = gateway.get("a.example").await;
        assert_eq!(answer.status, 302);
        assert!(answer.head.contains("location: http://b.example/"), "{}", answer.head);
        let rule = "    directResponse: {status: 418, body: {string: teapot}}\n";
        let gateway = Setup::new().http("a.example", addr).route("a.example", rule).start().await;
        let answer = gateway.get("a.example").await;
        assert_eq!((answer.status, answer.text()), (418, "teapot"));
        assert_eq!(seen.requests.borrow().len(), 1);
    });
}

#[test]
fn a_route_allows_web_sockets_unless_it_says_otherwise() {
    local(async {
        let (addr, seen) = upstream(|mut io, _, seen| async move {
            let mut read = Vec::new();
            let request = head(&mut io, &mut read).await.unwrap();
            seen.requests.borrow_mut().push((request.clone(), Vec::new()));
            if !request.contains("upgrade: websocket\r\n") {
                return io.write_all(OK.as_bytes()).await.unwrap();
            }
            // Its first words come with the answer.
            let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                Upgrade: websocket\r\n\r\nready";
            io.write_all(switch).await.unwrap();
            let mut bytes = [0; 4];
            while io.read_exact(&mut bytes).await.is_ok() {
                io.write_all(&bytes).await.unwrap();
            }
        })
        .await;
        for said in ["", "    websocketUpgrade: true\n"] {
            web_socket(addr, &format!("{said}{DESTINATION}")).await;
        }
        // A rule may forbid it, and is for all other requests as before.
        let rule = format!("    websocketUpgrade: false\n{DESTINATION}");
        let gateway = Setup::new().http("a.example", addr).route("a.example", &rule).start().await;
        let before = seen.requests.borrow().len();
        let mut client = gateway.connect().await;
        client
            .send("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.unwrap().status, 403);
        assert_eq!(gateway.log(1).await[0]["reason"], "upgrade_refused");
        assert_eq!(seen.requests.borrow().len(), before);
        assert_eq!(gateway.get("a.example").await.text(), "hello");
    });
}

/// WebSocket through a gateway with this rule, to an upstream that echoes four bytes.
async fn web_socket(addr: SocketAddr, rule: &str) {
    let gateway = Setup::new().http("a.example", addr).route("a.example", rule).start().await;
    let upgrade = |host: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\n\r\nping"
        )
    };
    let mut client = gateway.connect().await;
    client.send(&upgrade("a.example")).await;
    let answer = client.head().await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("connection: upgrade\r\nupgrade: websocket\r\n"), "{answer}");
    assert_eq!(client.take(9).await.unwrap(), b"readyping");
    client.send("pong").await;
    assert_eq!(client.take(4).await.unwrap(), b"pong");
    client.io.shutdown().await.unwrap();
    assert!(client.is_closed().await);
    let log = gateway.log(1).await;
    assert_eq!(log[0]["response_code"], 101);
    assert_eq!(log[0]["bytes_received"], 8);
    assert_eq!(log[0]["bytes_sent"], 13);
    assert_eq!(log[0]["response_flags"], "-");

    let mut client = gateway.connect().await;
    client.send(&upgrade("b.example")).await;
    assert_eq!(client.answer().await.unwrap().status, 403);
}

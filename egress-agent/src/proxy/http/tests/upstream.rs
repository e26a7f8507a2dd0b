//! What the outside can do wrong, and what becomes of it.

use std::{sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::harness::{
    Authority, Gateway, Seen, Setup, answer_all, answering, head, local, upstream,
};
use crate::{
    telemetry::{ClusterCounter, EndpointCounter, Normalized, normalized},
    types::UpstreamAddr,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const CLUSTER: &str = "outbound|80||a.example";

async fn tls_upstream(config: Arc<ServerConfig>) -> (std::net::SocketAddr, Seen) {
    upstream(move |io, _, seen| {
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        async move {
            if let Ok(io) = acceptor.accept(io).await {
                answer_all(io, seen, OK).await;
            }
        }
    })
    .await
}

#[test]
fn tls_is_originated_and_verified() {
    local(async {
        let authority = Authority::new("the authority");
        let (addr, seen) =
            tls_upstream(authority.server("a.example", [2020, 2100], &["http/1.1"])).await;
        let mut setup = Setup::new().origination("a.example", addr, "");
        setup.roots = authority.roots;
        let gateway = setup.start().await;
        for _ in 0..3 {
            assert_eq!(gateway.get("a.example").await.text(), "hello");
        }
        assert_eq!(seen.connections.get(), 1, "pooled");
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::SslHandshake), 1);
        let log = gateway.log(3).await;
        assert_eq!(log[0]["upstream_host"], "198.51.100.1:443");
    });
}

/// TLS that ends without its last alert: a body that has no other end is taken as it came, and one that says
/// its length is not.
#[test]
fn a_body_that_ends_with_tls_arrives_though_the_end_is_not_said() {
    local(async {
        let authority = Authority::new("the authority");
        let config = authority.server("a.example", [2020, 2100], &["http/1.1"]);
        let (addr, _) = upstream(move |io, number, _| {
            let acceptor = TlsAcceptor::from(Arc::clone(&config));
            async move {
                let mut io = acceptor.accept(io).await.unwrap();
                head(&mut io, &mut Vec::new()).await.unwrap();
                let length = if number == 0 { "" } else { "Content-Length: 6\r\n" };
                let answer = format!("HTTP/1.1 200 OK\r\n{length}\r\nhello");
                io.write_all(answer.as_bytes()).await.unwrap();
                io.flush().await.unwrap();
            }
        })
        .await;
        let mut setup = Setup::new().origination("a.example", addr, "");
        setup.roots = authority.roots;
        let gateway = setup.start().await;
        let before = normalized(Normalized::NoCloseNotify);
        assert_eq!(gateway.get("a.example").await.text(), "hello");
        assert!(normalized(Normalized::NoCloseNotify) > before);
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        client.answer().await.unwrap_err();
        let log = gateway.log(2).await;
        assert_eq!(
            (&log[0]["response_flags"], &log[1]["response_flags"]),
            (&"-".into(), &"UC".into())
        );
    });
}

#[test]
fn bad_certificates_are_refused_and_nothing_is_sent() {
    local(async {
        let authority = Authority::new("the authority");
        let other = Authority::new("another authority");
        for (config, says) in [
            (authority.server("a.example", [2019, 2020], &[]), "expired on 2020-01-01"),
            (authority.server("b.example", [2020, 2100], &[]), "issued for b.example"),
            (other.server("a.example", [2020, 2100], &[]), "unknown issuer"),
        ] {
            let (addr, seen) = tls_upstream(config).await;
            let mut setup = Setup::new().origination("a.example", addr, "");
            setup.roots = authority.roots.clone();
            let gateway = setup.start().await;
            let answer = gateway.get("a.example").await;
            assert_eq!(answer.status, 503, "{says}");
            assert!(answer.text().contains(says), "{says}: {}", answer.text());
            assert!(seen.requests.borrow().is_empty(), "{says}");
            let log = gateway.log(1).await;
            assert_eq!(log[0]["response_flags"], "UF", "{says}");
            let reason = log[0]["upstream_transport_failure_reason"].as_str().unwrap();
            assert!(reason.contains(says), "{reason}");
            assert!(gateway.cluster(CLUSTER, ClusterCounter::SslConnectionError) >= 1);
        }
    });
}

/// A gateway before a wildcard of either resolution.
async fn below_a_wildcard(mut setup: Setup, resolution: &str) -> Gateway {
    if resolution == "NONE" {
        setup.unresolved();
    }
    setup.start().await
}

#[test]
fn below_a_wildcard_every_name_is_a_host_of_its_own() {
    const CLUSTER: &str = "outbound|80||*.a.example";
    const NONE: &str = "BlackHoleCluster";
    for resolution in ["DYNAMIC_DNS", "NONE"] {
        local(async {
            let ((x, at_x), (y, at_y)) = (answering(OK).await, answering(OK).await);
            let hosts = [("x.a.example", x), ("y.a.example", y)];
            let setup = Setup::new().wildcard("*.a.example", &hosts, "");
            let gateway = below_a_wildcard(setup, resolution).await;
            for (host, seen) in [("x.a.example", &at_x), ("y.a.example", &at_y)] {
                assert_eq!(gateway.get(host).await.text(), "hello", "{resolution} {host}");
                let heads = seen.heads();
                assert_eq!(heads.len(), 1, "{resolution} {host}");
                let named = format!("host: {host}\r\n");
                assert!(heads[0].to_lowercase().contains(&named), "{resolution} {heads:?}");
            }
            // A name without an address, and names that are not below it.
            let refused = [("z.a.example", 503), ("a.example", 403), ("x.b.example", 403)];
            for (host, status) in refused {
                assert_eq!(gateway.get(host).await.status, status, "{resolution} {host}");
            }
            assert_eq!((at_x.requests.borrow().len(), at_y.requests.borrow().len()), (1, 1));
            let log = gateway.log(5).await;
            let mut lines: Vec<_> = log
                .iter()
                .map(|line| {
                    let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
                    let fields = ["authority", "upstream_cluster", "reason", "response_flags"];
                    fields.map(text)
                })
                .collect();
            // Refusals have a place of their own in the log's queue: not in the requests' order.
            lines.sort();
            let expected = [
                ["a.example", NONE, "host_not_in_registry", "NR"],
                ["x.a.example", CLUSTER, "-", "-"],
                ["x.b.example", NONE, "host_not_in_registry", "NR"],
                ["y.a.example", CLUSTER, "-", "-"],
                ["z.a.example", CLUSTER, "resolve_failed", "UF"],
            ];
            assert_eq!(lines, expected, "{resolution}");
        });
    }
}

#[test]
fn below_a_wildcard_the_name_that_was_asked_for_is_verified() {
    for resolution in ["DYNAMIC_DNS", "NONE"] {
        verify_below_a_wildcard(resolution);
    }
}

fn verify_below_a_wildcard(resolution: &str) {
    local(async {
        let authority = Authority::new("the authority");
        let server = |name: &str| authority.server(name, [2020, 2100], &[]);
        let (x, at_x) = tls_upstream(server("x.a.example")).await;
        let (y, at_y) = tls_upstream(server("y.a.example")).await;
        // It has a name of the same wildcard, and not the one that was asked for.
        let (z, at_z) = tls_upstream(server("x.a.example")).await;
        let hosts = [("x.a.example", x), ("y.a.example", y), ("z.a.example", z)];
        let mut setup = Setup::new().wildcard("*.a.example", &hosts, "{tls: {mode: SIMPLE}}");
        setup.roots = authority.roots.clone();
        let gateway = below_a_wildcard(setup, resolution).await;
        for _ in 0..2 {
            assert_eq!(gateway.get("x.a.example").await.text(), "hello");
            assert_eq!(gateway.get("y.a.example").await.text(), "hello");
        }
        let answer = gateway.get("z.a.example").await;
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("issued for x.a.example"), "{}", answer.text());
        // Each host has its own endpoints and connections.
        assert_eq!((at_x.requests.borrow().len(), at_y.requests.borrow().len()), (2, 2));
        assert!(at_z.requests.borrow().is_empty());
    });
}

#[test]
fn an_upstream_without_tls_gets_nothing_in_clear() {
    local(async {
        let (addr, seen) = upstream(|mut io, _, seen| async move {
            let mut bytes = vec![0; 16];
            io.read_exact(&mut bytes).await.unwrap();
            seen.requests.borrow_mut().push((String::new(), bytes));
            io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        })
        .await;
        let gateway = Setup::new().origination("a.example", addr, "").start().await;
        let answer = gateway.get("a.example").await;
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("does not speak TLS"), "{}", answer.text());
        for (_, bytes) in seen.requests.borrow().iter() {
            assert_eq!(bytes[0], 22, "a TLS handshake and nothing else");
        }
    });
}

#[test]
fn failures_to_connect_have_their_status_flag_and_sentence() {
    local(async {
        let (addr, _) = answering(OK).await;
        let gateway = Setup::new()
            .http("ok.example", addr)
            .service("refused.example", "HTTP", None, "")
            .unknown("nowhere.example")
            .at("inside.example", "127.0.0.1")
            .start()
            .await;
        assert_eq!(gateway.get("ok.example").await.status, 200);
        for (host, status, says) in [
            ("refused.example", 503, "refused"),
            ("nowhere.example", 503, "could not be resolved"),
            ("inside.example", 403, "must not dial"),
        ] {
            let answer = gateway.get(host).await;
            assert_eq!(answer.status, status, "{host}");
            assert!(answer.text().contains(says), "{}", answer.text());
            assert!(answer.text().contains(host), "{}", answer.text());
        }
        let log = gateway.log(4).await;
        let flags: Vec<_> = log.iter().map(|l| l["response_flags"].as_str().unwrap()).collect();
        assert_eq!(flags[0], "-");
        assert!(flags[1].starts_with("UF") && flags[2].starts_with("UF"), "{flags:?}");
        assert_eq!(flags[3], "NR");
        assert!(gateway.cluster("outbound|80||refused.example", ClusterCounter::CxConnectFail) > 0);
    });
}

#[test]
fn limits_on_connections_overflow() {
    local(async {
        let (addr, _) = upstream(|mut io, _, _| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            // Holds its connection until the client has gone.
            let _closed = io.read(&mut [0]).await;
        })
        .await;
        let policy = "{connectionPool: {tcp: {maxConnections: 1}}}";
        let gateway = Setup::new().service("a.example", "HTTP", Some(addr), policy).start().await;
        let mut first = gateway.connect().await;
        first.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        super::harness::until(|| gateway.cluster(CLUSTER, ClusterCounter::CxActive) == 1).await;
        let answer = gateway.get("a.example").await;
        assert_eq!(answer.status, 503);
        // The client goes away, its request upstream with it, and there is room again. It resets: who
        // only stops sending may still wait for the response.
        crate::net::RelayIo::reset(&first.io);
        drop(first);
        super::harness::until(|| gateway.cluster(CLUSTER, ClusterCounter::CxActive) == 0).await;
        let log = gateway.log(2).await;
        assert_eq!(log[0]["response_flags"], "UO");
        assert_eq!(log[1]["response_flags"], "DC");
        assert_eq!(log[1]["response_code"], 0);
        assert_eq!(log[1]["response_code_details"], "downstream_remote_disconnect");
    });
}

#[test]
fn a_response_cut_short_is_never_a_success() {
    local(async {
        for response in [
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n",
        ] {
            let (addr, _) = upstream(move |mut io, _, _| async move {
                head(&mut io, &mut Vec::new()).await.unwrap();
                io.write_all(response.as_bytes()).await.unwrap();
            })
            .await;
            let gateway = Setup::new().http("a.example", addr).start().await;
            for version in ["1.1", "1.0"] {
                let mut client = gateway.connect().await;
                client.send(&format!("GET / HTTP/{version}\r\nHost: a.example\r\n\r\n")).await;
                let answer = client.answer().await;
                assert!(answer.is_err(), "{version} {response:?}: {answer:?}");
            }
            let log = gateway.log(2).await;
            assert_eq!(log[0]["response_code"], 200);
            let flags = log[0]["response_flags"].as_str().unwrap();
            assert!(matches!(flags, "UC" | "UPE"), "{flags}");
            let details = log[0]["response_code_details"].as_str().unwrap();
            assert!(details.starts_with("upstream_reset_after_response_started"), "{details}");
        }
    });
}

#[test]
fn what_came_of_a_response_that_breaks_off_arrives() {
    local(async {
        let (addr, _) = upstream(|mut io, _, _| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n").await.unwrap();
            io.write_all(&[b'x'; 20_000]).await.unwrap();
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        // Everything is over before the client reads.
        assert_eq!(gateway.log(1).await[0]["response_flags"], "UC");
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200"));
        assert_eq!(client.take(20_000).await.unwrap(), [b'x'; 20_000]);
        assert!(client.is_closed().await, "in good order, but before its length");
    });
}

#[test]
fn upstreams_that_break_the_protocol_are_bad_gateways() {
    local(async {
        for response in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: y\r\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: y\nContent-Length: 0\r\n\r\n",
        ] {
            let (addr, _) = answering(response).await;
            let gateway = Setup::new().http("a.example", addr).start().await;
            assert_eq!(gateway.get("a.example").await.status, 502, "{response:?}");
            assert_eq!(gateway.log(1).await[0]["response_flags"], "UPE");
        }
        let (addr, _) = upstream(|mut io, _, _| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            io.write_all(b"HTTP/1.1 20").await.unwrap();
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        assert_eq!(gateway.get("a.example").await.status, 503);
        assert_eq!(gateway.log(1).await[0]["response_flags"], "UC");
    });
}

#[test]
fn an_early_refusal_of_a_body_reaches_the_client() {
    local(async {
        let (addr, _) = upstream(|mut io, _, _| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            let refusal =
                b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n";
            io.write_all(refusal).await.unwrap();
            io.shutdown().await.unwrap();
            // Reads on, as a server does that wants its answer to arrive.
            let mut sink = vec![0; 65536];
            while io.read(&mut sink).await.is_ok_and(|n| n > 0) {}
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let mut client = gateway.connect().await;
        client
            .send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000000\r\n\r\n")
            .await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.text()), (413, "no\n"));
        assert!(answer.head.contains("connection: close"));
        assert!(client.is_closed().await);
    });
}

#[test]
fn nothing_moves_for_too_long() {
    local(async {
        let (addr, _) = upstream(|mut io, _, _| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            let _closed = io.read(&mut [0]).await;
        })
        .await;
        let mut setup = Setup::new().http("a.example", addr);
        setup.limits.stream_idle = Duration::from_millis(100);
        let gateway = setup.start().await;
        assert_eq!(gateway.get("a.example").await.status, 504);
        assert_eq!(gateway.log(1).await[0]["response_flags"], "SI");
    });
}

#[test]
fn how_long_nothing_may_move_is_a_setting_and_a_longer_timeout_of_the_route_wins() {
    local(async {
        // Answers half a second after it was asked.
        let (addr, _) = upstream(|mut io, _, _| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            // The gateway may have given up.
            let _sent = io.write_all(OK.as_bytes()).await;
        })
        .await;
        let destination = "    route: [{destination: {host: a.example, port: {number: 80}}}]\n";
        for (setting, timeout, status) in [
            ("streamIdleTimeout: 100ms\n", "", 504),
            ("streamIdleTimeout: 10s\n", "", 200),
            ("streamIdleTimeout: 100ms\n", "    timeout: 10s\n", 200),
            ("streamIdleTimeout: 10s\n", "    timeout: 100ms\n", 504),
        ] {
            let mut setup = Setup::new().http("a.example", addr).route(
                "a.example",
                &format!("{timeout}    retries: {{attempts: 0}}\n{destination}"),
            );
            setup.mesh = setting.into();
            let gateway = setup.start().await;
            assert_eq!(gateway.get("a.example").await.status, status, "{setting}{timeout}");
        }
    });
}

#[test]
fn a_request_is_active_until_its_response_has_ended() {
    local(async {
        let (addr, _) = upstream(|mut io, _, _| async move {
            head(&mut io, &mut Vec::new()).await.unwrap();
            io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe").await.unwrap();
            head(&mut io, &mut Vec::new()).await.unwrap_err();
        })
        .await;
        let gateway = Setup::new().http("a.example", addr).start().await;
        let stats = &gateway.worker.telemetry.stats;
        let cluster = stats.cluster(&crate::policy::ClusterName(CLUSTER.into()));
        let endpoint = cluster.endpoint(UpstreamAddr("198.51.100.1:80".parse().unwrap()));
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        client.head().await.unwrap();
        client.take(2).await.unwrap();
        assert_eq!(endpoint.get(EndpointCounter::RqActive), 1);
        crate::net::RelayIo::reset(&client.io);
        drop(client);
        super::harness::until(|| endpoint.get(EndpointCounter::RqActive) == 0).await;
        assert_eq!(endpoint.get(EndpointCounter::RqTotal), 1);
    });
}

#[test]
fn limits_on_requests_overflow() {
    local(async {
        let (addr, seen) = upstream(|mut io, _, seen| async move {
            let request = head(&mut io, &mut Vec::new()).await.unwrap();
            seen.requests.borrow_mut().push((request, Vec::new()));
            let _closed = io.read(&mut [0]).await;
        })
        .await;
        let policy = "{connectionPool: {http: {http2MaxRequests: 1}}}";
        let gateway = Setup::new().service("a.example", "HTTP", Some(addr), policy).start().await;
        let mut first = gateway.connect().await;
        first.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        super::harness::until(|| seen.requests.borrow().len() == 1).await;
        let answer = gateway.get("a.example").await;
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("limit of 1 requests"), "{}", answer.text());
        assert_eq!(gateway.log(1).await[0]["response_flags"], "UO");
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::RqPendingOverflow), 1);
        assert_eq!(seen.connections.get(), 1);
    });
}

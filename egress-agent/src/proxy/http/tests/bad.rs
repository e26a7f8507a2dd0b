//! Requests that can't be read, or could be read in two ways, over a socket.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::harness::{Gateway, SOON, Seen, Setup, answering, local};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn gateway() -> (Gateway, Seen) {
    let (addr, seen) = answering(OK).await;
    (Setup::new().http("a.example", addr).start().await, seen)
}

#[test]
fn smuggled_requests_never_arrive() {
    local(async {
        let (gateway, seen) = gateway().await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";
        for headers in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n",
            "Transfer-Encoding:\x0bchunked\r\n",
            "X: y\r\n Transfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5,5\r\n",
            "Content-Length: 5\nTransfer-Encoding: chunked\r\n",
            "X: y\rTransfer-Encoding: chunked\r\n",
            "Host: b.example\r\n",
        ] {
            let mut client = gateway.connect().await;
            client
                .send(&format!(
                    "POST / HTTP/1.1\r\nHost: a.example\r\n{headers}\r\n0\r\n\r\n{smuggled}"
                ))
                .await;
            let answer = client.answer().await.unwrap();
            assert_eq!(answer.status, 400, "{headers:?}");
            assert!(answer.head.contains("connection: close"), "{headers:?}");
            assert!(client.is_closed().await, "{headers:?}");
        }
        assert_eq!(seen.connections.get(), 0, "nothing of it went out");
        let log = gateway.log(13).await;
        assert_eq!(log[0]["response_code"], 400);
        assert_eq!(log[0]["response_flags"], "DPE");
    });
}

#[test]
fn a_broken_body_breaks_the_request() {
    local(async {
        let (gateway, seen) = gateway().await;
        for body in ["5\nhello\r\n", "x\r\n", "5\r\nhello!!", "0\r\nHost: b\r\n\r\n"] {
            let mut client = gateway.connect().await;
            client
                .send(&format!(
                    "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
                ))
                .await;
            assert_eq!(client.answer().await.unwrap().status, 400, "{body:?}");
            assert!(client.is_closed().await);
        }
        assert!(seen.requests.borrow().is_empty(), "no upstream saw a whole request");
    });
}

#[test]
fn huge_heads_are_refused_at_once() {
    local(async {
        let (gateway, seen) = gateway().await;
        let mut client = gateway.connect().await;
        let started = std::time::Instant::now();
        let (mut read, mut write) = client.io.split();
        let line = format!("X-Long: {}\r\n", "y".repeat(1000));
        let writing = async {
            write.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n").await?;
            for _ in 0..1000 {
                write.write_all(line.as_bytes()).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        let mut bytes = Vec::new();
        let (_, answer) = tokio::join!(writing, super::harness::head(&mut read, &mut bytes));
        assert!(answer.unwrap().starts_with("HTTP/1.1 431 "), "431 was to arrive");
        assert!(started.elapsed() < SOON);
        let mut client = gateway.connect().await;
        let many = "X: y\r\n".repeat(101);
        client.send(&format!("GET / HTTP/1.1\r\nHost: a.example\r\n{many}\r\n")).await;
        assert_eq!(client.answer().await.unwrap().status, 431);
        assert_eq!(seen.connections.get(), 0);
        let few = "X: y\r\n".repeat(90);
        let mut client = gateway.connect().await;
        client.send(&format!("GET / HTTP/1.1\r\nHost: a.example\r\n{few}\r\n")).await;
        assert_eq!(client.answer().await.unwrap().status, 200);
    });
}

#[test]
fn slow_heads_time_out_and_slow_starters_do_not() {
    local(async {
        let (addr, _) = answering(OK).await;
        let mut setup = Setup::new().http("a.example", addr);
        setup.limits.request_head = Duration::from_millis(150);
        let gateway = setup.start().await;
        let mut slow = gateway.connect().await;
        slow.send("GET / HTTP/1.1\r\nHost:").await;
        let mut idle = gateway.connect().await;
        let answer = slow.answer().await.unwrap();
        assert_eq!(answer.status, 408);
        assert!(slow.is_closed().await);
        // A connection that has said nothing has another limit.
        idle.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(idle.answer().await.unwrap().status, 200);
        let log = gateway.log(2).await;
        assert_eq!(log[0]["response_code"], 408);
        assert_eq!(log[0]["response_code_details"], "request_header_timeout");
    });
}

#[test]
fn idle_connections_are_closed() {
    local(async {
        let (addr, _) = answering(OK).await;
        let mut setup = Setup::new().http("a.example", addr);
        setup.limits.idle = Duration::from_millis(100);
        let gateway = setup.start().await;
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().status, 200);
        assert!(client.is_closed().await);
        gateway.log(1).await;
    });
}

#[test]
fn garbage_gets_an_answer() {
    local(async {
        let (gateway, seen) = gateway().await;
        for garbage in
            ["hello\r\n\r\n", "GET\r\n\r\n", "\r\n\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\n"]
        {
            let mut client = gateway.connect().await;
            client.send(garbage).await;
            let answer = client.answer().await.unwrap();
            assert!(matches!(answer.status, 400 | 505), "{garbage:?}: {}", answer.status);
            assert!(client.is_closed().await);
        }
        // One empty line before a request is overlooked.
        let mut client = gateway.connect().await;
        client.send("\r").await;
        client.send("\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().status, 200);
        assert_eq!(seen.connections.get(), 1);
    });
}

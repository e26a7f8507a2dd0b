//! The PROXY protocol towards upstreams of HTTP.

use tokio::io::AsyncReadExt as _;

use super::harness::{Setup, answer_all, answering, local, upstream};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn a_connection_to_an_upstream_is_of_one_client_alone() {
    local(async {
        // Each connection begins with the line, and is served from there on.
        let (a, at_a) = upstream(|mut io, _, seen| async move {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(io.read_u8().await.unwrap());
            }
            seen.requests.borrow_mut().push((String::from_utf8(line).unwrap(), Vec::new()));
            answer_all(io, seen, OK).await;
        })
        .await;
        let (b, at_b) = answering(OK).await;
        let setup =
            Setup::new().service("a.example", "HTTP", Some(a), "{proxyProtocol: {version: V1}}");
        let gateway = setup.http("b.example", b).start().await;
        for host in ["a.example", "b.example"] {
            let mut clients = [gateway.connect().await, gateway.connect().await];
            for _ in 0..2 {
                for client in &mut clients {
                    client.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
                    assert_eq!(client.answer().await.unwrap().status, 200);
                }
            }
            let ports = clients.map(|client| client.io.local_addr().unwrap().port());
            if host == "a.example" {
                let heads = at_a.heads();
                let lines = heads.iter().filter(|head| head.starts_with("PROXY ")).count();
                assert_eq!((lines, at_a.connections.get()), (2, 2), "{heads:?}");
                for (line, port) in [(&heads[0], ports[0]), (&heads[2], ports[1])] {
                    let source = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} ");
                    assert!(line.starts_with(&source), "{line}");
                }
            } else {
                // Without it clients share what waits.
                assert_eq!(at_b.connections.get(), 1);
                assert!(at_b.heads().iter().all(|head| head.starts_with("GET ")));
            }
        }
    });
}

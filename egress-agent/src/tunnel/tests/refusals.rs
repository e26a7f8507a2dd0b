//! Whom the tunnel doesn't speak to, and that nothing goes out in clear text meanwhile.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{io::AsyncReadExt as _, net::TcpListener};

use super::{
    harness::{Node, Provider, SECRET, SOCKET, client},
    port,
    waypoint::{Behaviour, Waypoint},
};
use crate::{
    tls::testing,
    tunnel::{Limits, Refusal},
};

fn quick() -> Limits {
    Limits {
        credentials: Duration::from_millis(20),
        handshake: Duration::from_millis(500),
        answer: Duration::from_millis(500),
        back_off: Duration::ZERO,
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_gateway_that_refuses_a_stream_refuses_the_pod() {
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let node = Node::start(&waypoint, quick());
    for port in [port::UNAUTHORIZED, port::UNAVAILABLE, port::RESET] {
        node.is_reset(port, Refusal::Gateway).await;
    }
    node.is_reset(port::SILENT, Refusal::Timeout).await;
    let flows = node.flows.history();
    assert!(flows[0].detail.as_deref().unwrap().contains("401"), "{:?}", flows[0]);
    assert_eq!(flows[0].gateway, Some(waypoint.addr));
    // And who asked for it.
    for flow in &flows {
        assert_eq!(flow.pid.map(u64::from), Some(SOCKET));
        let named = [&flow.executable, &flow.command, &flow.cgroup, &flow.container];
        assert_eq!(
            named.map(|name| name.as_deref().unwrap_or_default()),
            ["/usr/bin/curl", "curl", "/kubepods/web", "aa"]
        );
    }
    // One refused stream is no reason to think worse of the others.
    node.echo().await;
    assert_eq!(waypoint.handshakes(), 1);
    // Nothing of the pod's came before an answer.
    assert!(waypoint.seen().iter().all(|seen| seen.received.is_empty()));
}

#[tokio::test]
async fn nobody_but_a_trusted_gateway_is_spoken_to() {
    // Another authority.
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let stranger = Provider::new(Ok(client(&testing::ca("another mesh"))));
    let node = Node::with(vec![waypoint.addr], stranger, quick());
    node.is_reset(port::ECHO, Refusal::Tls).await;
    let detail = node.flows.history()[0].detail.clone().unwrap();
    assert!(detail.contains("unknown issuer"), "{detail}");
    // An older version, which would show the certificates to everybody.
    let versions = vec![&rustls::version::TLS12];
    let old = Waypoint::start(Behaviour { versions, ..Behaviour::default() }).await;
    Node::start(&old, quick()).is_reset(port::ECHO, Refusal::Tls).await;
    // Another protocol inside.
    for alpn in [Vec::new(), vec![b"http/1.1".to_vec()]] {
        let other = Waypoint::start(Behaviour { alpn, ..Behaviour::default() }).await;
        Node::start(&other, quick()).is_reset(port::ECHO, Refusal::Tls).await;
    }
    // A gateway that doesn't trust this node says so after its own handshake.
    let clients = Some("a stranger");
    let distrustful = Waypoint::start(Behaviour { clients, ..Behaviour::default() }).await;
    let node = Node::start(&distrustful, quick());
    node.is_reset(port::ECHO, Refusal::Tls).await;
    let detail = node.flows.history()[0].detail.clone().unwrap();
    assert!(detail.contains("client certificate"), "{detail}");
    for waypoint in [waypoint, old, distrustful] {
        assert!(waypoint.seen().is_empty());
    }
}

#[tokio::test]
async fn nothing_goes_out_in_clear_text() {
    // One that speaks no TLS, and one that says nothing at all.
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let heard = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; 5];
            stream.read_exact(&mut heard).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
            stream.read_to_end(&mut heard).await.ok();
            heard
        });
        let provider = Provider::new(Ok(client(&testing::ca("mesh"))));
        let node = Node::with(vec![addr], provider, quick());
        let refusal = if answer.is_empty() { Refusal::Timeout } else { Refusal::Tls };
        // The other tries find nobody who accepts; the first one tells why.
        let (mut pod, _) = node.dial(port::ECHO).await;
        tokio::io::AsyncWriteExt::write_all(&mut pod, SECRET).await.unwrap();
        let heard = heard.await.unwrap();
        // A handshake's record, and the pod's words nowhere.
        assert_eq!(heard[0], 22, "{heard:?}");
        assert!(!heard.windows(SECRET.len()).any(|part| part == SECRET));
        let error = pod.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let counted = [refusal, Refusal::Connect].map(|refusal| node.refused(refusal));
        assert_eq!(counted.iter().sum::<u64>(), 1, "{counted:?}");
    }
}

#[tokio::test]
async fn without_a_certificate_or_a_gateway_nothing_is_dialled() {
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let without = Provider::new(Err("there is no --identity-dir".into()));
    let node = Node::with(vec![waypoint.addr], Arc::clone(&without), quick());
    node.is_reset(port::ECHO, Refusal::Credentials).await;
    assert_eq!(waypoint.handshakes(), 0);
    without.replace(client(&waypoint.ca));
    node.echo().await;

    let node = Node::with(Vec::new(), without, quick());
    node.is_reset(port::ECHO, Refusal::NoHealthyGateway).await;
}

#[tokio::test]
async fn a_dial_that_fails_goes_to_another_gateway() {
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let both = |first: SocketAddr, second| {
        let provider = Provider::new(Ok(client(&waypoint.ca)));
        Node::with(vec![first, second], provider, quick())
    };
    let node = both(gone, waypoint.addr);
    for _ in 0..6 {
        node.echo().await;
    }
    // Alone it is an error.
    let node = both(gone, gone);
    node.is_reset(port::ECHO, Refusal::Connect).await;
}

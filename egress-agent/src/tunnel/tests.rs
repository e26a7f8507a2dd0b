//! The tunnel against a gateway that answers CONNECT as an Istio waypoint does.

mod harness;
mod lifetime;
mod port;
mod refusals;
mod wait;
mod waypoint;

use std::sync::atomic::Ordering;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use self::{
    harness::{Node, patterned},
    wait::{WAIT, until},
    waypoint::{Behaviour, Waypoint},
};
use super::{Limits, Refusal};

#[tokio::test]
async fn bytes_go_both_ways_and_each_half_closes_by_itself() {
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let node = Node::start(&waypoint, Limits::default());
    let (mut pod, peer) = node.dial(port::ECHO).await;
    let sent = patterned(3_000_000);
    let (mut reader, mut writer) = pod.split();
    let mut got = Vec::new();
    let write = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let read = async { reader.read_to_end(&mut got).await.unwrap() };
    tokio::join!(write, read);
    assert!(got == sent, "{} of {} bytes came back as they were", got.len(), sent.len());
    // Who speaks first, and who closes first, is the application's own affair.
    let (mut pod, _) = node.dial(port::GREETING).await;
    let mut greeting = String::new();
    pod.read_to_string(&mut greeting).await.unwrap();
    assert_eq!(greeting, "hello");
    pod.write_all(b"late").await.unwrap();
    pod.shutdown().await.unwrap();
    waypoint.until(|seen| seen.iter().any(|one| one.received == b"late" && one.ended)).await;

    let seen = waypoint.seen();
    assert_eq!(seen[0].authority, format!("198.51.100.7:{}", port::ECHO));
    let baggage = seen[0].baggage.as_deref().unwrap();
    assert!(baggage.contains("k8s.namespace.name=shop"), "{baggage}");
    assert!(baggage.contains("k8s.pod.name=web"), "{baggage}");
    let forwarded = seen[0].forwarded.as_deref().unwrap();
    assert!(forwarded.starts_with("for=") && forwarded.contains(&peer.to_string()), "{forwarded}");
    let stats = &node.stats;
    until(|| stats.streams.load(Ordering::Relaxed) == 0).await;
    assert_eq!(stats.streams_total.load(Ordering::Relaxed), 2);
    assert_eq!(stats.streams_reset.load(Ordering::Relaxed), 0);
    assert_eq!(stats.sent.load(Ordering::Relaxed), 3_000_004);
    assert_eq!(stats.received.load(Ordering::Relaxed), 3_000_005);
}

#[tokio::test]
async fn a_reset_is_a_reset_on_the_other_side() {
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let node = Node::start(&waypoint, Limits::default());
    // The gateway resets in the middle of the data.
    let (mut pod, _) = node.dial(port::RESET_LATER).await;
    let mut got = [0; 4];
    pod.read_exact(&mut got).await.unwrap();
    pod.write_all(b"now").await.unwrap();
    let error = pod.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // The pod does.
    let (mut pod, _) = node.dial(port::ECHO).await;
    pod.write_all(b"x").await.unwrap();
    pod.read_u8().await.unwrap();
    pod.set_zero_linger().unwrap();
    drop(pod);
    waypoint.until(|seen| seen.iter().any(|one| one.reset)).await;
    until(|| node.stats.streams_reset.load(Ordering::Relaxed) == 2).await;
    assert_eq!(node.stats.handshakes.load(Ordering::Relaxed), 1, "the tunnel itself stays");
}

#[tokio::test]
async fn connections_of_an_identity_share_one_handshake() {
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let node = Node::start(&waypoint, Limits::default());
    // Cold: all at once.
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let (mut pod, _) = node.dial(port::ECHO).await;
        tasks.spawn(async move {
            pod.write_all(b"ping").await.unwrap();
            let mut got = [0; 4];
            pod.read_exact(&mut got).await.unwrap();
            pod
        });
    }
    let pods = tasks.join_all().await;
    assert_eq!(node.stats.handshakes.load(Ordering::Relaxed), 1);
    drop(pods);
    // Warm: one after the other.
    for _ in 0..20 {
        node.echo().await;
    }
    assert_eq!(node.stats.handshakes.load(Ordering::Relaxed), 1);
    assert_eq!(waypoint.handshakes(), 1);
    // Another identity has a tunnel of its own, and so has a workload that nobody knows.
    node.echo_from("127.0.0.2").await;
    assert_eq!(node.stats.handshakes.load(Ordering::Relaxed), 2);
    node.echo_from("127.0.0.3").await;
    assert_eq!(node.stats.handshakes.load(Ordering::Relaxed), 3);
    let seen = waypoint.seen();
    assert_eq!(seen.last().unwrap().baggage, None);
    assert!(seen.last().unwrap().forwarded.as_deref().unwrap().contains("127.0.0.3"));
}

#[tokio::test]
async fn a_gateway_with_few_streams_gets_more_connections() {
    let behaviour = Behaviour { max_streams: Some(10), ..Behaviour::default() };
    let waypoint = Waypoint::start(behaviour).await;
    let node = Node::start(&waypoint, Limits::default());
    let mut pods = Vec::new();
    for _ in 0..25 {
        let (mut pod, _) = node.dial(port::ECHO).await;
        pod.write_all(b"x").await.unwrap();
        pod.read_u8().await.unwrap();
        pods.push(pod);
    }
    assert_eq!(node.stats.handshakes.load(Ordering::Relaxed), 3);
}

/// Pods that don't read, and gateways that don't, hold up nobody but themselves.
#[tokio::test]
async fn a_thousand_connections_go_on_beside_stalled_ones() {
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let node = Node::start(&waypoint, Limits::default());
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let (mut pod, _) = node.dial(port::FLOOD).await;
        pod.read_u8().await.unwrap();
        stalled.push(pod);
    }
    let mut uploads = JoinSet::new();
    for _ in 0..10 {
        let (mut upload, _) = node.dial(port::STALL).await;
        uploads.spawn(async move {
            let piece = vec![7; 64 * 1024];
            while upload.write_all(&piece).await.is_ok() {}
        });
    }
    // Until each has what its window lets it have, which shrinks as more is held.
    let window = u64::from(super::client::STREAM_WINDOW);
    let full = |one: &&waypoint::Seen| one.flooded >= window / 4;
    waypoint.until(|seen| seen.iter().filter(full).count() == 50).await;
    let mut tasks = JoinSet::new();
    for _ in 0..1000 {
        let (mut pod, _) = node.dial(port::ECHO).await;
        tasks.spawn(async move {
            let sent = patterned(32 * 1024);
            let (mut reader, mut writer) = pod.split();
            let mut got = vec![0; sent.len()];
            let write = writer.write_all(&sent);
            let (written, read) = tokio::join!(write, reader.read_exact(&mut got));
            written.unwrap();
            read.unwrap();
            assert!(got == sent);
            pod
        });
    }
    let all = tokio::time::timeout(WAIT, tasks.join_all()).await;
    let pods = all.expect("none is held up by those that are stalled");
    assert_eq!(pods.len(), 1000);
    assert_eq!(node.stats.streams.load(Ordering::Relaxed), 1060);
    assert_eq!(node.stats.handshakes.load(Ordering::Relaxed), 1);
    // Memory is bounded: no stalled stream got more than its window and the sockets' buffers.
    for one in waypoint.seen().iter().filter(|one| one.flooded > 0) {
        assert!(one.flooded < window + 16 * 1024 * 1024, "{} bytes", one.flooded);
    }
    // A stalled one that reads again goes on.
    let mut pod = stalled.pop().unwrap();
    let mut got = vec![0; 20_000_000];
    tokio::time::timeout(WAIT, pod.read_exact(&mut got)).await.unwrap().unwrap();
    uploads.abort_all();
}

/// An upstream that sends little at a time, as terminals and event streams do, costs the others of its tunnel nothing.
#[tokio::test]
async fn many_small_frames_to_pods_that_do_not_read_end_no_tunnel() {
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let node = Node::start(&waypoint, Limits::default());
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let (mut pod, _) = node.dial(port::CRUMB).await;
        pod.read_u8().await.unwrap();
        stalled.push(pod);
    }
    let (mut pod, _) = node.dial(port::ECHO).await;
    let mut echo = async || {
        pod.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        tokio::time::timeout(WAIT, pod.read_exact(&mut got)).await.expect("an echo").unwrap();
        assert_eq!(&got, b"ping");
    };
    let all = |one: &&waypoint::Seen| one.flooded == 10 * port::CRUMBS;
    let sent = async {
        while waypoint.seen().iter().filter(all).count() < 4 {
            echo().await;
        }
        echo().await;
    };
    tokio::time::timeout(WAIT, sent).await.expect("all of it is sent");
    node.echo().await;
    assert_eq!(node.stats.handshakes.load(Ordering::Relaxed), 1);
    assert_eq!(node.stats.streams_reset.load(Ordering::Relaxed), 0);
    // What waits for them is still theirs.
    for pod in &mut stalled {
        let mut rest = vec![0; usize::try_from(10 * port::CRUMBS - 1).unwrap()];
        tokio::time::timeout(WAIT, pod.read_exact(&mut rest)).await.expect("the rest").unwrap();
        assert!(rest.iter().all(|byte| *byte == 42));
    }
}

#[tokio::test]
async fn who_dialled_the_listener_is_reset_and_counted() {
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let node = Node::start(&waypoint, Limits::default());
    // The reset may come before the last step of the handshake is told.
    let error = match tokio::net::TcpStream::connect(node.listener).await {
        Ok(mut stranger) => {
            stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.ok();
            stranger.read_u8().await.unwrap_err()
        }
        Err(error) => error,
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    until(|| node.refused(Refusal::NoRecord) == 1).await;
    assert_eq!(waypoint.handshakes(), 0);
    let flows = node.flows.history();
    assert_eq!(flows[0].reason.as_deref(), Some("no_record"));
    assert_eq!(flows[0].hook, "tunnel");
    // With a record it is served.
    node.echo().await;
}

#[tokio::test]
async fn one_source_does_not_take_all_places() {
    let limits = Limits { connections_per_source: 3, ..Limits::default() };
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let node = Node::start(&waypoint, limits);
    let mut pods = Vec::new();
    for _ in 0..3 {
        let (mut pod, _) = node.dial(port::ECHO).await;
        pod.write_all(b"x").await.unwrap();
        pod.read_u8().await.unwrap();
        pods.push(pod);
    }
    node.is_reset(port::ECHO, Refusal::Overflow).await;
    node.echo_from("127.0.0.2").await;
    pods.clear();
    // Soon there is room again.
    let end = tokio::time::Instant::now() + WAIT;
    loop {
        if let (Ok(mut pod), _) = node.attempt("127.0.0.1", port::ECHO).await {
            pod.write_all(b"x").await.ok();
            if pod.read_u8().await.is_ok() {
                return;
            }
        }
        assert!(tokio::time::Instant::now() < end, "their places are never given back");
    }
}

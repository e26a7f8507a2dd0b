//! Connections to gateways come and go; what runs on them doesn't suffer where it needn't.

use std::{
    io::ErrorKind,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    harness::{Node, Provider, client},
    port,
    wait::until,
    waypoint::{Behaviour, Waypoint},
};
use crate::tunnel::{Closed, Limits, Stats};

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn closed(stats: &Stats, cause: Closed) -> u64 {
    stats.closed().find(|(of, _)| *of == cause).unwrap().1
}

async fn ping(pod: &mut TcpStream) {
    pod.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    pod.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ping");
}

async fn held(node: &Node) -> TcpStream {
    let (mut pod, _) = node.dial(port::ECHO).await;
    ping(&mut pod).await;
    pod
}

async fn is_reset(pod: &mut TcpStream) {
    let error = pod.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

#[tokio::test]
async fn an_idle_tunnel_is_closed_and_made_again() {
    let limits = Limits { idle: Duration::from_millis(50), ..Limits::default() };
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let node = Node::start(&waypoint, limits);
    let mut pod = held(&node).await;
    // A stream without a byte isn't idleness of the tunnel.
    tokio::time::sleep(limits.idle * 4).await;
    ping(&mut pod).await;
    drop(pod);
    until(|| load(&node.stats.connections) == 0).await;
    assert_eq!(closed(&node.stats, Closed::Regular), 1);
    node.echo().await;
    assert_eq!(load(&node.stats.handshakes), 2);
}

#[tokio::test]
async fn a_gateway_that_says_goodbye_loses_no_stream() {
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let node = Node::start(&waypoint, Limits::default());
    let mut pod = held(&node).await;
    waypoint.say_goodbye();
    // From some moment on new connections take a new tunnel.
    let end = tokio::time::Instant::now() + super::wait::WAIT;
    while load(&node.stats.handshakes) < 2 {
        assert!(tokio::time::Instant::now() < end);
        node.echo().await;
    }
    ping(&mut pod).await;
    pod.shutdown().await.unwrap();
    assert_eq!(pod.read(&mut [0; 1]).await.unwrap(), 0);
    until(|| load(&node.stats.connections) == 1).await;
    assert_eq!(load(&node.stats.streams_reset), 0);
}

#[tokio::test]
async fn a_gateway_that_hangs_is_found_out() {
    let limits = Limits {
        ping: Duration::from_millis(50),
        pong: Duration::from_millis(200),
        ..Limits::default()
    };
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let node = Node::start(&waypoint, limits);
    let mut pod = held(&node).await;
    waypoint.hang();
    is_reset(&mut pod).await;
    until(|| closed(&node.stats, Closed::Silent) == 1).await;
    assert_eq!(load(&node.stats.connections), 0);
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_old_ones_go_on() {
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let node = Node::start(&waypoint, Limits::default());
    let mut old = held(&node).await;
    node.provider.replace(client(&waypoint.ca));
    let end = tokio::time::Instant::now() + super::wait::WAIT;
    while load(&node.stats.handshakes) < 2 {
        assert!(tokio::time::Instant::now() < end);
        node.echo().await;
    }
    ping(&mut old).await;
    assert_eq!(load(&node.stats.connections), 2);
    // The old tunnel goes with its last stream.
    drop(old);
    until(|| load(&node.stats.connections) == 1).await;
    node.echo().await;
    assert_eq!(load(&node.stats.handshakes), 2);
    assert_eq!(closed(&node.stats, Closed::Distrusted), 0);
}

#[tokio::test]
async fn a_gateway_that_is_no_longer_trusted_is_left_at_once() {
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let node = Node::start(&waypoint, Limits::default());
    let mut pod = held(&node).await;
    node.provider.distrust();
    is_reset(&mut pod).await;
    until(|| closed(&node.stats, Closed::Distrusted) == 1).await;
    assert_eq!(load(&node.stats.connections), 0);
}

#[tokio::test]
async fn a_gateway_that_is_gone_resets_its_streams_and_another_takes_over() {
    let first = Waypoint::start(Behaviour::default()).await;
    let provider = Provider::new(Ok(client(&first.ca)));
    let node = Node::with(vec![first.addr], provider, Limits::default());
    let mut pod = held(&node).await;
    // It closes its connections without a word, as a process that is killed does.
    first.cut();
    is_reset(&mut pod).await;
    until(|| load(&node.stats.connections) == 0).await;
    node.echo().await;
    assert_eq!(load(&node.stats.handshakes), 2);
}

/// What a killed agent leaves to the kernel must look like an error to the pod, never like the end
/// of the data.
#[tokio::test]
async fn connections_of_an_agent_that_ends_are_reset() {
    let waypoint = Waypoint::start(Behaviour::default()).await;
    let mut node = Node::start(&waypoint, Limits::default());
    let mut pod = held(&node).await;
    let tunnel = node.tunnel.take();
    tokio::task::spawn_blocking(move || drop(tunnel)).await.unwrap();
    is_reset(&mut pod).await;
    assert!(TcpStream::connect(node.listener).await.is_err());
}

//! HTTP/2 upstreams that fall silent.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::spawn_local,
    time::timeout,
};

use super::{
    h2::echo,
    harness::{Client, Gateway, SOON, Setup, answering, local, upstream},
};
use crate::{net::PingInterval, proxy::Limits};

/// Passes on to `to`, until it is told to stop; then it keeps what it accepts.
async fn line(to: SocketAddr) -> (SocketAddr, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let silent = Rc::new(Cell::new(0));
    let dead = Rc::clone(&silent);
    spawn_local(async move {
        for number in 1.. {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(to).await.unwrap();
            let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
            for (mut from, mut to) in [(from_near, to_far), (from_far, to_near)] {
                let dead = Rc::clone(&dead);
                spawn_local(async move {
                    let mut buffer = vec![0; 16 * 1024];
                    while let Ok(count @ 1..) = from.read(&mut buffer).await {
                        if dead.get() >= number {
                            // The connection stays open.
                            std::future::pending::<()>().await;
                        }
                        if to.write_all(&buffer[..count]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
    });
    (addr, silent)
}

async fn gateway(addr: SocketAddr) -> Gateway {
    let mut setup = Setup::new().service("a.example", "HTTP2", Some(addr), "");
    setup.limits = Limits {
        upstream_pulse: PingInterval {
            ask_after: Duration::from_secs(1),
            give_up_after: Duration::from_secs(1),
            between: Duration::from_secs(300),
            always: false,
        },
        ..setup.limits
    };
    setup.start().await
}

async fn answer(client: &mut Client) -> u16 {
    timeout(SOON, client.answer()).await.expect("an answer").unwrap().status
}

#[test]
fn requests_on_a_connection_that_fell_silent_are_sent_again_where_that_is_safe() {
    local(async {
        let (far, seen) = upstream(|io, _, seen| echo(io, seen)).await;
        let (addr, silent) = line(far).await;
        let gateway = gateway(addr).await;
        assert_eq!(gateway.get("a.example").await.status, 200);
        silent.set(1);
        let mut safe = gateway.connect().await;
        safe.send("GET /safe HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        let mut unsafe_one = gateway.connect().await;
        let head = "POST /unsafe HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\n\r\nx";
        unsafe_one.send(head).await;
        assert_eq!(answer(&mut safe).await, 200);
        // It may have been processed: that is for the client to decide.
        assert_eq!(answer(&mut unsafe_one).await, 503);
        assert_eq!(seen.connections.get(), 2, "the silent one has left the pool");
        assert_eq!(gateway.get("a.example").await.status, 200);
        assert_eq!(seen.connections.get(), 2);
        let log = gateway.log(4).await;
        let failed = log.iter().find(|line| line["response_code"] == 503).unwrap();
        let why = failed["upstream_transport_failure_reason"].to_string();
        assert!(why.contains("no sign of life of the upstream"), "{failed}");
    });
}

#[test]
fn an_upstream_that_takes_its_time_but_answers_pings_is_waited_for() {
    local(async {
        let (addr, seen) = upstream(|io, _, seen| async move {
            let mut connection = h2::server::handshake(io).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                seen.requests.borrow_mut().push(Default::default());
                spawn_local(async move {
                    // Several times what a silent one is given.
                    tokio::time::sleep(Duration::from_secs(6)).await;
                    respond.send_response(http::Response::new(()), true).unwrap();
                });
            }
        })
        .await;
        let gateway = gateway(addr).await;
        assert_eq!(gateway.get("a.example").await.status, 200);
        assert_eq!((seen.connections.get(), seen.requests.borrow().len()), (1, 1));
    });
}

/// Every end of HTTP/2 always reads, so one that takes nothing for as long as a silent one is probed is gone; one of
/// HTTP/1 may pause in a body.
#[test]
fn the_kernel_gives_up_connections_of_http2_that_take_nothing() {
    let keepalive = "{connectionPool: {tcp: {tcpKeepalive: {time: 5s, interval: 2s, probes: 4}}}}";
    for (protocol, policy, seconds) in [
        ("HTTP2", "", Some(90)),
        ("HTTP2", keepalive, Some(13)),
        ("HTTP", "", None),
        ("HTTP", keepalive, None),
    ] {
        local(async {
            let (addr, seen) = match protocol {
                "HTTP2" => upstream(|io, _, seen| echo(io, seen)).await,
                _ => answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await,
            };
            let mut setup = Setup::new().service("a.example", protocol, Some(addr), policy);
            let sockets = setup.keep_sockets();
            let gateway = setup.start().await;
            for _ in 0..2 {
                assert_eq!(gateway.get("a.example").await.status, 200);
            }
            assert_eq!(seen.connections.get(), 1, "pooled");
            let sockets = sockets.lock().unwrap();
            let limits: Vec<_> = sockets
                .iter()
                .map(|socket| SockRef::from(socket).tcp_user_timeout().unwrap())
                .collect();
            assert_eq!(limits, [seconds.map(Duration::from_secs)], "{protocol} {policy}");
        });
    }
}

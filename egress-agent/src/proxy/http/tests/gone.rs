//! Connections to addresses that have left the host's DNS answer.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
};

use super::{
    h2::{echo, get},
    harness::{Gateway, Setup, answer_all, answering, head, local, until, upstream},
};
use crate::telemetry::ClusterCounter;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const CLUSTER: &str = "outbound|80||a.example";

/// `a.example` has the first address; the second one leads to the same server.
async fn start(drain: &str) -> Gateway {
    let (addr, _) = answering(OK).await;
    let mut setup = Setup::new().http("a.example", addr).http("b.example", addr);
    setup.mesh = format!("addressDrainTime: {drain}\n");
    setup.start().await
}

fn open(gateway: &Gateway) -> u64 {
    gateway.cluster(CLUSTER, ClusterCounter::CxActive)
}

async fn upstream_of(gateway: &Gateway, count: usize) -> String {
    assert_eq!(gateway.get("a.example").await.status, 200);
    last_upstream(gateway, count).await
}

/// Where the last of so many requests went.
async fn last_upstream(gateway: &Gateway, count: usize) -> String {
    gateway.log(count).await[count - 1]["upstream_host"].as_str().unwrap().to_owned()
}

/// What is under way on a connection to an address that is gone outlasts one that waits on such a connection:
/// `b.example` has had a request, and moves too.
async fn outlast_the_drain(gateway: &Gateway) {
    let open_to_b = || gateway.cluster("outbound|80||b.example", ClusterCounter::CxActive);
    assert_eq!(open_to_b(), 1);
    gateway.outside.rename("b.example", &["198.51.100.1"]);
    assert_eq!(gateway.get("b.example").await.status, 200);
    assert_eq!(gateway.cluster("outbound|80||b.example", ClusterCounter::CxTotal), 2);
    until(|| open_to_b() == 1).await;
    assert_eq!(open(gateway), 2);
}

#[test]
fn an_address_that_is_gone_gets_no_request_and_its_connection_is_closed() {
    local(async {
        let gateway = start("0s").await;
        assert_eq!(upstream_of(&gateway, 1).await, "198.51.100.1:80");
        gateway.outside.rename("a.example", &["198.51.100.2"]);
        assert_eq!(upstream_of(&gateway, 2).await, "198.51.100.2:80");
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::CxTotal), 2);
        until(|| open(&gateway) == 1).await;
        assert_eq!(upstream_of(&gateway, 3).await, "198.51.100.2:80");
    });
}

#[test]
fn one_that_comes_back_in_time_has_kept_its_connection() {
    local(async {
        let gateway = start("1h").await;
        upstream_of(&gateway, 1).await;
        gateway.outside.rename("a.example", &["198.51.100.2"]);
        upstream_of(&gateway, 2).await;
        // More than one sweep.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(open(&gateway), 2);
        gateway.outside.rename("a.example", &["198.51.100.1"]);
        assert_eq!(upstream_of(&gateway, 3).await, "198.51.100.1:80");
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::CxTotal), 2);
    });
}

#[test]
fn a_stream_on_a_connection_to_an_address_that_is_gone_ends_in_its_own_time() {
    local(async {
        let (addr, _) = upstream(|io, _, seen| echo(io, seen)).await;
        let setup = Setup::new().service("a.example", "HTTP2", Some(addr), "");
        let mut setup = setup.service("b.example", "HTTP2", Some(addr), "");
        setup.mesh = "addressDrainTime: 0s\n".into();
        let gateway = setup.start().await;
        assert_eq!(gateway.get("b.example").await.status, 200);
        let client = gateway.connect_h2().await;
        let mut sender = client.clone().ready().await.unwrap();
        let request = Request::post("http://a.example/long").body(()).unwrap();
        let (response, mut stream) = sender.send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(b"before"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "before");
        gateway.outside.rename("a.example", &["198.51.100.2"]);
        assert_eq!(get(&client, "http://a.example/").await.0, StatusCode::OK);
        assert_eq!(last_upstream(&gateway, 2).await, "198.51.100.2:80");
        outlast_the_drain(&gateway).await;
        stream.send_data(Bytes::from_static(b"after"), true).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), "after");
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        assert_eq!(last_upstream(&gateway, 4).await, "198.51.100.1:80");
        // With its last stream it goes.
        until(|| open(&gateway) == 1).await;
        assert_eq!(get(&client, "http://a.example/").await.0, StatusCode::OK);
        assert_eq!(last_upstream(&gateway, 5).await, "198.51.100.2:80");
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::CxTotal), 2);
    });
}

#[test]
fn a_download_from_an_address_that_is_gone_arrives_whole() {
    const HALF: usize = 50_000;
    local(async {
        let gate = Rc::new(Notify::new());
        let opened = Rc::clone(&gate);
        let (addr, _) = upstream(move |mut io, number, seen| {
            let gate = Rc::clone(&gate);
            async move {
                if number > 0 {
                    return answer_all(io, seen, OK).await;
                }
                head(&mut io, &mut Vec::new()).await.unwrap();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * HALF);
                io.write_all(head.as_bytes()).await.unwrap();
                io.write_all(&[b'x'; HALF]).await.unwrap();
                gate.notified().await;
                io.write_all(&[b'y'; HALF]).await.unwrap();
                // Until the gateway closes it.
                let _end = io.read_exact(&mut [0]).await;
            }
        })
        .await;
        let mut setup = Setup::new().http("a.example", addr).http("b.example", addr);
        setup.mesh = "addressDrainTime: 0s\n".into();
        let gateway = setup.start().await;
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200 "));
        assert_eq!(client.take(HALF).await.unwrap(), [b'x'; HALF]);
        assert_eq!(gateway.get("b.example").await.status, 200);
        gateway.outside.rename("a.example", &["198.51.100.2"]);
        assert_eq!(upstream_of(&gateway, 2).await, "198.51.100.2:80");
        outlast_the_drain(&gateway).await;
        opened.notify_one();
        assert_eq!(client.take(HALF).await.unwrap(), [b'y'; HALF]);
        let log = gateway.log(4).await;
        assert_eq!(log[3]["upstream_host"], "198.51.100.1:80");
        assert_eq!(log[3]["response_flags"], "-");
        assert_eq!(upstream_of(&gateway, 5).await, "198.51.100.2:80");
        until(|| open(&gateway) == 1).await;
        assert_eq!(gateway.cluster(CLUSTER, ClusterCounter::CxTotal), 2);
    });
}

//! Ends of connections that are no ends of requests, over HTTP/2.

use std::rc::Rc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
    time::timeout,
};

use super::{
    frames::{DATA, END_HEADERS, HEADERS, RST_STREAM, frame, opening},
    h2::{ask, get},
    harness::{Gateway, SOON, Setup, head, local, request, until, upstream},
    resend::read_request,
};

const BODY: &str = "delivered";

/// What a client sends that asks for `/` on the first stream of HTTP/2. A request that has not ended is a
/// POST.
fn asking(ended: bool) -> Vec<u8> {
    // The method, http, / and the host.
    let mut block = vec![if ended { 0x82 } else { 0x83 }, 0x86, 0x84, 1, 9];
    block.extend(b"a.example");
    let mut bytes = opening();
    bytes.extend(frame(HEADERS, END_HEADERS | u8::from(ended), 1, &block));
    bytes
}

/// The payloads of the first stream's DATA, and whether it has ended.
fn data(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let (mut data, mut ended) = (Vec::new(), false);
    while let Some((&[a, b, c, kind, flags, _, _, _, stream], rest)) = bytes.split_first_chunk() {
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let (payload, rest) = rest.split_at(length);
        if kind == 0 && stream == 1 {
            data.extend(payload);
            ended |= flags & 1 == 1;
        }
        bytes = rest;
    }
    (data, ended)
}

/// A gateway in front of an upstream that answers when it is told to, and says when its client has gone.
async fn patient() -> (Gateway, Rc<Notify>, Rc<Notify>, super::harness::Seen) {
    let (answer, gone) = (Rc::<Notify>::default(), Rc::<Notify>::default());
    let (told, left) = (Rc::clone(&answer), Rc::clone(&gone));
    let (addr, seen) = upstream(move |mut io, _, seen| {
        let (told, left) = (Rc::clone(&told), Rc::clone(&left));
        async move {
            let mut read = Vec::new();
            let asked = head(&mut io, &mut read).await.unwrap();
            let mut rest = [0; 16];
            seen.requests.borrow_mut().push((asked, Vec::new()));
            tokio::select! {
                () = told.notified() => {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BODY.len());
                    io.write_all(format!("{head}{BODY}").as_bytes()).await.unwrap();
                }
                _ = io.read(&mut rest) => left.notify_one(),
            }
        }
    })
    .await;
    let gateway = Setup::new().http("a.example", addr).start().await;
    (gateway, answer, gone, seen)
}

#[test]
fn a_client_that_closes_its_own_direction_is_served() {
    local(async {
        let (gateway, answer, _, seen) = patient().await;
        let mut io = gateway.raw_h2().await;
        io.write_all(&asking(true)).await.unwrap();
        io.shutdown().await.unwrap();
        until(|| seen.requests.borrow().len() == 1).await;
        // Whoever takes the client for one that is gone finds time for that.
        tokio::task::yield_now().await;
        answer.notify_one();
        let mut bytes = Vec::new();
        let read = timeout(SOON, io.read_to_end(&mut bytes)).await;
        read.expect("the connection ends with the answer").unwrap();
        assert_eq!(data(&bytes), (BODY.as_bytes().to_vec(), true));
    });
}

#[test]
fn a_client_that_is_gone_is_not_waited_for() {
    local(async {
        let (gateway, _, gone, seen) = patient().await;
        let mut io = gateway.raw_h2().await;
        io.write_all(&asking(true)).await.unwrap();
        until(|| seen.requests.borrow().len() == 1).await;
        drop(io);
        timeout(SOON, gone.notified()).await.expect("the request ends with its client");
    });
}

#[test]
fn a_client_that_ends_in_the_middle_of_its_request_is_gone() {
    local(async {
        let (gateway, _, gone, seen) = patient().await;
        let mut io = gateway.raw_h2().await;
        io.write_all(&asking(false)).await.unwrap();
        until(|| seen.requests.borrow().len() == 1).await;
        io.shutdown().await.unwrap();
        timeout(SOON, gone.notified()).await.expect("the request ends with its client");
        let mut rest = Vec::new();
        // However it ends, it does.
        let _ended = timeout(SOON, io.read_to_end(&mut rest)).await.expect("an end");
    });
}

#[test]
fn an_idle_client_that_closes_its_own_direction_is_closed() {
    local(async {
        let (gateway, ..) = patient().await;
        let mut io = gateway.raw_h2().await;
        // The preface and settings alone.
        io.write_all(&asking(true)[..33]).await.unwrap();
        io.shutdown().await.unwrap();
        let mut rest = Vec::new();
        timeout(SOON, io.read_to_end(&mut rest)).await.expect("an end").unwrap();
    });
}

const PART: usize = 30_000;

/// Ten requests over HTTP/2, whose responses all break off after `PART` bytes.
async fn broken_off(gateway: &Gateway) {
    let client = gateway.connect_h2().await;
    for _ in 0..10 {
        let mut client = client.clone().ready().await.unwrap();
        let (response, _) = client.send_request(ask("http://a.example/"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut got = 0;
        let error = loop {
            match body.data().await {
                Some(Ok(data)) => {
                    body.flow_control().release_capacity(data.len()).unwrap();
                    got += data.len();
                }
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        assert_eq!(got, PART);
        assert!(error.is_some(), "a part is not taken for the whole");
    }
}

/// The same over HTTP/1: no end, and all that came before.
async fn broken_off_h1(gateway: &Gateway) {
    for _ in 0..3 {
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        let mut all = Vec::new();
        timeout(SOON, client.io.read_to_end(&mut all)).await.expect("an end").unwrap();
        let text = String::from_utf8(all).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body.matches('x').count(), PART);
        assert!(!body.ends_with("0\r\n\r\n"), "a part is not taken for the whole");
    }
}

#[test]
fn what_an_upstream_delivered_before_it_broke_off_reaches_the_client() {
    for field in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        local(async {
            let (addr, _) = upstream(move |mut io, _, _| async move {
                let mut read = Vec::new();
                request(&mut io, &mut read).await.unwrap();
                let chunked = field.starts_with('T');
                let size = if chunked { "ffff\r\n" } else { "" };
                let text = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n{size}{}", "x".repeat(PART));
                io.write_all(text.as_bytes()).await.unwrap();
            })
            .await;
            let gateway = Setup::new().http("a.example", addr).start().await;
            broken_off(&gateway).await;
            broken_off_h1(&gateway).await;
        });
    }
}

#[test]
fn what_an_upstream_of_http2_delivered_before_it_broke_off_reaches_the_client() {
    // The stream's reset, or the end of the connection.
    for reset in [frame(RST_STREAM, 0, 1, &[0, 0, 0, 2]), Vec::new()] {
        local(async {
            let (addr, _) = upstream(move |mut io, _, _| {
                let reset = reset.clone();
                async move {
                    read_request(&mut io, 0).await;
                    // `:status: 200`.
                    let mut answer = frame(HEADERS, END_HEADERS, 1, &[0x88]);
                    for _ in 0..2 {
                        answer.extend(frame(DATA, 0, 1, &[b'x'; PART / 2]));
                    }
                    answer.extend(&reset);
                    io.write_all(&answer).await.unwrap();
                    if !reset.is_empty() {
                        while io.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
                    }
                }
            })
            .await;
            // One request for each connection: the next one has the first stream again.
            let policy = "{connectionPool: {http: {maxRequestsPerConnection: 1}}}";
            let gateway = Setup::new().service("a.example", "HTTP2", Some(addr), policy).start();
            broken_off(&gateway.await).await;
        });
    }
}

/// Requests over both versions whose responses break off behind their head: it reaches the client, and it is not
/// taken for a whole response.
async fn broken_off_behind_the_head(gateway: &Gateway) {
    let client = gateway.connect_h2().await;
    for _ in 0..10 {
        let mut client = client.clone().ready().await.unwrap();
        let (response, _) = client.send_request(ask("http://a.example/"), true).unwrap();
        let response = timeout(SOON, response).await.expect("in time").expect("the head");
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        loop {
            match timeout(SOON, body.data()).await.expect("an end") {
                Some(Ok(data)) => assert!(data.is_empty(), "{data:?}"),
                Some(Err(_)) => break,
                None => panic!("a head is not taken for the whole"),
            }
        }
    }
    let mut client = gateway.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let mut all = String::new();
    timeout(SOON, client.io.read_to_string(&mut all)).await.expect("an end").unwrap();
    assert!(all.starts_with("HTTP/1.1 200 ") && all.ends_with("\r\n\r\n"), "{all}");
    assert!(!all.ends_with("\r\n0\r\n\r\n"), "a head is not taken for the whole: {all}");
}

#[test]
fn the_head_of_a_response_that_broke_off_behind_it_reaches_the_client() {
    for rest in [
        "Content-Length: 100000\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
        "\r\n",
        "\r",
        "Content-Length: 5\r\r\n\r\n",
    ] {
        local(async {
            let (addr, _) = upstream(move |mut io, _, _| async move {
                let mut read = Vec::new();
                request(&mut io, &mut read).await.unwrap();
                io.write_all(format!("HTTP/1.1 200 OK\r\nX: y\r\n{rest}").as_bytes())
                    .await
                    .unwrap();
            })
            .await;
            let gateway = Setup::new().http("a.example", addr).start().await;
            // The twins: a head that is not whole, and one that is broken itself, are not passed on.
            let status = match rest {
                "\r" => 503,
                _ if rest.contains("\r\r") => 502,
                // Its end is the connection's: nothing is missing.
                "\r\n" => 200,
                _ => return broken_off_behind_the_head(&gateway).await,
            };
            let client = gateway.connect_h2().await;
            let (seen, body, _) = get(&client, "http://a.example/").await;
            assert_eq!((seen.as_u16(), body.is_empty()), (status, status == 200), "{rest:?}");
            assert_eq!(gateway.get("a.example").await.status, status, "{rest:?}");
        });
    }
}

#[test]
fn the_head_of_an_http2_response_that_broke_off_behind_it_reaches_the_client() {
    // The stream's reset, or the end of the connection.
    for reset in [frame(RST_STREAM, 0, 1, &[0, 0, 0, 2]), Vec::new()] {
        local(async {
            // `:status: 200`.
            let answer = [frame(HEADERS, END_HEADERS, 1, &[0x88]), reset.clone()].concat();
            let (addr, _) = upstream(move |mut io, _, _| {
                let (answer, reset) = (answer.clone(), reset.clone());
                async move {
                    read_request(&mut io, 0).await;
                    io.write_all(&answer).await.unwrap();
                    if !reset.is_empty() {
                        while io.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
                    }
                }
            })
            .await;
            let policy = "{connectionPool: {http: {maxRequestsPerConnection: 1}}}";
            let setup = Setup::new().service("a.example", "HTTP2", Some(addr), policy);
            broken_off_behind_the_head(&setup.start().await).await;
        });
    }
}

#[test]
fn a_head_of_http2_that_is_broken_itself_is_not_passed_on() {
    // Two statuses, and a field of HTTP/1 alone.
    let fields = [
        &[0x88, 0x88][..],
        &[0x88, 0x00, 10, b'c', b'o', b'n', b'n', b'e', b'c', b't', b'i', b'o', b'n', 1, b'x'],
    ];
    for block in fields {
        local(async {
            let answer = frame(HEADERS, END_HEADERS, 1, block);
            let (addr, _) = upstream(move |mut io, _, _| {
                let answer = answer.clone();
                async move {
                    read_request(&mut io, 0).await;
                    io.write_all(&answer).await.unwrap();
                    while io.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
                }
            })
            .await;
            let policy = "{connectionPool: {http: {maxRequestsPerConnection: 1}}}";
            let setup = Setup::new().service("a.example", "HTTP2", Some(addr), policy);
            let gateway = setup.start().await;
            let client = gateway.connect_h2().await;
            let (status, ..) = get(&client, "http://a.example/").await;
            assert_eq!(status, 502);
            assert_eq!(gateway.get("a.example").await.status, 502);
            for line in gateway.log(2).await {
                assert_eq!(line["response_flags"], "UPE", "{line}");
            }
        });
    }
}

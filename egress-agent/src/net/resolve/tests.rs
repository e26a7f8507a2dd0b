use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::net::UdpSocket;

use super::*;

const A: u16 = 1;

/// A DNS server that knows one name, and counts the questions about it.
async fn server(ttl: u32) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (len, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let answer = answer(&buffer[..len], ttl, &count);
            socket.send_to(&answer, peer).await.unwrap();
        }
    });
    (addr, asked)
}

/// RFC 1035 §4.1, by hand: the header, the question as it came, and one A record for `known.test`.
fn answer(query: &[u8], ttl: u32, asked: &AtomicUsize) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|b| *b == 0).unwrap() + 1;
    let question = &query[12..end + 4];
    let kind = u16::from_be_bytes([query[end], query[end + 1]]);
    let name = query[12..end].to_ascii_lowercase();
    let known = name == b"\x05known\x04test\0";
    let has = known && kind == A;
    if has {
        asked.fetch_add(1, Ordering::Relaxed);
    }
    let code = match &name[..] {
        _ if known => 0,
        b"\x06broken\x04test\0" => 2,
        _ => 3,
    };
    let mut out = query[..2].to_vec();
    out.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(has), 0, 0, 0, 0]);
    out.extend(question);
    if has {
        out.extend([0xc0, 12, 0, 1, 0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend([0, 4, 198, 51, 100, 7]);
    }
    out
}

#[tokio::test]
async fn a_name_is_asked_once_while_its_answer_lives() {
    let (addr, asked) = server(60).await;
    let resolver = Resolver::new(ResolverSource::Server(addr)).unwrap();
    let one = || async { resolver.resolve("known.test").await };
    let (first, second) = tokio::join!(one(), one());
    let expected: [IpAddr; 1] = [Ipv4Addr::new(198, 51, 100, 7).into()];
    assert_eq!(first.unwrap()[..], expected);
    assert_eq!(second.unwrap()[..], expected);
    assert_eq!(one().await.unwrap()[..], expected);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let alive = |resolver: &Resolver| {
        let cache = resolver.cache.lock().unwrap();
        let answer = cache["known.test"].get().cloned().unwrap();
        answer.valid_until.saturating_duration_since(Instant::now())
    };
    assert!(alive(&resolver) > Duration::from_secs(50));
    // A TTL of zero lives a second, a long one five minutes.
    for (ttl, from, to) in [(0, 0, 1), (86_400, 290, 300)] {
        let resolver = Resolver::new(ResolverSource::Server(server(ttl).await.0)).unwrap();
        resolver.resolve("known.test").await.unwrap();
        let life = alive(&resolver).as_secs_f64();
        assert!((f64::from(from)..=f64::from(to)).contains(&life), "{ttl}: {life}");
    }
}

#[tokio::test]
async fn what_has_no_address_says_why() {
    let (addr, _) = server(60).await;
    let resolver = Resolver::new(ResolverSource::Server(addr)).unwrap();
    assert_eq!(resolver.resolve("unknown.test").await, Err(ResolveError::NoSuchName));
    let broken = resolver.resolve("broken.test").await.unwrap_err();
    assert!(
        matches!(&broken, ResolveError::Server(code) if code.contains("Server Failure")),
        "{broken:?}"
    );
}

#[test]
fn a_server_is_an_address_with_or_without_port() {
    let server = |text: &str| text.parse::<ResolverSource>();
    assert_eq!(server("192.0.2.53"), Ok(ResolverSource::Server(([192, 0, 2, 53], 53).into())));
    assert_eq!(
        server("192.0.2.53:5353"),
        Ok(ResolverSource::Server(([192, 0, 2, 53], 5353).into()))
    );
    assert!(server("[2001:db8::53]:5353").is_ok());
    assert!(server("2001:db8::53").is_ok());
    for text in ["", "dns.example", "192.0.2.53:", "192.0.2.53:99999"] {
        assert!(server(text).unwrap_err().contains("expected"), "{text}");
    }
}

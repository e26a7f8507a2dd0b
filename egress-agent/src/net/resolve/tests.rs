use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU8, AtomicUsize},
};

use tokio::net::UdpSocket;

use super::*;

const A: u16 = 1;
const OPT: u8 = 41;
/// Long for a resolver, short for a test that fails.
const LONG: Duration = Duration::from_secs(30);

/// A DNS server on loopback that knows `known.test` and names below it by one IPv4 address. It never
/// answers about names below `dead.test`, nor for IPv6 addresses of names below `v4.known.test`.
struct Server {
    addr: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Questions for IPv4 addresses of `known.test`.
    asked: AtomicUsize,
    /// All questions.
    questions: AtomicUsize,
    /// Names that were asked for, as they are in a question.
    names: Mutex<Vec<Vec<u8>>>,
    /// The bytes that each question's sender takes in one answer over UDP (RFC 6891 §6.2.3); none without an OPT
    /// record.
    takes: Mutex<Vec<Option<u16>>>,
    dead: AtomicBool,
    /// The last byte of the address.
    last: AtomicU8,
}

async fn server(ttl: u32) -> Server {
    server_at("127.0.0.1:0", ttl, 7).await
}

async fn server_at(at: &str, ttl: u32, last: u8) -> Server {
    let socket = UdpSocket::bind(at).await.unwrap();
    let addr = socket.local_addr().unwrap();
    let state = Arc::new(State { last: last.into(), ..State::default() });
    let its = Arc::clone(&state);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (len, peer) = socket.recv_from(&mut buffer).await.unwrap();
            if let Some(answer) = its.answer(&buffer[..len], ttl) {
                socket.send_to(&answer, peer).await.unwrap();
            }
        }
    });
    Server { addr, state }
}

impl State {
    /// RFC 1035 §4.1, by hand: the header, the question as it came, and at most one A record.
    fn answer(&self, query: &[u8], ttl: u32) -> Option<Vec<u8>> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        let end = 12 + query[12..].iter().position(|b| *b == 0).unwrap() + 1;
        let question = &query[12..end + 4];
        let kind = u16::from_be_bytes([query[end], query[end + 1]]);
        self.takes.lock().unwrap().push(match query[end + 4..] {
            // The root's name, the type, and the size in the place of a class.
            [0, 0, OPT, high, low, ..] => Some(u16::from_be_bytes([high, low])),
            _ => None,
        });
        let name = query[12..end].to_ascii_lowercase();
        self.names.lock().unwrap().push(name.clone());
        let known = name.ends_with(b"\x05known\x04test\0");
        if self.dead.load(Ordering::Relaxed)
            || name.ends_with(b"\x04dead\x04test\0")
            || (kind != A && name.ends_with(b"\x02v4\x05known\x04test\0"))
        {
            return None;
        }
        let has = known && kind == A;
        if has {
            self.asked.fetch_add(1, Ordering::Relaxed);
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
            out.extend([0, 4, 198, 51, 100, self.last.load(Ordering::Relaxed)]);
        }
        Some(out)
    }
}

impl Server {
    fn resolver(&self) -> Arc<Resolver> {
        let source = ResolverSource::Server(self.addr);
        Arc::new(Resolver::new(source, LookupLimits::default()).unwrap())
    }

    fn asked(&self) -> usize {
        self.state.asked.load(Ordering::Relaxed)
    }
}

fn workload(name: &str) -> ShareOwner {
    ShareOwner::Workload { namespace: "default".into(), name: name.into() }
}

async fn resolve(
    resolver: &Resolver,
    owner: &ShareOwner,
    name: &str,
) -> Result<Arc<[IpAddr]>, ResolveError> {
    let question = DnsQuestion { owner, name, within: LONG };
    timeout(LONG, resolver.resolve(question)).await.expect("an answer")
}

fn address(last: u8) -> Vec<IpAddr> {
    vec![Ipv4Addr::new(198, 51, 100, last).into()]
}

#[tokio::test]
async fn a_name_is_asked_once_while_its_answer_lives() {
    let server = server(60).await;
    let resolver = server.resolver();
    let (web, other) = (workload("web"), workload("other"));
    let (first, second) = tokio::join!(
        resolve(&resolver, &web, "known.test"),
        resolve(&resolver, &other, "known.test")
    );
    assert_eq!(first.unwrap()[..], address(7));
    assert_eq!(second.unwrap()[..], address(7));
    assert_eq!(resolve(&resolver, &web, "known.test").await.unwrap()[..], address(7));
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn every_question_has_edns() {
    // A server that is named, and those of a file that does not ask for it.
    let server = server_at("127.77.53.3:53", 60, 7).await;
    let dir = tempfile::tempdir().unwrap();
    let files =
        Files { resolv_conf: dir.path().join("resolv.conf"), hosts: dir.path().join("hosts") };
    fs::write(&files.resolv_conf, format!("nameserver {}\n", server.addr.ip())).unwrap();
    let limits = LookupLimits::default;
    let followed = Resolver::with_files(ResolverSource::System, files, limits()).unwrap();
    let web = workload("web");
    for resolver in [&followed, &*server.resolver()] {
        let before = server.state.takes.lock().unwrap().len();
        for name in ["known.test", "unknown.test", "broken.test"] {
            // Whatever the answer is, the question was asked.
            let _answer = resolve(resolver, &web, name).await;
        }
        let takes = server.state.takes.lock().unwrap()[before..].to_vec();
        assert!(takes.len() >= 6, "both families of each name: {takes:?}");
        // More than the 512 bytes that any server may send, and no more than fits a packet of every path.
        assert!(takes.iter().all(|takes| matches!(takes, Some(1200..=1232))), "{takes:?}");
    }
}

/// A name as it is in a question.
fn wire(name: &str) -> Vec<u8> {
    let labels = name
        .split('.')
        .map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
    [labels.collect::<Vec<_>>().concat(), vec![0]].concat()
}

#[tokio::test]
async fn search_domains_and_ndots_do_not_apply() {
    let server = server_at("127.77.53.4:53", 60, 7).await;
    let web = workload("web");
    for lines in [
        "search known.test",
        "domain known.test",
        "search known.test\noptions ndots:15",
        "search .",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let files =
            Files { resolv_conf: dir.path().join("resolv.conf"), hosts: dir.path().join("hosts") };
        fs::write(&files.resolv_conf, format!("nameserver {}\n{lines}\n", server.addr.ip()))
            .unwrap();
        let resolver =
            Resolver::with_files(ResolverSource::System, files, LookupLimits::default()).unwrap();
        // Fewer dots and more dots than any search list asks for, with an answer and without.
        let names = [
            ("a", false),
            ("a.b", false),
            ("a.b.c.d.e.f.g.h", false),
            ("known.test", true),
            ("a.known.test", true),
        ];
        for (name, exists) in names {
            let answer = resolve(&resolver, &web, name).await;
            let expected =
                if exists { Ok(address(7).into()) } else { Err(ResolveError::NoSuchName) };
            assert_eq!(answer, expected, "{lines}: {name}");
            let asked = server.state.names.lock().unwrap().clone();
            assert!(asked.contains(&wire(name)), "{lines}: {name}");
            let written = |asked: &Vec<u8>| names.iter().any(|(name, _)| *asked == wire(name));
            assert!(asked.iter().all(written), "{lines}: {name}: {asked:?}");
        }
    }
}

#[tokio::test]
async fn what_has_no_address_says_why() {
    let server = server(60).await;
    let resolver = server.resolver();
    let web = workload("web");
    let unknown = resolve(&resolver, &web, "unknown.test").await;
    assert_eq!(unknown, Err(ResolveError::NoSuchName));
    let broken = resolve(&resolver, &web, "broken.test").await.unwrap_err();
    assert!(
        matches!(&broken, ResolveError::Server(code) if code.contains("Server Failure")),
        "{broken:?}"
    );
}

#[tokio::test]
async fn dead_names_of_one_delay_no_other() {
    let server = server(60).await;
    let resolver = server.resolver();
    let (ended, flood) = (Arc::new(AtomicUsize::new(0)), 5000);
    let mut refused = 0;
    let mut tasks = Vec::new();
    for number in 0..flood {
        let (resolver, ended) = (Arc::clone(&resolver), Arc::clone(&ended));
        tasks.push(tokio::spawn(async move {
            let name = format!("{number}.dead.test");
            let answer = resolve(&resolver, &workload("flood"), &name).await;
            ended.fetch_add(1, Ordering::Relaxed);
            answer
        }));
    }
    // What is beyond its share is refused at once.
    while ended.load(Ordering::Relaxed) < flood - 600 {
        tokio::task::yield_now().await;
    }
    // The other's names are all answered while the dead ones wait.
    for number in 0..100 {
        let name = format!("{number}.known.test");
        assert_eq!(resolve(&resolver, &workload("good"), &name).await.unwrap()[..], address(7));
    }
    for task in &mut tasks {
        if task.is_finished() {
            refused += usize::from(task.await.unwrap() == Err(ResolveError::Overflow));
        } else {
            task.abort();
        }
    }
    assert!(refused >= flood - 600 && refused < flood, "{refused}");
}

#[tokio::test]
async fn ipv4_addresses_are_used_where_ipv6_is_never_answered() {
    let server = server(60).await;
    let resolver = server.resolver();
    let web = workload("web");
    // Many in a row: the time of one that waits for the end of both would not do.
    let answers = async {
        for number in 0..20 {
            let name = format!("{number}.v4.known.test");
            assert_eq!(resolve(&resolver, &web, &name).await.unwrap()[..], address(7));
        }
    };
    timeout(LONG, answers).await.expect("not the time-outs of twenty questions");
}

#[tokio::test]
async fn the_last_good_answer_is_served_over_an_outage() {
    let server = server(0).await;
    let resolver = server.resolver();
    let web = workload("web");
    assert_eq!(resolve(&resolver, &web, "known.test").await.unwrap()[..], address(7));
    server.state.dead.store(true, Ordering::Relaxed);
    let before = server.state.questions.load(Ordering::Relaxed);
    // Beyond the first questions without an answer, so after the answer's life.
    while server.state.questions.load(Ordering::Relaxed) < before + 4 {
        assert_eq!(resolve(&resolver, &web, "known.test").await.unwrap()[..], address(7));
        tokio::task::yield_now().await;
    }
    // A name without an answer fails.
    let dead = resolve(&resolver, &web, "a.known.test").await;
    assert!(dead.is_err_and(|why| !why.is_about_the_name()));
    // It is back, with another address.
    server.state.last.store(8, Ordering::Relaxed);
    server.state.dead.store(false, Ordering::Relaxed);
    while resolve(&resolver, &web, "known.test").await.unwrap()[..] != address(8) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn resolv_conf_is_followed() {
    let one = server_at("127.77.53.1:53", 60, 1).await;
    let two = server_at("127.77.53.2:53", 60, 2).await;
    let dir = tempfile::tempdir().unwrap();
    let files =
        Files { resolv_conf: dir.path().join("resolv.conf"), hosts: dir.path().join("hosts") };
    let say = |text: &str| {
        // Replaced as a whole, as those who write it do.
        fs::write(dir.path().join("new"), text).unwrap();
        fs::rename(dir.path().join("new"), &files.resolv_conf).unwrap();
    };
    let missing =
        Resolver::with_files(ResolverSource::System, files.clone(), LookupLimits::default())
            .unwrap_err();
    assert!(missing.to_string().contains("expected `nameserver` lines"), "{missing}");
    say(&format!("nameserver {}\n", one.addr.ip()));
    let resolver =
        Resolver::with_files(ResolverSource::System, files.clone(), LookupLimits::default())
            .unwrap();
    let web = workload("web");
    assert_eq!(resolve(&resolver, &web, "a.known.test").await.unwrap()[..], address(1));
    // What can't be used changes nothing.
    say("nothing\n");
    let before = Instant::now();
    let mut number = 0;
    let mut cold = async || {
        number += 1;
        resolve(&resolver, &web, &format!("{number}.known.test")).await.unwrap()[..].to_vec()
    };
    while before.elapsed() < Duration::from_millis(1500) {
        assert_eq!(cold().await, address(1));
    }
    say(&format!("nameserver {}\n", two.addr.ip()));
    while cold().await != address(2) {
        tokio::task::yield_now().await;
    }
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

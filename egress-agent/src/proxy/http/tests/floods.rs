//! Clients that are slow, or that flood: meanwhile each request of another client is answered, what they make the
//! gateway keep is bounded, and once they are gone the memory is as before. docs/performance.md has the table.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use super::{
    frames::{PREFACE, frame},
    harness::{Setup, local, until},
};
use crate::{proxy::Limits, sys::allocations::Allocations, telemetry::Resource};

/// Requests of the well-behaved client during each attack.
const REQUESTS: usize = 25;
/// What an attack does so often before it counts as one.
const MANY: usize = 200;
/// Connections of an attack that keeps them.
const KEPT: usize = 20;
/// What the gateway may hold meanwhile beyond what it held before, in bytes: the limits below, and what
/// [`KEPT`] connections have of their own.
const MEANWHILE: i64 = 24 << 20;
/// What it may hold afterwards: places and buffers that a worker keeps for the next requests.
const AFTERWARDS: i64 = 1 << 20;

/// Body of what is asked for at `/large`.
const LARGE: u64 = 16 << 20;

/// How an attack goes, until it is to stop; it counts what it does.
type Run = fn(SocketAddr, &AtomicBool, &AtomicUsize);

/// Every attack, and what the documentation says that bounds it.
const ATTACKS: [(&str, &str, Run); 13] = [
    ("slow head", "the deadline of a head; connections of a source", slow_head),
    ("slow body", "requests and connections of a source", slow_body),
    ("slow read", "nothing is read ahead for a reader that has stopped", slow_read),
    ("connection flood", "connections of a source", connections),
    ("rapid reset", "`20` resets before a request is accepted end the connection", rapid_reset),
    ("made-you-reset", "the library's bound of its own resets", made_you_reset),
    ("CONTINUATION flood", "a head counts for its source, and is bounded", continuation),
    ("SETTINGS flood", "answers that are not read stop the reading", settings),
    ("PING flood", "answers that are not read stop the reading", ping),
    ("empty frames", "they are taken out as they come", empty_frames),
    ("HPACK bomb", "a head is bounded by its decoded length", hpack_bomb),
    ("zero window", "nothing is read from an upstream for a closed window", zero_window),
    (
        "open window without reading",
        "bytes that wait to be written, of a connection and in all",
        unread,
    ),
];

/// Another source than the well-behaved client's.
fn connect(addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    socket.connect(&addr.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    stream
}

/// Says it whole; `false` where the gateway has ended the connection or does not read any more.
fn says(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

/// A little at a time on kept connections, which are opened again where they end.
fn dribble(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize, begin: &str) {
    let open = || {
        let mut stream = connect(addr);
        says(&mut stream, begin.as_bytes());
        stream
    };
    let mut streams: Vec<_> = (0..KEPT).map(|_| open()).collect();
    while !stop.load(Relaxed) {
        for stream in &mut streams {
            if !says(stream, b"x") {
                *stream = open();
            }
            done.fetch_add(1, Relaxed);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn slow_head(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) {
    dribble(addr, stop, done, "GET / HTTP/1.1\r\nHost: a.example\r\nx: ");
}

fn slow_body(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) {
    let begin = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\n";
    dribble(addr, stop, done, begin);
}

fn slow_read(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) {
    let mut streams: Vec<_> = (0..KEPT).map(|_| connect(addr)).collect();
    for stream in &mut streams {
        says(stream, b"GET /large HTTP/1.1\r\nHost: a.example\r\n\r\n");
    }
    while !stop.load(Relaxed) {
        for stream in &mut streams {
            done.fetch_add(stream.read(&mut [0; 16]).unwrap_or(0).min(1), Relaxed);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn connections(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) {
    let mut streams = Vec::new();
    while !stop.load(Relaxed) {
        streams.push(connect(addr));
        if streams.len() > 10 * KEPT {
            streams.drain(..KEPT);
        }
        done.fetch_add(1, Relaxed);
        thread::sleep(Duration::from_micros(200));
    }
}

/// The head of a request, as HPACK writes it without a table: method 2 is GET, 3 is POST.
fn head(method: u8, path: &str) -> Vec<u8> {
    let mut head = vec![0x80 | method, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    head.extend(path.as_bytes());
    head.extend([0x01, 9]);
    head.extend(b"a.example");
    head
}

/// A connection whose streams have this window.
fn http2(addr: SocketAddr, window: u32) -> TcpStream {
    let mut stream = connect(addr);
    let mut begin = PREFACE.to_vec();
    let setting = [&[0, 4][..], &window.to_be_bytes()].concat();
    begin.extend(frame(4, 0, 0, &setting));
    begin.extend(frame(8, 0, 0, &(0x7fff_ffff_u32 - 65_535).to_be_bytes()));
    says(&mut stream, &begin);
    stream
}

/// Says `begin`, then what `next` makes of a number, without reading; anew where the gateway ends it. Where it has
/// stopped to read, that is waited for.
fn flood(
    (addr, stop, done): (SocketAddr, &AtomicBool, &AtomicUsize),
    begin: &[u8],
    next: impl Fn(u32) -> Vec<u8>,
) {
    let mut stalled = Vec::new();
    while !stop.load(Relaxed) {
        let mut stream = http2(addr, 65_535);
        says(&mut stream, begin);
        let mut number = 0;
        while !stop.load(Relaxed) {
            let error = stream.write_all(&next(number)).err();
            done.fetch_add(1, Relaxed);
            number += 1;
            match error.map(|error| error.kind()) {
                None => {}
                Some(std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    stalled.push(stream);
                    break;
                }
                Some(_) => break,
            }
        }
        if stalled.len() > KEPT {
            stalled.remove(0);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn rapid_reset(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) {
    flood((addr, stop, done), b"", |number| {
        let stream = 2 * number + 1;
        let cancel = 8_u32.to_be_bytes();
        [frame(1, 5, stream, &head(2, "/")), frame(3, 0, stream, &cancel)].concat()
    });
}

fn made_you_reset(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) {
    flood((addr, stop, done), b"", |number| {
        let stream = 2 * number + 1;
        // No increment is an error of the stream (RFC 9113 §6.9).
        [frame(1, 5, stream, &head(2, "/")), frame(8, 0, stream, &[0; 4])].concat()
    });
}

fn continuation(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) {
    let begin = frame(1, 0, 1, &head(2, "/"));
    // A header of 1000 bytes, again and again.
    let mut header = vec![0x00, 1, b'x', 0x7f, 0xe9, 0x06];
    header.extend([b'y'; 1000]);
    flood((addr, stop, done), &begin, |_| frame(9, 0, 1, &header));
}

fn settings(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) {
    flood((addr, stop, done), b"", |_| frame(4, 0, 0, &[]).repeat(64));
}

fn ping(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) {
    flood((addr, stop, done), b"", |_| frame(6, 0, 0, &[0; 8]).repeat(64));
}

fn empty_frames(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) {
    let begin = frame(1, 4, 1, &head(3, "/"));
    flood((addr, stop, done), &begin, |_| frame(0, 0, 1, &[]).repeat(64));
}

fn hpack_bomb(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) {
    flood((addr, stop, done), b"", |number| {
        let mut block = head(2, "/");
        // A header of 3000 bytes goes into the table, and is referred to ten thousand times.
        block.extend([0x40, 1, b'x', 0x7f, 0xb9, 0x16]);
        block.extend([b'y'; 3000]);
        block.extend([0xbe; 10_000]);
        frame(1, 5, 2 * number + 1, &block)
    });
}

/// Many streams for the large body on connections that nobody reads.
fn large(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize, window: u32) {
    let mut streams: Vec<_> = (0..KEPT).map(|_| http2(addr, window)).collect();
    for number in 0..10 {
        for stream in &mut streams {
            says(stream, &frame(1, 5, 2 * number + 1, &head(2, "/large")));
            done.fetch_add(1, Relaxed);
        }
    }
    while !stop.load(Relaxed) {
        thread::sleep(Duration::from_millis(5));
    }
}

fn zero_window(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) {
    large(addr, stop, done, 0);
}

fn unread(addr: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) {
    large(addr, stop, done, 0x7fff_ffff);
}

/// An upstream on threads of its own, whose memory does not count as the gateway's.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for io in listener.incoming() {
            let mut io = io.unwrap();
            thread::spawn(move || {
                let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
                loop {
                    match io.read(&mut buffer) {
                        Ok(0) | Err(_) => return,
                        Ok(length) => read.extend_from_slice(&buffer[..length]),
                    }
                    while let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
                        let request: Vec<u8> = read.drain(..end + 4).collect();
                        let is_large = request.windows(6).any(|part| part == b"/large");
                        let body = if is_large { LARGE } else { 5 };
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n");
                        let sent = io.write_all(head.as_bytes());
                        let body = std::io::copy(&mut std::io::repeat(b'x').take(body), &mut io);
                        if sent.is_err() || body.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    addr
}

/// The bytes that the gateway held at most during the attack, and afterwards, beyond those before.
fn attacked(name: &str, run: Run) -> (i64, i64) {
    local(async {
        let mut setup = Setup::new().http("a.example", upstream());
        setup.logged = false;
        setup.limits = Limits {
            connections: 1000,
            connections_per_source: 100,
            request_bytes: 4 << 20,
            request_bytes_per_source: 2 << 20,
            queued_bytes: 4 << 20,
            ..setup.limits
        };
        let gateway = setup.start().await;
        let connections = || gateway.worker.telemetry.stats.limits().used(Resource::Connections);
        for _ in 0..REQUESTS {
            assert_eq!(gateway.get("a.example").await.status, 200);
        }
        until(|| connections() == 0).await;
        let before = Allocations::here();
        let held = || (Allocations::here() - before).held;
        let http2 = name.contains("flood") && name != "connection flood"
            || ["reset", "frames", "HPACK", "window"].iter().any(|part| name.contains(part));
        let addr = if http2 { gateway.h2 } else { gateway.h1 };
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let attack = {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            thread::spawn(move || run(addr, &stop, &done))
        };
        let (mut most, mut answered) = (0, 0);
        // As long as the attack, and then some.
        while answered < REQUESTS || done.load(Relaxed) < MANY {
            let answer = gateway.get("a.example").await;
            assert_eq!((answer.status, answer.text()), (200, "xxxxx"), "{name}");
            answered += 1;
            most = most.max(held());
        }
        stop.store(true, Relaxed);
        until(|| attack.is_finished()).await;
        attack.join().unwrap();
        until(|| connections() == 0).await;
        until(|| held() <= AFTERWARDS).await;
        assert_eq!(gateway.get("a.example").await.status, 200, "{name}");
        (most, held())
    })
}

#[test]
fn who_is_slow_or_floods_takes_neither_answers_nor_memory_from_others() {
    let documented = include_str!("../../../../../docs/performance.md");
    for (name, bound, run) in ATTACKS {
        let (most, after) = attacked(name, run);
        println!("{name}: {} kB at most meanwhile, {} kB afterwards", most / 1000, after / 1000);
        assert!(most <= MEANWHILE, "{name}: {most}");
        let row = format!("| {name} | {bound} |\n");
        assert!(documented.contains(&row), "docs/performance.md lacks {row}");
    }
}

use std::{
    io::{Read as _, Write as _},
    rc::Rc,
    thread,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, LocalSet, spawn_local},
};

use super::*;
use crate::sys::allocations::Allocations;

/// Two connected sockets.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

#[derive(Debug, Default)]
struct Counts {
    down: Cell<usize>,
    up: Cell<usize>,
}

impl Meter for Counts {
    fn add(&self, from: Peer, bytes: usize) {
        let cell = match from {
            Peer::Downstream => &self.down,
            Peer::Upstream => &self.up,
        };
        cell.set(cell.get() + bytes);
    }
}

/// A running relay between `client` and `server`.
struct Relay {
    client: TcpStream,
    server: TcpStream,
    buffers: Rc<Buffers>,
    counts: Rc<Counts>,
    task: JoinHandle<RelayOutcome>,
}

const LONG: Duration = Duration::from_secs(60);

async fn start(early: &[u8], idle: Duration) -> Relay {
    let ((client, mut down), (mut up, server)) = (pair().await, pair().await);
    let buffers = Rc::new(Buffers::default());
    let counts = Rc::new(Counts::default());
    let (shared, meter, early) = (Rc::clone(&buffers), Rc::clone(&counts), early.to_vec());
    let task =
        spawn_local(
            async move { relay(&shared, &mut down, &mut up, early, Some(idle), &*meter).await },
        );
    Relay { client, server, buffers, counts, task }
}

/// Runs a test whose tasks aren't `Send`.
fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(test))
}

#[test]
fn early_bytes_go_first_and_both_directions_flow() {
    local(async {
        let mut r = start(b"hello, ", LONG).await;
        r.client.write_all(b"server").await.unwrap();
        let mut text = [0; 13];
        r.server.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello, server");
        r.server.write_all(b"hi").await.unwrap();
        let mut text = [0; 2];
        r.client.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hi");
        drop(r.client);
        drop(r.server);
        assert!(matches!(r.task.await.unwrap(), RelayOutcome::Closed));
        assert_eq!((r.counts.down.get(), r.counts.up.get()), (13, 2));
    });
}

#[test]
fn a_half_closed_side_still_receives() {
    local(async {
        let mut r = start(b"", LONG).await;
        r.client.write_all(b"request").await.unwrap();
        r.client.shutdown().await.unwrap();
        let mut text = String::new();
        r.server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "request");
        r.server.write_all(b"answer").await.unwrap();
        r.server.shutdown().await.unwrap();
        let mut text = String::new();
        r.client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
        assert!(matches!(r.task.await.unwrap(), RelayOutcome::Closed));
    });
}

#[test]
fn the_server_may_close_first_too() {
    local(async {
        let mut r = start(b"", LONG).await;
        r.server.shutdown().await.unwrap();
        let mut text = String::new();
        r.client.read_to_string(&mut text).await.unwrap();
        r.client.write_all(b"still here").await.unwrap();
        r.client.shutdown().await.unwrap();
        r.server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "still here");
        assert!(matches!(r.task.await.unwrap(), RelayOutcome::Closed));
    });
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    local(async {
        let mut r = start(b"", LONG).await;
        r.server.write_all(b"half of it").await.unwrap();
        let mut text = [0; 10];
        r.client.read_exact(&mut text).await.unwrap();
        r.server.set_zero_linger().unwrap();
        drop(r.server);
        let error = r.client.read(&mut text).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(matches!(r.task.await.unwrap(), RelayOutcome::Reset(Peer::Upstream, _)));

        let mut r = start(b"", LONG).await;
        r.client.write_all(b"x").await.unwrap();
        r.server.read_exact(&mut text[..1]).await.unwrap();
        r.client.set_zero_linger().unwrap();
        drop(r.client);
        let error = r.server.read(&mut text).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(matches!(r.task.await.unwrap(), RelayOutcome::Reset(Peer::Downstream, _)));
    });
}

#[test]
fn an_idle_connection_ends_in_a_reset_and_a_busy_one_lives() {
    local(async {
        let mut r = start(b"", Duration::from_millis(900)).await;
        let mut byte = [0];
        // Each byte comes well before the deadline; together they take longer than it.
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            r.client.write_all(b"x").await.unwrap();
            r.server.read_exact(&mut byte).await.unwrap();
        }
        assert!(!r.task.is_finished());
        let error = r.client.read(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(matches!(r.task.await.unwrap(), RelayOutcome::Idle));
    });
}

/// Bytes that show when a piece is lost, doubled or moved.
fn pattern(len: usize) -> Vec<u8> {
    (0..len / 4 + 1).flat_map(|i| u32::try_from(i).unwrap().to_be_bytes()).take(len).collect()
}

#[test]
fn bulk_is_spliced_whole_and_pipes_come_back() {
    local(async {
        let r = start(b"", LONG).await;
        let sent = pattern(24 << 20);
        let (mut server, mut client, expected) = (r.server, r.client, sent.clone());
        let writer = spawn_local(async move {
            server.write_all(&sent).await.unwrap();
            // A pause: the connection is idle, and must hold no pipe.
            server
        });
        let mut received = vec![0; expected.len()];
        let mut spliced = false;
        for part in received.chunks_mut(1 << 20) {
            client.read_exact(part).await.unwrap();
            spliced |= r.buffers.pipes_lent() > 0;
        }
        assert!(received == expected, "bytes differ");
        assert!(spliced, "bulk was not spliced");
        let mut server = writer.await.unwrap();
        // A round trip: the relay has polled both directions since.
        client.write_all(b"?").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        assert_eq!(r.buffers.pipes_lent(), 0, "an idle connection holds a pipe");
        server.write_all(b"tail").await.unwrap();
        drop(server);
        let mut tail = String::new();
        client.read_to_string(&mut tail).await.unwrap();
        assert_eq!(tail, "tail");
        drop(client);
        assert!(matches!(r.task.await.unwrap(), RelayOutcome::Closed));
        assert_eq!(r.counts.up.get(), expected.len() + 4);
    });
}

#[test]
fn bulk_that_breaks_is_a_reset_and_frees_its_pipe() {
    local(async {
        let r = start(b"", LONG).await;
        let (mut server, mut client) = (r.server, r.client);
        let writer = spawn_local(async move {
            let data = pattern(48 << 20);
            // The client stops reading, so this never finishes.
            tokio::select! {
                _ = server.write_all(&data) => panic!("the client took it all"),
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            server.set_zero_linger().unwrap();
        });
        let mut part = vec![0; 64 * 1024];
        client.read_exact(&mut part).await.unwrap();
        writer.await.unwrap();
        // What is under way may still arrive; then it must be an error, never an end.
        let error = loop {
            match client.read(&mut part).await {
                Ok(0) => panic!("a broken download looks whole"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(matches!(r.task.await.unwrap(), RelayOutcome::Reset(Peer::Upstream, _)));
        assert_eq!(r.buffers.pipes_lent(), 0);
        assert!(r.buffers.pool.borrow().iter().all(Pipe::is_empty));
    });
}

impl RelayIo for DuplexStream {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }

    fn reset(&self) {}

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

#[test]
fn sides_without_a_socket_are_copied_under_backpressure() {
    local(async {
        let (mut client, mut down) = duplex(64);
        let (mut up, server) = pair().await;
        let sent = pattern(3 << 20);
        let expected = sent.clone();
        let task = spawn_local(async move {
            let (buffers, counts) = (Buffers::default(), Counts::default());
            relay(&buffers, &mut down, &mut up, Vec::new(), Some(LONG), &counts).await
        });
        let writer = spawn_local(async move {
            let mut server = server;
            server.write_all(&sent).await.unwrap();
        });
        let mut received = vec![0; expected.len()];
        client.read_exact(&mut received).await.unwrap();
        assert!(received == expected, "bytes differ");
        writer.await.unwrap();
        drop(client);
        assert!(matches!(task.await.unwrap(), RelayOutcome::Closed));
    });
}

#[test]
fn an_idle_relay_is_small() {
    let (buffers, counts) = (Buffers::default(), Counts::default());
    let future = |down: &mut TcpStream, up: &mut TcpStream| {
        size_of_val(&relay(&buffers, down, up, Vec::new(), Some(LONG), &counts))
    };
    local(async {
        let (mut down, mut up) = pair().await;
        let size = future(&mut down, &mut up);
        assert!(size <= 400, "{size} bytes a connection");
    });
}

/// Moves bytes through a relay, with both ends on threads of their own: `count` writes of `size` bytes, each
/// answered by a byte. What the relay's thread asks the allocator for meanwhile.
async fn cost(size: usize, count: usize) -> Allocations {
    let buffers = Buffers::default();
    let counts = Counts::default();
    let ((client, mut down), (mut up, server)) = (pair().await, pair().await);
    let ends = [client, server].map(|end| {
        let end = end.into_std().unwrap();
        end.set_nonblocking(false).unwrap();
        end
    });
    let [mut client, mut server] = ends;
    thread::spawn(move || {
        let mut read = vec![0; size];
        while server.read_exact(&mut read).is_ok() && server.write_all(b"!").is_ok() {}
    });
    let (told, warm) = oneshot::channel();
    thread::spawn(move || {
        let (data, mut answer) = (vec![b'x'; size], [0]);
        let mut told = Some(told);
        for number in 0..2 * count {
            if number == count {
                told.take().unwrap().send(()).unwrap();
            }
            client.write_all(&data).unwrap();
            client.read_exact(&mut answer).unwrap();
        }
    });
    let before = Cell::new(None);
    let relaying = relay(&buffers, &mut down, &mut up, Vec::new(), Some(LONG), &counts);
    let warm = async {
        warm.await.unwrap();
        before.set(Some(Allocations::here()));
    };
    let (end, ()) = tokio::join!(relaying, warm);
    assert!(matches!(end, RelayOutcome::Closed), "{end:?}");
    Allocations::here() - before.get().unwrap()
}

#[test]
fn a_relayed_piece_asks_for_no_memory() {
    for (size, count) in [(100, 1000), (20_000, 200)] {
        let cost = local(cost(size, count));
        println!("{count} pieces of {size} bytes: {cost:?}");
        // What a side that is slow for a moment did not take at once is kept.
        let slow = if size > 1000 { 8 } else { 0 };
        assert!(cost.made + cost.resized <= slow, "{size}: {cost:?}");
    }
}

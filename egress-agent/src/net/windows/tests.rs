use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client, server};
use http::{Request, Response};
use tokio::{
    io::{DuplexStream, duplex},
    time::timeout,
};

use super::*;

const MIB: usize = 1 << 20;
const KIB: usize = 1024;
/// Longer than anything here takes; for what would hang otherwise.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn windows_shrink_as_more_is_held() {
    let most = 1024 * 1024;
    let steps = [0, 8, 16, 24, 1000].map(|held| stream_window(most, held * MIB, 32 * MIB));
    assert_eq!(steps, [1024, 256, 64, 16, 16].map(|kib| kib * 1024));
    assert_eq!(stream_window(1000, 100 * MIB, MIB), 1000, "never more than asked for");
    assert_eq!(stream_window(most, 1, 0), LEAST_WINDOW);
}

/// Both ends of a connection with one stream, on which the server sends.
struct Ends {
    client: client::Connection<DuplexStream, Bytes>,
    server: server::Connection<DuplexStream, Bytes>,
    send: SendStream<Bytes>,
    receive: RecvStream,
    windows: Windows,
    wanted: u32,
    got: usize,
    /// Whether the library is left alone.
    alone: bool,
}

impl Ends {
    async fn new(window: u32) -> Self {
        let (near, far) = duplex(MIB);
        let mut builder = client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(CONNECTION_WINDOW);
        let (opened, accepted) = tokio::join!(builder.handshake(near), server::handshake(far));
        let (mut sender, mut client) = opened.unwrap();
        let mut server = accepted.unwrap();
        let (response, _) = sender.send_request(Request::new(()), true).unwrap();
        let (_, mut respond) = tokio::select! {
            request = server.accept() => request.unwrap().unwrap(),
            _ = &mut client => panic!("the connection ended"),
        };
        let send = respond.send_response(Response::new(()), false).unwrap();
        let response = tokio::select! {
            response = response => response.unwrap(),
            _ = &mut client => panic!("the connection ended"),
            _ = server.accept() => panic!("a second request"),
        };
        let (receive, windows) = (response.into_body(), Windows::new(window));
        Self { client, server, send, receive, windows, wanted: window, got: 0, alone: false }
    }

    /// Both ends go on until `done`; whatever comes is read.
    async fn until(&mut self, done: impl Fn(&mut Self) -> bool) -> bool {
        self.within(SOON, done).await
    }

    async fn within(&mut self, limit: Duration, done: impl Fn(&mut Self) -> bool) -> bool {
        let turns = poll_fn(|cx| {
            assert!(self.server.poll_accept(cx).is_pending());
            assert!(Pin::new(&mut self.client).poll(cx).is_pending());
            while let Poll::Ready(Some(data)) = self.receive.poll_data(cx) {
                let length = data.unwrap().len();
                self.receive.flow_control().release_capacity(length).unwrap();
                self.got += length;
            }
            let Self { client, receive, windows, wanted, alone, .. } = &mut *self;
            let set = |window| client.set_initial_window_size(window);
            windows.turn(cx, *wanted, set, |visit| {
                if !*alone {
                    visit(receive.flow_control());
                }
            });
            if done(self) { Poll::Ready(()) } else { Poll::Pending }
        });
        timeout(limit, turns).await.is_ok()
    }

    fn send(&mut self, bytes: usize) {
        self.send.send_data(vec![0; bytes].into(), false).unwrap();
    }

    /// The window of the stream that the client has put in force.
    fn in_force(&mut self) -> usize {
        let flow = self.receive.flow_control();
        flow.available_capacity().saturating_add_unsigned(flow.used_capacity()).try_into().unwrap()
    }

    /// The peer has acknowledged the window.
    async fn shrink(&mut self, window: usize) {
        self.wanted = window.try_into().unwrap();
        assert!(self.until(|ends| ends.in_force() == window).await, "it is acknowledged");
    }
}

/// The reader has taken all that came, and less than the library would speak of, when the window shrinks by
/// more than is left of it.
#[tokio::test]
async fn a_stream_whose_window_shrinks_below_zero_goes_on() {
    let mut ends = Ends::new(256 * 1024).await;
    ends.send(80 * KIB);
    assert!(ends.until(|ends| ends.got == 80 * KIB).await);
    ends.shrink(64 * KIB).await;
    ends.send(MIB);
    assert!(ends.until(|ends| ends.got == 80 * KIB + MIB).await, "{} bytes came", ends.got);
}

/// What [`Windows`] is there for. If this fails, the library speaks by itself.
#[tokio::test]
async fn the_library_alone_leaves_both_ends_waiting() {
    let mut ends = Ends::new(256 * 1024).await;
    ends.alone = true;
    ends.send(80 * KIB);
    assert!(ends.until(|ends| ends.got == 80 * KIB).await);
    ends.shrink(64 * KIB).await;
    ends.send(MIB);
    assert!(!ends.within(Duration::from_millis(200), |ends| ends.got > 80 * KIB).await);
    ends.alone = false;
    assert!(ends.until(|ends| ends.got == 80 * KIB + MIB).await);
}

#[tokio::test]
async fn a_window_follows_what_is_wanted_however_often_that_changes() {
    let mut ends = Ends::new(256 * 1024).await;
    let mut expected = 0;
    for (window, bytes) in [(64, 80), (16, 50), (256, 300), (16, 120), (64, 10), (16, 40)] {
        ends.shrink(window * KIB).await;
        ends.send(bytes * KIB);
        expected += bytes * KIB;
        assert!(ends.until(|ends| ends.got == expected).await, "{window}: {} bytes", ends.got);
        assert_eq!(ends.windows.announced() as usize, window * KIB);
    }
}

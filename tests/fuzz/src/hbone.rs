//! A tunnel's frames, and the headers of its CONNECT.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use egress_agent::{
    net::Frames,
    wire::hbone::{authority, baggage, forwarded, read_authority, read_baggage, read_forwarded},
};
use tokio::io::{AsyncRead as _, ReadBuf};

/// The preface, which comes before a client's frames (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// All but empty frames gets through, wherever the bytes end. What is read of the headers, and written again, is read
/// as the same.
pub fn hbone(bytes: &[u8]) {
    let step = bytes.len() / 20 + 1;
    for end in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
        for is_client in [true, false] {
            let expected = without_empty_frames(&bytes[..end], is_client);
            for room in [1, 63, 64, 4096] {
                assert_eq!(sifted(&bytes[..end], is_client, room), expected, "{end} {bytes:?}");
            }
        }
    }
    headers(bytes);
}

/// What the library gets of a connection's bytes, in pieces of at most `room`.
fn sifted(bytes: &[u8], is_client: bool, room: usize) -> Vec<u8> {
    let mut frames =
        if is_client { Frames::from_client(bytes) } else { Frames::from_server(bytes) };
    let (mut out, mut buffer) = (Vec::new(), vec![0; room]);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let mut piece = ReadBuf::new(&mut buffer);
        match Pin::new(&mut frames).poll_read(&mut cx, &mut piece) {
            // Others get their turn.
            Poll::Pending => {}
            Poll::Ready(Ok(())) if piece.filled().is_empty() => break,
            Poll::Ready(Ok(())) => out.extend_from_slice(piece.filled()),
            Poll::Ready(Err(error)) => panic!("{bytes:?}: {error}"),
        }
        assert!(out.len() <= bytes.len(), "{bytes:?}");
    }
    let arrivals = frames.arrivals();
    assert_eq!(arrivals.seen().read, bytes.len() as u64);
    assert!(arrivals.take().len() <= bytes.len() / 9, "one for each frame at most");
    out
}

/// The same, frame by frame (RFC 9113 §4.1).
fn without_empty_frames(bytes: &[u8], is_client: bool) -> Vec<u8> {
    let (preface, mut rest) = bytes.split_at(if is_client { PREFACE.min(bytes.len()) } else { 0 });
    let mut out = preface.to_vec();
    while let Some([a, b, c, kind, flags, ..]) = rest.first_chunk::<9>() {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let (frame, next) = rest.split_at((9 + length).min(rest.len()));
        let is_empty_data = *kind == 0 && length == 0 && flags & 1 == 0;
        out.extend_from_slice(if is_empty_data { &[] } else { frame });
        rest = next;
    }
    // A header that has begun.
    [out.as_slice(), rest].concat()
}

fn headers(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(claim) = read_baggage(text) {
        let written = baggage(&claim);
        let written = written.to_str().unwrap_or_default();
        match read_baggage(written) {
            Ok(again) => assert_eq!(again, claim, "{written:?}"),
            // Encoded it may be longer than is taken.
            Err(error) => assert!(written.len() > text.len(), "{written:?}: {error}"),
        }
    }
    if let Ok(client) = read_forwarded(text) {
        let written = forwarded(client);
        let written = written.to_str().unwrap_or_default();
        assert_eq!(
            read_forwarded(written).map(|client| client.ip()),
            Ok(client.ip()),
            "{written:?}"
        );
    }
    if let Ok(dialled) = read_authority(text) {
        let written = authority(dialled);
        assert_eq!(read_authority(&written), Ok(dialled), "{written:?}");
    }
}

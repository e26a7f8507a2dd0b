//! The ClientHello, however it is split; and which protocol it is at all.

use std::io::Cursor;

use egress_agent::wire::{ClientHello, HelloError, HelloReader, Parsed, detect};
use rustls::server::Acceptor;

use crate::random::Random;

/// Limits on the message: the gateway's own, and some that small inputs reach.
const LIMITS: [usize; 4] = [32 * 1024, 64, 200, 1000];

/// Bytes as a connection's first, or as a message that is put into records: the result doesn't
/// depend on how they arrive, is final once it is there, and is no other than rustls's.
pub fn client_hello(bytes: &[u8]) {
    let mut random = Random::new(bytes);
    let limit = random.choose(&LIMITS);
    let bytes = match random.u8() % 4 {
        0 => random.rest().to_vec(),
        1 => {
            let size = usize::from(random.u8()).max(1);
            records(random.rest(), size)
        }
        2 => {
            let size = usize::from(random.u8()).max(1);
            records(&message(random.rest()), size)
        }
        _ => {
            let size = usize::from(random.u16()).clamp(1, 1 << 14);
            records(&message(&body(random.rest())), size)
        }
    };
    let whole = HelloReader::new(limit).parse(&bytes);
    split(&bytes, limit, &whole);
    protocol(&bytes);
    if let Ok(Parsed::Complete(hello)) = &whole {
        same_as_rustls(&bytes, hello);
    }
}

type Result = std::result::Result<Parsed<ClientHello>, HelloError>;

/// Every prefix is incomplete, or has the result already.
fn split(bytes: &[u8], limit: usize, whole: &Result) {
    let mut kept = HelloReader::new(limit);
    let mut decided = None;
    // Long inputs are fed in larger steps: all lengths of each would take too long.
    let step = bytes.len() / 600 + 1;
    for end in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
        let fresh = HelloReader::new(limit).parse(&bytes[..end]);
        if decided.is_none() {
            // A reader isn't asked again after its answer.
            assert_eq!(kept.parse(&bytes[..end]), fresh, "{end} bytes of {bytes:02x?}");
        }
        match (&decided, fresh) {
            (None, Ok(Parsed::Incomplete)) => {}
            (None, result) => decided = Some(result),
            (Some(before), now) => assert_eq!(*before, now, "{end} bytes of {bytes:02x?}"),
        }
    }
    assert_eq!(decided.as_ref().unwrap_or(&Ok(Parsed::Incomplete)), whole);
}

/// A decision on the protocol is final, and comes early.
fn protocol(bytes: &[u8]) {
    let mut decided = None;
    for end in 0..=bytes.len().min(64) {
        match (decided, detect(&bytes[..end])) {
            (None, Parsed::Incomplete) => assert!(end < 32, "undecided after {end} bytes"),
            (None, Parsed::Complete(protocol)) => decided = Some(protocol),
            (Some(before), now) => assert_eq!(Parsed::Complete(before), now),
        }
    }
}

/// What a server would read: where rustls accepts the hello, too, it sees the same names.
fn same_as_rustls(bytes: &[u8], hello: &ClientHello) {
    let mut acceptor = Acceptor::default();
    let mut rest = Cursor::new(bytes);
    let accepted = loop {
        match acceptor.read_tls(&mut rest) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) => {}
            Err(_) => return,
        }
    };
    let theirs = accepted.client_hello();
    let ours = hello.server_name.as_ref().map(ToString::to_string);
    assert_eq!(theirs.server_name().map(str::to_ascii_lowercase), ours);
    let alpn: Vec<&[u8]> = theirs.alpn().into_iter().flatten().collect();
    assert_eq!(alpn, hello.alpn);
}

fn with_length(bytes: &[u8], width: usize) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[4 - width..], bytes].concat()
}

/// A body whose list of extensions is these bytes.
fn body(extensions: &[u8]) -> Vec<u8> {
    let fixed = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 0x01], &[1, 0]].concat();
    let extensions = &extensions[..extensions.len().min(0xffff)];
    [fixed, with_length(extensions, 2)].concat()
}

fn message(body: &[u8]) -> Vec<u8> {
    [&[1][..], &with_length(body, 3)].concat()
}

/// Puts a message into records of `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1][..], &with_length(part, 2)].concat();
    message.chunks(size).flat_map(record).collect()
}

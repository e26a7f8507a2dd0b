//! Which protocol a client speaks, by its first bytes.

use super::Parsed;

/// What the first bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// A TLS handshake record.
    Tls,
    /// An HTTP/1 request line.
    Http1,
    /// HTTP/2's connection preface (RFC 9113 §3.4).
    Http2,
    /// None of them.
    Unknown,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest method of IANA's registry has 17 letters.
const LONGEST_METHOD: usize = 20;

/// Empty lines that a lenient client may send before its request (RFC 9112 §2.2).
const EMPTY_LINES: usize = 2;

/// Looks at the first bytes of a connection, all that were read so far.
#[must_use]
pub fn detect(bytes: &[u8]) -> Parsed<Protocol> {
    match bytes.first() {
        None => return Parsed::Incomplete,
        Some(22) => return Parsed::Complete(Protocol::Tls),
        Some(_) => {}
    }
    if bytes.starts_with(PREFACE) {
        return Parsed::Complete(Protocol::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return Parsed::Incomplete;
    }
    let mut rest = bytes;
    for _ in 0..EMPTY_LINES {
        rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
    }
    if rest.is_empty() || (rest == b"\r" && bytes.len() < 2 * EMPTY_LINES) {
        return Parsed::Incomplete;
    }
    match rest.iter().take(LONGEST_METHOD + 1).position(|b| !is_token(*b)) {
        Some(0) => Parsed::Complete(Protocol::Unknown),
        Some(end) if rest[end] == b' ' => Parsed::Complete(Protocol::Http1),
        Some(_) => Parsed::Complete(Protocol::Unknown),
        None if rest.len() > LONGEST_METHOD => Parsed::Complete(Protocol::Unknown),
        None => Parsed::Incomplete,
    }
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds every prefix: it must be incomplete up to some length and `expected` from there on.
    fn always(bytes: &[u8], expected: Protocol) {
        let mut seen = false;
        for end in 0..=bytes.len() {
            match detect(&bytes[..end]) {
                Parsed::Complete(protocol) => {
                    assert_eq!(protocol, expected, "{:?}", &bytes[..end]);
                    seen = true;
                }
                Parsed::Incomplete => assert!(!seen, "undecided again at {end} of {bytes:?}"),
            }
        }
        assert!(seen, "{bytes:?}");
    }

    #[test]
    fn every_prefix_of_every_protocol() {
        always(b"\x16\x03\x01\x02\x00", Protocol::Tls);
        always(b"GET / HTTP/1.1\r\n", Protocol::Http1);
        always(b"PROPFIND / HTTP/1.1\r\n", Protocol::Http1);
        always(b"PRINT / HTTP/1.1\r\n", Protocol::Http1);
        always(b"\r\n\r\nGET / HTTP/1.1\r\n", Protocol::Http1);
        always(PREFACE, Protocol::Http2);
        always(b"\0\0\0", Protocol::Unknown);
        always(b"\x80\x2e\x01\x03\x01", Protocol::Unknown);
        always(b"\r\n\r\n\r\nGET / HTTP/1.1", Protocol::Unknown);
        always(b"\rGET / HTTP/1.1", Protocol::Unknown);
        always(b" GET / HTTP/1.1", Protocol::Unknown);
        always(b"GET\t/ HTTP/1.1", Protocol::Unknown);
        always(b"SSH-2.0-OpenSSH_9.2p1 Debian-2", Protocol::Unknown);
        always(&[b'A'; 40], Protocol::Unknown);
    }

    proptest! {
        #[test]
        fn a_decision_never_changes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut decided = None;
            for end in 0..=bytes.len() {
                let now = detect(&bytes[..end]);
                match (&decided, now) {
                    (None, Parsed::Incomplete) => {}
                    (None, Parsed::Complete(protocol)) => decided = Some(protocol),
                    (Some(before), now) => prop_assert_eq!(Parsed::Complete(*before), now),
                }
            }
            prop_assert!(decided.is_some() || bytes.len() < 32);
        }
    }
}

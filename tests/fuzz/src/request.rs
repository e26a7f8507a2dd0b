//! What a client's HTTP/1 bytes are, once they are on their way to an upstream.

use egress_agent::proxy::http::forwarded;

/// What is forwarded can be read in one way: as itself, as one message, whatever came before and after it
/// from the client; and what is read of a beginning stays, whatever follows.
pub fn request(bytes: &[u8]) {
    let all = forwarded(bytes);
    for message in &all {
        let again = forwarded(message);
        assert_eq!(again.len(), 1, "{:?} is read as {again:?}", text(message));
        assert_eq!(parts(&again[0]), parts(message), "{:?}", text(message));
        sound(message);
    }
    let step = bytes.len() / 40 + 1;
    for end in (0..bytes.len()).step_by(step) {
        let some = forwarded(&bytes[..end]);
        assert!(all.starts_with(&some), "{end} bytes of {:?}", text(bytes));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// First line, fields in an order of their own, and what follows the head.
fn parts(message: &[u8]) -> (&[u8], Vec<&[u8]>, &[u8]) {
    let Some(end) = message.windows(4).position(|four| four == b"\r\n\r\n") else {
        panic!("{:?} has no end of its head", text(message));
    };
    let mut lines: Vec<&[u8]> = message[..end].split(|byte| *byte == b'\n').collect();
    let first = lines.remove(0);
    for line in &mut lines {
        *line = line.strip_suffix(b"\r").unwrap_or(line);
    }
    lines.sort_unstable();
    (first, lines, &message[end + 4..])
}

/// What other readers stumble over.
fn sound(message: &[u8]) {
    let (first, fields, _) = parts(message);
    assert!(first.ends_with(b" HTTP/1.1\r"), "{:?}", text(first));
    assert_eq!(first.iter().filter(|byte| **byte == b' ').count(), 2, "{:?}", text(first));
    let count = |name: &[u8]| fields.iter().filter(|field| field.starts_with(name)).count();
    assert_eq!(count(b"host:"), 1, "{:?}", text(message));
    let (length, chunked) = (count(b"content-length:"), count(b"transfer-encoding:"));
    assert!(length + chunked <= 1, "{:?}", text(message));
    // What concerns this hop alone (RFC 9110 section 7.6.1), and is said by the gateway itself.
    let own = count(b"upgrade:") + count(b"te:");
    assert!(count(b"connection:") <= own, "{:?}", text(message));
    for field in fields {
        let clean = field.iter().all(|byte| !matches!(byte, b'\r' | b'\n' | 0));
        assert!(
            clean && !field.starts_with(b" ") && !field.starts_with(b"\t"),
            "{:?}",
            text(field)
        );
    }
}

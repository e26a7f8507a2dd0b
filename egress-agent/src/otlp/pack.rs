//! The bytes of a request's body: compressed, and framed where gRPC asks for it.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression as Level, write::GzEncoder};

use super::protocol::{Compression, Protocol};

/// What gRPC puts before a message: one byte that says whether it is compressed, and its length in four,
/// the highest first.
const PREFIX: usize = 5;

/// The body for a message.
pub(super) fn packed(message: Vec<u8>, protocol: Protocol, compression: Compression) -> Bytes {
    let message = match compression {
        Compression::None => message,
        Compression::Gzip => gzip(&message),
    };
    match protocol {
        Protocol::Http => message.into(),
        Protocol::Grpc => {
            // A message is a batch, of about half a MiB.
            let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
            let mut framed = Vec::with_capacity(PREFIX + message.len());
            framed.push(u8::from(compression != Compression::None));
            framed.extend_from_slice(&length.to_be_bytes());
            framed.extend_from_slice(&message);
            framed.into()
        }
    }
}

/// The message in a gRPC body, if it is one that is not compressed: none is asked for.
pub(super) fn message(body: &Bytes) -> Option<Bytes> {
    let (&flag, rest) = body.split_first()?;
    let (length, _) = rest.split_first_chunk::<4>()?;
    let end = PREFIX.checked_add(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    (flag == 0 && end <= body.len()).then(|| body.slice(PREFIX..end))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Level::fast());
    // Memory takes all that is written.
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn a_message_is_framed_and_read_again() {
        let plain = packed(b"abc".to_vec(), Protocol::Grpc, Compression::None);
        assert_eq!(&*plain, b"\0\0\0\0\x03abc");
        assert_eq!(message(&plain).as_deref(), Some(&b"abc"[..]));
        for end in 0..plain.len() {
            assert_eq!(message(&plain.slice(..end)), None, "{end}");
        }
        // What is compressed was not asked for.
        assert_eq!(message(&Bytes::from_static(b"\x01\0\0\0\x03abc")), None);
        assert_eq!(packed(b"abc".to_vec(), Protocol::Http, Compression::None), &b"abc"[..]);
    }

    #[test]
    fn gzip_makes_smaller_what_is_read_again() {
        let long = b"a record like another, ".repeat(400);
        let small = packed(long.clone(), Protocol::Http, Compression::Gzip);
        assert!(small.len() * 10 < long.len(), "{}", small.len());
        let mut read = Vec::new();
        GzDecoder::new(&*small).read_to_end(&mut read).unwrap();
        assert_eq!(read, long);
        let framed = packed(long, Protocol::Grpc, Compression::Gzip);
        assert_eq!((framed[0], &framed[PREFIX..]), (1, &*small));
    }
}

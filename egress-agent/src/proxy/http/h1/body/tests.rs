use proptest::prelude::*;

use super::*;

/// The body, its trailers and what is left, when the input comes in these pieces.
type Decoded = (Vec<u8>, Option<HeaderMap>, usize);

fn decode(framing: Framing, pieces: &[&[u8]]) -> Result<Option<Decoded>, BadMessage> {
    decode_from(Sender::Client, framing, pieces).map(|decoded| decoded.map(|(decoded, _)| decoded))
}

/// The same of either side, with what was put right.
fn decode_from(
    from: Sender,
    framing: Framing,
    pieces: &[&[u8]],
) -> Result<Option<(Decoded, Vec<Normalized>)>, BadMessage> {
    let mut decoder = Decoder::new(framing, from);
    let (mut body, mut total) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match decoder.decode(rest)? {
                Step::Need => {
                    total += rest.len();
                    break;
                }
                Step::Data { at, consumed } => {
                    assert!(!at.is_empty() && at.end <= consumed && consumed <= rest.len());
                    body.extend_from_slice(&rest[at]);
                    rest = &rest[consumed..];
                    total += consumed;
                }
                Step::End { trailers, consumed } => {
                    assert!(decoder.is_done());
                    let decoded = (body, trailers, total + consumed);
                    return Ok(Some((decoded, decoder.take_normalized())));
                }
            }
        }
    }
    Ok(None)
}

const CHUNKED: &[u8] = b"5\r\nhello\r\n6;ext=\"v\"\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n";

#[test]
fn every_split_gives_the_same_body() {
    let whole = decode(Framing::Chunked, &[CHUNKED]).unwrap().unwrap();
    assert_eq!(whole.0, b"hello world");
    assert_eq!(whole.1.as_ref().unwrap()["x-sum"], "1");
    assert_eq!(whole.2, CHUNKED.len());
    for split in 0..CHUNKED.len() {
        let (a, b) = CHUNKED.split_at(split);
        assert_eq!(decode(Framing::Chunked, &[a, b]).unwrap().unwrap(), whole, "{split}");
    }
    let bytes: Vec<_> = CHUNKED.chunks(1).collect();
    assert_eq!(decode(Framing::Chunked, &bytes).unwrap().unwrap(), whole);
}

#[test]
fn every_prefix_is_incomplete_and_the_rest_is_left_alone() {
    for end in 0..CHUNKED.len() {
        assert_eq!(decode(Framing::Chunked, &[&CHUNKED[..end]]), Ok(None), "{end}");
        assert!(!Decoder::new(Framing::Chunked, Sender::Client).eof());
    }
    let longer = [CHUNKED, b"GET / HTTP/1.1"].concat();
    assert_eq!(decode(Framing::Chunked, &[&longer]).unwrap().unwrap().2, CHUNKED.len());
}

#[test]
fn bad_chunks_are_refused() {
    use BadMessage as Bad;
    for (input, expected) in [
        (&b"\r\n"[..], Bad::ChunkSize),
        (b" 5\r\nhello\r\n", Bad::ChunkSize),
        (b"5 \r\nhello\r\n", Bad::ChunkSize),
        (b"+5\r\nhello\r\n", Bad::ChunkSize),
        (b"-5\r\nhello\r\n", Bad::ChunkSize),
        (b"0x5\r\nhello\r\n", Bad::ChunkSize),
        (b"g\r\n", Bad::ChunkSize),
        (b";a\r\n", Bad::ChunkSize),
        (b"5\nhello\r\n", Bad::ChunkSize),
        (b"5\rhello\r\n", Bad::ChunkSize),
        (b"11111111111111111\r\n", Bad::ChunkSize),
        (b"00000000000000000005\r\nhello\r\n", Bad::ChunkSize),
        (b"5;a\nhello\r\n", Bad::ChunkExtension),
        (b"5;a\0\r\nhello\r\n", Bad::ChunkExtension),
        (b"5\r\nhello", Bad::ChunkEnd),
        (b"5\r\nhello\n", Bad::ChunkEnd),
        (b"5\r\nhellox\r\n", Bad::ChunkEnd),
        (b"5\r\nhello\r5\r\n", Bad::ChunkEnd),
        (b"0\r\n\n", Bad::LineEnding),
        (b"0\r\nX: y\n\r\n", Bad::LineEnding),
        (b"0\r\nContent-Length: 5\r\n\r\n", Bad::Trailers),
        (b"0\r\nTransfer-Encoding: chunked\r\n\r\n", Bad::Trailers),
        (b"0\r\nHost: b.example\r\n\r\n", Bad::Trailers),
    ] {
        // One byte more, so that what follows a whole chunk is looked at.
        let input = [input, b"?"].concat();
        assert_eq!(decode(Framing::Chunked, &[&input]), Err(expected), "{input:?}");
    }
    let long = [b"5;", "x".repeat(257).as_bytes(), b"\r\n"].concat();
    assert_eq!(decode(Framing::Chunked, &[&long]), Err(Bad::ChunkExtension));
    let many = [b"1;", "x".repeat(200).as_bytes(), b"\r\na\r\n"].concat().repeat(100);
    assert_eq!(decode(Framing::Chunked, &[&many]), Err(Bad::ChunkExtension));
    let trailers = [b"0\r\n", "X: yyyyyyyy\r\n".repeat(1000).as_bytes()].concat();
    assert_eq!(decode(Framing::Chunked, &[&trailers]), Err(Bad::Trailers));
    let trailers = [b"0\r\n", "X: y\r\n".repeat(33).as_bytes(), b"\r\n"].concat();
    assert_eq!(decode(Framing::Chunked, &[&trailers]), Err(Bad::Trailers));
}

#[test]
fn an_upstreams_chunks_are_put_right_where_they_have_one_meaning() {
    use Normalized as Kind;
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(1000));
    for (input, kinds) in [
        ("5 \r\nhello\r\n0\r\n\r\n", &[Kind::ChunkBlanks][..]),
        ("5\t \r\nhello\r\n0 \r\n\r\n", &[Kind::ChunkBlanks]),
        ("5 ;a=b\r\nhello\r\n0\r\n\r\n", &[Kind::ChunkBlanks]),
        (long.as_str(), &[Kind::ChunkExtension]),
        ("5\r\nhello\r\n0\r\nSet-Cookie: a\r\nX-Sum: 1\r\n\r\n", &[Kind::Trailer]),
        ("5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n", &[Kind::Trailer]),
        ("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", &[]),
    ] {
        let pieces: Vec<_> = input.as_bytes().chunks(1).collect();
        for pieces in [&[input.as_bytes()][..], &pieces] {
            let decoded = decode_from(Sender::Upstream, Framing::Chunked, pieces).unwrap();
            let ((body, trailers, used), found) = decoded.unwrap();
            assert_eq!((&*body, used), (&b"hello"[..], input.len()), "{input}");
            assert_eq!(found, kinds, "{input}");
            let trailers = trailers.unwrap_or_default();
            assert!(
                !trailers.contains_key("set-cookie") && !trailers.contains_key("content-length")
            );
        }
        if !kinds.is_empty() {
            assert!(decode(Framing::Chunked, &[input.as_bytes()]).is_err(), "of a client: {input}");
        }
    }
    // What two parsers could read differently is refused of both.
    for input in
        ["5 5\r\nhello", "5\nhello", " 5\r\nhello", "5\r\nhello\n0", "5;a\nb\r\nhello", "0x5\r\n"]
    {
        assert!(
            decode_from(Sender::Upstream, Framing::Chunked, &[input.as_bytes()]).is_err(),
            "{input}"
        );
    }
    let endless = format!("5{}", " ".repeat(20_000));
    assert!(decode_from(Sender::Upstream, Framing::Chunked, &[endless.as_bytes()]).is_err());
}

/// Trailers that frame, route or authenticate a message (RFC 9110 §6.5.1) cost an upstream none of its body, and
/// are not handed on; of a client they are refused.
#[test]
fn an_upstreams_misplaced_trailers_are_left_out_and_its_others_kept() {
    for field in [
        "Content-Type: x",
        "content-type: text/html",
        "Content-Encoding: gzip",
        "Content-Range: bytes 0-1/2",
        "Content-Length: 9",
        "Transfer-Encoding: chunked",
        "Trailer: X-Sum",
        "TE: trailers",
        "Host: b.example",
        "Connection: close",
        "Upgrade: websocket",
        "Authorization: Basic abc",
        "Cookie: a=b",
        "Set-Cookie: a=b",
        "Expect: 100-continue",
    ] {
        for section in [format!("{field}\r\nX-Sum: 1"), format!("X-Sum: 1\r\n{field}")] {
            let input = format!("5\r\nhello\r\n0\r\n{section}\r\n\r\n");
            let pieces: Vec<_> = input.as_bytes().chunks(1).collect();
            let decoded = decode_from(Sender::Upstream, Framing::Chunked, &pieces).unwrap();
            let ((body, trailers, used), found) = decoded.unwrap();
            assert_eq!((&*body, used), (&b"hello"[..], input.len()), "{section}");
            assert_eq!(found, [Normalized::Trailer], "{section}");
            let names: Vec<_> = trailers.unwrap().keys().map(ToString::to_string).collect();
            assert_eq!(names, ["x-sum"], "{section}");
            let refused = decode(Framing::Chunked, &[input.as_bytes()]);
            assert_eq!(refused, Err(BadMessage::Trailers), "of a client: {section}");
        }
    }
    // The twin: what may be a trailer is one.
    for field in ["Grpc-Status: 0", "Server-Timing: a", "ETag: x", "Digest: x"] {
        let input = format!("5\r\nhello\r\n0\r\n{field}\r\n\r\n");
        for from in [Sender::Upstream, Sender::Client] {
            let ((_, trailers, _), found) =
                decode_from(from, Framing::Chunked, &[input.as_bytes()]).unwrap().unwrap();
            assert_eq!((trailers.unwrap().len(), found), (1, vec![]), "{field}");
        }
    }
}

#[test]
fn a_body_that_failed_never_ends() {
    for bad in [&b"x\r\n"[..], b"5\nhello", b"1\r\naa", b"0\r\nHost: b\r\n\r\n"] {
        let mut decoder = Decoder::new(Framing::Chunked, Sender::Client);
        let mut rest = bad;
        let error = loop {
            match decoder.decode(rest) {
                Ok(Step::Data { consumed, .. }) => rest = &rest[consumed..],
                Ok(step) => panic!("{step:?}"),
                Err(error) => break error,
            }
        };
        assert!(!decoder.is_done() && !decoder.eof());
        assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(error));
    }
}

#[test]
fn a_length_is_kept_exactly() {
    let (body, trailers, used) = decode(Framing::Length(3), &[b"abcdef"]).unwrap().unwrap();
    assert_eq!((body.as_slice(), trailers, used), (&b"abc"[..], None, 3));
    assert_eq!(decode(Framing::Length(7), &[b"abcdef"]), Ok(None));
    let mut short = Decoder::new(Framing::Length(7), Sender::Client);
    short.decode(b"abcdef").unwrap();
    assert!(!short.eof(), "a short body is not a whole one");
    assert!(Decoder::new(Framing::Length(0), Sender::Client).is_done());
    assert!(Decoder::new(Framing::None, Sender::Client).is_done());
}

#[test]
fn only_a_body_without_framing_ends_with_the_connection() {
    let mut decoder = Decoder::new(Framing::UntilClose, Sender::Client);
    assert_eq!(decoder.decode(b"abc"), Ok(Step::Data { at: 0..3, consumed: 3 }));
    assert!(!decoder.is_done());
    assert!(decoder.eof());
    let mut chunked = Decoder::new(Framing::Chunked, Sender::Client);
    chunked.decode(b"5\r\nhel").unwrap();
    assert!(!chunked.eof());
}

proptest! {
    /// However hostile bytes are split, they are read in the same way.
    #[test]
    fn splits_never_disagree(
        bytes in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'1'), Just(b'a'), Just(b';'), any::<u8>()],
            0..60,
        ),
        at in 0_usize..60,
    ) {
        let whole = decode(Framing::Chunked, &[&bytes]);
        let (a, b) = bytes.split_at(at.min(bytes.len()));
        prop_assert_eq!(&decode(Framing::Chunked, &[a, b]), &whole);
        let single: Vec<_> = bytes.chunks(1).collect();
        prop_assert_eq!(&decode(Framing::Chunked, &single), &whole);
    }

    /// What the encoder writes, the decoder reads back.
    #[test]
    fn chunks_round_trip(chunks in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 1..50), 0..6,
    )) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            super::super::encode::chunk_size(&mut wire, chunk.len());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        super::super::encode::last_chunk(&mut wire, None);
        let (body, trailers, used) = decode(Framing::Chunked, &[&wire]).unwrap().unwrap();
        prop_assert_eq!(body, chunks.concat());
        prop_assert_eq!(trailers, None);
        prop_assert_eq!(used, wire.len());
    }
}

//! Responses that break the standard and have one meaning: the exact bytes that a client gets, what is counted,
//! and whether the connection is used again. Their twins have two meanings and are refused with a reason.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{Gateway, SOON, Setup, head, local, upstream};
use crate::telemetry::{Normalized as Kind, normalized};

/// An upstream that answers `/odd` with these bytes, and anything else with the number of the connection.
async fn gateway(odd: String) -> Gateway {
    let (addr, _) = upstream(move |mut io, connection, _| {
        let odd = odd.clone();
        async move {
            let mut bytes = Vec::new();
            while let Ok(request) = head(&mut io, &mut bytes).await {
                let answer = match request.starts_with("GET /odd ") {
                    true => odd.clone(),
                    false => format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{connection}"),
                };
                if io.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    })
    .await;
    Setup::new().http("a.example", addr).start().await
}

/// All that a client of this version gets for `/odd`, and what it then gets for another request.
async fn exchange(gateway: &Gateway) -> (String, String) {
    let mut client = gateway.connect().await;
    let second = "GET /then HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    client.send(&format!("GET /odd HTTP/1.1\r\nHost: a.example\r\n\r\n{second}")).await;
    let mut bytes = String::new();
    let read_all = client.io.read_to_string(&mut bytes);
    tokio::time::timeout(SOON, read_all).await.expect("an end").unwrap();
    let at = bytes.rfind("HTTP/1.1 ").expect("an answer");
    let second = bytes.split_off(at);
    (bytes, second)
}

fn then(connection: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\n{connection}")
}

#[test]
fn what_has_one_meaning_reaches_the_client_in_its_one_form() {
    let fields: String = (0..600).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let length = "content-length: 5\r\n\r\nhello";
    let chunked = "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let chunks = "\r\n5\r\nhello\r\n0\r\n\r\n";
    for (head, body, seen, kinds, used_again) in [
        (
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "\r\nhello",
            length,
            &[Kind::RepeatedLength][..],
            true,
        ),
        ("Content-Length: 5, 5\r\n", "\r\nhello", length, &[Kind::RepeatedLength], true),
        (
            "Content-Length: 5\r\nContent-Length:5 ,\t5\r\n",
            "\r\nhello",
            length,
            &[Kind::RepeatedLength],
            true,
        ),
        (
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            chunks,
            chunked,
            &[Kind::LengthAndEncoding],
            false,
        ),
        (
            "Transfer-Encoding: Chunked\r\nContent-Length: 15\r\n",
            chunks,
            chunked,
            &[Kind::LengthAndEncoding],
            false,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5, 5\r\n",
            chunks,
            chunked,
            &[Kind::RepeatedLength, Kind::LengthAndEncoding],
            false,
        ),
        (
            "X-Name : value\r\nContent-Length: 5\r\n",
            "\r\nhello",
            "x-name: value\r\ncontent-length: 5\r\n\r\nhello",
            &[Kind::HeaderBlanks],
            true,
        ),
        (
            "X-Name\t : value\r\nContent-Length: 5\r\n",
            "\r\nhello",
            "x-name: value\r\ncontent-length: 5\r\n\r\nhello",
            &[Kind::HeaderBlanks],
            true,
        ),
        ("Content-Length: 5\r\n", "\r\nhello", length, &[], true),
    ] {
        for bare in [false, true] {
            // Bare LF from the status line on; chunks keep their own line ends.
            let whole = format!("HTTP/1.1 200 OK\r\n{head}");
            let whole = match bare {
                true => whole.replace("\r\n", "\n") + "\n" + &body[2..],
                false => whole + body,
            };
            let kinds = [kinds, if bare { &[Kind::BareLf] } else { &[] }].concat();
            let before: Vec<_> = kinds.iter().map(|kind| normalized(*kind)).collect();
            local(async {
                let (odd, second) = exchange(&gateway(whole.clone()).await).await;
                assert_eq!(odd, format!("HTTP/1.1 200 OK\r\n{seen}"), "{whole:?}");
                assert_eq!(second, then(usize::from(!used_again || bare)), "{whole:?}");
            });
            for (kind, before) in kinds.iter().zip(before) {
                assert!(normalized(*kind) > before, "{kind:?}: {whole:?}");
            }
        }
    }
    // More headers than a client may send.
    local(async {
        let many = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 5\r\n\r\nhello");
        let (odd, second) = exchange(&gateway(many).await).await;
        let fields = fields.to_ascii_lowercase();
        assert_eq!(odd, format!("HTTP/1.1 200 OK\r\n{fields}{length}"));
        assert_eq!(second, then(0));
    });
}

#[test]
fn what_has_two_meanings_is_refused_with_its_reason() {
    let lengths = "Content-Length is given more than once or is not a plain decimal number";
    let encodings = "Transfer-Encoding is given more than once or is not exactly `chunked`";
    let name = "malformed message head: invalid header name";
    let value = "malformed message head: invalid header value";
    let ends = "a line of the message does not end with CR LF";
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let many = "X: y\r\n".repeat(1001);
    for (version, headers, body, reason) in [
        ("1.1", "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "hello", lengths),
        ("1.1", "Content-Length: 5, 6\r\n\r\n", "hello", lengths),
        ("1.1", "Content-Length: 5, 05\r\n\r\n", "hello", lengths),
        ("1.1", "Content-Length: 5,\r\n\r\n", "hello", lengths),
        ("1.1", "Content-Length: 5,,5\r\n\r\n", "hello", lengths),
        ("1.1", "Content-Length: +5, +5\r\n\r\n", "hello", lengths),
        ("1.1", "Content-Length: 5, 6\r\nTransfer-Encoding: chunked\r\n\r\n", chunks, lengths),
        ("1.1", "Content-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n", chunks, lengths),
        ("1.1", "Content-Length: 5\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", chunks, encodings),
        ("1.1", "Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\n", "hello", encodings),
        (
            "1.1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            chunks,
            encodings,
        ),
        (
            "1.0",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            chunks,
            "Transfer-Encoding in an HTTP/1.0 message",
        ),
        ("1.1", "Content-Length : 5\r\n\r\n", "hello", name),
        ("1.1", "Transfer-Encoding : chunked\r\n\r\n", chunks, name),
        ("1.1", "Connection : close\r\nContent-Length: 5\r\n\r\n", "hello", name),
        ("1.1", "X name: y\r\nContent-Length: 5\r\n\r\n", "hello", name),
        ("1.1", "X: y\r\r\nContent-Length: 5\r\n\r\n", "hello", value),
        ("1.1", "X: a\rb\r\nContent-Length: 5\r\n\r\n", "hello", value),
        ("1.1", "X: y\nContent-Length: 5\r\n\r\n", "hello", ends),
        ("1.1", "Content-Length: 5\r\n\n", "hello", ends),
        ("1.1", "Content-Length: 5\n\n", "hello", ends),
        ("1.1", &format!("{many}\r\n"), "", "the message has more than 1000 headers"),
    ] {
        local(async {
            let odd = format!("HTTP/{version} 200 OK\r\n{headers}{body}");
            let gateway = gateway(odd.clone()).await;
            let (refusal, second) = exchange(&gateway).await;
            assert!(refusal.starts_with("HTTP/1.1 502 "), "{odd:?}: {refusal}");
            assert!(refusal.contains(reason), "{odd:?}: {refusal}");
            assert_eq!(second, then(1), "{odd:?}");
            let log = gateway.log(2).await;
            assert_eq!(log[0]["response_flags"], "UPE", "{odd:?}");
        });
    }
}

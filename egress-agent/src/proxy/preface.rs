//! What is said on a connection to an endpoint before the application's bytes: a header of the PROXY
//! protocol, or a question to a proxy.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::post_tunnel::Framing;
use crate::policy::{ConnectTarget, ProxyMethod, ProxyProtocol};

/// Bytes that the head of a proxy's answer may have.
const HEAD: usize = 8 * 1024;
/// The signature of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The header for a connection from `source` to `destination`
/// (<https://www.haproxy.org/download/2.1/doc/proxy-protocol.txt>).
pub(super) fn proxy_header(
    version: ProxyProtocol,
    source: SocketAddr,
    destination: SocketAddr,
) -> Vec<u8> {
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let (from, to) = match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (from, to),
        // Of two families, both are written in the greater one.
        (from, to) => (IpAddr::V6(wide(from)), IpAddr::V6(wide(to))),
    };
    let ports = (source.port(), destination.port());
    match version {
        ProxyProtocol::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes()
        }
        ProxyProtocol::V2 => {
            let mut addresses = Vec::with_capacity(36);
            for ip in [from, to] {
                match ip {
                    IpAddr::V4(ip) => addresses.extend(ip.octets()),
                    IpAddr::V6(ip) => addresses.extend(ip.octets()),
                }
            }
            addresses.extend(ports.0.to_be_bytes());
            addresses.extend(ports.1.to_be_bytes());
            // Version 2, PROXY; TCP over IPv4 or IPv6.
            let kind = [0x21, if from.is_ipv4() { 0x11 } else { 0x21 }];
            let length: u16 = if from.is_ipv4() { 12 } else { 36 };
            [&SIGNATURE[..], &kind, &length.to_be_bytes(), &addresses].concat()
        }
    }
}

fn wide(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Asks a proxy for a connection to `target`, with this `Proxy-Authorization`; from then on the stream is that
/// connection, or carries it in bodies that end as is returned.
///
/// # Errors
/// The connection broke, or the proxy refuses.
pub(super) async fn ask_proxy<S>(
    stream: &mut S,
    target: &ConnectTarget,
    authorization: Option<&str>,
) -> io::Result<Option<Framing>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let authorization = authorization.map(|value| format!("Proxy-Authorization: {value}\r\n"));
    let authorization = authorization.unwrap_or_default();
    let method = target.method.name();
    let (line, body) = match target.method {
        ProxyMethod::Connect => (format!("CONNECT {target}"), ""),
        ProxyMethod::Post => ("POST /".to_owned(), "Transfer-Encoding: chunked\r\n"),
    };
    let question = format!("{line} HTTP/1.1\r\nHost: {target}\r\n{authorization}{body}\r\n");
    stream.write_all(question.as_bytes()).await?;
    stream.flush().await?;
    loop {
        let head = answer(stream).await?;
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&head);
        match (parsed.is_ok_and(|parsed| parsed.is_complete()), response.code) {
            (true, Some(200..300)) => {
                return match target.method {
                    ProxyMethod::Connect => Ok(None),
                    ProxyMethod::Post => framing(response.headers).map(Some),
                };
            }
            // Something else is to follow (RFC 9110 §15.2).
            (true, Some(100 | 102..200)) => {}
            (true, Some(code)) => {
                return Err(io::Error::other(format!(
                    "the proxy answered {code} to {method} {target}"
                )));
            }
            (true, None) | (false, _) => {
                return Err(io::Error::other(format!(
                    "the proxy's answer to {method} can't be read"
                )));
            }
        }
    }
}

/// How the body of an answer ends (RFC 9112 §6.3); what two could read differently is refused.
fn framing(headers: &[httparse::Header<'_>]) -> io::Result<Framing> {
    let values = |name: &str| {
        let named = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value.trim_ascii()).collect::<Vec<_>>()
    };
    let unclear =
        || io::Error::other("how the body of the proxy's answer to POST ends is not clear");
    match (values("transfer-encoding").as_slice(), values("content-length").as_slice()) {
        ([], []) => Ok(Framing::Close),
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        ([], [length]) if length.iter().all(u8::is_ascii_digit) => {
            let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
            length.map(Framing::Length).ok_or_else(unclear)
        }
        _ => Err(unclear()),
    }
}

/// Reads a head, its empty line included, and nothing beyond it: what follows is the application's.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD {
            return Err(io::Error::other("the head of the proxy's answer has no end"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::types::{Host, Port};

    fn header(version: ProxyProtocol, source: &str, destination: &str) -> Vec<u8> {
        proxy_header(version, source.parse().unwrap(), destination.parse().unwrap())
    }

    #[test]
    fn version_1_is_a_line_of_text() {
        for (source, destination, expected) in [
            ("10.0.0.5:40000", "192.0.2.10:443", "PROXY TCP4 10.0.0.5 192.0.2.10 40000 443\r\n"),
            ("[::ffff:10.0.0.5]:1", "192.0.2.10:2", "PROXY TCP4 10.0.0.5 192.0.2.10 1 2\r\n"),
            (
                "[2001:db8::5]:65535",
                "[2001:db8::a]:443",
                "PROXY TCP6 2001:db8::5 2001:db8::a 65535 443\r\n",
            ),
            ("[2001:db8::5]:1", "192.0.2.10:2", "PROXY TCP6 2001:db8::5 ::ffff:192.0.2.10 1 2\r\n"),
        ] {
            let found = header(ProxyProtocol::V1, source, destination);
            assert_eq!(String::from_utf8(found).unwrap(), expected);
        }
    }

    #[test]
    fn version_2_is_binary() {
        let found = header(ProxyProtocol::V2, "10.0.0.5:256", "192.0.2.10:443");
        let expected = [
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0,
            12, 10, 0, 0, 5, 192, 0, 2, 10, 1, 0, 1, 187,
        ];
        assert_eq!(found, expected);
        let wide = header(ProxyProtocol::V2, "[2001:db8::5]:1", "[2001:db8::a]:2");
        assert_eq!((wide.len(), &wide[12..16]), (52, &[0x21, 0x21, 0, 36][..]));
        assert_eq!(wide[48..], [0, 1, 0, 2]);
    }

    /// What the proxy is asked, and what comes of its answer; what follows is read last.
    async fn asked(answer: &str) -> (String, io::Result<Option<Framing>>, String) {
        let (mut near, mut far) = duplex(1024);
        far.write_all(answer.as_bytes()).await.unwrap();
        let target = ConnectTarget {
            method: ProxyMethod::Connect,
            host: Host::parse("a.example").unwrap(),
            port: Port::new(443).unwrap(),
            credential: None,
        };
        let result = {
            let asking = ask_proxy(&mut near, &target, None);
            let closing = async {
                let mut question = vec![0; 1024];
                let length = far.read(&mut question).await.unwrap();
                question.truncate(length);
                far.shutdown().await.unwrap();
                String::from_utf8(question).unwrap()
            };
            let (result, question) = tokio::join!(asking, closing);
            (question, result)
        };
        let mut rest = String::new();
        near.read_to_string(&mut rest).await.unwrap();
        (result.0, result.1, rest)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_the_target_and_nothing_of_it_is_lost() {
        let (question, result, rest) =
            asked("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n220 hello").await;
        assert_eq!(question, "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n");
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(rest, "220 hello");
        let (_, result, rest) = asked("HTTP/1.1 103 Early\r\n\r\nHTTP/1.0 200 OK\r\n\r\nx").await;
        assert!(result.is_ok() && rest == "x", "{result:?} {rest}");
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_heard() {
        for (answer, expected) in [
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "answered 407"),
            ("HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", "answered 301"),
            ("HTTP/1.1 101 Switching\r\n\r\n", "answered 101"),
            ("SSH-2.0-x\r\n\r\n", "can't be read"),
            ("HTTP/1.1 200 OK\r\nno end", "end of file"),
        ] {
            let (_, result, _) = asked(answer).await;
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{answer:?}: {error}");
        }
    }

    #[test]
    fn an_address_is_asked_for_in_brackets() {
        let port = Port::new(22).unwrap();
        let host = Host::parse("2001:db8::1").unwrap();
        assert_eq!(
            ConnectTarget { method: ProxyMethod::Connect, host, port, credential: None }
                .to_string(),
            "[2001:db8::1]:22"
        );
    }
}

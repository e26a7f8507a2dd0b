//! Making the connections.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::ServerName;

use super::plan::{Check, CheckKind};

/// For each step of a connection.
const STEP: Duration = Duration::from_secs(5);
/// How long a connection of raw TCP must stay open to count: a gateway accepts before it refuses.
const STAYS: Duration = Duration::from_millis(500);
/// Of an answer.
const HEAD_BYTES: usize = 16 * 1024;

/// What became of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// The other side answered.
    Reached(String),
    /// It was refused, or no server answered.
    Refused(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reached(how) => f.write_str(how),
            Self::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

/// The addresses that the pod's name servers have for a host.
pub(super) fn addresses_of(host: &str) -> Result<Vec<IpAddr>, String> {
    let found = (host, 0).to_socket_addrs().map_err(|error| format!("its name: {error}"))?;
    let mut found: Vec<IpAddr> = found.map(|addr| addr.ip()).collect();
    // As most resolvers do not agree on an order: IPv4, which every network has.
    found.sort_by_key(IpAddr::is_ipv6);
    found.dedup();
    if found.is_empty() { Err("its name has no address".into()) } else { Ok(found) }
}

/// Makes a connection to this address and says what became of it.
pub(super) fn ask(check: &Check, addr: IpAddr) -> Answer {
    let answer = connect(SocketAddr::new(addr, check.port)).and_then(|stream| match &check.what {
        CheckKind::Http { method, path } => http(stream, &check.host, method, path),
        CheckKind::Tls => tls(stream, &check.host),
        CheckKind::Tcp => tcp(stream),
    });
    answer.unwrap_or_else(|error| Answer::Refused(error.to_string()))
}

fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, STEP)?;
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    Ok(stream)
}

fn http(mut stream: TcpStream, host: &str, method: &str, path: &str) -> io::Result<Answer> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: egress-agent\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let limit = u64::try_from(HEAD_BYTES).unwrap_or(u64::MAX);
    // Whatever came before an error counts.
    if let Err(error) = stream.take(limit).read_to_end(&mut answer)
        && answer.is_empty()
    {
        return Err(error);
    }
    Ok(http_answer(method, &answer))
}

/// What the first line of the gateway's own answers has behind the host: policy refuses, or nobody was reached.
const OWN: [&str; 2] =
    [" is refused by the egress gateway: ", " can't be reached through the egress gateway: "];

/// Only the gateway's own answer is a refusal, whatever the status: the destination may answer with any. In
/// answers to `HEAD` nothing tells one from the other; there the statuses of refusals are refusals.
fn http_answer(method: &str, answer: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(answer);
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
    let Some(status) = status else { return Answer::Refused("no answer in HTTP".into()) };
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let first = body.lines().next().unwrap_or_default();
    let is_own = OWN.iter().any(|own| first.contains(own));
    let is_unknown = method == "HEAD" && matches!(status, 403 | 404 | 502 | 503 | 504);
    if is_own || is_unknown {
        Answer::Refused(format!("{status} {first}").trim().to_owned())
    } else {
        Answer::Reached(status.to_string())
    }
}

/// A server of TLS has answered when it has shown a certificate: whose it is, the application verifies.
fn tls(mut stream: TcpStream, host: &str) -> io::Result<Answer> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let reached = Answer::Reached("a TLS server answers".into());
    match client.complete_io(&mut stream) {
        Ok(_) => Ok(reached),
        Err(error) => {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            // Nothing is trusted here.
            let shown = matches!(cause, Some(rustls::Error::InvalidCertificate(_)));
            if shown { Ok(reached) } else { Err(error) }
        }
    }
}

fn tcp(mut stream: TcpStream) -> io::Result<Answer> {
    stream.set_read_timeout(Some(STAYS))?;
    match stream.read(&mut [0]) {
        Ok(0) => Ok(Answer::Refused("it was closed at once".into())),
        Ok(_) => Ok(Answer::Reached("it answers".into())),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
        {
            Ok(Answer::Reached("it stays open".into()))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn an_answer_of_http_is_a_host_or_a_refusal() {
        let reached = |text: &str| Answer::Reached(text.into());
        let refused = |text: &str| Answer::Refused(text.into());
        for (text, answer) in [
            ("HTTP/1.1 200 OK\r\n\r\nx", reached("200")),
            ("HTTP/1.1 301 Moved Permanently\r\n\r\n", reached("301")),
            ("HTTP/1.1 401 Unauthorized\r\n\r\n", reached("401")),
            // The destination's own.
            ("HTTP/1.1 403 Forbidden\r\n\r\nnot for you\nmore", reached("403")),
            ("HTTP/1.1 404 Not Found\r\n\r\n<html>", reached("404")),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", reached("503")),
            (
                "HTTP/1.1 403 Forbidden\r\n\r\na.example is refused by the egress gateway: no (x)\nmore",
                refused("403 a.example is refused by the egress gateway: no (x)"),
            ),
            (
                "HTTP/1.1 504 Gateway Timeout\r\n\r\na can't be reached through the egress gateway: no\n",
                refused("504 a can't be reached through the egress gateway: no"),
            ),
            ("SSH-2.0", refused("no answer in HTTP")),
            ("", refused("no answer in HTTP")),
        ] {
            assert_eq!(http_answer("GET", text.as_bytes()), answer, "{text:?}");
        }
        let bare = b"HTTP/1.1 404 Not Found\r\n\r\n";
        assert_eq!(http_answer("HEAD", bare), refused("404"), "it may be the gateway's");
    }

    /// A server that does this with each connection.
    fn serving(act: impl Fn(TcpStream) + Send + 'static) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || listener.incoming().flatten().for_each(act));
        port
    }

    fn answer(port: u16, what: CheckKind) -> Answer {
        let check = Check { host: "a.example".into(), port, what };
        ask(&check, IpAddr::from([127, 0, 0, 1]))
    }

    #[test]
    fn a_connection_that_is_closed_or_refused_reaches_nobody() {
        let http = || CheckKind::Http { method: "GET".into(), path: "/".into() };
        let closing = serving(drop);
        for what in [http(), CheckKind::Tls, CheckKind::Tcp] {
            let answer = answer(closing, what.clone());
            assert!(matches!(answer, Answer::Refused(_)), "{what:?}: {answer}");
        }
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for what in [http(), CheckKind::Tls, CheckKind::Tcp] {
            assert!(matches!(answer(nobody, what), Answer::Refused(_)));
        }
        let talking = serving(|mut stream| {
            let mut request = [0; 1024];
            let got = stream.read(&mut request).unwrap_or(0);
            assert!(request[..got].starts_with(b"GET / HTTP/1.1\r\nHost: a.example\r\n"));
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok();
        });
        assert_eq!(answer(talking, http()), Answer::Reached("204".into()));
        let silent = serving(std::mem::forget);
        assert_eq!(answer(silent, CheckKind::Tcp), Answer::Reached("it stays open".into()));
    }
}

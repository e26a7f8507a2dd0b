//! The TLS ClientHello (RFC 8446 §4.1.2): what a passthrough connection is decided by.
//!
//! Strict, because what this parser reads differently from the server bypasses the policy:
//! nothing is skipped that isn't well-formed, and nothing is read twice.

use std::str;

use thiserror::Error;

use super::{
    Parsed,
    reader::{Reader, Truncated},
};
use crate::types::Host;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
/// `TLSPlaintext.length` (RFC 8446 §5.1).
const LARGEST_RECORD: usize = 1 << 14;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// `encrypted_client_hello` (RFC 9849 §5).
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// What policy wants to know of a ClientHello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientHello {
    /// SNI (RFC 6066 §3), always a name.
    pub server_name: Option<Host>,
    /// The protocols offered (RFC 7301), in the client's order.
    pub alpn: Vec<Vec<u8>>,
    /// Whether the extension of Encrypted Client Hello is there. Browsers also send it filled with
    /// random bytes; an observer cannot distinguish the two, and that is their purpose.
    pub encrypted: bool,
}

/// Why the bytes aren't an acceptable ClientHello. All of it is the client's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum HelloError {
    /// The record isn't a handshake record of TLS, is empty, or is larger than TLS allows.
    #[error("not a TLS handshake record")]
    NotTls,
    /// The first message is another one.
    #[error("the first handshake message is not a ClientHello")]
    NotClientHello,
    /// Larger than the limit.
    #[error("ClientHello larger than {limit} bytes")]
    TooLong {
        /// The limit, in bytes of handshake message.
        limit: usize,
    },
    /// Lengths that contradict each other, or bytes that belong to nothing.
    #[error("malformed ClientHello")]
    Malformed,
    /// An extension twice (RFC 8446 §4.2 forbids it).
    #[error("extension {0} twice in the ClientHello")]
    DuplicateExtension(u16),
    /// More than one name, another kind of name, an IP address, or characters no host name holds.
    #[error("server name is not one host name")]
    ServerName,
}

/// Reassembles a ClientHello from a connection's first bytes, however they are split into records
/// and segments.
#[derive(Debug)]
pub struct HelloReader {
    limit: usize,
    /// Raw bytes whose records are already in `message`.
    consumed: usize,
    message: Vec<u8>,
}

impl HelloReader {
    /// For messages of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, consumed: 0, message: Vec::new() }
    }

    /// Looks at all bytes read so far; call it again with more appended. Bytes after the
    /// ClientHello's record (early data) are left alone.
    ///
    /// # Errors
    /// [`HelloError`]. More bytes can't repair it.
    pub fn parse(&mut self, bytes: &[u8]) -> Result<Parsed<ClientHello>, HelloError> {
        loop {
            let rest = bytes.get(self.consumed..).unwrap_or_default();
            let Parsed::Complete(payload) = self.record(rest)? else {
                // A wrong or oversized message is refused as soon as its header shows it.
                self.body_len(partial(rest))?;
                return Ok(Parsed::Incomplete);
            };
            // The common case: the whole message in the first record, parsed where it lies.
            if self.message.is_empty()
                && let Some(len) = self.body_len(payload)?
                && let Some(body) = payload.get(MESSAGE_HEADER..)
                && body.len() >= len
            {
                return complete(body, len);
            }
            self.message.extend_from_slice(payload);
            self.consumed += RECORD_HEADER + payload.len();
            if let Some(len) = self.body_len(&[])?
                && let Some(body) = self.message.get(MESSAGE_HEADER..)
                && body.len() >= len
            {
                return complete(body, len);
            }
        }
    }

    /// The payload of the record at the front of `bytes`, which follow those consumed.
    fn record<'a>(&self, bytes: &'a [u8]) -> Result<Parsed<&'a [u8]>, HelloError> {
        if bytes.first().is_some_and(|kind| *kind != HANDSHAKE)
            // `legacy_record_version`: 0x0301 or 0x0303 in practice, never another major version.
            || bytes.get(1).is_some_and(|major| *major != 3)
        {
            return Err(HelloError::NotTls);
        }
        let Some(&[_, _, _, high, low]) = bytes.first_chunk() else {
            return Ok(Parsed::Incomplete);
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len == 0 || len > LARGEST_RECORD {
            return Err(HelloError::NotTls);
        }
        // Records of a byte each would make the raw bytes many times the message. It is the record's
        // header that tells, so the answer doesn't depend on how many bytes happen to be there.
        if self.consumed + RECORD_HEADER + len > 2 * self.limit {
            return Err(HelloError::TooLong { limit: self.limit });
        }
        match bytes[RECORD_HEADER..].get(..len) {
            Some(payload) => Ok(Parsed::Complete(payload)),
            None => Ok(Parsed::Incomplete),
        }
    }

    /// The length that the message's header announces, once that header is there. `next` are the
    /// bytes that follow those in `message`.
    fn body_len(&self, next: &[u8]) -> Result<Option<usize>, HelloError> {
        let mut header = [0; MESSAGE_HEADER];
        let mut found = 0;
        for (slot, byte) in header.iter_mut().zip(self.message.iter().chain(next)) {
            *slot = *byte;
            found += 1;
        }
        if found > 0 && header[0] != CLIENT_HELLO {
            return Err(HelloError::NotClientHello);
        }
        if found < MESSAGE_HEADER {
            return Ok(None);
        }
        let [_, high, middle, low] = header;
        let len = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if len > self.limit {
            return Err(HelloError::TooLong { limit: self.limit });
        }
        Ok(Some(len))
    }
}

/// What is there of the payload of an incomplete record.
fn partial(bytes: &[u8]) -> &[u8] {
    bytes.get(RECORD_HEADER..).unwrap_or_default()
}

/// Parses the message's body. It must end with its record: a client has nothing more to say in the
/// handshake before the server spoke.
fn complete(body: &[u8], len: usize) -> Result<Parsed<ClientHello>, HelloError> {
    if body.len() != len {
        return Err(HelloError::Malformed);
    }
    parse_body(Reader::new(body)).map(Parsed::Complete)
}

impl From<Truncated> for HelloError {
    fn from(Truncated: Truncated) -> Self {
        Self::Malformed
    }
}

fn parse_body(mut body: Reader<'_>) -> Result<ClientHello, HelloError> {
    let _legacy_version = body.u16()?;
    let _random = body.take(32)?;
    let session_id = body.vec8()?.bytes();
    let cipher_suites = body.vec16()?.bytes();
    let compression_methods = body.vec8()?.bytes();
    if session_id.len() > 32
        || cipher_suites.is_empty()
        || !cipher_suites.len().is_multiple_of(2)
        || compression_methods.is_empty()
    {
        return Err(HelloError::Malformed);
    }
    let mut hello = ClientHello { server_name: None, alpn: Vec::new(), encrypted: false };
    if body.is_empty() {
        // TLS 1.2 allows a hello without extensions (RFC 5246 §7.4.1.2).
        return Ok(hello);
    }
    let mut extensions = body.vec16()?;
    if !body.is_empty() {
        return Err(HelloError::Malformed);
    }
    let mut kinds = Vec::with_capacity(32);
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vec16()?;
        kinds.push(kind);
        match kind {
            SERVER_NAME => hello.server_name = Some(server_name(data)?),
            ALPN => hello.alpn = alpn(data)?,
            ENCRYPTED_CLIENT_HELLO => hello.encrypted = true,
            _ => {}
        }
    }
    kinds.sort_unstable();
    match kinds.array_windows().find(|[a, b]| a == b) {
        Some([kind, _]) => Err(HelloError::DuplicateExtension(*kind)),
        None => Ok(hello),
    }
}

/// `ServerNameList` with exactly one `HostName`. The RFC wants ASCII without a trailing dot.
fn server_name(mut data: Reader<'_>) -> Result<Host, HelloError> {
    let mut list = data.vec16()?;
    let kind = list.u8().map_err(|Truncated| HelloError::ServerName)?;
    let name = list.vec16()?.bytes();
    if !data.is_empty() {
        return Err(HelloError::Malformed);
    }
    if kind != 0 || !list.is_empty() || name.ends_with(b".") {
        return Err(HelloError::ServerName);
    }
    match str::from_utf8(name).map(Host::parse) {
        Ok(Ok(host @ Host::Name(_))) => Ok(host),
        _ => Err(HelloError::ServerName),
    }
}

/// `ProtocolNameList`: at least one name, none of them empty.
fn alpn(mut data: Reader<'_>) -> Result<Vec<Vec<u8>>, HelloError> {
    let mut list = data.vec16()?;
    if !data.is_empty() || list.is_empty() {
        return Err(HelloError::Malformed);
    }
    let mut names = Vec::new();
    while !list.is_empty() {
        let name = list.vec8()?.bytes();
        if name.is_empty() {
            return Err(HelloError::Malformed);
        }
        names.push(name.to_vec());
    }
    Ok(names)
}

#[cfg(test)]
mod tests;

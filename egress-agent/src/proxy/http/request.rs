//! A request in the one form that decisions are made of and that is sent on, whatever version it
//! came in.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, uri::PathAndQuery};

use super::{
    authority::{self, Authority, Target},
    bad::BadMessage,
    framing::{self, Framing},
    grpc,
    h1::RequestHead,
    headers::{self, HopByHopFields},
    spare_buffers::Headers,
};
use crate::{
    proxy::inbox::field_bytes,
    types::{Host, OriginalPort, Port, Text},
};

/// What a request takes besides its head, in bytes, about: its task and its buffers.
pub(super) const TASK: usize = 8 * 1024;

/// What a request takes in memory while it is under way, in bytes, about: its head as received, a copy
/// on its way to the upstream, and what a task needs. `target` is the length of its target.
pub(super) fn held_bytes(headers: &HeaderMap, target: usize) -> usize {
    2 * (field_bytes(headers) + target) + TASK
}

/// What a connection contributes to its requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The port that was dialled.
    pub(super) port: OriginalPort,
    /// `http`, or `https` where TLS was terminated.
    pub(super) scheme: &'static str,
}

impl Origin {
    /// The port that a host without one stands for.
    fn default_port(self) -> Option<Port> {
        Port::new(if self.scheme == "https" { 443 } else { 80 })
    }
}

/// A request without contradictions; its headers are end-to-end ones only, without `Host` and
/// without framing.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) version: Version,
    pub(super) scheme: &'static str,
    pub(super) method: Method,
    pub(super) authority: Authority,
    /// Path and query in visible ASCII, or `*`.
    pub(super) path: Text,
    pub(super) headers: Headers,
    /// The head as it was received, in which most of the rest lies; empty for HTTP/2.
    pub(super) head: Bytes,
    /// Its `X-Request-Id`, once it has one.
    pub(super) id: Option<Text>,
    pub(super) framing: Framing,
    /// The client waits for `100 Continue`.
    pub(super) expects_continue: bool,
    /// What `Upgrade` asks for.
    pub(super) upgrade: Option<HeaderValue>,
    /// The client means to send more requests on the connection.
    pub(super) keep_alive: bool,
}

impl Request {
    /// What it takes in memory while it is under way; see [`held_bytes`].
    pub(super) fn held_bytes(&self) -> usize {
        held_bytes(&self.headers, self.path.len() + self.authority.text.len())
    }

    /// Whether it is gRPC.
    pub(super) fn is_grpc(&self) -> bool {
        grpc::is_grpc(&self.headers)
    }

    /// The value of a header as text, if there is one.
    pub(super) fn text(&self, name: &HeaderName) -> Option<Text> {
        let value = self.headers.get(name)?;
        Some(Text::part_of(&self.head, value.as_bytes()))
    }

    /// From an HTTP/1 head. `last` is the host that the connection's last request asked for.
    ///
    /// # Errors
    /// Whatever could be read in two ways.
    pub(super) fn from_h1(
        head: RequestHead,
        origin: Origin,
        last: Option<&Host>,
    ) -> Result<Self, BadMessage> {
        let RequestHead { method, target, version, mut headers, head } = head;
        let framing = framing::of_request(version, &headers)?;
        let text = std::str::from_utf8(&target).map_err(|_| BadMessage::Target)?;
        let Target { authority, path } = Target::parse(&method, text, origin.scheme)?;
        let named = authority::host_header(&headers, &head, last)?;
        if version == Version::HTTP_11 && named.is_none() {
            return Err(BadMessage::NoHost);
        }
        let authority = authority::reconcile(authority, named, origin.default_port())?;
        // CONNECT names the port of the far end, which is refused as CONNECT, not as this.
        let authority =
            if method == Method::CONNECT { authority } else { authority.on_port(origin.port)? };
        let path = if path.is_empty() { "/" } else { path };
        let path = Text::part_of(&target, path.as_bytes());
        let expects_continue =
            expectation(&headers)? && version == Version::HTTP_11 && framing != Framing::None;
        let HopByHopFields { close, keep_alive, upgrade } = headers::take_hop_by_hop(&mut headers);
        remove_framing(&mut headers);
        Ok(Self {
            version,
            scheme: origin.scheme,
            method,
            authority,
            path,
            headers,
            head,
            id: None,
            framing,
            expects_continue,
            // With a body it could not be told where the other protocol begins.
            upgrade: upgrade
                .filter(|_| version == Version::HTTP_11 && framing == Framing::None)
                .and_then(|upgrade| headers::wanted_upgrade(&upgrade)),
            keep_alive: !close && (version == Version::HTTP_11 || keep_alive),
        })
    }

    /// From an HTTP/2 head; `ended` if END_STREAM came with it.
    ///
    /// # Errors
    /// Whatever could be read in two ways, or has no place in HTTP/2 (RFC 9113 §8.2.2).
    pub(super) fn from_h2(
        parts: http::request::Parts,
        ended: bool,
        origin: Origin,
        max_headers: usize,
    ) -> Result<Self, BadMessage> {
        let http::request::Parts { method, uri, mut headers, .. } = parts;
        if headers.len() > max_headers {
            return Err(BadMessage::TooManyHeaders { limit: max_headers });
        }
        if headers.contains_key(header::TRANSFER_ENCODING)
            || headers.contains_key(header::CONNECTION)
            || headers.contains_key(header::UPGRADE)
        {
            return Err(BadMessage::Http2Field);
        }
        if uri.scheme_str().is_some_and(|scheme| scheme != origin.scheme) {
            return Err(BadMessage::Scheme);
        }
        let target =
            uri.authority().map(|text| Authority::parse(text.as_str().as_bytes())).transpose()?;
        let header = authority::host_header(&headers, &Bytes::new(), None)?;
        let authority = authority::reconcile(target, header, origin.default_port())?;
        let authority =
            if method == Method::CONNECT { authority } else { authority.on_port(origin.port)? };
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        // A query without a path has no place in HTTP/1's request line, and servers take it for one of `/`.
        let is_target = path.starts_with('/') || (path == "*" && method == Method::OPTIONS);
        if !is_target {
            return Err(BadMessage::Target);
        }
        let framing = match (framing::content_length(&headers)?, ended) {
            (Some(0) | None, true) if method == Method::GET || method == Method::HEAD => {
                Framing::None
            }
            (Some(length), _) => Framing::Length(length),
            (None, true) => Framing::None,
            (None, false) => Framing::Chunked,
        };
        let expects_continue = expectation(&headers)? && framing != Framing::None;
        headers::take_hop_by_hop(&mut headers);
        remove_framing(&mut headers);
        join_cookies(&mut headers);
        Ok(Self {
            version: Version::HTTP_2,
            scheme: origin.scheme,
            method,
            authority,
            path: path.into(),
            headers: headers.into(),
            head: Bytes::new(),
            id: None,
            framing,
            expects_continue,
            upgrade: None,
            keep_alive: true,
        })
    }
}

fn expectation(headers: &HeaderMap) -> Result<bool, BadMessage> {
    let mut values = headers.get_all(header::EXPECT).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        (Some(_), _) => Err(BadMessage::Expectation),
    }
}

fn remove_framing(headers: &mut HeaderMap) {
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
}

/// HTTP/2 may split cookies, which HTTP/1 must not see (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(second)) = (cookies.next(), cookies.next()) {
        let mut joined = first.as_bytes().to_vec();
        for cookie in std::iter::once(second).chain(cookies) {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(cookie.as_bytes());
        }
        if let Ok(joined) = HeaderValue::from_bytes(&joined) {
            headers.insert(header::COOKIE, joined);
        }
    }
}

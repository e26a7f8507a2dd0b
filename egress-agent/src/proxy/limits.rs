//! Deadlines and limits of a worker.

use std::time::Duration;

use crate::net::PingInterval;

/// How long things may take and how much there may be. Every wait has a deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// From accept to the first byte.
    pub first_byte: Duration,
    /// From the first byte of a ClientHello to its last.
    pub client_hello: Duration,
    /// From the first byte of a request head to its last.
    pub request_head: Duration,
    /// A client's connection between two requests.
    pub idle: Duration,
    /// Without a byte of a request body or a response body that is under way, where the configuration
    /// says nothing else.
    pub stream_idle: Duration,
    /// TLS handshake: with an upstream, on top of `connectTimeout`, and with a client.
    pub tls_handshake: Duration,
    /// Without a connection in a tunnel.
    pub tunnel_idle: Duration,
    /// When an HTTP/2 upstream is asked for a sign of life, and given up.
    pub upstream_pulse: PingInterval,
    /// The same of a tunnel's node.
    pub tunnel_pulse: PingInterval,
    /// How long a refused client is given to take its refusal.
    pub linger: Duration,
    /// Largest ClientHello, in bytes of handshake message.
    pub client_hello_bytes: usize,
    /// Largest request head, in bytes.
    pub request_head_bytes: usize,
    /// Most headers in one head of a client.
    pub headers: usize,
    /// Most headers in one head of an upstream.
    pub response_headers: usize,
    /// Requests under way on one HTTP/2 connection of a client, as long as there is memory for them.
    pub http2_streams: u32,
    /// Requests that an HTTP/2 client may have reset before they were accepted (rapid reset,
    /// CVE-2023-44487); one more ends its connection.
    pub http2_resets: usize,
    /// Connections from clients to one worker.
    pub connections: usize,
    /// Connections from one source (a workload, or an address) to one worker.
    pub connections_per_source: usize,
    /// Requests and forwarded connections of one worker that are under way.
    pub requests: usize,
    /// The same of one source.
    pub requests_per_source: usize,
    /// Bytes that the heads of requests under way take.
    pub request_bytes: usize,
    /// The same of one source.
    pub request_bytes_per_source: usize,
    /// Bytes that wait for readers of HTTP/2 streams, here and to be written; every connection may have
    /// one frame to be written besides. A source has half of it.
    pub queued_bytes: usize,
    /// Connections to upstreams that wait for a request.
    pub idle_upstreams: usize,
    /// Pipes that bulk is spliced through; connections beyond them copy.
    pub pipes: usize,
    /// Connections in one tunnel at the same time.
    pub tunnel_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(10),
            client_hello: Duration::from_secs(10),
            request_head: Duration::from_secs(15),
            idle: Duration::from_secs(3600),
            stream_idle: Duration::from_secs(300),
            tls_handshake: Duration::from_secs(10),
            tunnel_idle: Duration::from_secs(900),
            upstream_pulse: PingInterval {
                ask_after: Duration::from_secs(10),
                give_up_after: Duration::from_secs(10),
                between: Duration::from_secs(300),
                always: false,
            },
            tunnel_pulse: PingInterval {
                ask_after: Duration::from_secs(15),
                give_up_after: Duration::from_secs(10),
                between: Duration::ZERO,
                always: true,
            },
            linger: Duration::from_secs(2),
            client_hello_bytes: 32 * 1024,
            request_head_bytes: 64 * 1024,
            headers: 100,
            response_headers: 1000,
            http2_streams: 128,
            http2_resets: 20,
            connections: 50_000,
            connections_per_source: 25_000,
            requests: 50_000,
            requests_per_source: 25_000,
            request_bytes: 512 * 1024 * 1024,
            request_bytes_per_source: 256 * 1024 * 1024,
            queued_bytes: 512 * 1024 * 1024,
            idle_upstreams: 10_000,
            pipes: 1024,
            tunnel_streams: 10_000,
        }
    }
}

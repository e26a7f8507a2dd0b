//! How large a client's messages may be, and how long they may take.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;

use super::bytes;
use crate::{proxy::Limits, types::duration_within};

/// Options of `gateway` that bound what one client sends. They hold for each connection.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct MessageArgs {
    /// Bytes of the head of a request or a response; of HTTP/2, its fields as RFC 9113 counts them.
    #[arg(long, value_name = "BYTES", default_value = "64KiB", value_parser = size)]
    max_header_bytes: usize,
    /// Headers in the head of a request.
    #[arg(long, value_name = "N", default_value_t = Limits::default().headers, value_parser = count(16, 10_000))]
    max_headers: usize,
    /// Headers in the head of a response.
    #[arg(long, value_name = "N", default_value_t = Limits::default().response_headers, value_parser = count(16, 10_000))]
    max_response_headers: usize,
    /// Bytes of a ClientHello.
    #[arg(long, value_name = "BYTES", default_value = "32KiB", value_parser = size)]
    max_client_hello_bytes: usize,
    /// From the first byte of a ClientHello to its last.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = time)]
    client_hello_timeout: Duration,
    /// From the start of a connection to its first byte.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = time)]
    first_byte_timeout: Duration,
    /// From the first byte of a request's head to its last.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = time)]
    request_head_timeout: Duration,
    /// How long a client's HTTP connection may be without a request.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = time)]
    idle_timeout: Duration,
    /// Requests under way on one HTTP/2 connection of a client; fewer where little memory is left.
    #[arg(long, value_name = "N", default_value_t = Limits::default().http2_streams, value_parser = clap::value_parser!(u32).range(8..=10_000))]
    max_http2_streams: u32,
    /// Requests that an HTTP/2 client may have reset before the gateway looked at them; one more ends
    /// its connection.
    #[arg(long, value_name = "N", default_value_t = Limits::default().http2_resets, value_parser = count(1, 10_000))]
    max_http2_resets: usize,
}

impl MessageArgs {
    /// The limits, with these in them.
    pub(crate) fn within(&self, limits: Limits) -> Limits {
        Limits {
            first_byte: self.first_byte_timeout,
            client_hello: self.client_hello_timeout,
            request_head: self.request_head_timeout,
            idle: self.idle_timeout,
            client_hello_bytes: self.max_client_hello_bytes,
            request_head_bytes: self.max_header_bytes,
            headers: self.max_headers,
            response_headers: self.max_response_headers,
            http2_streams: self.max_http2_streams,
            http2_resets: self.max_http2_resets,
            ..limits
        }
    }
}

/// A count from `least` to `most`.
fn count(least: u64, most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..=most)
}

/// Bytes of one message.
fn size(text: &str) -> Result<usize, String> {
    let bytes = bytes(text)?;
    usize::try_from(bytes)
        .ok()
        .filter(|bytes| (1 << 10..=1 << 20).contains(bytes))
        .ok_or_else(|| format!("found `{text}`, expected 1KiB to 1MiB"))
}

/// `500ms`, `10s`, `5m`, `1h30m`.
fn time(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);
    duration_within(text, range, "from 100ms to 24h")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        messages: MessageArgs,
    }

    fn limits(options: &str) -> Result<Limits, String> {
        let words = std::iter::once("x").chain(options.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(line.messages.within(Limits::default()))
    }

    #[test]
    fn the_defaults_are_those_of_the_proxy() {
        assert_eq!(limits(""), Ok(Limits::default()));
    }

    #[test]
    fn what_is_set_counts() {
        let all = "--max-header-bytes 16KiB --max-headers 50 --max-response-headers 60 \
                   --max-client-hello-bytes 4096 \
                   --client-hello-timeout 2s --first-byte-timeout 500ms --request-head-timeout 1m \
                   --idle-timeout 2h --max-http2-streams 16 --max-http2-resets 5";
        let expected = Limits {
            request_head_bytes: 16 << 10,
            headers: 50,
            response_headers: 60,
            client_hello_bytes: 4096,
            client_hello: Duration::from_secs(2),
            first_byte: Duration::from_millis(500),
            request_head: Duration::from_secs(60),
            idle: Duration::from_secs(7200),
            http2_streams: 16,
            http2_resets: 5,
            ..Limits::default()
        };
        assert_eq!(limits(all), Ok(expected));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (option, value) in [
            ("--max-header-bytes", "1023"),
            ("--max-header-bytes", "2MiB"),
            ("--max-headers", "0"),
            ("--max-response-headers", "10001"),
            ("--max-client-hello-bytes", "big"),
            ("--client-hello-timeout", "0s"),
            ("--first-byte-timeout", "10"),
            ("--request-head-timeout", "25h"),
            ("--idle-timeout", "-1s"),
            ("--max-http2-streams", "7"),
            ("--max-http2-resets", "0"),
        ] {
            let error = limits(&format!("{option}={value}")).unwrap_err();
            assert!(error.contains(option), "{option}: {error}");
        }
    }
}

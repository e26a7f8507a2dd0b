//! The standard environment variables, value by value.

use std::{path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};

use super::protocol::{Compression, Protocol};
use crate::telemetry::{Root, Sampler, Signal};

/// Longest time for one request.
const LONGEST: u32 = 300_000;
/// Most bytes of a resource's attributes: each batch has them.
const RESOURCE_BYTES: usize = 16 << 10;

/// Reads variables, and collects what is wrong with them.
pub(super) struct Environment<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    pub(super) faults: Vec<String>,
}

impl<'a> Environment<'a> {
    pub(super) fn new(get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { get, faults: Vec::new() }
    }

    /// The value; an empty one counts as none (the specification says so).
    pub(super) fn value(&self, name: &str) -> Option<String> {
        (self.get)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    pub(super) fn fault(&mut self, name: &str, what: impl AsRef<str>) {
        let fault = format!("{name}: {}", what.as_ref());
        // A variable of both kinds is read twice.
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Reads it, or notes why it can't be read.
    fn read<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.value(name)?;
        read(&value).map_err(|what| self.fault(name, what)).ok()
    }

    /// `OTEL_EXPORTER_OTLP_<SIGNAL>_<NAME>`, or else `OTEL_EXPORTER_OTLP_<NAME>`.
    pub(super) fn of_signal<T>(
        &mut self,
        signal: Signal,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let own = own_name(signal, name);
        if self.value(&own).is_some() {
            return self.read(&own, read);
        }
        self.read(&format!("OTEL_EXPORTER_OTLP_{name}"), read)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        let read = |text: &str| match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("found `{text}`, expected true or false")),
        };
        self.read(name, read).unwrap_or_default()
    }

    /// `OTEL_LOGS_EXPORTER`, `OTEL_TRACES_EXPORTER`: whether it is asked for by name, and not at all.
    pub(super) fn exporter(&mut self, signal: Signal) -> Option<bool> {
        let name = format!("OTEL_{}_EXPORTER", signal.name().to_uppercase());
        self.read(&name, |text| match text {
            "otlp" => Ok(true),
            "none" => Ok(false),
            _ => Err(format!("found `{text}`, expected otlp or none")),
        })
    }

    /// `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`.
    pub(super) fn sampler(&mut self) -> Sampler {
        const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
        let ratio = self.read(ARGUMENT, |text| {
            let number = text.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
            number.ok_or_else(|| format!("found `{text}`, expected a number from 0 to 1"))
        });
        let by_ratio = Root::ratio(ratio.unwrap_or(1.0));
        let read = |text: &str| {
            let (name, parent_based) = match text.strip_prefix("parentbased_") {
                Some(name) => (name, true),
                None => (text, false),
            };
            let root = match name {
                "always_on" => Root::AlwaysOn,
                "always_off" => Root::AlwaysOff,
                "traceidratio" => by_ratio,
                _ => {
                    return Err(format!(
                        "found `{text}`, expected always_on, always_off, traceidratio, or one of these \
                         with parentbased_ before it"
                    ));
                }
            };
            Ok(Sampler { root, parent_based })
        };
        self.read("OTEL_TRACES_SAMPLER", read).unwrap_or_default()
    }

    /// `OTEL_RESOURCE_ATTRIBUTES`.
    pub(super) fn resource(&mut self) -> Vec<(String, String)> {
        let read = |text: &str| {
            if text.len() > RESOURCE_BYTES {
                return Err(format!(
                    "found {} bytes, expected at most {RESOURCE_BYTES}",
                    text.len()
                ));
            }
            pairs(text)
        };
        self.read("OTEL_RESOURCE_ATTRIBUTES", read).unwrap_or_default()
    }
}

/// The variable of one signal.
pub(super) fn own_name(signal: Signal, name: &str) -> String {
    format!("OTEL_EXPORTER_OTLP_{}_{name}", signal.name().to_uppercase())
}

/// `…_PROTOCOL`.
pub(super) fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "http/protobuf" => Ok(Protocol::Http),
        "grpc" => Ok(Protocol::Grpc),
        _ => Err(format!(
            "found `{text}`, expected http/protobuf, which collectors serve on port 4318, or grpc, which they \
             serve on port 4317"
        )),
    }
}

/// `…_COMPRESSION`.
pub(super) fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        _ => Err(format!("found `{text}`, expected none or gzip")),
    }
}

/// `…_TIMEOUT`, in milliseconds.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let number = text.parse::<u32>().ok().filter(|number| (1..=LONGEST).contains(number));
    number
        .map(|number| Duration::from_millis(number.into()))
        .ok_or_else(|| format!("found `{text}`, expected milliseconds from 1 to {LONGEST}"))
}

/// `…_CERTIFICATE`, `…_CLIENT_CERTIFICATE`, `…_CLIENT_KEY`.
#[expect(clippy::unnecessary_wraps, reason = "it is passed where others can fail")]
pub(super) fn file(text: &str) -> Result<PathBuf, String> {
    Ok(text.into())
}

/// `…_HEADERS`. Values are secrets as a rule, so no message repeats them.
pub(super) fn headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let expected = "expected NAME=VALUE, several separated by commas, values percent-encoded";
    let mut headers = Vec::new();
    for (position, (name, value)) in pairs(text)
        .map_err(|_| format!("found something else, {expected}"))?
        .into_iter()
        .enumerate()
    {
        let name = HeaderName::from_bytes(name.as_bytes());
        let name =
            name.map_err(|_| format!("header {} has no usable name, {expected}", position + 1))?;
        if OWN.contains(&name.as_str()) {
            return Err(format!("the header `{name}` is the agent's own to set"));
        }
        let value = HeaderValue::from_str(&value);
        let mut value =
            value.map_err(|_| format!("the value of `{name}` can't be sent, {expected}"))?;
        value.set_sensitive(true);
        headers.push((name, value));
    }
    Ok(headers)
}

/// What frames a request.
const OWN: [&str; 11] = [
    "host",
    "content-encoding",
    "content-type",
    "content-length",
    "grpc-encoding",
    "grpc-timeout",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "expect",
];

/// `KEY=VALUE,KEY=VALUE` with percent-encoded values, as W3C Baggage has them.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (key, value) = part
                .split_once('=')
                .map(|(key, value)| (key.trim(), value.trim()))
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| {
                    format!("found `{part}`, expected KEY=VALUE, several separated by commas")
                })?;
            let value = decoded(value).ok_or_else(|| {
                format!("found `{value}` as the value of {key}, expected percent-encoded UTF-8")
            })?;
            Ok((key.to_owned(), value))
        })
        .collect()
}

/// Without percent-encoding (RFC 3986 §2.1).
pub(super) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.bytes();
    while let Some(byte) = left.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit =
            |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(digit(left.next()?)? << 4 | digit(left.next()?)?);
    }
    String::from_utf8(bytes).ok()
}

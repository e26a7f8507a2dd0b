//! How much there may be of everything that sources share: derived from what the process may use,
//! unless it is set.

mod lookups;
mod messages;
pub(crate) mod pressure;

use std::fmt;

use anyhow::bail;

pub(crate) use self::{lookups::LookupArgs, messages::MessageArgs};

use crate::{
    proxy::Limits,
    telemetry::{LimitStats, Resource},
};

/// Options of `gateway` that bound what its sources share. All bounds are of the process; each worker
/// has an equal part.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct LimitArgs {
    /// The memory that this process may use [default: the smallest limit of its cgroups, or else the
    /// machine's memory]. Bounds are derived from it; at 80 % of it nothing more is given out.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory_limit: Option<u64>,
    /// Descriptors that connections do not get: for health, admin, configuration, names and the log,
    /// besides those that are open when it starts [default: 64, and 16 a worker].
    #[arg(long, value_name = "N")]
    reserved_descriptors: Option<u64>,
    /// Connections from clients [default: by memory and descriptors, at most 50000 a worker].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_connections: Option<u64>,
    /// Connections from one source: a workload of mesh.yaml, or an address [default: half of all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_connections_per_source: Option<u64>,
    /// Requests and forwarded connections under way [default: by memory and descriptors, at most
    /// 50000 a worker].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_requests: Option<u64>,
    /// Requests and forwarded connections under way from one source [default: half of all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_requests_per_source: Option<u64>,
    /// Memory for the heads of requests under way; a source has half of it [default: a quarter of the
    /// memory limit].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_request_bytes: Option<u64>,
    /// Memory for what HTTP/2 holds for readers that do not read: what waits to be written to peers, and
    /// what was received and is not taken [default: an eighth of the memory limit].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_queued_bytes: Option<u64>,
}

/// A number of bytes, as `536870912` or `512MiB`.
fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]
        .into_iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))
        .unwrap_or((text, 1));
    let bytes = number.trim().parse().ok().and_then(|number: u64| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
        format!("found `{text}`, expected a number of bytes above 0, as 536870912, 512MiB or 2GiB")
    })
}

/// What the process may use, and what it does before it serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Allowance {
    /// In bytes.
    pub(crate) memory: u64,
    /// `RLIMIT_NOFILE`; `None` for no limit.
    pub(crate) descriptors: Option<u64>,
    /// Descriptors that are open.
    pub(crate) open: u64,
}

/// Most of anything that one worker has, unless it is set.
const MOST: u64 = 50_000;
/// Memory that a connection or a request may take besides what is counted in bytes.
const EACH: u64 = 32 * 1024;
/// Fewer connections than these are not enough to serve anybody well.
const FEW: u64 = 64;

/// The bounds of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Derived {
    memory: u64,
    descriptors: Option<u64>,
    connections: u64,
    connections_per_source: u64,
    requests: u64,
    requests_per_source: u64,
    request_bytes: u64,
    queued_bytes: u64,
    idle_upstreams: u64,
    pipes: u64,
    workers: u64,
}

impl LimitArgs {
    /// The memory that may be used, where it is set.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.memory_limit
    }

    /// Derives what is not set. Of the descriptors that are left, connections from clients get two
    /// fifths; a request may take two at a time, for look-ups or for its connection, so requests are
    /// a fifth; the rest is for idle connections to upstreams and for pipes.
    ///
    /// # Errors
    /// There are not enough descriptors to serve anybody.
    pub(crate) fn derive(&self, allowance: Allowance, workers: usize) -> anyhow::Result<Derived> {
        let workers = u64::try_from(workers).unwrap_or(1).max(1);
        let Allowance { memory, descriptors, open } = allowance;
        let reserved = self.reserved_descriptors.unwrap_or(64 + 16 * workers);
        let left = match descriptors {
            None => u64::MAX,
            Some(limit) => match limit.checked_sub(open.saturating_add(reserved)) {
                Some(left) if left >= 20 * workers => left,
                _ => bail!(
                    "the limit of open files is {limit}: {open} are open and {reserved} are reserved, so too few are left for connections; raise it (LimitNOFILE=, ulimit -n) or lower --reserved-descriptors"
                ),
            },
        };
        let by_memory = (memory / EACH).max(FEW).min(MOST * workers);
        let connections = self.max_connections.unwrap_or((left / 5 * 2).min(by_memory));
        let requests = self.max_requests.unwrap_or((left / 5).min(by_memory));
        let half = |all: u64| (all / 2).max(1);
        let derived = Derived {
            memory,
            descriptors,
            connections,
            connections_per_source: self.max_connections_per_source.unwrap_or(half(connections)),
            requests,
            requests_per_source: self.max_requests_per_source.unwrap_or(half(requests)),
            request_bytes: self.max_request_bytes.unwrap_or(memory / 4),
            queued_bytes: self.max_queued_bytes.unwrap_or(memory / 8),
            idle_upstreams: (left / 10).min(10_000 * workers),
            pipes: (left / 20).min(1024 * workers),
            workers,
        };
        for (what, number) in [("connections", connections), ("requests", requests)] {
            if number < FEW * workers {
                tracing::warn!(
                    "there is room for {number} {what} only; raise the limits of open files (LimitNOFILE=, ulimit -n) and of memory"
                );
            }
        }
        Ok(derived)
    }
}

impl Derived {
    /// What one worker has of it.
    pub(crate) fn of_worker(&self) -> Limits {
        let part = |all: u64| usize::try_from((all / self.workers).max(1)).unwrap_or(usize::MAX);
        Limits {
            connections: part(self.connections),
            connections_per_source: part(self.connections_per_source),
            requests: part(self.requests),
            requests_per_source: part(self.requests_per_source),
            request_bytes: part(self.request_bytes),
            request_bytes_per_source: part(self.request_bytes / 2),
            queued_bytes: part(self.queued_bytes),
            idle_upstreams: part(self.idle_upstreams),
            pipes: part(self.pipes),
            ..Limits::default()
        }
    }

    /// Shows them.
    pub(crate) fn publish(&self, stats: &LimitStats) {
        stats.set_limit(Resource::Connections, self.connections);
        stats.set_limit(Resource::Requests, self.requests);
        stats.set_limit(Resource::RequestBytes, self.request_bytes);
        stats.set_limit(Resource::QueuedBytes, self.queued_bytes);
        stats.set_limit(Resource::Memory, self.memory);
        stats.set_limit(Resource::Descriptors, self.descriptors.unwrap_or(0));
    }
}

/// Each limit in plain words, for the log.
impl fmt::Display for Derived {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            memory,
            descriptors,
            connections,
            connections_per_source,
            requests,
            requests_per_source,
            request_bytes,
            queued_bytes,
            idle_upstreams,
            pipes,
            workers,
        } = self;
        write!(out, "memory {memory} bytes, ")?;
        match descriptors {
            Some(descriptors) => write!(out, "descriptors {descriptors}, ")?,
            None => write!(out, "descriptors without a limit, ")?,
        }
        write!(
            out,
            "connections {connections} ({connections_per_source} of one source), requests {requests} \
             ({requests_per_source} of one source), heads of requests {request_bytes} bytes, HTTP/2 held \
             for readers {queued_bytes} bytes, idle connections to upstreams {idle_upstreams}, pipes \
             {pipes}, workers {workers}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn derive(args: &LimitArgs, memory: u64, descriptors: Option<u64>, workers: usize) -> Derived {
        args.derive(Allowance { memory, descriptors, open: 100 }, workers).unwrap()
    }

    #[test]
    fn bounds_follow_memory_and_descriptors() {
        let args = LimitArgs::default();
        // Plenty of both: what one worker can carry.
        let large = derive(&args, 64 << 30, Some(1 << 20), 2);
        assert_eq!((large.connections, large.requests), (100_000, 100_000));
        assert_eq!(large.of_worker().connections, 50_000);
        assert_eq!(large.of_worker().connections_per_source, 25_000);
        // Memory is short.
        let small = derive(&args, 512 * MIB, Some(1 << 20), 2);
        assert_eq!((small.connections, small.requests), (16384, 16384));
        assert_eq!((small.request_bytes, small.queued_bytes), (128 * MIB, 64 * MIB));
        // Descriptors are.
        let few = derive(&args, 512 * MIB, Some(1024), 2);
        assert_eq!(few.connections, (1024 - 100 - 96) / 5 * 2);
        for (descriptors, workers) in [(400, 1), (1024, 2), (1024, 4), (65536, 8), (1 << 20, 64)] {
            let derived = derive(&args, 4096 * MIB, Some(descriptors), workers);
            let used = derived.connections
                + 2 * derived.requests
                + derived.idle_upstreams
                + 2 * derived.pipes;
            assert!(used <= descriptors - 100 - 64, "{derived:?}");
        }
    }

    #[test]
    fn what_is_set_counts() {
        let args = LimitArgs {
            max_connections: Some(10),
            max_connections_per_source: Some(4),
            max_requests: Some(20),
            max_requests_per_source: Some(6),
            max_request_bytes: Some(1000),
            max_queued_bytes: Some(500),
            ..LimitArgs::default()
        };
        let limits = derive(&args, 512 * MIB, None, 2).of_worker();
        assert_eq!((limits.connections, limits.connections_per_source), (5, 2));
        assert_eq!((limits.requests, limits.requests_per_source), (10, 3));
        assert_eq!((limits.request_bytes, limits.request_bytes_per_source), (500, 250));
        assert_eq!(limits.queued_bytes, 250);
    }

    #[test]
    fn the_log_has_them_in_plain_words() {
        let args = LimitArgs { max_connections: Some(10), ..LimitArgs::default() };
        let limited = derive(&args, 512 * MIB, Some(1024), 2).to_string();
        assert_eq!(
            limited,
            "memory 536870912 bytes, descriptors 1024, connections 10 (5 of one source), requests 165 (82 of \
             one source), heads of requests 134217728 bytes, HTTP/2 held for readers 67108864 bytes, idle \
             connections to upstreams 82, pipes 41, workers 2"
        );
        let unlimited = derive(&args, 512 * MIB, None, 2).to_string();
        assert!(unlimited.contains(" descriptors without a limit, "), "{unlimited}");
    }

    #[test]
    fn too_few_descriptors_are_an_error_that_says_what_to_do() {
        let args = LimitArgs::default();
        let allowance = Allowance { memory: MIB, descriptors: Some(200), open: 100 };
        let error = args.derive(allowance, 2).unwrap_err().to_string();
        assert!(error.contains("is 200") && error.contains("LimitNOFILE="), "{error}");
        let args = LimitArgs { reserved_descriptors: Some(10), ..args };
        assert!(args.derive(allowance, 2).is_ok());
    }

    #[test]
    fn sizes_are_read_and_wrong_ones_explained() {
        assert_eq!(bytes("536870912"), Ok(512 * MIB));
        assert_eq!(bytes("512MiB"), Ok(512 * MIB));
        assert_eq!(bytes("2GiB"), Ok(2048 * MIB));
        assert_eq!(bytes("4KiB"), Ok(4096));
        for text in ["", "0", "-1", "512MB", "1.5GiB", "99999999999GiB"] {
            assert!(bytes(text).unwrap_err().contains("512MiB"), "{text}");
        }
    }
}

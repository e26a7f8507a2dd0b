//! From a name to addresses.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hickory_resolver::{
    TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
        ResolverOpts,
    },
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::op::ResponseCode,
    system_conf::read_system_conf,
};
use thiserror::Error;
use tokio::{sync::OnceCell, time::Instant};

/// What stands between names and addresses; the resolver in production.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of a DNS name, IPv4 first; never an empty list.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Arc<[IpAddr]>, ResolveError>>;
}

/// Why a name has no address.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ResolveError {
    /// The name doesn't exist (NXDOMAIN).
    #[error("no such name (NXDOMAIN)")]
    NoSuchName,
    /// It exists, but has neither an A nor an AAAA record.
    #[error("the name has no address")]
    NoAddress,
    /// No answer from the server.
    #[error("the DNS server did not answer in time")]
    Timeout,
    /// The server refused or failed.
    #[error("the DNS server answered {0}")]
    Server(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Which DNS server is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ResolverSource {
    /// Those of `/etc/resolv.conf`, after `/etc/hosts`.
    #[default]
    System,
    /// This one alone, and no hosts file.
    Server(SocketAddr),
}

impl FromStr for ResolverSource {
    type Err = String;

    /// `IP` or `IP:PORT`; IPv6 with a port in brackets.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let with_port = text.parse().ok();
        let alone = || text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 53));
        with_port.or_else(alone).map(Self::Server).ok_or_else(|| {
            format!("found `{text}`, expected the DNS server as IP or IP:PORT, as in 192.0.2.53:53")
        })
    }
}

/// Asks DNS and remembers the answers as long as they live.
pub struct Resolver {
    dns: TokioResolver,
    cache: Mutex<HashMap<Box<str>, Arc<OnceCell<Answer>>>>,
}

#[derive(Clone, Debug)]
struct Answer {
    result: Result<Arc<[IpAddr]>, ResolveError>,
    valid_until: Instant,
}

/// Bounds of a positive answer's life: a TTL of zero must not cost a query per connection, and a
/// day must not outlive a move.
const POSITIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Life of a negative answer.
const NEGATIVE: Duration = Duration::from_secs(2);
/// Names remembered at most.
const CACHE: usize = 8192;

impl Resolver {
    /// Reads the configuration; queries are made from the runtime that calls [`Resolve::resolve`].
    ///
    /// # Errors
    /// `/etc/resolv.conf` can't be read or names no server.
    pub fn new(source: ResolverSource) -> io::Result<Self> {
        let (servers, mut options) = match source {
            ResolverSource::System => {
                let (config, options) = read_system_conf().map_err(|error| {
                    io::Error::other(format!(
                        "/etc/resolv.conf: {error}; expected `nameserver` lines, or name the server with --resolver IP[:PORT]"
                    ))
                })?;
                // Hosts are fully qualified: search domains would make one name mean two.
                (ResolverConfig::from_parts(None, Vec::new(), config.into_parts().2), options)
            }
            ResolverSource::Server(addr) => {
                let connections =
                    [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut c| {
                        c.port = addr.port();
                        c
                    });
                let server = NameServerConfig::new(addr.ip(), true, connections.into());
                let mut options = ResolverOpts::default();
                options.use_hosts_file = ResolveHosts::Never;
                (ResolverConfig::from_parts(None, Vec::new(), vec![server]), options)
            }
        };
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.timeout = options.timeout.min(Duration::from_secs(3));
        options.max_active_requests = 4096;
        // The answers are kept here, where a hit costs no allocation.
        options.cache_size = 0;
        let mut builder =
            TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let dns = builder.build().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { dns, cache: Mutex::default() })
    }

    /// The cell of this name: filled, being filled by another task, or new.
    fn cell(&self, name: &str) -> Arc<OnceCell<Answer>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let alive = |cell: &OnceCell<Answer>| cell.get().is_none_or(|a| a.valid_until > now);
        if let Some(cell) = cache.get(name).filter(|cell| alive(cell)) {
            return Arc::clone(cell);
        }
        if cache.len() >= CACHE {
            cache.retain(|_, cell| alive(cell));
            if cache.len() >= CACHE {
                cache.clear();
            }
        }
        let cell = Arc::default();
        cache.insert(name.into(), Arc::clone(&cell));
        cell
    }

    async fn ask(&self, name: &str) -> Answer {
        // The trailing dot keeps search domains out of it.
        match self.dns.lookup_ip(format!("{name}.")).await {
            Ok(lookup) => {
                let mut addresses: Vec<IpAddr> =
                    lookup.iter().map(|ip| ip.to_canonical()).collect();
                addresses.sort_by_key(IpAddr::is_ipv6);
                addresses.dedup();
                let now = Instant::now();
                let life = Instant::from_std(lookup.valid_until()).saturating_duration_since(now);
                let valid_until = now + life.clamp(POSITIVE.0, POSITIVE.1);
                let result = match addresses.is_empty() {
                    true => Err(ResolveError::NoAddress),
                    false => Ok(addresses.into()),
                };
                Answer { result, valid_until }
            }
            Err(error) => {
                Answer { result: Err(error.into()), valid_until: Instant::now() + NEGATIVE }
            }
        }
    }
}

impl Resolve for Resolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Arc<[IpAddr]>, ResolveError>> {
        Box::pin(async move {
            let cell = self.cell(name);
            // Many connections to one name wait for one query. If its task is dropped, the next
            // one asks.
            cell.get_or_init(|| self.ask(name)).await.result.clone()
        })
    }
}

impl From<NetError> for ResolveError {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Timeout => Self::Timeout,
            NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NXDomain => Self::NoSuchName,
                ResponseCode::NoError => Self::NoAddress,
                code => Self::Server(code.to_str().into()),
            },
            NetError::Dns(DnsError::ResponseCode(code)) => Self::Server(code.to_str().into()),
            NetError::NoConnections => Self::Failed("no DNS server can be reached".into()),
            NetError::Io(error) => Self::Failed(format!("asking the DNS server: {error}")),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! The name servers to ask: those of `/etc/resolv.conf`, which is followed, or one that was named.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
        ResolverOpts,
    },
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{op::ResponseCode, rr::RecordType},
    system_conf::parse_resolv_conf,
};

use super::{addresses::Records, error::ResolveError};

/// How long an answer of the name server is waited for, before it is asked again.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is asked again.
const REPEATS: usize = 2;
/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);

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

/// The files that say who is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Files {
    pub(super) resolv_conf: PathBuf,
    pub(super) hosts: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() }
    }
}

/// Who is asked, as of the last look.
pub(super) struct NameServers {
    dns: TokioResolver,
    followed: Option<Followed>,
}

struct Followed {
    files: Files,
    contents: Contents,
    looked: Instant,
}

#[derive(PartialEq, Eq)]
struct Contents {
    resolv_conf: Vec<u8>,
    hosts: Vec<u8>,
}

impl NameServers {
    /// # Errors
    /// `/etc/resolv.conf` can't be read or names no server.
    pub(super) fn new(source: ResolverSource, files: Files) -> io::Result<Self> {
        match source {
            ResolverSource::System => {
                let contents = Contents::read(&files)?;
                let dns = system(&contents)?;
                let followed = Some(Followed { files, contents, looked: Instant::now() });
                Ok(Self { dns, followed })
            }
            ResolverSource::Server(addr) => Ok(Self { dns: single(addr)?, followed: None }),
        }
    }

    /// Looks at the files, at most once a second. What can't be used changes nothing.
    pub(super) fn follow(&mut self, now: Instant) {
        let Some(followed) = &mut self.followed else { return };
        if now.saturating_duration_since(followed.looked) < LOOK {
            return;
        }
        followed.looked = now;
        // A file that is just being replaced is read with the next look.
        let Ok(contents) = Contents::read(&followed.files) else { return };
        if contents == followed.contents {
            return;
        }
        match system(&contents) {
            Ok(dns) => {
                self.dns = dns;
                tracing::info!("the name servers or hosts of this machine changed");
            }
            Err(error) => tracing::warn!("{error}; the last good name servers are asked on"),
        }
        followed.contents = contents;
    }

    /// For a question, which needs it longer than the next look.
    pub(super) fn client(&self) -> Client {
        Client(self.dns.clone())
    }
}

impl Contents {
    fn read(files: &Files) -> io::Result<Self> {
        let resolv_conf = std::fs::read(&files.resolv_conf).map_err(|error| {
            io::Error::other(format!(
                "{}: {error}; expected `nameserver` lines, or name the server with --resolver \
                 IP[:PORT]",
                files.resolv_conf.display()
            ))
        })?;
        // Without it there are no such hosts.
        let hosts = std::fs::read(&files.hosts).unwrap_or_default();
        Ok(Self { resolv_conf, hosts })
    }
}

fn system(contents: &Contents) -> io::Result<TokioResolver> {
    let (config, options) = parse_resolv_conf(&contents.resolv_conf).map_err(|error| {
        io::Error::other(format!(
            "/etc/resolv.conf: {error}; expected `nameserver` lines, or name the server with \
             --resolver IP[:PORT]"
        ))
    })?;
    build(config.into_parts().2, options)
}

fn single(addr: SocketAddr) -> io::Result<TokioResolver> {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = addr.port();
        connection
    });
    let server = NameServerConfig::new(addr.ip(), true, connections.into());
    let mut options = ResolverOpts::default();
    options.use_hosts_file = ResolveHosts::Never;
    build(vec![server], options)
}

fn build(servers: Vec<NameServerConfig>, mut options: ResolverOpts) -> io::Result<TokioResolver> {
    // Hosts are fully qualified: search domains would make one name mean two.
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = options.timeout.min(PATIENCE);
    options.attempts = options.attempts.min(REPEATS);
    // Larger answers over UDP, and the codes of RFC 6891, whatever `options edns0` says.
    options.edns0 = true;
    options.max_active_requests = 4096;
    // Answers are kept by the desk, by whose shares they are bounded.
    options.cache_size = 0;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().map_err(|error| io::Error::other(error.to_string()))
}

/// Asks for the records of one family.
pub(super) struct Client(TokioResolver);

impl Client {
    pub(super) async fn records(
        &self,
        name: &str,
        family: RecordType,
    ) -> Result<Records, ResolveError> {
        // The trailing dot keeps search domains out of it.
        let lookup = self.0.lookup(format!("{name}."), family).await?;
        let life = lookup.valid_until().saturating_duration_since(Instant::now());
        let records = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
        let addresses: Vec<_> = records.collect();
        match addresses.is_empty() {
            true => Err(ResolveError::NoAddress),
            false => Ok((addresses, life)),
        }
    }
}

impl From<NetError> for ResolveError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
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

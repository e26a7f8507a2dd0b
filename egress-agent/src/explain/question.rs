//! Who asks for what.

use std::{fmt, net::IpAddr, sync::Arc};

use http::{HeaderMap, Method};

use crate::{
    policy::{AddressGuard, MeshConfig, Snapshot},
    types::{
        DEFAULT_SERVICE_ACCOUNT, Host, Labels, Namespace, Node, OriginalPort, Port, SpiffeId,
        Workload,
    },
};

/// Addresses for documentation (RFC 5737, RFC 3849), for what is not known.
const EXTERNAL: [&str; 4] = ["198.51.100.1", "203.0.113.1", "192.0.2.1", "2001:db8::1"];

/// A request that is asked about.
#[derive(Clone, Debug)]
pub struct ExplainRequest {
    /// Who sends it.
    pub workload: Arc<Workload>,
    /// Where.
    pub url: Url,
    /// With this method, where it is HTTP.
    pub method: Method,
    /// With these headers, where it is HTTP.
    pub headers: HeaderMap,
    /// The address that the workload dials; `None` where nothing is known of it.
    pub address: Option<IpAddr>,
}

/// What is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// HTTP in clear.
    Http,
    /// HTTP in TLS.
    Https,
    /// TLS, whatever is inside.
    Tls,
    /// Other bytes.
    Tcp,
}

impl Scheme {
    const ALL: [Self; 4] = [Self::Http, Self::Https, Self::Tls, Self::Tcp];

    /// As a URL has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }

    const fn default_port(self) -> Option<u16> {
        match self {
            Self::Http => Some(80),
            Self::Https | Self::Tls => Some(443),
            Self::Tcp => None,
        }
    }
}

/// `https://host:port/path`; `tls://` and `tcp://` besides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// What is spoken.
    pub scheme: Scheme,
    /// The host.
    pub host: Host,
    /// The port that is dialled.
    pub port: OriginalPort,
    /// The host as the `Host` header has it.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, and what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected a URL such as https://edition.cnn.com/politics or tcp://host:5432";
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("found `{text}`, {expected}"));
        };
        let known = |wanted: &Scheme| wanted.name().eq_ignore_ascii_case(scheme);
        let Some(scheme) = Scheme::ALL.into_iter().find(known) else {
            return Err(format!("found the scheme `{scheme}`, expected http, https, tls or tcp"));
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err("found a user name in the URL; leave it out".into());
        }
        if authority.starts_with('[') != authority.contains(']') {
            let expected = "expected an address in brackets, as in https://[2001:db8::1]:8443/";
            return Err(format!("found `{authority}`, {expected}"));
        }
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => {
                let number = port.parse().ok().and_then(Port::new);
                let wrong =
                    || format!("found the port `{port}`, expected a number from 1 to 65535");
                (name, Some(number.ok_or_else(wrong)?))
            }
            _ => (authority, scheme.default_port().and_then(Port::new)),
        };
        if name.is_empty() {
            return Err(format!("found no host in `{text}`, {expected}"));
        }
        let host = Host::parse(name)
            .map_err(|error| format!("found the host `{name}`: {error}, {expected}"))?;
        let port = port.ok_or("found no port: tcp:// needs one, as in tcp://host:5432")?;
        let path = match path.chars().next() {
            Some('/') => path.to_owned(),
            _ => format!("/{path}"),
        };
        let visible = |byte: u8| byte.is_ascii_graphic();
        if !path.bytes().all(visible) {
            return Err("found a path with spaces or other than ASCII; encode them (%20)".into());
        }
        let port = OriginalPort(port);
        Ok(Self { scheme, host, port, authority: authority.to_owned(), path })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.name(), self.authority)?;
        match self.scheme {
            Scheme::Http | Scheme::Https => f.write_str(&self.path),
            Scheme::Tls | Scheme::Tcp => Ok(()),
        }
    }
}

/// The workload of this name, `shop/web`.
///
/// # Errors
/// There is none; the nearest is named.
pub(super) fn workload(snapshot: &Snapshot, name: &str) -> Result<Arc<Workload>, String> {
    let (namespace, workload) = split(name)?;
    let all = || snapshot.mesh.workloads.iter();
    let same = |w: &&Arc<Workload>| w.namespace.0.as_ref() == namespace && *w.name == *workload;
    if let Some(found) = all().find(same) {
        return Ok(Arc::clone(found));
    }
    let full = all().map(|w| format!("{}/{}", w.namespace.0, w.name));
    let scored = full.map(|known| (strsim::jaro_winkler(name, &known), known));
    let near = scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).filter(|(score, _)| *score > 0.8);
    let hint = near.map(|(_, near)| format!(" Did you mean {near}?")).unwrap_or_default();
    Err(format!(
        "mesh.yaml has no workload {name}.{hint} For a pod of a cluster, which is in no file, give its \
         labels: --label app=web"
    ))
}

pub(super) fn split(name: &str) -> Result<(&str, &str), String> {
    let is_name = |part: &str| !part.is_empty() && !part.contains('/');
    let parts = name.split_once('/').filter(|(a, b)| is_name(a) && is_name(b));
    parts.ok_or_else(|| format!("found `{name}`, expected NAMESPACE/WORKLOAD, as in shop/web"))
}

/// The configuration with a pod that is in none of its files, and the pod.
///
/// # Errors
/// The name has no namespace.
pub(super) fn with_pod(
    snapshot: &Snapshot,
    name: &str,
    labels: Labels,
) -> Result<(Arc<Snapshot>, Arc<Workload>), String> {
    let (namespace, pod) = split(name)?;
    let mut snapshot = snapshot.clone();
    let mesh = &mut snapshot.mesh;
    let node: Arc<str> = "a-node".into();
    let taken = |addr: &IpAddr| mesh.workloads.iter().any(|w| w.addresses.contains(addr));
    let addresses = (1..=u8::MAX).map(|last| IpAddr::from([100, 64, 0, last]));
    let workload = Arc::new(Workload {
        name: pod.into(),
        namespace: Namespace(namespace.into()),
        labels,
        addresses: addresses.into_iter().find(|addr| !taken(addr)).into_iter().collect(),
        cgroups: Vec::new(),
        interface: None,
        node: Some(Arc::clone(&node)),
        service_account: DEFAULT_SERVICE_ACCOUNT.into(),
    });
    mesh.nodes.push(Arc::new(Node {
        name: node,
        principal: SpiffeId {
            trust_domain: mesh.trust_domain.clone(),
            namespace: mesh.root_namespace.clone(),
            service_account: "egress-node".into(),
        },
        addresses: Vec::new(),
    }));
    mesh.workloads.push(Arc::clone(&workload));
    Ok((Arc::new(snapshot), workload))
}

/// The address that a workload dials for a host, and whether it is only assumed.
pub(super) fn dialled(snapshot: &Snapshot, question: &ExplainRequest) -> (IpAddr, bool) {
    let Url { host, port, .. } = &question.url;
    if let Host::Ip(ip) = host {
        return (*ip, false);
    }
    if let Some(given) = question.address {
        return (given.to_canonical(), false);
    }
    let named = snapshot.rules.services.iter();
    let mut named = named.filter(|service| service.port == *port && service.host.matches(host));
    match named.find_map(|service| service.addresses.first()) {
        Some(net) => (net.addr().to_canonical(), false),
        None => (external(&snapshot.mesh), true),
    }
}

/// An address that nothing in the settings speaks of.
fn external(mesh: &MeshConfig) -> IpAddr {
    let guard = AddressGuard::new(mesh);
    let mut known = EXTERNAL.iter().filter_map(|text| text.parse().ok());
    known.find(|addr| guard.allows(*addr)).unwrap_or(IpAddr::from([198, 51, 100, 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_wrong_ones_explained() {
        let url = Url::parse("HTTPS://Edition.CNN.com/politics?a=b#top").unwrap();
        assert_eq!(url.scheme, Scheme::Https);
        assert_eq!(
            (url.host.to_string(), url.port.to_string()),
            ("edition.cnn.com".into(), "443".into())
        );
        assert_eq!(
            (url.path.as_str(), url.authority.as_str()),
            ("/politics?a=b", "Edition.CNN.com")
        );
        let short = Url::parse("http://a.example:8080").unwrap();
        assert_eq!((short.path.as_str(), short.port.to_string()), ("/", "8080".into()));
        assert_eq!(short.to_string(), "http://a.example:8080/");
        assert_eq!(Url::parse("http://a.example?x").unwrap().path, "/?x");
        let raw = Url::parse("tcp://[2001:db8::1]:5432").unwrap();
        assert_eq!(
            (raw.host.to_string(), raw.to_string()),
            ("2001:db8::1".into(), "tcp://[2001:db8::1]:5432".into())
        );
        for (text, said) in [
            ("edition.cnn.com", "expected a URL such as"),
            ("ftp://a.example", "expected http, https, tls or tcp"),
            ("tcp://a.example", "needs one"),
            ("http://a.example:0", "found the port `0`, expected a number from 1 to 65535"),
            ("http://a.example:x", "found the port `x`, expected a number from 1 to 65535"),
            ("http://", "found no host in `http://`, expected a URL such as"),
            ("http://:80/", "found no host in `http://:80/`, expected a URL such as"),
            ("http://[::1", "found `[::1`, expected an address in brackets"),
            ("http://::1]:80/", "found `::1]:80`, expected an address in brackets"),
            ("http://me@a.example", "user name"),
            ("http://a..b", "found the host `a..b`"),
            ("http://a..b", "expected a URL such as"),
            ("http://a.example/a b", "encode them"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}

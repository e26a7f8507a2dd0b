//! How the gateway comes by connections: ports that it binds, or every port, through sk_lookup.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::AsFd,
    str::FromStr,
};

use anyhow::{Context, anyhow, bail};

use crate::{
    bpf::lookup,
    sys::{
        listening::{Sockets, deal},
        socket::{listeners, queues},
    },
    types::Port,
};

/// `--capture`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Capture {
    /// One listener gets every TCP port of this host's addresses.
    SkLookup,
    /// These ports, each bound as usual.
    Bind(Vec<Port>),
}

impl fmt::Display for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SkLookup => f.write_str("sk-lookup"),
            Self::Bind(ports) => {
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                write!(f, "bind:{}", ports.join(","))
            }
        }
    }
}

impl FromStr for Capture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "sk-lookup" {
            return Ok(Self::SkLookup);
        }
        match text.strip_prefix("bind:") {
            Some(list) => ports(list).map(Self::Bind),
            None => Err(format!(
                "found `{text}`, expected `sk-lookup` or `bind:` and ports, as in bind:80,443"
            )),
        }
    }
}

/// `--tunnel-port`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TunnelPort(Option<Port>);

impl FromStr for TunnelPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self(None));
        }
        let port = text.parse().ok().and_then(Port::new);
        port.map(|port| Self(Some(port)))
            .ok_or_else(|| format!("found `{text}`, expected a port from 1 to 65535, or `off`"))
    }
}

impl TunnelPort {
    /// The number, if there is one.
    pub(crate) fn number(self) -> Option<u16> {
        self.0.map(Port::get)
    }

    /// A set of listeners for each worker, on these addresses; on every one where none is given.
    pub(crate) fn listen(
        self,
        addresses: &[IpAddr],
        workers: usize,
        sockets: &mut Sockets,
    ) -> anyhow::Result<Vec<Vec<TcpListener>>> {
        let mut sets = empty(workers);
        let Some(port) = self.0 else { return Ok(sets) };
        let mut add = |name: &str, listen: &dyn Fn() -> io::Result<Vec<TcpListener>>| {
            let listeners = sockets.open(name, listen);
            listeners
                .and_then(|listeners| deal(listeners, &mut sets))
                .map_err(|error| explain("--tunnel-port", port, error))
        };
        if addresses.is_empty() {
            add(&format!("tunnel {port}"), &|| listen(listeners, ANY, port.get(), workers))?;
        }
        for address in addresses {
            let addr = SocketAddr::new(*address, port.get());
            add(&format!("tunnel {addr}"), &|| listeners(addr, workers))?;
        }
        Ok(sets)
    }
}

/// Ports, separated by commas, none of them twice.
pub(crate) fn ports(list: &str) -> Result<Vec<Port>, String> {
    let mut seen = BTreeSet::new();
    list.split(',')
        .map(|text| {
            let port = text.trim().parse().ok().and_then(Port::new);
            let port = port.ok_or_else(|| {
                format!("found `{text}`, expected a port from 1 to 65535 (ports are separated by commas)")
            })?;
            if seen.insert(port) { Ok(port) } else { Err(format!("port {port} is named twice")) }
        })
        .collect()
}

/// Listeners in place, a set for each worker.
pub(crate) struct Captured {
    pub(crate) listeners: Vec<Vec<TcpListener>>,
    /// Dropping it ends the capture.
    pub(crate) lookup: Option<lookup::Capture>,
}

/// Listens, for so many workers. `own` are the process's other ports, which are never captured.
pub(crate) fn capture(
    capture: &Capture,
    workers: usize,
    own: &[u16],
    excluded: &[Port],
    addresses: &[IpAddr],
    sockets: &mut Sockets,
) -> anyhow::Result<Captured> {
    let mut sets = empty(workers);
    match capture {
        Capture::Bind(ports) => {
            for port in ports {
                if own.contains(&port.get()) {
                    bail!(
                        "--capture: port {port} is one of the gateway's own (admin, health or metrics); choose another one there"
                    );
                }
                let name = format!("capture {port}");
                sockets
                    .open(&name, || listen(queues, ANY, port.get(), workers))
                    .and_then(|listeners| deal(listeners, &mut sets))
                    .map_err(|error| explain("--capture", *port, error))?;
            }
            Ok(Captured { listeners: sets, lookup: None })
        }
        Capture::SkLookup => {
            // Only the program leads connections here, so the listeners' own address is of no
            // account; but one bound to ::1 takes IPv6 alone, so each family has its own.
            let loopback = "--capture sk-lookup: can't listen on the loopback address";
            let mut open = |ip: IpAddr| {
                let name = format!("capture {ip}");
                sockets.open(&name, || queues((ip, 0).into(), workers))
            };
            let v4 = open(Ipv4Addr::LOCALHOST.into()).context(loopback)?;
            let v6 = match open(Ipv6Addr::LOCALHOST.into()) {
                Err(error) if is_without_v6(&error) => Vec::new(),
                result => result.context(loopback)?,
            };
            let excluded: Vec<u16> =
                excluded.iter().map(|port| port.get()).chain(own.iter().copied()).collect();
            let (first_v4, first_v6) = (v4.first().map(AsFd::as_fd), v6.first().map(AsFd::as_fd));
            let lookup = lookup::attach(first_v4, first_v6, addresses, &excluded)
                .context("--capture sk-lookup (bind:PORTS needs no eBPF, and for ports from 1024 on no privilege)")?;
            deal(v4, &mut sets).context(loopback)?;
            deal(v6, &mut sets).context(loopback)?;
            Ok(Captured { listeners: sets, lookup: Some(lookup) })
        }
    }
}

/// A set of listeners for each worker, with nothing in it.
fn empty(workers: usize) -> Vec<Vec<TcpListener>> {
    (0..workers).map(|_| Vec::new()).collect()
}

/// Every address of this host, of both families.
const ANY: (Ipv6Addr, Ipv4Addr) = (Ipv6Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);

/// On both families where there is IPv6, on IPv4 alone where there isn't.
fn listen(
    listeners: impl Fn(SocketAddr, usize) -> io::Result<Vec<TcpListener>>,
    (v6, v4): (Ipv6Addr, Ipv4Addr),
    port: u16,
    workers: usize,
) -> io::Result<Vec<TcpListener>> {
    match listeners(SocketAddr::from((v6, port)), workers) {
        Err(error) if is_without_v6(&error) => listeners((v4, port).into(), workers),
        result => result,
    }
}

fn is_without_v6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error();
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].iter().any(|e| errno == Some(e.raw_os_error()))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the standard library's enum, which may grow")]
fn explain(option: &str, port: Port, error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "{option}: port {port} is in use by another process (`ss -ltnp sport = :{port}` shows which); stop it or leave the port out"
        ),
        io::ErrorKind::PermissionDenied => anyhow!(
            "{option}: found port {port}, which this process may not listen on; expected a port from 1024 on, or \
             CAP_NET_BIND_SERVICE. Choose a higher port, or give the process the capability (in a unit: \
             AmbientCapabilities=CAP_NET_BIND_SERVICE)"
        ),
        _ => anyhow!(error).context(format!("{option}: can't listen on port {port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_read_and_a_wrong_one_explained() {
        let port = |number| Port::new(number).unwrap();
        assert_eq!("sk-lookup".parse(), Ok(Capture::SkLookup));
        assert_eq!("bind:80,443".parse(), Ok(Capture::Bind(vec![port(80), port(443)])));
        for (text, what) in [
            ("bind:", "expected a port"),
            ("bind:0", "expected a port"),
            ("bind:80,,443", "expected a port"),
            ("bind:99999", "expected a port"),
            ("bind:80,80", "twice"),
            ("80,443", "expected `sk-lookup` or `bind:`"),
            ("sk_lookup", "expected `sk-lookup`"),
        ] {
            let error = text.parse::<Capture>().unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn a_tunnels_port_is_read_and_a_wrong_one_explained() {
        assert_eq!("15008".parse::<TunnelPort>().unwrap().number(), Some(15008));
        assert_eq!("off".parse::<TunnelPort>().unwrap().number(), None);
        for text in ["", "0", "65536", "-1", "on", "15008,15009"] {
            let error = text.parse::<TunnelPort>().unwrap_err();
            assert!(error.contains("expected a port from 1 to 65535, or `off`"), "{error}");
        }
    }

    #[test]
    fn ports_in_use_and_own_ports_are_refused() {
        let taken = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = Port::new(taken.local_addr().unwrap().port()).unwrap();
        let bind = Capture::Bind(vec![port]);
        let error =
            capture(&bind, 1, &[], &[], &[], &mut Sockets::default()).err().unwrap().to_string();
        assert!(error.contains("in use by another process"), "{error}");
        drop(taken);
        let captured = capture(&bind, 2, &[], &[], &[], &mut Sockets::default()).unwrap();
        assert_eq!(captured.listeners.len(), 2);
        let error = capture(&bind, 1, &[port.get()], &[], &[], &mut Sockets::default())
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("one of the gateway's own"), "{error}");
    }
}

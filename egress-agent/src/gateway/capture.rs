//! How the gateway comes by connections: ports that it binds, or every port, through sk_lookup.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::AsFd,
    str::FromStr,
};

use anyhow::{Context, anyhow, bail};

use crate::{bpf::lookup, sys::socket::listeners, types::Port};

/// `--capture`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Capture {
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
pub(super) struct TunnelPort(Option<Port>);

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
    pub(super) fn number(self) -> Option<u16> {
        self.0.map(Port::get)
    }

    /// A set of listeners for each worker, on these addresses; on every one where none is given.
    pub(super) fn listen(
        self,
        addresses: &[IpAddr],
        workers: usize,
    ) -> anyhow::Result<Vec<Vec<TcpListener>>> {
        let mut sets: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        let Some(port) = self.0 else { return Ok(sets) };
        let on = |result: io::Result<Vec<TcpListener>>| {
            result.map_err(|error| explain("--tunnel-port", port, error))
        };
        let mut bound = Vec::new();
        if addresses.is_empty() {
            let any = (Ipv6Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
            bound.push(on(listen(any, port.get(), workers))?);
        }
        for address in addresses {
            bound.push(on(listeners((*address, port.get()).into(), workers))?);
        }
        for listeners in bound {
            for (set, listener) in sets.iter_mut().zip(listeners) {
                set.push(listener);
            }
        }
        Ok(sets)
    }
}

/// Ports, separated by commas, none of them twice.
pub(super) fn ports(list: &str) -> Result<Vec<Port>, String> {
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
pub(super) struct Captured {
    pub(super) listeners: Vec<Vec<TcpListener>>,
    /// Dropping it ends the capture.
    pub(super) lookup: Option<lookup::Capture>,
}

/// Listens, for so many workers. `own` are the process's other ports, which are never captured.
pub(super) fn capture(
    capture: &Capture,
    workers: usize,
    own: &[u16],
    excluded: &[Port],
    addresses: &[IpAddr],
) -> anyhow::Result<Captured> {
    match capture {
        Capture::Bind(ports) => {
            let mut listeners: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
            for port in ports {
                if own.contains(&port.get()) {
                    bail!(
                        "--capture: port {port} is one of the gateway's own (admin, health or metrics); choose another one there"
                    );
                }
                let unspecified = (Ipv6Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED);
                let of_port = listen(unspecified, port.get(), workers)
                    .map_err(|error| explain("--capture", *port, error))?;
                for (of_worker, listener) in listeners.iter_mut().zip(of_port) {
                    of_worker.push(listener);
                }
            }
            Ok(Captured { listeners, lookup: None })
        }
        Capture::SkLookup => {
            // Only the program leads connections here, so the listeners' own address is of no
            // account; but one bound to ::1 takes IPv6 alone, so each family has its own.
            let loopback = "--capture sk-lookup: can't listen on the loopback address";
            let v4 = listeners((Ipv4Addr::LOCALHOST, 0).into(), workers).context(loopback)?;
            let v6 = match listeners((Ipv6Addr::LOCALHOST, 0).into(), workers) {
                Err(error) if is_without_v6(&error) => Vec::new(),
                result => result.context(loopback)?,
            };
            let excluded: Vec<u16> =
                excluded.iter().map(|port| port.get()).chain(own.iter().copied()).collect();
            let (first_v4, first_v6) = (v4.first().map(AsFd::as_fd), v6.first().map(AsFd::as_fd));
            let lookup = lookup::attach(first_v4, first_v6, addresses, &excluded)
                .context("--capture sk-lookup (bind:PORTS needs neither eBPF nor privilege)")?;
            let mut listeners: Vec<Vec<TcpListener>> = v4.into_iter().map(|v4| vec![v4]).collect();
            for (of_worker, v6) in listeners.iter_mut().zip(v6) {
                of_worker.push(v6);
            }
            Ok(Captured { listeners, lookup: Some(lookup) })
        }
    }
}

/// On both families where there is IPv6, on IPv4 alone where there isn't.
fn listen(
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
            "{option}: this process may not listen on port {port}; ports below 1024 need CAP_NET_BIND_SERVICE"
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
        let error = capture(&bind, 1, &[], &[], &[]).err().unwrap().to_string();
        assert!(error.contains("in use by another process"), "{error}");
        drop(taken);
        let captured = capture(&bind, 2, &[], &[], &[]).unwrap();
        assert_eq!(captured.listeners.len(), 2);
        let error = capture(&bind, 1, &[port.get()], &[], &[]).err().unwrap().to_string();
        assert!(error.contains("one of the gateway's own"), "{error}");
    }
}

//! Network namespaces with names that `ip netns` shows.

use std::{fs::File, os::fd::AsFd, thread};

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sh;

/// A network namespace. It is removed with its [`crate::site::Site`].
#[derive(Clone, Debug)]
pub struct NetNs {
    name: String,
}

impl NetNs {
    /// Makes it, with loopback up, without duplicate address detection (addresses serve at once),
    /// without reverse-path filters, and with unprivileged ping.
    ///
    /// # Errors
    /// `ip` fails: no root, or the name is taken.
    pub fn create(name: String) -> Result<Self> {
        sh("ip", &["netns", "add", &name])?;
        let ns = Self { name };
        for (key, value) in [
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/ping_group_range", "0 2147483647"),
        ] {
            ns.sysctl(key, value)?;
        }
        ns.ip(&["link", "set", "lo", "up"])?;
        Ok(ns)
    }

    /// One that another process of this site made.
    #[must_use]
    pub fn existing(name: String) -> Self {
        Self { name }
    }

    /// The name in `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// `ip -n NAME ARGS`.
    ///
    /// # Errors
    /// It fails.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(args);
        sh("ip", &all)
    }

    /// Forgets the hardware address of a neighbour: a system that has used it asks for it again by itself, some seconds
    /// later.
    ///
    /// # Errors
    /// As [`Self::ip`].
    pub fn forget_neighbour(&self, address: &str) -> Result<()> {
        self.ip(&["neigh", "flush", "to", address]).map(drop)
    }

    /// Sets `/proc/sys/net/KEY` of this namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.enter(|| std::fs::write(&path, value).with_context(|| format!("{path} = {value}")))?
    }

    /// Lets it forward, IPv4 and IPv6.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forward(&self) -> Result<()> {
        self.sysctl("ipv4/ip_forward", "1")?;
        self.sysctl("ipv6/conf/all/forwarding", "1")
    }

    /// Does `work` on a thread inside; sockets made there belong to this namespace for good.
    ///
    /// # Errors
    /// The namespace can't be entered, or `work` panicked.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = self.open()?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            });
            inside.join().map_err(|_| anyhow!("panic inside {}", self.name))?
        })
    }

    /// A thread that lives inside.
    ///
    /// # Errors
    /// The namespace can't be opened. `work` isn't called if it can't be entered.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
        let file = self.open()?;
        Ok(thread::spawn(move || {
            if move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).is_ok() {
                drop(file);
                work();
            }
        }))
    }

    fn open(&self) -> Result<File> {
        File::open(self.path()).with_context(|| self.path())
    }
}

/// One end of a link: namespace, interface name, hardware address, addresses with prefix.
#[derive(Debug)]
pub struct End<'a> {
    /// Where it is.
    pub ns: &'a NetNs,
    /// The interface's name.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: &'a str,
    /// `10.0.0.1/24`, `fd00::1/64`.
    pub addresses: &'a [&'a str],
}

/// Joins two namespaces with a veth pair and brings both ends up.
///
/// # Errors
/// `ip` fails.
pub fn link(a: &End<'_>, b: &End<'_>) -> Result<()> {
    sh(
        "ip",
        &[
            "link",
            "add",
            a.name,
            "netns",
            a.ns.name(),
            "address",
            a.mac,
            "type",
            "veth",
            "peer",
            "name",
            b.name,
            "netns",
            b.ns.name(),
            "address",
            b.mac,
        ],
    )?;
    for end in [a, b] {
        for address in end.addresses {
            let mut args = vec!["addr", "add", address, "dev", end.name];
            if address.contains(':') {
                args.push("nodad");
            }
            end.ns.ip(&args)?;
        }
        end.ns.ip(&["link", "set", end.name, "up"])?;
    }
    Ok(())
}

//! The node's tunnel listener, and the records of what its connections were meant for.
//!
//! A record is found by the workload's end of the connection, address and port, which is all that the
//! listener sees of it. Another pod can't send from this address: the walls see to it. But whoever may
//! change the network of his own namespace can give himself any address there, even the listener's, and
//! so have a record made for an end that is somebody else's. That must not lead the other's bytes to
//! a destination of his: a record that two sockets claim serves neither.

use crate::{
    abi::{OriginalDst, Tunnel, Tunneled, TunneledKey, hop},
    addr::{Addr, PortBe},
    endpoint::Reach,
};

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// Its address.
    pub addr: Addr,
    /// Its port.
    pub port: PortBe,
}

impl End {
    /// The key of the record for a connection from here.
    #[inline(always)]
    #[must_use]
    pub const fn key(self) -> TunneledKey {
        TunneledKey { addr: self.addr, port: self.port, reserved: [0; 2] }
    }
}

impl Tunnel {
    /// No listener.
    pub const NONE: Self = Self {
        v4: Addr::UNSPECIFIED,
        v6: Addr::UNSPECIFIED,
        port_v4: PortBe([0; 2]),
        port_v6: PortBe([0; 2]),
    };

    /// The listener that a socket can reach.
    #[inline(always)]
    #[must_use]
    pub fn pick(&self, reach: Reach) -> Option<End> {
        let v4 = End { addr: self.v4, port: self.port_v4 };
        let v6 = End { addr: self.v6, port: self.port_v6 };
        let (has_v4, has_v6) = (v4.port.get() != 0, v6.port.get() != 0);
        match reach {
            Reach::V4 | Reach::V4First if has_v4 => Some(v4),
            Reach::V6First if !has_v6 && has_v4 => Some(v4),
            Reach::V6First | Reach::V4First if has_v6 => Some(v6),
            Reach::V4 | Reach::V4First | Reach::V6First => None,
        }
    }

    /// Whether the listener is there.
    #[inline(always)]
    #[must_use]
    pub fn is_at(&self, end: End) -> bool {
        let (addr, port) =
            if end.addr.is_v4() { (self.v4, self.port_v4) } else { (self.v6, self.port_v6) };
        port.get() != 0 && end.addr == addr && end.port == port
    }
}

/// The maps that are about the tunnel.
pub trait TunnelTable {
    /// Nanoseconds since boot.
    fn time(&self) -> u64;
    /// Where the listener is.
    fn listener(&self) -> Tunnel;
    /// What a socket that was redirected asked for.
    fn asked(&self, cookie: u64) -> Option<OriginalDst>;
    /// A record is made of it now.
    fn set_recorded(&self, cookie: u64);
    /// Adds a record, unless there is one; whether it was added.
    fn add_record(&self, key: &TunneledKey, record: &Tunneled) -> bool;
    /// The record.
    fn record(&self, key: &TunneledKey) -> Option<Tunneled>;
    /// From now on the record is nobody's.
    fn contest(&self, key: &TunneledKey);
    /// Removes the record.
    fn remove_record(&self, key: &TunneledKey);
}

/// `sock_ops`, when a workload's socket has been answered by whom it dialled. The listener can accept
/// the connection only after this.
#[inline(always)]
pub fn established(cookie: u64, local: End, remote: End, table: &impl TunnelTable) {
    let asked = table.asked(cookie).filter(|asked| {
        let there = End { addr: asked.gateway, port: asked.gateway_port };
        asked.hop == hop::TUNNEL && there == remote
    });
    if asked.is_none() && !table.listener().is_at(remote) {
        return;
    }
    let (key, time) = (local.key(), table.time());
    if let Some(asked) = asked {
        table.set_recorded(cookie);
        let record = Tunneled {
            time,
            cookie,
            cgroup: asked.cgroup,
            addr: asked.addr,
            group: asked.group,
            policy: asked.policy,
            port: asked.port,
            routed_port: asked.routed_port,
            contested: 0,
        };
        if table.add_record(&key, &record) {
            return;
        }
        let stale = table.record(&key).is_some_and(|found| !found.is_fresh(time));
        if stale {
            table.remove_record(&key);
            if table.add_record(&key, &record) {
                return;
            }
        }
        table.contest(&key);
        return;
    }
    // The listener was dialled directly. While programs are replaced two of them see each
    // connection, and the first one has made a record of it.
    let foreign =
        table.record(&key).is_some_and(|found| found.cookie != cookie && found.is_fresh(time));
    if foreign {
        table.contest(&key);
    }
}

#[cfg(test)]
mod tests;

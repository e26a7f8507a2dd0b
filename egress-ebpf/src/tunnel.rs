//! The node's tunnel listener, and the records of what its connections were meant for.
//!
//! A record is found by the workload's end of the connection, address and port, which is all that the
//! listener sees of it. But whoever may change the network of his own namespace can give himself any
//! address there, even the listener's, and dial it there. So a record counts for the place where the
//! end was seen to be the workload's own:
//!
//! - **At the pod's interface**, which lets the pod send from its own addresses alone: the record is made
//!   when the SYN passes, of the socket that the SYN is of.
//! - **In the node's network namespace**, where no two sockets have the same end: the record is made when
//!   the connection is established by a socket there.
//! - **Anywhere else** (a pod whose interface isn't under enforcement) nobody knows whose an address is.
//!   Such a record counts only for ends that are neither of the first kind nor of the second, and one
//!   that two sockets claim serves neither.

use crate::{
    abi::{OriginalDst, Tunnel, Tunneled, TunneledKey, TunneledPlace, hop, space},
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
    /// The key of the record for a connection from here, seen in this [`space`].
    #[inline(always)]
    #[must_use]
    pub const fn key(self, space: u8) -> TunneledKey {
        TunneledKey { addr: self.addr, port: self.port, space, reserved: 0 }
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
    /// The node's network namespace, by its cookie; zero where the agent couldn't tell.
    fn node_network(&self) -> u64;
    /// What a socket that was redirected asked for.
    fn asked(&self, cookie: u64) -> Option<OriginalDst>;
    /// A record is made of it now.
    fn set_recorded(&self, cookie: u64);
    /// Adds a record, unless there is one; whether it was added.
    fn add_record(&self, key: &TunneledKey, record: &Tunneled) -> bool;
    /// Adds a record, or overwrites one.
    fn put_record(&self, key: &TunneledKey, record: &Tunneled);
    /// The record.
    fn record(&self, key: &TunneledKey) -> Option<Tunneled>;
    /// From now on the record is unowned.
    fn contest(&self, key: &TunneledKey);
    /// Removes the record.
    fn remove_record(&self, key: &TunneledKey);
    /// Takes a workload's next place, of
    /// [`TUNNELED_SHARE`](crate::abi::capacity::TUNNELED_SHARE), for a record; the one that had it.
    fn take_place(&self, cgroup: u64, record: &TunneledPlace) -> Option<TunneledPlace>;
}

/// Makes room for a record of a workload: beyond its share its oldest one goes.
#[inline(always)]
fn make_room(cgroup: u64, key: &TunneledKey, time: u64, table: &impl TunnelTable) {
    // What is overwritten takes no more room.
    if table.record(key).is_some() {
        return;
    }
    let Some(old) = table.take_place(cgroup, &TunneledPlace { time, key: *key, reserved: 0 })
    else {
        return;
    };
    if table.record(&old.key).is_some_and(|found| found.time == old.time && found.cgroup == cgroup)
    {
        table.remove_record(&old.key);
    }
}

/// What the socket asked for, if the connect hook sent it to this end of the tunnel.
#[inline(always)]
fn asked_for(cookie: u64, remote: End, table: &impl TunnelTable) -> Option<OriginalDst> {
    table.asked(cookie).filter(|asked| {
        let there = End { addr: asked.gateway, port: asked.gateway_port };
        asked.hop == hop::TUNNEL && there == remote
    })
}

#[inline(always)]
const fn record(cookie: u64, time: u64, asked: &OriginalDst) -> Tunneled {
    Tunneled {
        time,
        cookie,
        cgroup: asked.cgroup,
        addr: asked.addr,
        group: asked.group,
        policy: asked.policy,
        port: asked.port,
        routed_port: asked.routed_port,
        contested: 0,
    }
}

/// `pod_ingress`, when it lets a SYN pass, whose source is the pod's own. `cookie` is of the socket that
/// sent it, zero for none. The last one from an end counts: the pod has no other at this port.
#[inline(always)]
pub fn passed(cookie: u64, local: End, remote: End, table: &impl TunnelTable) {
    let key = local.key(space::WALL);
    match asked_for(cookie, remote, table) {
        Some(asked) => table.put_record(&key, &record(cookie, table.time(), &asked)),
        // Dialled directly: nobody gets what was left for another connection from here.
        None if table.listener().is_at(remote) => table.remove_record(&key),
        None => {}
    }
}

/// `sock_ops`, when a workload's socket has been answered by whom it dialled. The listener can accept
/// the connection only after this.
#[inline(always)]
pub fn established(cookie: u64, local: End, remote: End, table: &impl TunnelTable) {
    let asked = asked_for(cookie, remote, table);
    if asked.is_none() && !table.listener().is_at(remote) {
        return;
    }
    let (key, time) = (local.key(space::OTHER), table.time());
    if let Some(asked) = asked {
        table.set_recorded(cookie);
        let record = record(cookie, time, &asked);
        if asked.network != 0 && asked.network == table.node_network() {
            let key = local.key(space::NODE);
            make_room(asked.cgroup, &key, time, table);
            return table.put_record(&key, &record);
        }
        make_room(asked.cgroup, &key, time, table);
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

//! Connections of the plain hop that come from a node's address: of pods on the host's network, or of any pod where
//! the network plug-in puts the node's address in the place of theirs. A gateway cannot tell which, so rules by
//! workload do not match.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Nodes that are remembered: a cluster has at most 5,000.
const MOST: usize = 5_000;
/// For how long a node is shown after its last connection.
const SHOWN: Duration = Duration::from_secs(600);

/// What came from nodes' addresses, shared by all workers.
#[derive(Debug, Default)]
pub struct NodeSources {
    count: AtomicU64,
    seen: Mutex<BTreeMap<IpAddr, SourceSeen>>,
}

#[derive(Debug)]
struct SourceSeen {
    node: Arc<str>,
    count: u64,
    last: Instant,
}

impl NodeSources {
    /// Notes a connection. Whether it is the first one of this node for a while.
    pub fn note(&self, node: &Arc<str>, address: IpAddr, now: Instant) -> bool {
        self.count.fetch_add(1, Relaxed);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.get_mut(&address) {
            let again = now.duration_since(seen.last) >= SHOWN;
            seen.count = if again { 1 } else { seen.count + 1 };
            (seen.node, seen.last) = (Arc::clone(node), now);
            return again;
        }
        if seen.len() >= MOST {
            seen.retain(|_, seen| now.duration_since(seen.last) < SHOWN);
        }
        let has_room = seen.len() < MOST;
        if has_room {
            seen.insert(address, SourceSeen { node: Arc::clone(node), count: 1, last: now });
        }
        has_room
    }

    /// All of them since the start.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// A sentence where there were some of late.
    #[must_use]
    pub fn warning(&self, now: Instant) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let recent: Vec<_> =
            seen.iter().filter(|(_, seen)| now.duration_since(seen.last) < SHOWN).collect();
        let (address, first) = recent.first()?;
        let more = match recent.len() {
            1 => String::new(),
            all => format!(" and {} more", all - 1),
        };
        let count: u64 = recent.iter().map(|(_, seen)| seen.count).sum();
        Some(format!(
            "{count} connections of late came from the address of a node ({} {address}{more}): from pods on the \
             host's network, or the network plug-in puts the node's address in the place of pods'. Rules by \
             workload do not match them. Exclude the gateways' addresses from masquerading, or use mutual TLS \
             between nodes and gateways",
            first.node
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_of_once_and_shown_for_a_while() {
        let (sources, start) = (NodeSources::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (node, address) = (Arc::from("app"), "10.0.0.7".parse().unwrap());
        assert_eq!(sources.warning(start), None);
        assert!(sources.note(&node, address, start));
        assert!(!sources.note(&node, address, at(5)));
        let told = sources.warning(at(10)).unwrap();
        assert!(
            told.starts_with("2 connections of late") && told.contains("(app 10.0.0.7)"),
            "{told}"
        );
        assert!(sources.note(&"other".into(), "10.0.0.6".parse().unwrap(), at(10)));
        assert!(sources.warning(at(10)).unwrap().contains("(other 10.0.0.6 and 1 more)"));
        assert_eq!(sources.warning(at(610)), None);
        assert!(sources.note(&node, address, at(620)), "it is news again");
        assert_eq!(sources.count(), 4);
    }

    #[test]
    fn there_is_a_bound() {
        let (sources, now) = (NodeSources::default(), Instant::now());
        for number in 0..u32::try_from(MOST).unwrap() + 10 {
            sources.note(&"n".into(), IpAddr::from(std::net::Ipv4Addr::from(number)), now);
        }
        assert_eq!(sources.seen.lock().unwrap().len(), MOST);
    }
}

//! Addresses of the names that may be reached directly: a memory without I/O, and the task that
//! asks DNS.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt as _},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    net::{DnsQuestion, Resolve, ResolveError},
    types::{Host, ShareOwner},
};

/// How long an address stays allowed after DNS stopped naming it: applications keep answers too.
const GRACE: Duration = Duration::from_secs(60);
/// Between two questions. The resolver answers from memory for as long as an answer's TTL lasts.
const EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take before the last one is used again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Addresses kept of one name; a name with more is a mistake or an attack.
const MOST: usize = 256;

/// Addresses by name.
pub(crate) type Resolved = HashMap<Host, Vec<IpAddr>>;

/// What is known of the names.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    names: HashMap<Host, Name>,
}

#[derive(Debug, Default)]
struct Name {
    /// When DNS named it last.
    seen: BTreeMap<IpAddr, Instant>,
    /// Whether the last question failed, so that it is logged once.
    failing: bool,
}

impl Memory {
    /// Forgets all names but these.
    pub(crate) fn retain(&mut self, names: &HashSet<Host>) {
        self.names.retain(|name, _| names.contains(name));
    }

    /// Takes an answer. A failed one changes nothing: the last known addresses stay.
    pub(crate) fn observe(
        &mut self,
        now: Instant,
        host: &Host,
        answer: Result<&[IpAddr], &ResolveError>,
    ) {
        let name = self.names.entry(host.clone()).or_default();
        let addrs = match answer {
            Ok(addrs) => addrs,
            Err(error) => {
                if !std::mem::replace(&mut name.failing, true) {
                    tracing::warn!(
                        "can't resolve {host}, which may be reached directly: {error}; its last \
                         known addresses stay ({})",
                        name.seen.len()
                    );
                }
                return;
            }
        };
        name.failing = false;
        for addr in addrs.iter().map(IpAddr::to_canonical) {
            if is_outside(addr) {
                name.seen.insert(addr, now);
            } else {
                tracing::debug!("{host} resolves to {addr}, which is no outside address: ignored");
            }
        }
        name.seen.retain(|_, seen| now.duration_since(*seen) < GRACE);
        while name.seen.len() > MOST {
            name.seen.pop_last();
        }
    }

    /// The addresses of a name, sorted.
    fn addresses(&self, host: &Host) -> Vec<IpAddr> {
        let name = self.names.get(host);
        name.map_or_else(Vec::new, |name| name.seen.keys().copied().collect())
    }
}

/// A name can't open an address that never is outside, whatever DNS says.
fn is_outside(addr: IpAddr) -> bool {
    let link_local = match addr {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(addr.is_loopback() || addr.is_unspecified() || addr.is_multicast() || link_local)
}

/// Keeps names resolved for as long as it lives.
pub(crate) struct Names {
    /// The names to resolve.
    pub wanted: watch::Sender<HashSet<Host>>,
    /// Their addresses.
    pub resolved: watch::Receiver<Resolved>,
}

impl Names {
    pub(crate) fn spawn(resolver: Arc<dyn Resolve>) -> Self {
        let (wanted, receiver) = watch::channel(HashSet::new());
        let (published, resolved) = watch::channel(Resolved::new());
        tokio::spawn(keep(resolver, receiver, published));
        Self { wanted, resolved }
    }
}

/// Names that are being asked for.
#[derive(Default)]
struct PendingLookups {
    hosts: HashSet<Host>,
    answers: FuturesUnordered<BoxFuture<'static, (Host, Answer)>>,
}

type Answer = Result<Arc<[IpAddr]>, ResolveError>;

/// Asks for all names that are not asked for yet.
fn ask(
    resolver: &Arc<dyn Resolve>,
    wanted: &watch::Receiver<HashSet<Host>>,
    asking: &mut PendingLookups,
) {
    for host in wanted.borrow().iter() {
        if host.as_name().is_none() || !asking.hosts.insert(host.clone()) {
            continue;
        }
        let (resolver, host) = (Arc::clone(resolver), host.clone());
        asking.answers.push(Box::pin(async move {
            let answer = match host.as_name() {
                Some(name) => {
                    let owner = &ShareOwner::Own;
                    resolver.resolve(DnsQuestion { owner, name, within: PATIENCE }).await
                }
                None => Err(ResolveError::NoAddress),
            };
            (host, answer)
        }));
    }
}

async fn keep(
    resolver: Arc<dyn Resolve>,
    mut wanted: watch::Receiver<HashSet<Host>>,
    published: watch::Sender<Resolved>,
) {
    let mut memory = Memory::default();
    let mut asking = PendingLookups::default();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let names = wanted.borrow_and_update().clone();
                memory.retain(&names);
                published.send_if_modified(|resolved| {
                    let before = resolved.len();
                    resolved.retain(|name, _| names.contains(name));
                    resolved.len() != before
                });
                ask(&resolver, &wanted, &mut asking);
            }
            _ = ticks.tick() => ask(&resolver, &wanted, &mut asking),
            // Each answer counts as soon as it is there: none waits for another name's.
            Some((host, answer)) = asking.answers.next() => {
                asking.hosts.remove(&host);
                if !wanted.borrow().contains(&host) {
                    continue;
                }
                memory.observe(Instant::now(), &host, answer.as_deref());
                // Of this name alone: there may be thousands of others.
                let now = memory.addresses(&host);
                published.send_if_modified(|resolved| {
                    let changed = resolved.get(&host) != Some(&now);
                    if changed {
                        resolved.insert(host, now);
                    }
                    changed
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::Either;

    use super::*;

    /// Answers every name but those below `dead.example`, which it never does.
    #[derive(Debug)]
    struct PartlyDead;

    impl Resolve for PartlyDead {
        fn resolve<'a>(&'a self, question: DnsQuestion<'a>) -> crate::net::Answer<'a> {
            let dead = question.name.ends_with("dead.example");
            Either::Right(Box::pin(async move {
                match dead {
                    true => std::future::pending().await,
                    false => Ok([IpAddr::from([203, 0, 113, 1])].into()),
                }
            }))
        }
    }

    #[tokio::test]
    async fn a_name_that_is_never_answered_delays_no_other() {
        let mut names = Names::spawn(Arc::new(PartlyDead));
        for wanted in [&["dead.example", "a.example"][..], &["x.dead.example", "b.example"]] {
            let hosts: HashSet<_> = wanted.iter().map(|name| Host::parse(name).unwrap()).collect();
            names.wanted.send_replace(hosts);
            let good = Host::parse(wanted[1]).unwrap();
            let its = |resolved: &Resolved| resolved.get(&good).is_some_and(|its| !its.is_empty());
            names.resolved.wait_for(its).await.unwrap();
        }
    }

    fn addrs(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|addr| addr.parse().unwrap()).collect()
    }

    #[test]
    fn an_address_stays_for_a_while_after_dns_forgot_it() {
        let (start, host) = (Instant::now(), Host::parse("db.example").unwrap());
        let mut memory = Memory::default();
        memory.observe(start, &host, Ok(&addrs(&["203.0.113.1"])));
        let next = start + GRACE / 2;
        memory.observe(next, &host, Ok(&addrs(&["203.0.113.2"])));
        assert_eq!(memory.addresses(&host), addrs(&["203.0.113.1", "203.0.113.2"]));
        memory.observe(start + GRACE, &host, Ok(&addrs(&["203.0.113.2"])));
        assert_eq!(memory.addresses(&host), addrs(&["203.0.113.2"]));
    }

    #[test]
    fn a_failure_keeps_the_last_known_for_ever() {
        let (start, host) = (Instant::now(), Host::parse("db.example").unwrap());
        let mut memory = Memory::default();
        memory.observe(start, &host, Ok(&addrs(&["203.0.113.1"])));
        memory.observe(start + GRACE * 10, &host, Err(&ResolveError::Timeout));
        assert_eq!(memory.addresses(&host), addrs(&["203.0.113.1"]));
        // Without an answer ever, there is nothing.
        let other = Host::parse("other.example").unwrap();
        memory.observe(start, &other, Err(&ResolveError::NoSuchName));
        assert!(memory.addresses(&other).is_empty());
        memory.retain(&HashSet::new());
        assert!(memory.names.is_empty());
    }

    #[test]
    fn names_open_outside_addresses_only() {
        let host = Host::parse("evil.example").unwrap();
        let mut memory = Memory::default();
        let answer = addrs(&[
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "203.0.113.1",
        ]);
        memory.observe(Instant::now(), &host, Ok(&answer));
        assert_eq!(memory.addresses(&host), addrs(&["203.0.113.1"]));
    }
}

//! HTTP/2 connections that are being made, and the requests that wait for them.
//!
//! Where many requests come at once to a host that has no connection yet, each would make one of its own. So
//! those that will have room on a connection that their source is making wait for it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tokio::{sync::Semaphore, time::timeout};

use super::{
    super::h2::{FIRST_WINDOW, most_streams},
    Key, Version,
};
use crate::types::ShareOwner;

/// A connection takes less to be made. Who has waited for so long makes one of its own: the other one may
/// never be.
const SOON: Duration = Duration::from_millis(500);

/// The connections that are being made.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Pending(Rc<RefCell<Vec<Rc<Dial>>>>);

#[derive(Debug)]
struct Dial {
    key: Key,
    owner: ShareOwner,
    requests: Cell<usize>,
    /// What the bodies of its requests are expected to take of its window.
    bodies: Cell<usize>,
    /// Without a permit; closed at the end.
    ended: Semaphore,
}

/// What a request without a connection does.
#[derive(Debug)]
pub(in super::super) enum WithoutConnection {
    /// It makes one; as long as it has this, others may wait for it.
    Dial(PendingConnection),
    /// It waits for one.
    Wait(SharedDial),
}

/// A connection that is being made.
#[derive(Debug)]
pub(in super::super) struct PendingConnection(Option<(Pending, Rc<Dial>)>);

/// A connection that somebody else makes.
#[derive(Debug)]
pub(in super::super) struct SharedDial(Rc<Dial>);

impl Pending {
    /// For a request with a body that is expected to take so many bytes of a connection's window.
    pub(in super::super) fn next(
        &self,
        key: &Key,
        owner: &ShareOwner,
        body: usize,
    ) -> WithoutConnection {
        if key.version == Version::Http1 {
            return WithoutConnection::Dial(PendingConnection(None));
        }
        let mut dials = self.0.borrow_mut();
        let joined = dials.iter().find(|dial| {
            dial.requests.get() < most_streams(&key.cluster.pool)
                && dial.bodies.get() + body <= FIRST_WINDOW
                && dial.owner == *owner
                && dial.key == *key
        });
        if let Some(dial) = joined {
            dial.requests.set(dial.requests.get() + 1);
            dial.bodies.set(dial.bodies.get() + body);
            return WithoutConnection::Wait(SharedDial(Rc::clone(dial)));
        }
        let (requests, bodies, ended) = (Cell::new(1), Cell::new(body), Semaphore::new(0));
        let dial = Dial { key: key.clone(), owner: owner.clone(), requests, bodies, ended };
        let dial = Rc::new(dial);
        dials.push(Rc::clone(&dial));
        WithoutConnection::Dial(PendingConnection(Some((self.clone(), dial))))
    }
}

impl SharedDial {
    /// Completes when the connection is made, or could not be, or not soon.
    pub(in super::super) async fn ended(self) {
        let _ended = timeout(SOON, self.0.ended.acquire()).await;
    }
}

impl Drop for PendingConnection {
    fn drop(&mut self) {
        if let Some((Pending(dials), dial)) = self.0.take() {
            dials.borrow_mut().retain(|its| !Rc::ptr_eq(its, &dial));
            dial.ended.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        policy::{Cluster, ClusterName, Discovery},
        types::Host,
    };

    fn key(version: Version) -> Key {
        let name = ClusterName("outbound|443||a.example".into());
        let cluster = Cluster::new(name, Discovery::Static(Vec::new()));
        let host = Host::parse("a.example").unwrap();
        Key { cluster: Arc::new(cluster), host, version, client: None, from: None }
    }

    fn owner(last: u8) -> ShareOwner {
        ShareOwner::of(None, [192, 0, 2, last].into())
    }

    fn waits(next: &WithoutConnection) -> bool {
        matches!(next, WithoutConnection::Wait(_))
    }

    #[tokio::test]
    async fn who_has_room_on_a_connection_of_its_source_waits_for_it() {
        let (pending, key) = (Pending::default(), key(Version::Http2));
        let first = pending.next(&key, &owner(1), 0);
        assert!(!waits(&first));
        let waiting = pending.next(&key, &owner(1), 40_000);
        assert!(waits(&waiting));
        let further = pending.next(&key, &owner(1), 40_000);
        assert!(!waits(&further), "the window has no room for both bodies");
        assert!(!waits(&pending.next(&key, &owner(2), 0)), "that is another source's");
        let WithoutConnection::Wait(waiting) = waiting else { unreachable!() };
        let ended = async {
            drop(first);
            waiting.ended().await;
        };
        timeout(SOON / 2, ended).await.expect("it has ended");
        drop(further);
        assert!(!waits(&pending.next(&key, &owner(1), 0)), "none is left to wait for");
    }

    #[tokio::test]
    async fn nobody_waits_long() {
        let (pending, key) = (Pending::default(), key(Version::Http2));
        let _silent = pending.next(&key, &owner(1), 0);
        let WithoutConnection::Wait(waiting) = pending.next(&key, &owner(1), 0) else {
            unreachable!()
        };
        let start = tokio::time::Instant::now();
        timeout(SOON * 2, waiting.ended()).await.expect("it goes on");
        assert!(start.elapsed() >= SOON);
    }

    #[test]
    fn a_connection_of_http1_has_room_for_one() {
        let (pending, key) = (Pending::default(), key(Version::Http1));
        let _first = pending.next(&key, &owner(1), 0);
        assert!(!waits(&pending.next(&key, &owner(1), 0)));
    }
}

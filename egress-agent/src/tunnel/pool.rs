//! Connections to gateways, by gateway and workload identity.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc};

use futures_util::{
    FutureExt as _,
    future::{LocalBoxFuture, Shared},
};
use rustls::ClientConfig;
use tokio::{
    task::spawn_local,
    time::{Instant, timeout},
};

use super::{
    DialError, client,
    connection::{self, Connection, Slot},
    stats::add,
    threads::Worker,
};
use crate::{policy::TunnelTls, types::SpiffeId};

/// What streams must have in common to share a connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    /// The gateway's listener.
    pub(super) endpoint: SocketAddr,
    /// How it is secured.
    pub(super) tls: Arc<TunnelTls>,
    /// Whom it is for: one workload's stalled streams are no other's concern. `None` for those that
    /// no configuration knows.
    pub(super) identity: Option<SpiffeId>,
}

type Dialling = Shared<LocalBoxFuture<'static, Result<Rc<Connection>, DialError>>>;

#[derive(Debug, Default)]
struct Entry {
    /// More than one only while the first is at the gateway's limit of streams.
    connections: Vec<Rc<Connection>>,
    /// One at a time: a thousand connections of pods to a cold tunnel are one handshake.
    dialling: Option<Dialling>,
    failed: Option<(Instant, DialError)>,
}

/// The connections of one thread.
#[derive(Debug, Default)]
pub(super) struct Pool {
    entries: RefCell<HashMap<Key, Entry>>,
}

impl Pool {
    /// A place for a stream, on a new connection if need be.
    pub(super) async fn slot(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        key: &Key,
    ) -> Result<Slot, DialError> {
        loop {
            let dialling = {
                let mut entries = self.entries.borrow_mut();
                let entry = entries.entry(key.clone()).or_default();
                if let Some(slot) = entry.slot() {
                    return Ok(slot);
                }
                let back_off = worker.limits.back_off;
                match (&entry.dialling, &entry.failed) {
                    (Some(dialling), _) => dialling.clone(),
                    (None, Some((at, error))) if at.elapsed() < back_off => {
                        return Err(error.clone());
                    }
                    (None, _) => {
                        let dialling = self.dial(worker, key);
                        entry.dialling.insert(dialling).clone()
                    }
                }
            };
            // A connection that came about may be full already; then there is another round.
            dialling.await?;
        }
    }

    /// Dials in a task of its own: whoever asked for it may go away.
    fn dial(self: &Rc<Self>, worker: &Rc<Worker>, key: &Key) -> Dialling {
        let (pool, worker, key) = (Rc::clone(self), Rc::clone(worker), key.clone());
        let to = key.endpoint;
        let task = spawn_local(async move {
            let dialled = pool.dialled(&worker, &key).await;
            let mut entries = pool.entries.borrow_mut();
            let entry = entries.entry(key).or_default();
            entry.dialling = None;
            match &dialled {
                Ok(connection) => {
                    entry.failed = None;
                    entry.connections.push(Rc::clone(connection));
                }
                Err(error) => {
                    add(&worker.stats.failed_dials, 1);
                    tracing::warn!("no tunnel: {error}");
                    entry.failed = Some((Instant::now(), error.clone()));
                }
            }
            dialled
        });
        let ended = move |_| Err(DialError::Ended { to, why: "the dial was given up".into() });
        task.map(move |joined| joined.unwrap_or_else(ended)).boxed_local().shared()
    }

    async fn dialled(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        key: &Key,
    ) -> Result<Rc<Connection>, DialError> {
        let config = config(worker, &key.tls).await?;
        let opened = client::open(key.endpoint, Arc::clone(&config), &worker.limits).await?;
        add(&worker.stats.handshakes, 1);
        tracing::debug!("tunnel to {}: open", key.endpoint);
        let connection = Connection::new(key.endpoint, opened.sender.clone());
        let (pool, worker, key) = (Rc::clone(self), Rc::clone(worker), key.clone());
        let shared = Rc::clone(&connection);
        spawn_local(async move {
            let (driven, of) = (Rc::clone(&shared), key.clone());
            connection::drive(worker, of, driven, config, opened).await;
            pool.forget(&key, &shared);
        });
        Ok(connection)
    }

    fn forget(&self, key: &Key, connection: &Rc<Connection>) {
        let mut entries = self.entries.borrow_mut();
        if let Some(entry) = entries.get_mut(key) {
            entry.connections.retain(|other| !Rc::ptr_eq(other, connection));
            if entry.connections.is_empty() && entry.dialling.is_none() {
                entries.remove(key);
            }
        }
    }
}

/// The TLS client. A configuration is in force a moment before its certificates are read; whoever
/// connects in between waits for them.
async fn config(worker: &Worker, tls: &TunnelTls) -> Result<Arc<ClientConfig>, DialError> {
    let mut epoch = worker.credentials.epoch();
    epoch.mark_unchanged();
    if let Ok(config) = worker.credentials.client(tls) {
        return Ok(config);
    }
    // Whether it came in time or not, the second answer counts.
    timeout(worker.limits.credentials, epoch.changed()).await.ok();
    worker.credentials.client(tls).map_err(DialError::Credentials)
}

impl Entry {
    fn slot(&mut self) -> Option<Slot> {
        let mut found = None;
        self.connections.retain(|connection| {
            if found.is_some() {
                return true;
            }
            match connection.slot() {
                Ok(slot) => {
                    found = slot;
                    true
                }
                Err(connection::Unusable) => false,
            }
        });
        found
    }
}

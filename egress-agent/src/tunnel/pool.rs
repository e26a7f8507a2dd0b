//! Connections to gateways, by gateway and workload identity.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

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
    key::Key,
    stats::add,
    worker::Worker,
};
use crate::policy::TunnelTls;

type PendingDial = Shared<LocalBoxFuture<'static, Result<Rc<Connection>, DialError>>>;

/// The connections with one key.
#[derive(Debug, Default)]
struct KeyState {
    /// More than one only while the first is at the gateway's limit of streams.
    connections: Vec<Rc<Connection>>,
    /// One at a time: a thousand connections of pods to a cold tunnel are one handshake.
    dialling: Option<PendingDial>,
    failed: Option<(Instant, DialError)>,
}

/// The connections of one thread.
#[derive(Debug, Default)]
pub(super) struct Pool {
    keys: RefCell<HashMap<Key, KeyState>>,
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
                let mut keys = self.keys.borrow_mut();
                let state = keys.entry(key.clone()).or_default();
                if let Some(slot) = state.slot() {
                    return Ok(slot);
                }
                let back_off = worker.limits.back_off;
                match (&state.dialling, &state.failed) {
                    (Some(dialling), _) => dialling.clone(),
                    (None, Some((at, error))) if at.elapsed() < back_off => {
                        return Err(error.clone());
                    }
                    (None, _) => {
                        let dialling = self.dial(worker, key);
                        state.dialling.insert(dialling).clone()
                    }
                }
            };
            // A connection that came about may be full already; then there is another round.
            dialling.await?;
        }
    }

    /// Dials in a task of its own: whoever asked for it may go away.
    fn dial(self: &Rc<Self>, worker: &Rc<Worker>, key: &Key) -> PendingDial {
        let (pool, worker, key) = (Rc::clone(self), Rc::clone(worker), key.clone());
        let to = key.endpoint;
        let task = spawn_local(async move {
            let dialled = pool.dialled(&worker, &key).await;
            let mut keys = pool.keys.borrow_mut();
            let state = keys.entry(key).or_default();
            state.dialling = None;
            match &dialled {
                Ok(connection) => {
                    state.failed = None;
                    state.connections.push(Rc::clone(connection));
                }
                Err(error) => {
                    add(&worker.stats.failed_dials, 1);
                    tracing::warn!("no tunnel: {error}");
                    state.failed = Some((Instant::now(), error.clone()));
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
            pool.remove(&key, &shared);
        });
        Ok(connection)
    }

    fn remove(&self, key: &Key, connection: &Rc<Connection>) {
        let mut keys = self.keys.borrow_mut();
        if let Some(state) = keys.get_mut(key) {
            state.connections.retain(|other| !Rc::ptr_eq(other, connection));
            if state.connections.is_empty() && state.dialling.is_none() {
                keys.remove(key);
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

impl KeyState {
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

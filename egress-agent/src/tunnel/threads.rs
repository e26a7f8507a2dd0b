//! The tunnel's threads: a runtime, listeners and a pool of connections of their own each, apart
//! from what watches and configures.

use std::{
    io,
    net::TcpListener as StdListener,
    rc::Rc,
    thread::{self, JoinHandle},
};

use tokio::{
    net::TcpListener,
    runtime,
    sync::watch,
    task::{LocalSet, spawn_local},
};

use super::{TunnelConfig, listener, pool::Pool, worker::Worker};

/// Running threads; dropping it ends them, and resets what they relay.
#[derive(Debug)]
pub struct Tunnel {
    end: watch::Sender<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Tunnel {
    /// Starts a thread for each set of listeners.
    ///
    /// # Errors
    /// A thread or its runtime can't be made.
    pub fn start(config: &TunnelConfig, listeners: Vec<Vec<StdListener>>) -> io::Result<Self> {
        let (end, ended) = watch::channel(());
        let mut tunnel = Self { end, threads: Vec::new() };
        for (number, listeners) in listeners.into_iter().enumerate() {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let (config, mut ended) = (config.clone(), ended.clone());
            let thread = thread::Builder::new().name(format!("tunnel-{number}"));
            tunnel.threads.push(thread.spawn(move || {
                let local = LocalSet::new();
                let work = work(Rc::new(Worker::new(config)), listeners);
                runtime.block_on(local.run_until(async {
                    tokio::select! {
                        () = work => {}
                        _ = ended.changed() => {}
                    }
                }));
            })?);
        }
        Ok(tunnel)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.end.send_replace(());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the tunnel panicked");
            }
        }
    }
}

/// Serves the listeners for as long as it is polled.
async fn work(worker: Rc<Worker>, listeners: Vec<StdListener>) {
    let pool = Rc::<Pool>::default();
    let mut accepting = Vec::new();
    for listener in listeners {
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                let accept = listener::accept(Rc::clone(&worker), Rc::clone(&pool), listener);
                accepting.push(spawn_local(accept));
            }
            Err(error) => tracing::error!("a listener of the tunnel can't be used: {error}"),
        }
    }
    for task in accepting {
        // They end with the drain, and what runs goes on; a panic there mustn't take the others along.
        if task.await.is_err() {
            tracing::error!("an accepting task of the tunnel panicked");
        }
    }
    std::future::pending::<()>().await;
}

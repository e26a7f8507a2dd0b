//! Listeners and threads of the admin endpoints.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::sync::watch;

use super::{
    AdminSources, Status,
    routes::Endpoint,
    serve::{Service, accept},
    ui::Ui,
};
use crate::telemetry::Telemetry;

/// Connections that wait to be accepted. They are taken and judged at once, so the queue is as long
/// as a burst.
const BACKLOG: i32 = 1024;

/// The ports; zero is any free one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdminPorts {
    /// Everything, on 127.0.0.1 and ::1.
    pub admin: u16,
    /// `/healthz/ready`, on every address.
    pub health: u16,
    /// `/stats/prometheus`, on every address.
    pub metrics: u16,
}

impl Default for AdminPorts {
    /// Istio's ports.
    fn default() -> Self {
        Self { admin: 15000, health: 15021, metrics: 15090 }
    }
}

/// Why the admin endpoints can't be served.
#[derive(Debug, Error)]
pub enum AdminError {
    /// A port can't be listened on.
    #[error(
        "the {what} endpoint can't listen on {addr}: {source}{}",
        if source.kind() == io::ErrorKind::AddrInUse { "; another process has the port" } else { "" }
    )]
    Listen {
        /// Which endpoint.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The thread couldn't be started.
    #[error("the admin endpoints' thread can't be started: {0}")]
    Thread(io::Error),
}

/// The running admin endpoints; they end when it is dropped.
#[derive(Debug)]
pub struct Admin {
    ports: AdminPorts,
    end: watch::Sender<bool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Admin {
    /// Listens, and serves on threads of its own: one for health, which a long answer to a scraper
    /// must not delay, and one for the rest.
    ///
    /// # Errors
    /// A port is taken or not allowed.
    pub fn start(
        ports: AdminPorts,
        sources: AdminSources,
        telemetry: Arc<Telemetry>,
        status: Arc<Status>,
    ) -> Result<Self, AdminError> {
        let admin = listen("admin", IpAddr::V4(Ipv4Addr::LOCALHOST), ports.admin)?;
        let health = listen_everywhere("health", ports.health)?;
        let metrics = listen_everywhere("metrics", ports.metrics)?;
        let ports = AdminPorts {
            admin: port(&admin).map_err(AdminError::Thread)?,
            health: port(&health).map_err(AdminError::Thread)?,
            metrics: port(&metrics).map_err(AdminError::Thread)?,
        };
        let ui = Ui::new(sources.ui);
        let service = Arc::new(Service { telemetry, status, sources, ui });
        let mut rest = vec![(Endpoint::Admin, admin), (Endpoint::Metrics, metrics)];
        match listen("admin", IpAddr::V6(Ipv6Addr::LOCALHOST), ports.admin) {
            Ok(listener) => rest.push((Endpoint::Admin, listener)),
            Err(AdminError::Listen { source, .. }) if is_without_ipv6(&source) => {}
            Err(error) => return Err(error),
        }
        let (end, ended) = watch::channel(false);
        let mut running = Self { ports, end, threads: Vec::new() };
        running.start_thread("health", vec![(Endpoint::Health, health)], &service, &ended)?;
        running.start_thread("admin", rest, &service, &ended)?;
        Ok(running)
    }

    fn start_thread(
        &mut self,
        name: &str,
        listeners: Vec<(Endpoint, TcpListener)>,
        service: &Arc<Service>,
        ended: &watch::Receiver<bool>,
    ) -> Result<(), AdminError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AdminError::Thread)?;
        let (service, ended) = (Arc::clone(service), ended.clone());
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || runtime.block_on(serve(listeners, service, ended)))
            .map_err(AdminError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }

    /// The ports that it listens on.
    #[must_use]
    pub const fn ports(&self) -> AdminPorts {
        self.ports
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.end.send_replace(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the admin endpoints panicked");
            }
        }
    }
}

fn port(listener: &TcpListener) -> io::Result<u16> {
    listener.local_addr().map(|addr| addr.port())
}

/// On every IPv6 and IPv4 address.
fn listen_everywhere(what: &'static str, port: u16) -> Result<TcpListener, AdminError> {
    match listen(what, IpAddr::V6(Ipv6Addr::UNSPECIFIED), port) {
        Err(AdminError::Listen { source, .. }) if is_without_ipv6(&source) => {
            listen(what, IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
        }
        result => result,
    }
}

/// The host has IPv6 switched off, wholly or on loopback.
fn is_without_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn listen(what: &'static str, ip: IpAddr, port: u16) -> Result<TcpListener, AdminError> {
    let addr = SocketAddr::new(ip, port);
    bind(addr).map_err(|source| AdminError::Listen { what, addr, source })
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    // A restart mustn't wait for the last run's connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

async fn serve(
    listeners: Vec<(Endpoint, TcpListener)>,
    service: Arc<Service>,
    mut ended: watch::Receiver<bool>,
) {
    for (endpoint, listener) in listeners {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                tokio::spawn(accept(endpoint, listener, Arc::clone(&service)));
            }
            Err(error) => tracing::error!(%error, "an admin endpoint can't be served"),
        }
    }
    // An error says that the handle is gone; connections end with the runtime.
    if ended.wait_for(|ended| *ended).await.is_err() {
        tracing::debug!("the admin endpoints' handle is gone");
    }
}

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
    serve::{Phase, Service, accept},
    ui::Ui,
};
use crate::{sys::listening::Sockets, telemetry::Telemetry};

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

/// Sockets that the admin endpoints listen on, and that nobody reads yet.
#[derive(Debug)]
pub struct AdminListeners {
    ports: AdminPorts,
    admin: Vec<TcpListener>,
    health: TcpListener,
    metrics: TcpListener,
}

impl AdminListeners {
    /// Listens, or takes the sockets of the process before this one.
    ///
    /// # Errors
    /// A port is taken or not allowed.
    pub fn open(ports: AdminPorts, sockets: &mut Sockets) -> Result<Self, AdminError> {
        let mut listen = |what, ip, port| listen(what, ip, port, sockets);
        let admin = listen("admin", IpAddr::V4(Ipv4Addr::LOCALHOST), ports.admin)?;
        let health = everywhere(ports.health, |ip, port| listen("health", ip, port))?;
        let metrics = everywhere(ports.metrics, |ip, port| listen("metrics", ip, port))?;
        let ports = AdminPorts {
            admin: port(&admin).map_err(AdminError::Thread)?,
            health: port(&health).map_err(AdminError::Thread)?,
            metrics: port(&metrics).map_err(AdminError::Thread)?,
        };
        let mut admin = vec![admin];
        match listen("admin", IpAddr::V6(Ipv6Addr::LOCALHOST), ports.admin) {
            Ok(listener) => admin.push(listener),
            Err(AdminError::Listen { source, .. }) if is_without_ipv6(&source) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { ports, admin, health, metrics })
    }

    /// The ports that it listens on.
    #[must_use]
    pub const fn ports(&self) -> AdminPorts {
        self.ports
    }

    /// Serves on threads of its own: one for health, which a long answer to a scraper must not delay, and
    /// one for the rest.
    ///
    /// # Errors
    /// A thread can't be started.
    pub fn serve(
        self,
        sources: AdminSources,
        telemetry: Arc<Telemetry>,
        status: Arc<Status>,
    ) -> Result<Admin, AdminError> {
        let Self { ports, admin, health, metrics } = self;
        let ui = Ui::new(sources.ui);
        let service = Arc::new(Service { telemetry, status, sources, ui });
        let mut rest = vec![(Endpoint::Metrics, metrics)];
        rest.extend(admin.into_iter().map(|listener| (Endpoint::Admin, listener)));
        let (phase, phases) = watch::channel(Phase::Serving);
        let mut running = Admin { ports, phase, threads: Vec::new() };
        running.start_thread("health", vec![(Endpoint::Health, health)], &service, &phases)?;
        running.start_thread("admin", rest, &service, &phases)?;
        Ok(running)
    }
}

/// The running admin endpoints; they end when it is dropped.
#[derive(Debug)]
pub struct Admin {
    ports: AdminPorts,
    phase: watch::Sender<Phase>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Admin {
    /// Listens and serves.
    ///
    /// # Errors
    /// As for [`AdminListeners::open`] and [`AdminListeners::serve`].
    pub fn start(
        ports: AdminPorts,
        sources: AdminSources,
        telemetry: Arc<Telemetry>,
        status: Arc<Status>,
    ) -> Result<Self, AdminError> {
        AdminListeners::open(ports, &mut Sockets::default())?.serve(sources, telemetry, status)
    }

    /// Leaves what is new to the process that took over the listeners. A request that is under way is
    /// answered, and its connection is closed.
    pub fn leave(&self) {
        self.phase.send_replace(Phase::Leaving);
    }

    fn start_thread(
        &mut self,
        name: &str,
        listeners: Vec<(Endpoint, TcpListener)>,
        service: &Arc<Service>,
        phases: &watch::Receiver<Phase>,
    ) -> Result<(), AdminError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AdminError::Thread)?;
        let (service, phases) = (Arc::clone(service), phases.clone());
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || runtime.block_on(serve(listeners, service, phases)))
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
        self.phase.send_replace(Phase::Ended);
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
fn everywhere(
    port: u16,
    mut listen: impl FnMut(IpAddr, u16) -> Result<TcpListener, AdminError>,
) -> Result<TcpListener, AdminError> {
    match listen(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port) {
        Err(AdminError::Listen { source, .. }) if is_without_ipv6(&source) => {
            listen(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
        }
        result => result,
    }
}

/// The host has IPv6 switched off, wholly or on loopback.
fn is_without_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn listen(
    what: &'static str,
    ip: IpAddr,
    port: u16,
    sockets: &mut Sockets,
) -> Result<TcpListener, AdminError> {
    let addr = SocketAddr::new(ip, port);
    let listener = sockets.open_one(&format!("{what} {addr}"), || bind(addr));
    listener.map_err(|source| AdminError::Listen { what, addr, source })
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
    mut phases: watch::Receiver<Phase>,
) {
    for (endpoint, listener) in listeners {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                tokio::spawn(accept(endpoint, listener, Arc::clone(&service), phases.clone()));
            }
            Err(error) => tracing::error!(%error, "an admin endpoint can't be served"),
        }
    }
    // An error says that the handle is gone; connections end with the runtime.
    if phases.wait_for(|phase| *phase == Phase::Ended).await.is_err() {
        tracing::debug!("the admin endpoints' handle is gone");
    }
}

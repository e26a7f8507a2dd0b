//! Listeners and connections of the admin endpoints.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use http::{Response, header};
use http_body_util::Full;
use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::{
    sync::{Semaphore, watch},
    time,
};

use super::{
    Status,
    routes::{self, Endpoint},
};
use crate::telemetry::Telemetry;

/// Connections at a time, each listener; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// From one request's end, or the accept, to the next one's head.
const HEAD: Duration = Duration::from_secs(5);
/// A whole connection, however many requests it carries.
const CONNECTION: Duration = Duration::from_secs(60);
/// How long to wait after the process ran out of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Largest head.
const HEAD_BYTES: usize = 16 * 1024;

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
    thread: Option<thread::JoinHandle<()>>,
}

impl Admin {
    /// Listens, and serves on a thread of its own.
    ///
    /// # Errors
    /// A port is taken or not allowed.
    pub fn start(
        ports: AdminPorts,
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
        let mut listeners = vec![
            (Endpoint::Admin, admin),
            (Endpoint::Health, health),
            (Endpoint::Metrics, metrics),
        ];
        match listen("admin", IpAddr::V6(Ipv6Addr::LOCALHOST), ports.admin) {
            Ok(listener) => listeners.push((Endpoint::Admin, listener)),
            Err(AdminError::Listen { source, .. }) if is_without_ipv6(&source) => {}
            Err(error) => return Err(error),
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AdminError::Thread)?;
        let (end, ended) = watch::channel(false);
        let thread = thread::Builder::new()
            .name("admin".into())
            .spawn(move || runtime.block_on(serve(listeners, telemetry, status, ended)))
            .map_err(AdminError::Thread)?;
        Ok(Self { ports, end, thread: Some(thread) })
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
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin endpoints' thread panicked");
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
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

async fn serve(
    listeners: Vec<(Endpoint, TcpListener)>,
    telemetry: Arc<Telemetry>,
    status: Arc<Status>,
    mut ended: watch::Receiver<bool>,
) {
    for (endpoint, listener) in listeners {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => {
                let (telemetry, status) = (Arc::clone(&telemetry), Arc::clone(&status));
                tokio::spawn(accept(endpoint, listener, telemetry, status));
            }
            Err(error) => tracing::error!(%error, "an admin endpoint can't be served"),
        }
    }
    // An error says that the handle is gone; connections end with the runtime.
    if ended.wait_for(|ended| *ended).await.is_err() {
        tracing::debug!("the admin endpoints' handle is gone");
    }
}

async fn accept(
    endpoint: Endpoint,
    listener: tokio::net::TcpListener,
    telemetry: Arc<Telemetry>,
    status: Arc<Status>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "an admin endpoint can't accept a connection");
                time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (telemetry, status) = (Arc::clone(&telemetry), Arc::clone(&status));
        tokio::spawn(async move {
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
                let (head, _) = request.into_parts();
                let response = routes::respond(endpoint, &head, &telemetry, &status);
                std::future::ready(Ok::<_, Infallible>(finish(response)))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            match time::timeout(CONNECTION, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a connection to an admin endpoint failed")
                }
                Err(_) => tracing::debug!("a connection to an admin endpoint took too long"),
            }
            drop(place);
        });
    }
}

fn finish(response: Response<String>) -> Response<Full<Bytes>> {
    let mut response = response.map(|text| Full::new(Bytes::from(text)));
    response.headers_mut().insert(header::SERVER, http::HeaderValue::from_static("egress-agent"));
    response
}

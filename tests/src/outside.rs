//! The world outside: DNS, HTTP that redirects to HTTPS, HTTPS with a page, services for raw TCP
//! and UDP, a metadata service, and an attacker's collection point. All of it in this process, on
//! one thread inside the outside's namespace.

mod dns;
mod names;
mod record;
mod web;

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::mpsc,
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, UdpSocket},
    runtime,
    sync::oneshot,
    task::LocalSet,
};

pub use names::Names;
pub use record::{Record, Seen};
pub use web::PAGE_BYTES;

use crate::{ca::Certificates, netns::NetNs, plan};

/// Servers in one namespace; they end when this is dropped.
#[derive(Debug)]
pub struct Servers {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// What reached them.
    pub record: Record,
    /// What their DNS answers.
    pub names: Names,
}

impl Servers {
    /// The outside.
    ///
    /// # Errors
    /// A port can't be bound.
    pub fn outside(ns: &NetNs, certificates: Certificates) -> Result<Self> {
        Self::start(ns, move |record, names| async move { outside(certificates, record, &names) })
    }

    /// The cluster's DNS service on the app node: the same answers.
    ///
    /// # Errors
    /// The port can't be bound.
    pub fn cluster_dns(ns: &NetNs) -> Result<Self> {
        Self::dns(ns, plan::CLUSTER_DNS)
    }

    /// The same answers at an address of another host.
    ///
    /// # Errors
    /// The port can't be bound.
    pub fn dns(ns: &NetNs, address: &'static str) -> Result<Self> {
        Self::start(ns, move |_, names| async move { serve_dns(address, &names) })
    }

    fn start<F>(ns: &NetNs, serve: impl FnOnce(Record, Names) -> F + Send + 'static) -> Result<Self>
    where
        F: Future<Output = Result<()>>,
    {
        let (record, names) = (Record::default(), Names::default());
        let (stop, stopped) = oneshot::channel();
        let (report, ready) = mpsc::channel();
        let (seen, told) = (record.clone(), names.clone());
        let thread = ns.spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => {
                    report.send(Err(error.into())).ok();
                    return;
                }
            };
            LocalSet::new().block_on(&runtime, async {
                report.send(serve(seen, told).await).ok();
                stopped.await.ok();
            });
        })?;
        let servers = Self { stop: Some(stop), thread: Some(thread), record, names };
        ready.recv().map_err(|_| anyhow!("cannot enter {}", ns.name()))??;
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Binds everything, then serves it from tasks of the calling thread.
fn outside(certificates: Certificates, record: Record, names: &Names) -> Result<()> {
    serve_dns(plan::OUTSIDE_DNS, names)?;
    for address in [plan::ATTACKER, plan::ATTACKER_V6] {
        let socket = udp(address, plan::UDP_PORT)?;
        tokio::task::spawn_local(echo_udp(socket, record.clone()));
    }
    for port in plan::TCP_PORTS {
        let listener = listen(port)?;
        tokio::task::spawn_local(echo_tcp(listener, port, record.clone()));
    }
    let tls = web::tls_acceptor(certificates)?;
    tokio::task::spawn_local(web::serve(listen(80)?, None, record.clone()));
    tokio::task::spawn_local(web::serve(listen(443)?, Some(tls), record));
    Ok(())
}

fn serve_dns(address: &str, names: &Names) -> Result<()> {
    let ip: IpAddr = address.parse()?;
    let listener = bind_tcp(SocketAddr::new(ip, 53))?;
    tokio::task::spawn_local(dns::serve_udp(udp(address, 53)?, names.clone()));
    tokio::task::spawn_local(dns::serve_tcp(listener, names.clone()));
    Ok(())
}

fn udp(address: &str, port: u16) -> Result<UdpSocket> {
    let address = SocketAddr::new(address.parse()?, port);
    let socket = std::net::UdpSocket::bind(address).with_context(|| address.to_string())?;
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket)?)
}

/// Listens on every address of the namespace, IPv4 and IPv6.
fn listen(port: u16) -> Result<TcpListener> {
    bind_tcp(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
}

fn bind_tcp(address: SocketAddr) -> Result<TcpListener> {
    let bind = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    bind().with_context(|| format!("TCP {address}"))
}

async fn echo_udp(socket: UdpSocket, record: Record) {
    let mut buffer = vec![0; 65_536];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        record.add(Seen::Udp);
        socket.send_to(&buffer[..length], peer).await.ok();
    }
}

async fn echo_tcp(listener: TcpListener, port: u16, record: Record) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let record = record.clone();
        tokio::task::spawn_local(async move {
            record.add(Seen::Tcp(port));
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.ok();
        });
    }
}

//! One connection to one address.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

use futures_util::future::LocalBoxFuture;
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};

use crate::{sys::socket::bind_without_port, types::UpstreamAddr};

/// What stands between addresses and connections; [`Connector`] in production.
pub trait Connect: fmt::Debug {
    /// Connects, however long it takes; from this address, where one is given.
    fn connect(
        &self,
        addr: UpstreamAddr,
        from: Option<IpAddr>,
    ) -> LocalBoxFuture<'_, Result<TcpStream, ConnectError>>;
}

/// Why an address can't be connected to.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// It is one of this machine's own.
    #[error("the address is this gateway's own")]
    Own,
    /// It was to be dialled from an address that this machine does not have.
    #[error("{0} is no address of this gateway")]
    From(IpAddr),
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Connects through the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connector;

impl Connect for Connector {
    fn connect(
        &self,
        addr: UpstreamAddr,
        from: Option<IpAddr>,
    ) -> LocalBoxFuture<'_, Result<TcpStream, ConnectError>> {
        Box::pin(async move {
            let socket = match addr.ip().is_ipv4() {
                true => TcpSocket::new_v4()?,
                false => TcpSocket::new_v6()?,
            };
            socket.set_nodelay(true)?;
            if let Some(from) = from {
                // The source address does not show whether the destination is the host's own.
                if is_own(addr)? {
                    return Err(ConnectError::Own);
                }
                // Otherwise each address had one set of ports for all destinations together.
                bind_without_port(&socket)?;
                socket.bind((from, 0).into()).map_err(|error| {
                    if error.kind() == io::ErrorKind::AddrNotAvailable {
                        ConnectError::From(from)
                    } else {
                        ConnectError::Io(error)
                    }
                })?;
            }
            let stream = socket.connect((addr.ip(), addr.0.port()).into()).await?;
            // To an address of its own the kernel dials from that very address. Lists of own
            // addresses grow stale, this doesn't.
            if stream.local_addr()?.ip().to_canonical() == addr.ip() {
                stream.set_zero_linger()?;
                return Err(ConnectError::Own);
            }
            Ok(stream)
        })
    }
}

/// Whether the kernel would dial the address from that very address. Nothing is sent.
fn is_own(addr: UpstreamAddr) -> io::Result<bool> {
    let any: IpAddr = match addr.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((addr.ip(), addr.0.port()))?;
    Ok(socket.local_addr()?.ip().to_canonical() == addr.ip())
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn own_addresses_are_refused_and_nothing_is_sent() {
        for bind in ["127.0.0.1:0", "[::1]:0", "127.0.0.9:0"] {
            let listener = TcpListener::bind(bind).await.unwrap();
            let addr = UpstreamAddr(listener.local_addr().unwrap());
            let own = Connector.connect(addr, None).await;
            // 127/8 is dialled from 127.0.0.1, and is the policy's to refuse.
            if bind.starts_with("127.0.0.9") {
                assert!(own.is_ok());
                continue;
            }
            assert!(matches!(own, Err(ConnectError::Own)), "{own:?}");
            let (mut accepted, _) = listener.accept().await.unwrap();
            let error = accepted.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn it_is_dialled_from_the_address_that_is_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = UpstreamAddr(listener.local_addr().unwrap());
        // A whole network is this machine's own.
        let from: IpAddr = "127.0.0.5".parse().unwrap();
        let dialled =
            Connector.connect(UpstreamAddr(([127, 0, 0, 2], addr.0.port()).into()), Some(from));
        let refused = dialled.await;
        assert!(matches!(refused, Err(ConnectError::Io(_))), "nobody listens there: {refused:?}");
        let other = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let stream = Connector.connect(UpstreamAddr(other.local_addr().unwrap()), Some(from));
        assert_eq!(stream.await.unwrap().local_addr().unwrap().ip(), from);
        assert_eq!(other.accept().await.unwrap().1.ip(), from);
        // One that this machine does not have.
        let foreign: IpAddr = "203.0.113.99".parse().unwrap();
        let missing = Connector.connect(UpstreamAddr(other.local_addr().unwrap()), Some(foreign));
        assert!(matches!(missing.await, Err(ConnectError::From(ip)) if ip == foreign));
        // And its own address stays refused.
        let own = Connector.connect(addr, Some(from)).await;
        assert!(matches!(own, Err(ConnectError::Own)), "{own:?}");
    }
}

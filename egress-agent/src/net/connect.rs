//! One connection to one address.

use std::{fmt, io};

use futures_util::future::LocalBoxFuture;
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};

use crate::types::UpstreamAddr;

/// What stands between addresses and connections; [`Connector`] in production.
pub trait Connect: fmt::Debug {
    /// Connects, however long it takes.
    fn connect(&self, addr: UpstreamAddr) -> LocalBoxFuture<'_, Result<TcpStream, ConnectError>>;
}

/// Why an address can't be connected to.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// It is one of this machine's own.
    #[error("the address is this gateway's own")]
    Own,
    /// The kernel said no.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Connects through the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connector;

impl Connect for Connector {
    fn connect(&self, addr: UpstreamAddr) -> LocalBoxFuture<'_, Result<TcpStream, ConnectError>> {
        Box::pin(async move {
            let socket = match addr.ip().is_ipv4() {
                true => TcpSocket::new_v4()?,
                false => TcpSocket::new_v6()?,
            };
            socket.set_nodelay(true)?;
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

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn own_addresses_are_refused_and_nothing_is_sent() {
        for bind in ["127.0.0.1:0", "[::1]:0", "127.0.0.9:0"] {
            let listener = TcpListener::bind(bind).await.unwrap();
            let addr = UpstreamAddr(listener.local_addr().unwrap());
            let own = Connector.connect(addr).await;
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
}

//! The two ends of a relayed connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{post_tunnel::PostTunnel, tunnel::TunnelStream};
use crate::{net::RelayIo, tls::Terminated};

/// One end of a relay.
pub(super) enum Transport {
    /// The bytes of the connection as they are.
    Plain(TcpStream),
    /// Inside TLS that the gateway originates.
    Originated(Box<TlsStream<TcpStream>>),
    /// Inside TLS that the gateway ends.
    Terminated(Box<Terminated>),
    /// A stream of a node's tunnel.
    Tunnel(Box<TunnelStream>),
    /// Inside a `POST` to a proxy.
    Posted(Box<PostTunnel<Transport>>),
}

impl Transport {
    /// Completes when there is something to read. As long as nothing is, it costs no buffer.
    pub(super) async fn readable(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.readable().await,
            Self::Tunnel(stream) => stream.readable().await,
            // Whoever reads these has read from them before.
            Self::Originated(_) | Self::Terminated(_) | Self::Posted(_) => Ok(()),
        }
    }
}

impl RelayIo for Transport {
    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Originated(_) | Self::Terminated(_) | Self::Tunnel(_) | Self::Posted(_) => None,
        }
    }

    fn reset(&self) {
        match self {
            Self::Plain(stream) => stream.reset(),
            Self::Originated(stream) => stream.reset(),
            Self::Terminated(stream) => stream.reset(),
            Self::Tunnel(stream) => stream.reset(),
            Self::Posted(stream) => stream.reset(),
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(stream) => stream.poll_gone(cx),
            Self::Originated(stream) => stream.poll_gone(cx),
            Self::Terminated(stream) => stream.poll_gone(cx),
            Self::Tunnel(stream) => stream.poll_gone(cx),
            Self::Posted(stream) => stream.poll_gone(cx),
        }
    }

    fn poll_received(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<Bytes>>> {
        match self {
            Self::Plain(_) | Self::Originated(_) | Self::Terminated(_) | Self::Posted(_) => None,
            Self::Tunnel(stream) => stream.poll_received(cx),
        }
    }

    fn keeps_bytes(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Originated(_) | Self::Terminated(_) | Self::Posted(_) => false,
            Self::Tunnel(stream) => stream.keeps_bytes(),
        }
    }

    fn poll_write_bytes(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_write_bytes(cx, bytes),
            Self::Originated(stream) => stream.poll_write_bytes(cx, bytes),
            Self::Terminated(stream) => stream.poll_write_bytes(cx, bytes),
            Self::Tunnel(stream) => stream.poll_write_bytes(cx, bytes),
            Self::Posted(stream) => stream.poll_write_bytes(cx, bytes),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Originated(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Terminated(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tunnel(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Posted(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Originated(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Terminated(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tunnel(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Posted(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Originated(stream) => Pin::new(stream).poll_flush(cx),
            Self::Terminated(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
            Self::Posted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Originated(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Terminated(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Posted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

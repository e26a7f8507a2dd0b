//! A connection to one of a collector's addresses.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{net::TcpStream, time::sleep};

/// How long one address is tried alone before the next is tried beside it (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

/// The first connection that is made. Addresses are tried in their order, the next one when one fails, or does not
/// answer in time; `None` where there is none.
pub(super) async fn connect(
    addresses: impl IntoIterator<Item = SocketAddr>,
) -> Option<io::Result<TcpStream>> {
    let mut left = addresses.into_iter().peekable();
    let mut trying = FuturesUnordered::new();
    trying.push(TcpStream::connect(left.next()?));
    loop {
        let failed = tokio::select! {
            Some(tried) = trying.next() => match tried {
                Ok(stream) => return Some(Ok(stream)),
                Err(error) => Some(error),
            },
            () = sleep(STAGGER), if left.peek().is_some() => None,
        };
        match (left.next(), failed) {
            (Some(next), _) => trying.push(TcpStream::connect(next)),
            (None, Some(error)) if trying.is_empty() => return Some(Err(error)),
            (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    async fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    #[tokio::test]
    async fn the_next_address_is_tried_where_one_refuses() {
        let (gone, closed) = listening().await;
        drop(gone);
        let (_listener, open) = listening().await;
        let stream = connect([closed, open]).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
        // The denied twin: nobody listens anywhere.
        let error = connect([closed]).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect([]).await.is_none());
    }

    /// A listener whose queue is full drops what comes: its clients wait for minutes.
    #[tokio::test]
    async fn an_address_that_is_silent_holds_up_no_other() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(1).unwrap();
        let silent = full.local_addr().unwrap();
        let mut queued = Vec::new();
        // Until the queue is full: one more does not connect in time.
        while let Ok(stream) =
            tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(silent)).await
        {
            queued.push(stream.unwrap());
        }
        let (_listener, open) = listening().await;
        let reached = tokio::time::timeout(Duration::from_secs(30), connect([silent, open])).await;
        assert_eq!(reached.unwrap().unwrap().unwrap().peer_addr().unwrap(), open);
    }
}

//! What a gateway and the process that is to replace it say to each other.
//!
//! ```text
//! the process before                     the process after, its child
//!   Sockets, Sockets, … , Complete  →      takes the listening sockets
//!                                          loads the configuration and certificates
//!                                   ←      Ready, or Failed
//!   Serve                           →      accepts connections; both processes do now
//!                                   ←      Serving
//!   stops to accept
//!   Rates, Rates, …                 →      counts what was used of rate limits
//!   Released                        →      is the service's main process
//!   drains                                 serves
//! ```
//!
//! Until `Released` the process before goes on whatever becomes of the other one. Each end learns from the
//! end of the channel that the other one is gone. The two are different versions of the program: messages
//! may gain fields, and keep their names.

use std::{
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixDatagram as StdUnixDatagram,
    },
};

use serde::{Deserialize, Serialize};
use tokio::{io::Interest, net::UnixDatagram};

use crate::{
    proxy::UsedRate,
    sys::packet_pair::{self, Packet},
};

/// Set for the process after: the process id of the one before. Standard input is the channel.
pub(crate) const VARIABLE: &str = "EGRESS_AGENT_REPLACES";

/// A message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// Names of the listening sockets that come with it.
    Sockets { names: Vec<String> },
    /// These were all.
    Complete {
        /// Certificates that are in use.
        credentials: Vec<String>,
    },
    /// All that is needed to serve is there.
    Ready { version: String },
    /// It can't serve.
    Failed { why: String },
    /// Connections are to be accepted.
    Serve {},
    /// They are.
    Serving {},
    /// What workloads have used of their rate limits.
    Rates { used: Vec<UsedRate> },
    /// The process before accepts none.
    Released {},
}

impl Message {
    /// Which it is, for the log.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Sockets { .. } => "sockets",
            Self::Complete { .. } => "complete",
            Self::Ready { .. } => "ready",
            Self::Failed { .. } => "failed",
            Self::Serve {} => "serve",
            Self::Serving {} => "serving",
            Self::Rates { .. } => "rates",
            Self::Released {} => "released",
        }
    }
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(UnixDatagram);

impl Channel {
    /// Within a runtime.
    ///
    /// # Errors
    /// The runtime can't watch it.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        // The type is of Unix sockets that keep packets apart, connected or not.
        let socket = StdUnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        UnixDatagram::from_std(socket).map(Self)
    }

    /// # Errors
    /// The other end is gone, or what the kernel said.
    pub(crate) async fn send(
        &self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        self.0
            .async_io(Interest::WRITABLE, || packet_pair::send(&self.0, &bytes, descriptors))
            .await
    }

    /// The next message; `None` where the other end is gone.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) async fn receive(&self) -> io::Result<Option<Message>> {
        let receive = || packet_pair::receive(&self.0, false);
        let received = self.0.async_io(Interest::READABLE, receive).await?;
        received.map(|Packet { bytes, .. }| read(&bytes)).transpose()
    }
}

/// # Errors
/// It is of a version that this one can't read.
pub(crate) fn read(bytes: &[u8]) -> io::Result<Message> {
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_arrive_and_an_end_is_noticed() {
        let (ours, theirs) = packet_pair::pair().unwrap();
        let (ours, theirs) = (Channel::new(ours).unwrap(), Channel::new(theirs).unwrap());
        let ready = Message::Ready { version: "1".into() };
        theirs.send(&ready, &[]).await.unwrap();
        theirs.send(&Message::Serving {}, &[]).await.unwrap();
        assert_eq!(ours.receive().await.unwrap(), Some(ready));
        assert_eq!(ours.receive().await.unwrap(), Some(Message::Serving {}));
        drop(theirs);
        assert_eq!(ours.receive().await.unwrap(), None);
        assert!(ours.send(&Message::Serve {}, &[]).await.is_err());
    }

    #[test]
    fn a_later_version_may_say_more_and_nothing_else() {
        let later = br#"{"ready":{"version":"2","more":[1]}}"#;
        assert_eq!(read(later).unwrap(), Message::Ready { version: "2".into() });
        assert_eq!(read(br#"{"serve":{"at":1}}"#).unwrap(), Message::Serve {});
        assert!(read(br#"{"other":{}}"#).is_err());
        assert!(read(b"no JSON").is_err());
    }
}

//! An outside world on loopback: names and addresses that a test makes up, led to its own servers.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
    rc::Rc,
    sync::{Arc, Mutex},
};

use futures_util::future::{Either, LocalBoxFuture, ready};
use tokio::net::{TcpSocket, TcpStream};

use super::{
    Answer, ClusterStates, Connect, ConnectError, Dialer, DnsQuestion, Resolve, ResolveError,
};
use crate::types::UpstreamAddr;

/// Names and where connections really go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outside {
    names: Arc<Mutex<HashMap<String, Arc<[IpAddr]>>>>,
    routes: HashMap<SocketAddr, SocketAddr>,
    kept: Option<Sockets>,
}

/// Sockets that were connected, as they are on the side of whoever dialled. They stay open.
pub(crate) type Sockets = Arc<Mutex<Vec<OwnedFd>>>;

impl Outside {
    /// `name` has these addresses. Names without are NXDOMAIN.
    pub(crate) fn name(self, name: &str, addresses: &[&str]) -> Self {
        self.rename(name, addresses);
        self
    }

    /// From here on `name` has these addresses, for every clone of this world.
    pub(crate) fn rename(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        self.names.lock().unwrap().insert(name.to_owned(), addresses);
    }

    /// Connections to `addr` reach the test's server at `real`. Others are refused.
    pub(crate) fn route(mut self, addr: &str, real: SocketAddr) -> Self {
        self.routes.insert(addr.parse().unwrap(), real);
        self
    }

    /// From here on the dialler's sockets can be looked at.
    pub(crate) fn keep_sockets(&mut self) -> Sockets {
        Arc::clone(self.kept.get_or_insert_default())
    }

    /// A dialer into this world.
    pub(crate) fn dialer(self) -> Dialer {
        Dialer::new(Arc::new(self.clone()), Rc::new(self), Arc::new(ClusterStates::default()))
    }
}

impl Resolve for Outside {
    fn resolve<'a>(&'a self, question: DnsQuestion<'a>) -> Answer<'a> {
        assert!(!question.name.starts_with("panic."), "a fault that a test asked for");
        let names = self.names.lock().unwrap();
        let result = names.get(question.name).cloned().ok_or(ResolveError::NoSuchName);
        Either::Left(ready(result))
    }
}

impl Connect for Outside {
    fn connect(
        &self,
        addr: UpstreamAddr,
        from: Option<IpAddr>,
    ) -> LocalBoxFuture<'_, Result<TcpStream, ConnectError>> {
        Box::pin(async move {
            match self.routes.get(&addr.0) {
                Some(real) => {
                    let socket = match real {
                        SocketAddr::V4(_) => TcpSocket::new_v4()?,
                        SocketAddr::V6(_) => TcpSocket::new_v6()?,
                    };
                    if let Some(from) = from {
                        let bound = socket.bind((from, 0).into());
                        bound.map_err(|_| ConnectError::From(from))?;
                    }
                    let stream = socket.connect(*real).await?;
                    stream.set_nodelay(true)?;
                    if let Some(kept) = &self.kept {
                        kept.lock().unwrap().push(stream.as_fd().try_clone_to_owned()?);
                    }
                    Ok(stream)
                }
                None => Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()),
            }
        })
    }
}

//! The listening sockets of a process, by name: inherited from the process that it replaces, or its own.

use std::{
    collections::BTreeMap,
    io,
    net::TcpListener,
    os::fd::{AsFd, OwnedFd},
};

/// A socket with the name under which it is handed over.
pub type Named = (String, OwnedFd);

/// Listening sockets by name. Several may share a name: those of a `SO_REUSEPORT` group.
#[derive(Debug, Default)]
pub struct Sockets {
    inherited: BTreeMap<String, Vec<OwnedFd>>,
    /// A second descriptor of each socket in use.
    open: Vec<Named>,
}

impl Sockets {
    /// With what another process left.
    #[must_use]
    pub fn inheriting(sockets: Vec<Named>) -> Self {
        let mut inherited = BTreeMap::<String, Vec<OwnedFd>>::new();
        for (name, socket) in sockets {
            inherited.entry(name).or_default().push(socket);
        }
        Self { inherited, open: Vec::new() }
    }

    /// All that were inherited under this name, or what `listen` makes.
    ///
    /// # Errors
    /// Of `listen`, or there is no descriptor left.
    pub fn open<S: AsFd + From<OwnedFd>>(
        &mut self,
        name: &str,
        listen: impl FnOnce() -> io::Result<Vec<S>>,
    ) -> io::Result<Vec<S>> {
        let sockets = match self.inherited.remove(name) {
            Some(inherited) => inherited.into_iter().map(S::from).collect(),
            None => listen()?,
        };
        for socket in &sockets {
            self.open.push((name.to_owned(), socket.as_fd().try_clone_to_owned()?));
        }
        Ok(sockets)
    }

    /// The same where there is one socket of the name.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_one<S: AsFd + From<OwnedFd>>(
        &mut self,
        name: &str,
        listen: impl FnOnce() -> io::Result<S>,
    ) -> io::Result<S> {
        let mut sockets = self.open(name, || listen().map(|socket| vec![socket]))?;
        sockets.pop().ok_or_else(|| io::Error::other("no socket of this name"))
    }

    /// A second descriptor of each socket in use: as long as one is open the kernel takes connections.
    /// What was inherited and not asked for is closed.
    #[must_use]
    pub fn into_open(self) -> Vec<Named> {
        self.open
    }
}

/// Gives each of the sets its part of the listeners. Where there are fewer listeners than sets, some share
/// one; where there are more, some sets have several: no listener of a group may be without a reader.
///
/// # Errors
/// There is no descriptor left.
pub fn deal(listeners: Vec<TcpListener>, sets: &mut [Vec<TcpListener>]) -> io::Result<()> {
    let (given, count) = (listeners.len(), sets.len());
    for (number, set) in sets.iter_mut().enumerate().skip(given) {
        if let Some(shared) = number.checked_rem(given).and_then(|index| listeners.get(index)) {
            set.push(shared.try_clone()?);
        }
    }
    for (number, listener) in listeners.into_iter().enumerate() {
        if let Some(set) = number.checked_rem(count).and_then(|index| sets.get_mut(index)) {
            set.push(listener);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> io::Result<TcpListener> {
        TcpListener::bind("127.0.0.1:0")
    }

    #[test]
    fn what_was_inherited_is_used_and_the_rest_is_made_or_closed() {
        let mut first = Sockets::default();
        let made = first.open("a", || Ok(vec![listener()?, listener()?])).unwrap();
        let other = first.open_one("b", listener).unwrap();
        let addr = |listener: &TcpListener| listener.local_addr().unwrap();

        let mut second = Sockets::inheriting(first.into_open());
        let fail = || -> io::Result<Vec<TcpListener>> { Err(io::ErrorKind::AddrInUse.into()) };
        let inherited = second.open("a", fail).unwrap();
        let addresses: Vec<_> = inherited.iter().map(addr).collect();
        assert_eq!(addresses, made.iter().map(addr).collect::<Vec<_>>());
        // Each once; and what is new is made.
        assert!(second.open("a", fail).is_err());
        let new: TcpListener = second.open_one("c", listener).unwrap();
        let names: Vec<_> = second.into_open().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "a", "c"]);
        // Nobody holds the one that was not asked for.
        let (closed, kept) = (addr(&other), addr(&new));
        drop(other);
        assert!(TcpListener::bind(closed).is_ok());
        assert!(TcpListener::bind(kept).is_err());
    }

    #[test]
    fn every_listener_has_a_reader_and_every_set_a_listener() {
        for (given, count) in [(1, 1), (2, 2), (1, 3), (2, 5), (5, 2), (0, 2)] {
            let listeners: Vec<_> = (0..given).map(|_| listener().unwrap()).collect();
            let addresses: Vec<_> =
                listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
            let mut sets: Vec<_> = (0..count).map(|_| Vec::new()).collect();
            deal(listeners, &mut sets).unwrap();
            assert!(given == 0 || sets.iter().all(|set| !set.is_empty()), "{given} {count}");
            let read: Vec<_> =
                sets.iter().flatten().map(|listener| listener.local_addr().unwrap()).collect();
            assert!(addresses.iter().all(|address| read.contains(address)), "{given} {count}");
            assert_eq!(read.len(), if given == 0 { 0 } else { given.max(count) });
        }
    }
}

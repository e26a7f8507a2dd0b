//! The process that this one is to replace, if there is one.

use std::{
    env, io,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, bail};

use super::channel::{Channel, Message, VARIABLE, read};
use crate::sys::{
    listening::Named,
    packet_pair::{self, Packet},
};

/// The most of an error that is reported, in characters.
const WHY: usize = 4000;

/// The process before this one, which serves until this one can.
#[derive(Debug)]
pub(crate) struct Predecessor {
    pid: u32,
    socket: OwnedFd,
    /// Certificates that it uses.
    credentials: Vec<String>,
}

impl Predecessor {
    /// The one that started this process to be replaced, with its listening sockets.
    ///
    /// # Errors
    /// It is gone, or says what this version can't read.
    pub(crate) fn find() -> anyhow::Result<Option<(Self, Vec<Named>)>> {
        let Some(pid) = env::var_os(VARIABLE) else { return Ok(None) };
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        // Whoever inherited the variable from someone else starts as usual.
        let pid = pid.to_str().and_then(|pid| pid.parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| u32::try_from(parent.unwrap_or(0)) == Ok(*pid)) else {
            tracing::warn!("{VARIABLE} names no parent of this process, which starts as usual");
            return Ok(None);
        };
        let context = || format!("can't take over from process {pid}");
        let socket = io::stdin().as_fd().try_clone_to_owned().with_context(context)?;
        let (sockets, credentials) = take(&socket).with_context(context)?;
        tracing::info!("replacing process {pid}, which serves until this one can");
        Ok(Some((Self { pid, socket, credentials }, sockets)))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Certificates that it uses: this process is to have them too.
    pub(crate) fn credentials(&self) -> &[String] {
        &self.credentials
    }

    /// Says why this process can't take over. The one before goes on in any case.
    pub(crate) fn refuse(&self, error: &anyhow::Error) {
        let why = format!("{error:#}").chars().take(WHY).collect();
        if let Ok(bytes) = serde_json::to_vec(&Message::Failed { why }) {
            packet_pair::send(&self.socket, &bytes, &[]).ok();
        }
    }

    /// What is said from here on, within a runtime.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub(crate) fn channel(&self) -> io::Result<Channel> {
        Channel::new(self.socket.try_clone()?)
    }
}

/// Listening sockets by name, and certificates in use, as the process before sends them.
fn take(socket: &OwnedFd) -> anyhow::Result<(Vec<Named>, Vec<String>)> {
    let mut sockets = Vec::new();
    loop {
        let Some(Packet { bytes, descriptors }) = packet_pair::receive(socket, true)? else {
            bail!("it is gone");
        };
        let message =
            read(&bytes).context("it is of a version that this one does not understand")?;
        if let Message::Complete { credentials } = message {
            return Ok((sockets, credentials));
        }
        let Message::Sockets { names } = message else {
            bail!("it said {message:?} out of turn");
        };
        if names.len() != descriptors.len() {
            bail!("{} names came with {} sockets", names.len(), descriptors.len());
        }
        sockets.extend(names.into_iter().zip(descriptors));
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn sockets_come_with_their_names_and_what_does_not_fit_is_an_error() {
        let send = |socket: &OwnedFd, message: &Message, with: &[&TcpListener]| {
            let bytes = serde_json::to_vec(message).unwrap();
            let descriptors: Vec<_> = with.iter().map(|listener| listener.as_fd()).collect();
            packet_pair::send(socket, &bytes, &descriptors).unwrap();
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let names = |names: &[&str]| Message::Sockets {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let (ours, theirs) = packet_pair::pair().unwrap();
        send(&ours, &names(&["a", "a"]), &[&listener, &listener]);
        send(&ours, &names(&["b"]), &[&listener]);
        send(&ours, &Message::Complete { credentials: vec!["web".into()] }, &[]);
        let (sockets, credentials) = take(&theirs).unwrap();
        let found: Vec<_> = sockets.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((&found[..], &credentials[..]), (&["a", "a", "b"][..], &["web".to_owned()][..]));

        send(&ours, &names(&["a", "b"]), &[&listener]);
        assert_eq!(take(&theirs).unwrap_err().to_string(), "2 names came with 1 sockets");
        send(&ours, &Message::Serve {}, &[]);
        assert!(take(&theirs).unwrap_err().to_string().contains("out of turn"));
        drop(ours);
        assert_eq!(take(&theirs).unwrap_err().to_string(), "it is gone");
    }
}

//! `--allow-check`: whether a connection that policy allows works, without which refusals prove nothing.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Whether the allowed connection works.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Allowed {
    NotChecked,
    Works(String),
    Fails(String),
}

impl Allowed {
    /// Connects by address in the ordinary way.
    pub(super) fn check(to: &str) -> Self {
        let addr: SocketAddr = match to.parse() {
            Ok(addr) => addr,
            Err(error) => return Self::Fails(format!("{to}: {error}")),
        };
        match TcpStream::connect_timeout(&addr, Duration::from_secs(5)) {
            Ok(_) => Self::Works(to.to_owned()),
            Err(error) => Self::Fails(format!("{to}: {error}")),
        }
    }
}

//! Addresses and ports, named for what they are for.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

/// A TCP port. Zero isn't one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Port(NonZeroU16);

impl Port {
    /// The port with this number (host byte order), unless it is zero.
    #[must_use]
    pub const fn new(port: u16) -> Option<Self> {
        match NonZeroU16::new(port) {
            Some(port) => Some(Self(port)),
            None => None,
        }
    }

    /// The number, in host byte order.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! port_role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(pub Port);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

port_role! {
    /// The port that the application dialled.
    OriginalPort
}
port_role! {
    /// The port of a gateway's `servers[]` entry, which the mesh stage's destination names.
    GatewayPort
}

macro_rules! addr_role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub SocketAddr);

        impl $name {
            /// The address without its port; a mapped IPv4 address as IPv4.
            #[must_use]
            pub fn ip(self) -> IpAddr {
                self.0.ip().to_canonical()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                SocketAddr::new(self.ip(), self.0.port()).fmt(f)
            }
        }
    };
}

addr_role! {
    /// The application's end of a connection to the gateway.
    ClientAddr
}
addr_role! {
    /// The gateway's own end of a connection.
    LocalAddr
}
addr_role! {
    /// An endpoint outside that the gateway dials.
    UpstreamAddr
}
addr_role! {
    /// The address and port that the application dialled, before anything was rewritten.
    OriginalDst
}

impl OriginalDst {
    /// The port, unless it is zero.
    #[must_use]
    pub const fn port(self) -> Option<OriginalPort> {
        match Port::new(self.0.port()) {
            Some(port) => Some(OriginalPort(port)),
            None => None,
        }
    }
}

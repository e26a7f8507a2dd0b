//! The id by which a connection is found on both sides of the hop to the gateway.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// What a node and a gateway call one connection. They exchange nothing for it: both know its source and the port
/// that it came to. A later connection from the same port has the same id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TraceId(u64);

impl TraceId {
    /// Of the connection from `source`, the workload's own address, to this port: the gateway's, and in a
    /// tunnel the one that the application dialled. `None` where one of the ports isn't known.
    #[must_use]
    pub fn of(source: SocketAddr, port: u16) -> Option<Self> {
        /// FNV-1a for 64 bits: nothing depends on its being hard to guess.
        const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        if source.port() == 0 || port == 0 {
            return None;
        }
        let address = match source.ip().to_canonical() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let ports = [source.port(), port].map(u16::to_be_bytes);
        let bytes = address.iter().chain(ports.as_flattened());
        let hash = bytes.fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
        Some(Self(hash))
    }
}

impl FromStr for TraceId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_written = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = u64::from_str_radix(text, 16).ok().filter(|_| is_written);
        id.map(Self).ok_or_else(|| {
            format!(
                "found `{text}`, expected a trace id of sixteen hexadecimal digits, as in \
                 f18f7ecb71a95f74"
            )
        })
    }
}

impl fmt::Display for TraceId {
    /// Sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(source: &str, port: u16) -> Option<String> {
        TraceId::of(source.parse().unwrap(), port).map(|id| id.to_string())
    }

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let written = id("10.0.0.5:40000", 443).unwrap();
        assert_eq!(written.parse::<TraceId>().unwrap().to_string(), written);
        let zeros: TraceId = "00000000000000aB".parse().unwrap();
        assert_eq!(zeros.to_string(), "00000000000000ab");
    }

    #[test]
    fn both_sides_find_the_same_and_no_other_connection_has_it() {
        let own = id("10.0.0.5:40000", 443);
        // It is part of what is logged, so it stays what it is.
        assert_eq!(own.as_deref(), Some("f18f7ecb71a95f74"));
        assert_eq!(
            id("[::ffff:10.0.0.5]:40000", 443),
            own,
            "as a listener of both families sees it"
        );
        let others =
            [id("10.0.0.6:40000", 443), id("10.0.0.5:40001", 443), id("10.0.0.5:40000", 80)];
        assert!(others.iter().all(|other| other.is_some() && *other != own), "{others:?}");
        assert_ne!(id("[fd00::5]:40000", 443), id("[fd00::6]:40000", 443));
    }

    #[test]
    fn what_is_not_known_has_none() {
        assert_eq!(id("10.0.0.5:0", 443), None);
        assert_eq!(id("10.0.0.5:40000", 0), None);
    }
}

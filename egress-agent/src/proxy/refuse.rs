//! Saying no, so that the client hears it.

use egress_ebpf::reason::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout_at},
};

use super::Worker;
use crate::{net::RelayIo, wire::HelloError};

/// Bytes that a refused client may still send before it is cut off.
const LINGER_BYTES: usize = 256 * 1024;

/// A fatal alert's description (RFC 8446 §6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Alert {
    UnexpectedMessage = 10,
    AccessDenied = 49,
    DecodeError = 50,
    ProtocolVersion = 70,
    InternalError = 80,
    UnrecognizedName = 112,
}

/// How a refusal looks to the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RefusalKind {
    /// A TLS client gets a fatal alert.
    Alert(Alert),
    /// Everybody else gets a reset.
    Reset,
}

impl RefusalKind {
    /// For a TLS client that policy, or the way to the upstream, refuses for this reason.
    pub(super) fn tls(reason: Reason) -> Self {
        Self::Alert(match reason {
            Reason::WrongProtocol => Alert::ProtocolVersion,
            Reason::AuthorizationPolicyDenied => Alert::AccessDenied,
            Reason::ResolveFailed
            | Reason::ResolveOverflow
            | Reason::RateLimited
            | Reason::EgressAddressUnavailable
            | Reason::ConnectFailed
            | Reason::UpstreamTls
            | Reason::Timeout
            | Reason::Overflow
            | Reason::Reset
            | Reason::NotConfigured
            | Reason::NoServerCertificate
            | Reason::NoHealthyUpstream => Alert::InternalError,
            // Everything else is about the name.
            Reason::Exempt
            | Reason::Loopback
            | Reason::Internal
            | Reason::Gateway
            | Reason::Routed
            | Reason::Direct
            | Reason::Neighbour
            | Reason::Host
            | Reason::Reply
            | Reason::Tunneled
            | Reason::DeniedPrefix
            | Reason::GatewayPort
            | Reason::NoRoute
            | Reason::NoHealthyGateway
            | Reason::NoPolicy
            | Reason::NotRedirected
            | Reason::SpoofedSource
            | Reason::EtherType
            | Reason::IpOptions
            | Reason::ExtensionHeader
            | Reason::Fragment
            | Reason::Malformed
            | Reason::Protocol
            | Reason::Multicast
            | Reason::OriginalDstFull
            | Reason::Ipv6Only
            | Reason::UnknownInterface
            | Reason::SpoofedNeighbour
            | Reason::AddressFamily
            | Reason::SocketFamily
            | Reason::Encapsulation
            | Reason::NoTunnel
            | Reason::NoRecord
            | Reason::GatewayTls
            | Reason::GatewayRefused
            | Reason::GatewayUnreachable
            | Reason::UnsolicitedAnswer
            | Reason::PartialChecksum
            | Reason::SpoofedHardware
            | Reason::ForgedError
            | Reason::OtherNamespace
            | Reason::HostNotInRegistry
            | Reason::NoGatewayRoute
            | Reason::HostNotServed
            | Reason::BadRequest
            | Reason::NoServerName
            | Reason::InvalidServerName
            | Reason::EncryptedClientHello
            | Reason::UpgradeRefused
            | Reason::AddressRefused
            | Reason::RouteRefused
            | Reason::DownstreamTls
            | Reason::NoClientCertificate
            | Reason::UntrustedClient
            | Reason::ExpiredClient
            | Reason::RevokedClient
            | Reason::ClientIdentity
            | Reason::PlaintextHop
            | Reason::ClaimedWorkload
            | Reason::TlsPolicyUnavailable
            | Reason::InvalidRoute
            | Reason::NoMatchingRule
            | Reason::EgressPolicyDenied
            | Reason::UnknownWorkload => Alert::UnrecognizedName,
        })
    }

    /// For a ClientHello that isn't one.
    pub(super) fn hello(error: HelloError) -> Self {
        Self::Alert(match error {
            HelloError::NotTls | HelloError::NotClientHello => Alert::UnexpectedMessage,
            HelloError::TooLong { .. }
            | HelloError::Malformed
            | HelloError::DuplicateExtension(_) => Alert::DecodeError,
            HelloError::ServerName => Alert::UnrecognizedName,
        })
    }
}

/// Refuses and closes.
pub(super) async fn refuse<S: RelayIo>(worker: &Worker, mut stream: S, manner: RefusalKind) {
    let RefusalKind::Alert(alert) = manner else {
        stream.reset();
        return;
    };
    // Content type alert, TLS 1.2 on the wire as in every record (RFC 8446 §5.1), two bytes, fatal.
    let record = [21, 3, 3, 0, 2, 2, alert as u8];
    let until = Instant::now() + worker.limits.linger;
    let farewell = async {
        stream.write_all(&record).await?;
        stream.shutdown().await?;
        drain(&mut stream).await
    };
    tokio::select! {
        // An error means that the client is gone, and a deadline that it doesn't listen.
        _ = timeout_at(until, farewell) => {}
        () = worker.drain.expired() => stream.reset(),
    }
}

/// Closes a connection on which the refusal was written already.
pub(super) async fn leave<S: RelayIo>(worker: &Worker, mut stream: S) {
    let until = Instant::now() + worker.limits.linger;
    let farewell = async {
        stream.shutdown().await?;
        drain(&mut stream).await
    };
    tokio::select! {
        // As above.
        _ = timeout_at(until, farewell) => {}
        () = worker.drain.expired() => stream.reset(),
    }
}

/// Reads what the client still sends. Closing with bytes unread would make the kernel send a reset,
/// and a reset overtakes the alert (RFC 9112 §9.6 has the same for HTTP).
async fn drain<S: RelayIo>(stream: &mut S) -> std::io::Result<()> {
    let mut rest = LINGER_BYTES;
    let mut buffer = [0; 1024];
    while rest > 0 {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => rest = rest.saturating_sub(read),
        }
    }
    Ok(())
}

//! Resolving, connecting, copying bytes, draining.

mod balance;
mod byte_queue;
mod connect;
mod dial;
mod empty_frames;
mod fair_turns;
mod forward;
mod frames;
mod half_close;
mod linger;
mod now;
mod ping_monitor;
mod prefixed_io;
mod relay;
mod relay_io;
mod resolve;
#[cfg(test)]
pub(crate) mod testing;
mod windows;

pub use balance::{ClusterStates, InFlight, Lease, Membership, WaitPolicy};
pub use byte_queue::ByteQueue;
pub use connect::{Connect, ConnectError, Connector};
pub use dial::{DialContext, DialError, Dialer, Plan, Upstream};
pub use empty_frames::empty_frames;
pub use fair_turns::FairTurns;
pub(crate) use forward::forward_to_io;
pub use frames::{FrameObserver, Frames};
pub use half_close::{HalfClose, InputEnd};
pub use linger::Linger;
pub use now::now;
pub use ping_monitor::{BytesSeen, PingInterval, PingMonitor, Step};
pub use prefixed_io::PrefixedIo;
pub use relay::{Buffers, Meter, Peer, RelayOutcome, relay};
pub use relay_io::RelayIo;
pub use resolve::{
    Answer, DnsQuestion, LookupLimits, Resolve, ResolveError, Resolved, Resolver, ResolverSource,
};
pub use windows::{CONNECTION_WINDOW, LEAST_WINDOW, Windows, stream_window};

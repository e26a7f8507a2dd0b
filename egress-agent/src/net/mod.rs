//! Resolving, connecting, copying bytes, draining.

mod balance;
mod connect;
mod dial;
mod empty_frames;
mod forward;
mod frames;
mod linger;
mod now;
mod pieces;
mod pulse;
mod relay;
mod resolve;
mod rewound;
#[cfg(test)]
pub(crate) mod testing;
mod turns;
mod windows;

pub use balance::{ClusterStates, InFlight, Lease, Membership};
pub use connect::{Connect, ConnectError, Connector};
pub use dial::{Asker, DialError, Dialer, Patience, Plan, Upstream};
pub use empty_frames::empty_frames;
pub(crate) use forward::forward_to_io;
pub use frames::{Arrivals, Frames};
pub use linger::Linger;
pub use now::now;
pub use pieces::Pieces;
pub use pulse::{Pulse, Rhythm, Seen, Step};
pub use relay::{Buffers, End, Meter, Peer, Side, relay};
pub use resolve::{
    Answer, LookupLimits, Question, Resolve, ResolveError, Resolved, Resolver, ResolverSource,
};
pub use rewound::Rewound;
pub use turns::Turns;
pub use windows::{CONNECTION_WINDOW, LEAST_WINDOW, stream_window};

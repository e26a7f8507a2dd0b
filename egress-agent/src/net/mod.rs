//! Resolving, connecting, copying bytes, draining.

mod balance;
mod connect;
mod dial;
mod empty_frames;
mod forward;
mod frames;
mod half_close;
mod linger;
mod now;
mod pieces;
mod pulse;
mod relay;
mod resolve;
mod rewound;
mod side;
#[cfg(test)]
pub(crate) mod testing;
mod turns;
mod windows;

pub use balance::{ClusterStates, InFlight, Lease, Membership, Patience};
pub use connect::{Connect, ConnectError, Connector};
pub use dial::{Asker, DialError, Dialer, Plan, Upstream};
pub use empty_frames::empty_frames;
pub(crate) use forward::forward_to_io;
pub use frames::{Arrivals, Frames};
pub use half_close::{HalfClose, InputEnd};
pub use linger::Linger;
pub use now::now;
pub use pieces::Pieces;
pub use pulse::{Pulse, Rhythm, Seen, Step};
pub use relay::{Buffers, End, Meter, Peer, relay};
pub use resolve::{
    Answer, LookupLimits, Question, Resolve, ResolveError, Resolved, Resolver, ResolverSource,
};
pub use rewound::Rewound;
pub use side::Side;
pub use turns::Turns;
pub use windows::{CONNECTION_WINDOW, LEAST_WINDOW, Windows, stream_window};

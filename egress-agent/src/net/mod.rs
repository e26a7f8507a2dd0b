//! Resolving, connecting, copying bytes, draining.

mod balance;
mod connect;
mod dial;
mod linger;
mod relay;
mod resolve;
mod rewound;
#[cfg(test)]
pub(crate) mod testing;

pub use balance::{ClusterStates, InFlight, Lease, Membership};
pub use connect::{Connect, ConnectError, Connector};
pub use dial::{DialError, Dialer, Plan, Upstream};
pub use linger::Linger;
pub use relay::{Buffers, End, Meter, Peer, Side, relay};
pub use resolve::{Question, Resolve, ResolveError, Resolver, ResolverSource};
pub use rewound::Rewound;

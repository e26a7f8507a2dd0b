//! What the access log and header values may show, as a format names it.

mod peer;
mod segment;

pub use self::{
    peer::PeerPart,
    segment::{AddressPart, Field, GrpcForm, Segment},
};

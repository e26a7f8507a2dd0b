//! One gateway process after another (`egress-agent upgrade`): the new process takes over the listeners
//! while the old one lets its connections end.

mod channel;
mod predecessor;
mod succession;
mod successor;

pub(crate) use self::{
    channel::{Channel, Message},
    predecessor::Predecessor,
    succession::{Draining, Event, Succession},
    successor::Program,
};

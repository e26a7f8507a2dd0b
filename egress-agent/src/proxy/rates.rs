//! Rate limits: what workloads have asked of hosts, and transfers that wait for their bytes' turn.

mod pace;
mod table;
mod used;

pub(super) use self::{
    pace::{Pace, relay},
    table::{Limited, Meters, RateUnit},
};
pub use self::{table::Rates, used::UsedRate};

//! Rate limits: what workloads have asked of hosts, and transfers that wait for their bytes' turn.

mod pace;
mod table;

pub use self::table::Rates;
pub(super) use self::{
    pace::{Pace, relay},
    table::{Counted, Limited, Meters},
};

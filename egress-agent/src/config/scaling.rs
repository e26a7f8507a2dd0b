//! That compilation finds what it looks for as a search would, and takes steps in proportion to the
//! configuration.

mod growth;
mod naive;
pub(crate) mod random;

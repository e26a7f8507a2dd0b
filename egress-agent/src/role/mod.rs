//! `node`, `gateway`, `check`, `detach`: composition only.

pub mod check;
pub mod cli;
pub mod detach;
pub mod gateway;
pub mod node;
pub mod reload;

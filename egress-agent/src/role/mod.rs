//! `node`, `gateway` and the commands: composition only.

pub mod certs;
pub mod check;
pub mod cli;
mod control;
pub mod detach;
pub mod flows;
pub mod gateway;
pub mod kernel;
mod log;
pub mod node;
pub mod probe;
pub mod reasons;
pub mod reload;
pub mod status;
pub mod uninstall;

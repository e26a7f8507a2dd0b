//! The egress enforcer's agent.
//!
//! Layers; a module imports only from layers further down (`cargo xtask layers` checks it):
//!
//! ```text
//! main, role, admin
//! proxy, tunnel
//! tls
//! net, bpf, source, telemetry, probe
//! config, policy, wire
//! types, sys
//! ```

pub mod admin;
pub mod bpf;
pub mod config;
pub mod net;
pub mod policy;
pub mod probe;
pub mod proxy;
pub mod role;
pub mod source;
pub mod sys;
pub mod telemetry;
pub mod tls;
pub mod tunnel;
pub mod types;
pub mod wire;

//! The egress enforcer's agent.
//!
//! Layers; a module imports only from layers further down (`cargo xtask layers` checks it):
//!
//! ```text
//! main
//! cli
//! node, gateway
//! handover
//! admin
//! enforcement
//! limits
//! proxy, tunnel
//! suggest, doctor, bundle, capture, otlp
//! tls, explain
//! source, net, bpf, telemetry
//! config, pods, policy, wire, probe
//! types, sys
//! ```

pub mod admin;
pub mod bpf;
pub mod bundle;
mod capture;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod enforcement;
pub mod explain;
pub mod gateway;
mod handover;
mod limits;
pub mod net;
pub mod node;
pub mod otlp;
pub mod pods;
pub mod policy;
pub mod probe;
pub mod proxy;
pub mod source;
pub mod suggest;
pub mod sys;
pub mod telemetry;
pub mod tls;
pub mod tunnel;
pub mod types;
pub mod wire;

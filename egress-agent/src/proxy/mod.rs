//! The proxy: accept → detect → decide → act.

pub mod http;

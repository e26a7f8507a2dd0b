//! The eBPF programs, as `build.rs` built them.

/// The object with every program and map of `egress-ebpf`, aligned as aya's parser wants it.
pub static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/egress-ebpf"));

/// How [`PROGRAMS`] were built: `debug`, with lines for the log, or `release`.
pub const BUILD: &str = env!("EGRESS_EBPF_BUILD");

/// The tool-chain that built [`PROGRAMS`], for `--version` and for bug reports.
pub const TOOLCHAIN: &str = env!("EGRESS_EBPF_TOOLCHAIN_USED");

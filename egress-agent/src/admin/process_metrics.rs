//! What both roles tell of their process, by the names that Prometheus' own clients have.

use std::fmt;

use egress_ebpf::abi::ABI_VERSION;

use super::exposition::Exposition;
use crate::sys::usage::{self, Usage};

/// The process and its build. What the kernel does not say is left out.
pub(super) fn write(role: &str, out: &mut Exposition) -> fmt::Result {
    let Usage { cpu, resident, virtual_memory, open_files, most_files, threads, started } =
        usage::now();
    let seconds = |value: Option<f64>| value.map(|value| format!("{value:.3}"));
    let count = |value: Option<u64>| value.map(|value| value.to_string());
    let all = [
        ("process_cpu_seconds_total", "counter", "CPU time of all threads.", seconds(cpu)),
        ("process_resident_memory_bytes", "gauge", "Memory in RAM.", count(resident)),
        ("process_virtual_memory_bytes", "gauge", "Address space.", count(virtual_memory)),
        ("process_open_fds", "gauge", "Descriptors that are open.", count(open_files)),
        ("process_max_fds", "gauge", "Descriptors that may be open.", count(most_files)),
        ("process_threads", "gauge", "Threads.", count(threads)),
        (
            "process_start_time_seconds",
            "gauge",
            "When the process began, in seconds since 1970.",
            seconds(started),
        ),
    ];
    for (name, kind, help, value) in all {
        if let Some(value) = value {
            out.single(name, kind, help, value)?;
        }
    }
    out.family("egress_build_info", "gauge", "Always 1; the build is in the labels.")?;
    let abi = ABI_VERSION.to_string();
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("role", role), ("map_abi", &abi)];
    out.sample("egress_build_info", &labels, 1)
}

/// Configurations since the start.
pub(super) fn reloads(accepted: u64, rejected: u64, out: &mut Exposition) -> fmt::Result {
    let name = "egress_config_reloads_total";
    out.family(name, "counter", "Configurations that were read, by what became of them.")?;
    out.sample(name, &[("result", "accepted")], accepted)?;
    out.sample(name, &[("result", "rejected")], rejected)
}

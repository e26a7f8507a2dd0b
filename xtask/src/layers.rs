//! `cargo xtask layers`: modules import downwards only and in no cycle, and no file grows past what
//! one subject needs.
//!
//! Modules of all crates are nodes of a graph. There is an edge from one to another where its code
//! names an item that the other defines, in an import or in a path. A name is followed through
//! re-exports to the module that defines the item. So these are no edges:
//!
//! - `mod child;`
//! - a re-export (`pub use`, `pub(crate) use`) of an item of the module's own children: a façade. Code
//!   of the façade that uses such a name makes an edge.
//! - a method that is called, because its type is not written there.
//!
//! A module that uses an item of its child makes an edge, and a child that uses an item which its
//! parent defines makes one back: that is a cycle. An import of everything (`use x::*`) names `x` and
//! all that it re-exports. Tests are modules like others.

mod graph;
mod length;
mod resolve;
mod source;
#[cfg(test)]
mod tests;

use std::fs;

use anyhow::{Context, Result, bail};
use clap::Args;

use self::{
    graph::{Line, cycles, dot, upward},
    resolve::edges,
    source::Crate,
};
use crate::run;

/// The agent's layers from top to bottom. Modules of one layer do not import each other, with the
/// exception of [`SIBLINGS`].
const LAYERS: &[&[Line]] = &[
    &[(&["main"], "")],
    &[(&["cli"], "one module for each command: arguments and output")],
    &[(&["node", "gateway"], "the two roles: build the parts and run them")],
    &[(&["handover"], "one gateway process after another")],
    &[(&["admin"], "HTTP endpoints, metrics, the control socket, readiness")],
    &[(&["enforcement"], "the node's reconciler, and what it needs to know")],
    &[(&["limits"], "how much there may be of what sources share")],
    &[(&["proxy", "tunnel"], "the gateway's data path; the node's end of the tunnel")],
    &[
        (&["suggest"], "resources for what was refused"),
        (&["doctor", "bundle"], "whether a host is fit for the agents; archives of reports"),
        (&["capture"], "how connections come to a gateway"),
        (&["otlp"], "export to a collector of OpenTelemetry"),
    ],
    &[
        (&["tls"], "trust roots, certificates, handshakes"),
        (&["explain"], "what a request comes to, and which resource says so"),
    ],
    &[
        (&["source", "net"], "the configuration in force; sockets and names"),
        (&["bpf", "telemetry"], "the kernel; metrics, logs, events"),
    ],
    &[
        (&["config", "policy"], "resources to a snapshot; decisions"),
        (&["wire", "probe"], "parsers without I/O; bypass attempts"),
        (&["pods"], "which cgroup, interface and address is which pod's"),
    ],
    &[(&["types", "sys"], "values with a role; system calls")],
];

/// Modules of one layer that import each other, this way only: configuration compiles into policy.
const SIBLINGS: &[(&str, &str)] = &[("config", "policy")];

/// The page that shows the layers.
const PAGE: &str = "ARCHITECTURE.md";

/// The crates, by the roots of their module trees.
const CRATES: &[(&str, &str)] = &[
    ("egress_ebpf", "egress-ebpf/src/lib.rs"),
    ("egress_ebpf_programs", "egress-ebpf/src/main.rs"),
    ("egress_agent", "egress-agent/src/lib.rs"),
    ("egress_agent_main", "egress-agent/src/main.rs"),
    ("agent_docs", "egress-agent/tests/docs/main.rs"),
    ("agent_node_bpf", "egress-agent/tests/node_bpf/main.rs"),
    ("agent_programs", "egress-agent/tests/programs/main.rs"),
    ("egress_tests", "tests/src/lib.rs"),
    ("egress_demo", "tests/src/bin/egress-demo/main.rs"),
    ("egress_peer", "tests/src/bin/egress-peer/main.rs"),
    ("egress_bench", "tests/bench/src/main.rs"),
    ("egress_fuzz", "tests/fuzz/src/lib.rs"),
    ("xtask", "xtask/src/main.rs"),
];

/// What to print instead of checking.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Print the graph of modules for graphviz: `cargo xtask layers --dot | dot -Tsvg`.
    #[arg(long)]
    dot: bool,
    /// Print the layers as ARCHITECTURE.md shows them.
    #[arg(long, conflicts_with = "dot")]
    page: bool,
}

impl Options {
    /// Only check.
    pub(crate) const CHECK: Self = Self { dot: false, page: false };
}

/// Checks the tree, or prints it.
///
/// # Errors
/// A cycle, an upward import, a file that is too long, or a page that shows other layers; each case
/// has been printed.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.page {
        print!("{}", page());
        return Ok(());
    }
    let crates = CRATES
        .iter()
        .map(|(name, path)| Crate::read(name, &run::root().join(path)))
        .collect::<Result<Vec<_>>>()?;
    let edges = edges(&crates);
    if options.dot {
        print!("{}", dot(&edges));
        return Ok(());
    }
    let mut faults = Vec::new();
    for cycle in cycles(&edges) {
        faults.push(format!("cycle of {} modules: {}", cycle.modules.len(), cycle.text()));
    }
    faults.extend(upward(&edges, "egress_agent", LAYERS, SIBLINGS));
    faults.extend(length::faults(run::root())?);
    let text = fs::read_to_string(run::root().join(PAGE)).context(PAGE)?;
    if !text.contains(&page()) {
        faults.push(format!("{PAGE} shows other layers: see `cargo xtask layers --page`"));
    }
    for fault in &faults {
        println!("{fault}");
    }
    if !faults.is_empty() {
        bail!("{} found", faults.len());
    }
    println!("layers: {} modules, no cycle", edges.modules());
    Ok(())
}

/// The layers, as the page shows them.
fn page() -> String {
    let mut text = String::from("```text\n");
    for (number, layer) in LAYERS.iter().enumerate() {
        if number > 0 {
            text.push_str("  ───────────────────\n");
        }
        for (modules, what) in *layer {
            let line = format!("  {:<30} {what}", modules.join(" · "));
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text.push_str("```\n");
    text
}

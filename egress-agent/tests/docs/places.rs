//! Paths of a host and slices of systemd's that a page has a reader type: those that the product uses, spelt as it
//! spells them.

use std::fs;

use crate::markdown::root;

/// Where paths of a host begin that are looked up here.
const LOOKED_UP: [&str; 5] = ["/etc/", "/run/", "/usr/", "/sys/", "/opt/"];
/// What the product, the package or the system has there. Whatever is below a directory is the reader's.
const KNOWN: [&str; 24] = [
    "/etc/egress/config",
    "/etc/egress/credentials",
    "/etc/egress/identity",
    "/etc/egress/collector-ca.pem",
    "/etc/egress/egress-gateway.env",
    "/etc/egress/egress-node.env",
    "/etc/systemd/system",
    "/etc/cni/net.d",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/run/egress-agent",
    "/run/egress-demo",
    "/run/egress-gateway",
    "/run/spire",
    "/usr/bin/curl",
    "/usr/bin/egress-agent",
    "/usr/bin/ssh",
    "/usr/local/bin/egress-agent",
    "/usr/local/share",
    "/usr/share/doc/egress-agent/examples",
    "/sys/fs/bpf",
    "/sys/fs/cgroup",
    "/sys/kernel",
    "/opt/cni/bin",
];
/// Directories that a command names by themselves.
const DIRECTORIES: [&str; 3] = ["/etc/egress", "/usr/local/bin", "/usr/share"];
/// What the package's examples are copied from.
const EXAMPLES: [(&str, &str); 3] = [
    ("config", "deploy/hosts/config"),
    ("crds", "deploy/crds"),
    ("egress-gateway.service.d", "deploy/systemd/egress-gateway.service.d"),
];
/// Slices of systemd's, of the kubelet's, and of no host, as examples of nesting.
pub(crate) const SLICES: [&str; 6] =
    ["a.slice", "a-b.slice", "kubepods.slice", "machine.slice", "system.slice", "user.slice"];

/// What is wrong with a word of a command or of a file. A path may be the value of an option.
pub(crate) fn word(word: &str) -> Result<(), String> {
    let value = word.rsplit_once('=').map_or(word, |(_, value)| value);
    path(value)?;
    value.split(['/', ':']).filter(|part| part.ends_with(".slice")).try_for_each(slice)
}

fn path(path: &str) -> Result<(), String> {
    if !LOOKED_UP.iter().any(|start| path.starts_with(start)) {
        return Ok(());
    }
    let plain = path.trim_end_matches('/');
    let is_below = |known: &&str| {
        plain.strip_prefix(*known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if !KNOWN.iter().any(is_below) && !DIRECTORIES.contains(&plain) {
        return Err(format!("nothing of this product's is at {path}"));
    }
    match plain.strip_prefix("/usr/share/doc/egress-agent/examples/") {
        Some(example) => packaged(example),
        None => Ok(()),
    }
}

/// A file that the package brings, or all of a directory.
fn packaged(example: &str) -> Result<(), String> {
    let (directory, file) = example.split_once('/').unwrap_or((example, ""));
    let from = EXAMPLES.iter().find(|(name, _)| *name == directory);
    let (_, from) = from.ok_or_else(|| format!("the package has no examples/{directory}"))?;
    let script = root().join("xtask/src/dist/package.rs");
    let script = fs::read_to_string(script).map_err(|error| error.to_string())?;
    if !script.contains(&format!("examples.join(\"{directory}\")")) {
        return Err(format!("the package has no examples/{directory}"));
    }
    let is_there = file.is_empty() || file.contains('*') || root().join(from).join(file).is_file();
    if is_there { Ok(()) } else { Err(format!("{from} has no {file}")) }
}

/// Workloads are in slices below `workloads.slice`.
fn slice(name: &str) -> Result<(), String> {
    let is_ours = name == "workloads.slice" || name.starts_with("workloads-");
    if is_ours || SLICES.contains(&name) {
        Ok(())
    } else {
        Err(format!("{name} is no slice of workloads"))
    }
}

#[test]
fn a_path_and_a_slice_that_are_misspelt_are_found() {
    for good in [
        "/etc/egress/",
        "/etc/egress/config/mesh.yaml",
        "--cgroup=/sys/fs/cgroup/machine.slice",
        "/usr/share/doc/egress-agent/examples/config/*.yaml",
        "/usr/share/doc/egress-agent/examples/config/packages.yaml",
        "--slice=workloads.slice",
        "Slice=workloads-billing.slice",
        "http://packages.example.org/",
        "/tmp/ca",
    ] {
        assert_eq!(word(good), Ok(()), "{good}");
    }
    for wrong in [
        "/etc/egres/",
        "/etc/egress/configs/mesh.yaml",
        "/etc/egress/egress-nodes.env",
        "/usr/local/bin/egress-agnt",
        "/usr/share/doc/egress-agent/examples/config/package.yaml",
        "/usr/share/doc/egress-agent/examples/configs/",
        "--slice=workload.slice",
        "Slice=worklods-billing.slice",
        "/sys/fs/cgroup/machines.slice",
    ] {
        assert!(word(wrong).is_err(), "{wrong}");
    }
}

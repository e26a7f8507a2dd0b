//! `cargo xtask`: set-up, tests, demo and checks. See `--help`.

mod bench;
mod ca;
mod check;
mod demo;
mod dist;
#[cfg(test)]
mod docs;
mod fresh;
mod fuzz;
mod image;
mod kernels;
mod layers;
mod manifests;
mod programs;
mod references;
mod run;
mod setup;
mod tools;
mod verifier;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Everything a developer or a pipeline does with this repository.
///
/// On a fresh Debian 12 with rustup and root, from a fresh clone:
///
///     cargo xtask demo     the egress-gateway walkthrough, live, on this machine
///     cargo xtask test     every check and every test
///
/// Both install first what is missing (`cargo xtask setup`).
#[derive(Parser)]
#[command(bin_name = "cargo xtask", verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the build, the demo and the tests need. Says each step; changes nothing twice.
    ///
    /// The eBPF programs are compiled in one of two ways; EGRESS_EBPF_TOOLCHAIN=debian|nightly
    /// chooses. `debian`: Debian's rustc-web with its prebuilt `core` for BPF, the default where
    /// the packages exist. `nightly`: rustup's nightly with rust-src.
    ///
    /// Without root the commands that need it are printed, and nothing is changed.
    Setup,
    /// Set-up, then formatting, lints, documentation, licences, layers, then all tests.
    ///
    /// The end-to-end tests make network namespaces and load eBPF programs: they need root.
    Test {
        /// Only the tests, without the checks before them.
        #[arg(long)]
        quick: bool,
        /// Then all end-to-end tests on other kernels: 6.1 and 6.12, or the ones named (see
        /// `cargo xtask kernels --help`). No part of a pipeline's run: it downloads kernels and takes
        /// an hour.
        #[arg(long, value_delimiter = ',', num_args = 0.., value_name = "VERSION")]
        kernels: Option<Vec<String>>,
        /// Handed to `cargo test --workspace`, e.g. `-- --test walkthrough`.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Formatting, clippy, documentation, licences and layers; no tests. Needs no root.
    Check,
    /// The end-to-end tests on other kernels: Debian's packages, emulated by QEMU.
    ///
    /// Packages are downloaded with `apt-get download` into target/kernels. The guest sees this
    /// machine's files, read-only, and writes to memory. Each guest's output is shown with the
    /// kernel's version before it, and kept in target/kernels/VERSION.log. Installs QEMU first.
    Kernels(kernels::Options),
    /// Renew the verifier's instruction counts: egress-agent/tests/programs/verifier.txt.
    ///
    /// For the running kernel, of a debug and a release build; and with --kernels for others, which
    /// QEMU emulates. Needs root.
    Verifier(verifier::Options),
    /// Check that modules import downwards only and in no cycle, and that no file is too long.
    Layers(layers::Options),
    /// The artefacts of a release, in target/dist: static programs, a Debian package, SBOM, checksums.
    ///
    /// A release build, which takes some minutes the first time. That egress-agent needs no dynamic linker
    /// and starts alone in an empty directory is checked. For aarch64 too, where gcc-aarch64-linux-gnu and
    /// rustup's target are installed. The package is made by dpkg-deb, the SBOM (CycloneDX) by cargo metadata.
    Dist,
    /// The Debian package of a program that is built already. Tests install it.
    #[command(hide = true)]
    Package {
        /// The program, for this machine.
        program: PathBuf,
        /// Where the package goes.
        directory: PathBuf,
    },
    /// Renew docs/reference and docs/configuration.md from the code: commands, metrics, fields, reasons.
    References {
        /// Change nothing, and fail if a page is not what the code says. The tests do the same.
        #[arg(long)]
        check: bool,
    },
    /// The agent as a container image: target/image, in the OCI image layout.
    ///
    /// Needs no container engine. The image holds the program of `dist` without symbols and this
    /// machine's trusted authorities, and is read back and checked.
    Image(image::Options),
    /// Renew deploy/kubernetes from the Helm chart: plain manifests, for `kubectl apply -k`.
    Manifests(manifests::Options),
    /// Measure what enforcement costs: packets, connects, throughput, loading policy; with `gateway`, the
    /// gateway beside nginx, HAProxy and Envoy, which it installs. Needs root.
    Bench(bench::Options),
    /// The README's two commands on a fresh machine: a minimal Debian 12 below target/fresh.
    ///
    /// It holds git, gcc and rustup's toolchain, and a fresh clone of the last commit; kernel,
    /// namespaces and eBPF are this machine's. Run it whenever the set-up changes. No part of a
    /// pipeline's run: everything is downloaded and built again. Needs root.
    Fresh(fresh::Options),
    /// Fuzz the packet parser and its verdicts, the ClientHello, and random snapshots.
    Fuzz(fuzz::Options),
    /// A small certificate authority for demos: a root, and identities that rotate, expire and are
    /// revoked when you say so.
    ///
    /// Mutual TLS between nodes and gateways needs certificates with SPIFFE IDs. In a cluster Istio's
    /// CA or SPIRE issues them; this stands in for it on one machine:
    ///
    ///     cargo xtask ca new /tmp/ca                       a root, gateway, node, workload
    ///     cargo xtask ca issue /tmp/ca node --valid 60s    renew one; in a minute it has expired
    ///     cargo xtask ca revoke /tmp/ca node               its tunnels end within seconds
    ///     cargo xtask ca root /tmp/ca                      a new root beside the old one
    ///
    /// The agents notice every change of their directory by themselves. `egress-agent certs show DIR`
    /// tells what is in one, and what is wrong with it. Needs openssl, and no root.
    #[command(verbatim_doc_comment)]
    Ca(ca::Options),
    /// The walkthrough with real curl, a real gateway and real enforcement, in network namespaces.
    ///
    /// Needs root. Ends with a table; the exit code is 0 only if everything was as it must be.
    Demo(demo::Options),
    /// Renew docs/transcript.md and docs/quick-start-transcript.md: what the demo and the quick start on two hosts
    /// show, on 80 columns. Runs both, and needs root as they do.
    Transcript,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::run(setup::For::Everything),
        Command::Test { quick, kernels, args } => check::test(quick, kernels.as_deref(), &args),
        Command::Check => check::check(),
        Command::Kernels(options) => kernels::run(&options),
        Command::Verifier(options) => verifier::run(&options),
        Command::Layers(options) => layers::run(&options),
        Command::Dist => setup::run(setup::For::Demo).and_then(|()| dist::release()),
        Command::Package { program, directory } => dist::package_of(&program, &directory),
        Command::References { check } => {
            setup::run(setup::For::Demo).and_then(|()| references::run(check))
        }
        Command::Image(options) => setup::run(setup::For::Demo).and_then(|()| image::run(&options)),
        Command::Manifests(options) => {
            setup::run(setup::For::Everything).and_then(|()| manifests::run(&options))
        }
        Command::Bench(options) => bench::run(&options),
        Command::Fresh(options) => fresh::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Ca(options) => ca::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Transcript => demo::transcript(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

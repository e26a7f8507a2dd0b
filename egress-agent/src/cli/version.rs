//! The `version` command: what a report about a fault needs.

use std::{io::Write as _, process::ExitCode};

use egress_ebpf::abi::ABI_VERSION;
use serde::Serialize;

use super::output::{Output, stdout};
use crate::bpf::{OLDEST_TESTED_KERNEL, kernel_release, object};

/// Options of `version`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  # Version, commit, build, the maps' layout and the kernel, for a report.
  egress-agent version

  # Would two versions take over from each other without a gap?
  egress-agent version -o json | jq .map_abi")]
pub(super) struct VersionArgs {
    /// How it is written.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Serialize)]
struct Version {
    /// The agent's own.
    version: &'static str,
    /// The commit that it was built from, where the build knew it.
    commit: Option<&'static str>,
    /// `x86_64-linux`
    target: String,
    /// `debug` or `release`.
    profile: &'static str,
    /// What the eBPF programs were built with.
    ebpf_compiler: &'static str,
    /// The layout of the kernel's maps. Agents of one layout take over from each other without a gap.
    map_abi: u32,
    /// The running kernel's release.
    kernel: String,
    /// The oldest kernel that is accepted.
    minimum_kernel: String,
}

impl Version {
    fn now() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("EGRESS_COMMIT").filter(|commit| !commit.is_empty()),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            ebpf_compiler: object::TOOLCHAIN,
            map_abi: ABI_VERSION,
            kernel: kernel_release(),
            minimum_kernel: format!("{}.{}", OLDEST_TESTED_KERNEL.0, OLDEST_TESTED_KERNEL.1),
        }
    }

    fn text(&self) -> String {
        let Self { version, commit, target, profile, .. } = self;
        let Self { ebpf_compiler, map_abi, kernel, minimum_kernel, .. } = self;
        let commit = commit.map(|commit| format!(", commit {commit}")).unwrap_or_default();
        format!(
            "egress-agent {version}{commit}\n  build     {target}, {profile}\n  programs  eBPF of \
             {ebpf_compiler}\n  map ABI   {map_abi}\n  kernel    {kernel} (needed: {minimum_kernel} \
             or newer)\n"
        )
    }
}

/// Prints it.
///
/// # Errors
/// Standard output can't be written.
pub(super) fn run(args: &VersionArgs) -> anyhow::Result<ExitCode> {
    let version = Version::now();
    let mut out = stdout();
    match args.output {
        Output::Text => out.write_all(version.text().as_bytes())?,
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&version)?)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{documented, golden},
        *,
    };

    #[test]
    fn a_build_is_told_apart() {
        let version = Version {
            version: "1.2.3",
            commit: Some("0123abc"),
            target: "x86_64-linux".into(),
            profile: "release",
            ebpf_compiler: "rustc 1.90.0 (debian)",
            map_abi: 5,
            kernel: "6.12.0-1-amd64".into(),
            minimum_kernel: "6.1".into(),
        };
        golden("version.txt", &version.text());
        let unknown = Version { commit: None, ..version };
        assert!(unknown.text().starts_with("egress-agent 1.2.3\n"));
    }

    #[test]
    fn this_build_is_described() {
        documented("version -o json", &serde_json::to_value(Version::now()).unwrap());
        let Version { version, kernel, map_abi, .. } = Version::now();
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        assert!(kernel.starts_with(|first: char| first.is_ascii_digit()), "{kernel}");
        assert_eq!(map_abi, ABI_VERSION);
    }
}

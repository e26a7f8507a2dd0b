//! Builds the eBPF programs of `egress-ebpf` into `OUT_DIR/egress-ebpf`.
//!
//! Two tool-chains can do it; the first usable one is taken, in this order:
//!
//! 1. `debian`: `/usr/bin/rustc` (package `rustc-web`) with the `core` for `bpfel-unknown-none` that
//!    `libstd-rust-web-dev-bpf` ships.
//! 2. `nightly`: rustup's nightly with `rust-src`; cargo builds `core` (`-Z build-std`).
//!
//! Both need `bpf-linker`, built against the LLVM of the compiler in question. The environment
//! variable `EGRESS_EBPF_TOOLCHAIN` (`debian` or `nightly`) forces one. The one taken is in the
//! agent's `--version` and in `OUT_DIR/ebpf-toolchain`.

use std::{
    env,
    error::Error,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Forces one of the tool-chains: `debian` or `nightly`.
const OVERRIDE: &str = "EGRESS_EBPF_TOOLCHAIN";
const TARGET: &str = "bpfel-unknown-none";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\x1f";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    let agent = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = agent.parent().ok_or("the agent's directory has no parent")?;
    let programs = workspace.join("egress-ebpf");
    for input in [
        agent.join("build.rs"),
        programs.join("src"),
        programs.join("Cargo.toml"),
        workspace.join("Cargo.toml"),
        workspace.join("Cargo.lock"),
    ] {
        println!("cargo::rerun-if-changed={}", input.display());
    }
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    println!("cargo::rerun-if-env-changed=PATH");

    let out = PathBuf::from(variable("OUT_DIR")?);
    let linker = find_linker()?;
    let toolchain = Toolchain::choose()?;
    let target_dir = out.join("target");
    let mut cargo = toolchain.cargo()?;
    cargo
        .args(["build", "--release", "--package", "egress-ebpf", "--bin", "egress-ebpf"])
        .args(["--target", TARGET])
        .arg("--manifest-path")
        .arg(programs.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(workspace, &out, &linker)?)
        // The workspace's release profile is for the agent. Programs are one unit each, since
        // bpf-linker does the link-time optimisation, and they can't unwind.
        .envs([
            ("CARGO_PROFILE_RELEASE_LTO", "off"),
            ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
            ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
            ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false"),
        ]);
    // Debug lines cost instructions and stack, so only debug builds have them.
    let build = if variable("PROFILE")? == "debug" { "debug" } else { "release" };
    if build == "debug" {
        cargo.args(["--features", "log"]);
    }
    println!("cargo::rustc-env=EGRESS_EBPF_BUILD={build}");

    let output = cargo.output().map_err(|error| format!("{cargo:?} could not start: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "the eBPF programs didn't build with the {} tool-chain ({}):\n{}\n\
             `cargo xtask setup` installs what is needed; {OVERRIDE}=debian or =nightly takes \
             another tool-chain",
            toolchain.name(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
        .into());
    }
    let built = target_dir.join(TARGET).join("release/egress-ebpf");
    let object = out.join("egress-ebpf");
    fs::copy(&built, &object)
        .map_err(|error| format!("copying {} to {}: {error}", built.display(), object.display()))?;

    let description = toolchain.describe();
    fs::write(out.join("ebpf-toolchain"), &description)?;
    println!("cargo::rustc-env=EGRESS_EBPF_TOOLCHAIN_USED={description}");
    Ok(())
}

/// What builds the programs.
enum Toolchain {
    /// Debian's compiler with its prebuilt `core`.
    Debian,
    /// rustup's nightly, building `core` from source.
    Nightly,
}

impl Toolchain {
    fn choose() -> Result<Self> {
        let forced = |why: String| {
            format!("{why}\n{OVERRIDE} asks for it; `cargo xtask setup` installs what is needed")
                .into()
        };
        match env::var(OVERRIDE).ok().as_deref() {
            None | Some("") => {}
            Some("debian") => return Self::debian().map(|()| Self::Debian).map_err(forced),
            Some("nightly") => return Self::nightly().map(|()| Self::Nightly).map_err(forced),
            Some(other) => {
                return Err(
                    format!("{OVERRIDE} is `{other}`; expected `debian` or `nightly`").into()
                );
            }
        }
        let debian = match Self::debian() {
            Ok(()) => return Ok(Self::Debian),
            Err(why) => why,
        };
        let nightly = match Self::nightly() {
            Ok(()) => return Ok(Self::Nightly),
            Err(why) => why,
        };
        Err(format!(
            "no tool-chain here can build the eBPF programs; run `cargo xtask setup`\n\
             debian: {debian}\nnightly: {nightly}"
        )
        .into())
    }

    /// Whether Debian's compiler and its `core` for the target are there; if not, what is missing.
    fn debian() -> std::result::Result<(), String> {
        println!("cargo::rerun-if-changed={DEBIAN_RUSTC}");
        if !Path::new(DEBIAN_RUSTC).exists() {
            return Err(format!("{DEBIAN_RUSTC} is missing (package rustc-web)"));
        }
        let mut rustc = Command::new(DEBIAN_RUSTC);
        // Without this, cargo's own library path would load another compiler's libraries.
        rustc.env_remove("LD_LIBRARY_PATH");
        let libraries =
            PathBuf::from(stdout(rustc.args(["--print", "target-libdir", "--target", TARGET]))?);
        let has_core = fs::read_dir(&libraries).is_ok_and(|entries| {
            entries
                .flatten()
                .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
        });
        if has_core {
            Ok(())
        } else {
            Err(format!("no libcore in {} (package libstd-rust-web-dev-bpf)", libraries.display()))
        }
    }

    /// Whether rustup's nightly has the sources of `core`; if not, what is missing.
    fn nightly() -> std::result::Result<(), String> {
        let sysroot = PathBuf::from(stdout(
            clean(&mut Command::new("rustup"))
                .args(["run", "nightly", "rustc", "--print", "sysroot"]),
        )?);
        let core = sysroot.join("lib/rustlib/src/rust/library/core");
        if core.exists() {
            Ok(())
        } else {
            Err(format!(
                "{} is missing (rustup toolchain install nightly --component rust-src)",
                core.display()
            ))
        }
    }

    /// The tool-chain's cargo, untouched by what the outer cargo, clippy or rustup have set.
    fn cargo(&self) -> Result<Command> {
        Ok(match self {
            Self::Debian => {
                // Debian's package brings no cargo; the outer one does as well.
                let mut cargo = Command::new(variable("CARGO")?);
                clean(&mut cargo).env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Self::Nightly => {
                let mut cargo = Command::new("rustup");
                clean(&mut cargo).args(["run", "nightly", "cargo", "-Zbuild-std=core"]);
                cargo
            }
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Nightly => "nightly",
        }
    }

    /// The name and the compiler's version, on one line.
    fn describe(&self) -> String {
        let mut rustc = match self {
            Self::Debian => Command::new(DEBIAN_RUSTC),
            Self::Nightly => {
                let mut rustup = Command::new("rustup");
                rustup.args(["run", "nightly", "rustc"]);
                rustup
            }
        };
        let version = stdout(clean(&mut rustc).arg("--version"))
            .unwrap_or_else(|_| "unknown version".to_owned());
        format!("{} ({version})", self.name())
    }
}

/// Removes what would make a nested cargo or rustc take another compiler, wrapper, profile or
/// directory than the ones chosen here. `RUSTC_WORKSPACE_WRAPPER` is clippy's driver under
/// `cargo clippy`.
fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let foreign = [
            "RUSTC",
            "RUSTDOC",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "CARGO_ENCODED_",
            "CARGO_TARGET_",
            "CARGO_BUILD_",
            "CARGO_PROFILE_",
            "CARGO_CFG_",
            "CARGO_FEATURE_",
            "CARGO_UNSTABLE_",
            "LD_LIBRARY_PATH",
            "CLIPPY_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix));
        if foreign {
            command.env_remove(name);
        }
    }
    command
}

/// The compiler's flags for the programs.
///
/// Without `--disable-expand-memcpy-in-order`, memory is cleared by calls of a function with a loop: the
/// kernel's verifier follows each round, and Linux 6.1 drops what it knows about equal states at each call.
fn rust_flags(workspace: &Path, out: &Path, linker: &Path) -> Result<OsString> {
    let architecture = variable("CARGO_CFG_TARGET_ARCH")?;
    let mut flags = OsString::from(format!(
        "--cfg=bpf_target_arch=\"{architecture}\"{SEPARATOR}\
         -Cdebuginfo=2{SEPARATOR}-Clink-arg=--btf{SEPARATOR}\
         -Clink-arg=--disable-expand-memcpy-in-order{SEPARATOR}-Clinker="
    ));
    flags.push(linker);
    // The object's debug lines must not depend on where it was built. The last match wins, and
    // OUT_DIR usually lies in the workspace.
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let remapped = [(Some(workspace), "."), (Some(out), "out"), (home.as_deref(), "cargo")];
    for (from, to) in remapped {
        if let Some(from) = from {
            flags.push(format!("{SEPARATOR}--remap-path-prefix={}={to}", from.display()));
        }
    }
    Ok(flags)
}

/// `bpf-linker` from `PATH` or from cargo's own directory, which a root shell's `PATH` may lack.
fn find_linker() -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    env::split_paths(&path)
        .chain(cargo_home.into_iter().chain(home).map(|directory| directory.join("bin")))
        .map(|directory| directory.join("bpf-linker"))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| {
            "bpf-linker was found neither in PATH nor in ~/.cargo/bin; run `cargo xtask setup`"
                .into()
        })
}

fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|error| format!("the environment variable {name}: {error}").into())
}

fn stdout(command: &mut Command) -> std::result::Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

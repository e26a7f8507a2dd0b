//! The `uninstall` command: what was installed for systemd goes, and enforcement with it.
//!
//! `systemctl disable` and `detach` alone leave the drop-in of the workloads' slices, which demands
//! enforcement before a workload starts.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};

use super::output::stdout;
use crate::bpf::{self, DEFAULT_BPFFS};

/// The unit of the node's agent.
pub(super) const NODE_UNIT: &str = "egress-node.service";
/// The unit of the gateway.
pub(super) const GATEWAY_UNIT: &str = "egress-gateway.service";
/// The units that run an agent.
const SERVICES: [&str; 2] = [NODE_UNIT, GATEWAY_UNIT];
/// Where a package has them. They are stopped and disabled; removing them is the package manager's.
const PACKAGED: &str = "/usr/lib/systemd/system";
/// What `docs/operations.md` installs below the directory of units.
pub const UNITS: [&str; 5] = [
    NODE_UNIT,
    GATEWAY_UNIT,
    "egress-gateway.service.d/unprivileged.conf",
    "workloads-.slice.d/egress.conf",
    "workloads.slice",
];

/// Options of `uninstall`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Stops both roles, removes enforcement and the units. Workloads that run go on,
and reach the network as if nothing had been there. The program itself stays,
and so do units that a package brought: remove them as you installed them.

Examples:
  # What would be done?
  egress-agent uninstall --dry-run

  # All of it, with the configuration.
  egress-agent uninstall --purge

Exit codes: 0 done, 1 something couldn't be removed, 3 an agent runs that no
unit started; stop it first.")]
pub struct UninstallArgs {
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Remove the configuration too: its directory with all that is in it.
    #[arg(long)]
    purge: bool,
    /// Where the agent pinned its programs and maps.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
    /// Where the units were installed.
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system")]
    units: PathBuf,
    /// The directory of the configuration and of the units' environment files.
    #[arg(long, value_name = "DIR", default_value = "/etc/egress")]
    configuration: PathBuf,
}

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    /// Run `systemctl` with these arguments.
    Systemctl(Vec<String>),
    /// Remove programs, maps and pins.
    Detach(PathBuf),
    /// Remove a file, and its directory if nothing else is in it.
    Remove(PathBuf),
    /// Remove a directory with all that is in it.
    RemoveTree(PathBuf),
}

impl Step {
    fn text(&self) -> String {
        match self {
            Self::Systemctl(args) => format!("systemctl {}", args.join(" ")),
            Self::Detach(dir) => format!("egress-agent detach --bpffs {}", dir.display()),
            Self::Remove(path) => format!("rm {}", path.display()),
            Self::RemoveTree(path) => format!("rm -r {}", path.display()),
        }
    }
}

/// Removes what is there, and says each step.
///
/// # Errors
/// What couldn't be removed. What comes after it is left.
pub fn run(args: &UninstallArgs) -> anyhow::Result<ExitCode> {
    let mut out = stdout();
    let steps = plan(args, Path::exists);
    if steps.is_empty() {
        writeln!(out, "nothing is installed here")?;
    }
    for step in &steps {
        writeln!(out, "{}", step.text())?;
        if args.dry_run {
            continue;
        }
        perform(step)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The agents first, then enforcement, then the files that would bring either back.
fn plan(args: &UninstallArgs, exists: impl Fn(&Path) -> bool) -> Vec<Step> {
    let systemctl = |words: &[&str], units: &[&str]| {
        Step::Systemctl(words.iter().chain(units).map(|word| (*word).to_owned()).collect())
    };
    let mut steps = Vec::new();
    let is_there =
        |name: &&str| exists(&args.units.join(name)) || exists(&Path::new(PACKAGED).join(name));
    let services: Vec<&str> = SERVICES.into_iter().filter(is_there).collect();
    if !services.is_empty() {
        steps.push(systemctl(&["disable", "--now"], &services));
    }
    if exists(&args.bpffs) {
        steps.push(Step::Detach(args.bpffs.clone()));
    }
    let files: Vec<Step> = UNITS
        .iter()
        .map(|name| args.units.join(name))
        .filter(|path| exists(path))
        .map(Step::Remove)
        .collect();
    if !files.is_empty() {
        steps.extend(files);
        steps.push(systemctl(&["daemon-reload"], &[]));
        steps.push(systemctl(&["reset-failed"], &[]));
    }
    if args.purge && exists(&args.configuration) {
        steps.push(Step::RemoveTree(args.configuration.clone()));
    }
    steps
}

fn perform(step: &Step) -> anyhow::Result<()> {
    match step {
        Step::Systemctl(args) => {
            let status = Command::new("systemctl").args(args).status();
            let status = status.context("can't run systemctl")?;
            if !status.success() {
                bail!("`{}` failed: {status}", step.text());
            }
        }
        Step::Detach(dir) => drop(bpf::detach(dir)?),
        Step::Remove(path) => {
            fs::remove_file(path).with_context(|| format!("can't remove {}", path.display()))?;
            // Others' drop-ins keep their directory.
            if let Some(dir) = path.parent().filter(|dir| is_dropins(dir)) {
                match fs::remove_dir(dir) {
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                    result => {
                        result.with_context(|| format!("can't remove {}", dir.display()))?;
                    }
                }
            }
        }
        Step::RemoveTree(path) => {
            fs::remove_dir_all(path).with_context(|| format!("can't remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn is_dropins(dir: &Path) -> bool {
    dir.extension().is_some_and(|extension| extension == "d")
}

#[cfg(test)]
mod tests {
    use super::{super::testing::golden, *};

    fn args(purge: bool) -> UninstallArgs {
        UninstallArgs {
            dry_run: false,
            purge,
            bpffs: "/pins".into(),
            units: "/units".into(),
            configuration: "/etc/egress".into(),
        }
    }

    fn texts(purge: bool, exists: impl Fn(&Path) -> bool) -> Vec<String> {
        plan(&args(purge), exists).iter().map(Step::text).collect()
    }

    #[test]
    fn agents_stop_before_enforcement_goes_and_units_go_last() {
        let all = texts(true, |_| true);
        assert_eq!(all[0], "systemctl disable --now egress-node.service egress-gateway.service");
        assert_eq!(all[1], "egress-agent detach --bpffs /pins");
        assert_eq!(all.len(), 2 + UNITS.len() + 3, "{all:?}");
        assert_eq!(all.last().unwrap(), "rm -r /etc/egress");
        assert!(!texts(false, |_| true).iter().any(|step| step.contains("/etc/egress")));
    }

    /// What `--dry-run` shows of a host that has all of it where it is by default.
    #[test]
    fn a_dry_run_fits_a_terminal() {
        let args = UninstallArgs {
            bpffs: DEFAULT_BPFFS.into(),
            units: "/etc/systemd/system".into(),
            ..args(true)
        };
        let steps = plan(&args, |_| true);
        golden("uninstall.txt", &steps.iter().map(|step| step.text() + "\n").collect::<String>());
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        assert_eq!(texts(true, |_| false), Vec::<String>::new());
        let node = texts(false, |path| path == Path::new("/units/egress-node.service"));
        assert_eq!(
            node,
            [
                "systemctl disable --now egress-node.service",
                "rm /units/egress-node.service",
                "systemctl daemon-reload",
                "systemctl reset-failed",
            ]
        );
    }

    #[test]
    fn units_of_a_package_are_stopped_and_left() {
        let all = texts(false, |path| {
            path == Path::new("/usr/lib/systemd/system/egress-node.service")
                || path == Path::new("/pins")
        });
        let expected =
            ["systemctl disable --now egress-node.service", "egress-agent detach --bpffs /pins"];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_directory_goes_with_its_last_file() {
        let dir = tempfile::TempDir::new().unwrap();
        let drop_ins = dir.path().join("workloads-.slice.d");
        fs::create_dir(&drop_ins).unwrap();
        let (ours, others) = (drop_ins.join("egress.conf"), drop_ins.join("other.conf"));
        for path in [&ours, &others] {
            fs::write(path, "").unwrap();
        }
        perform(&Step::Remove(ours.clone())).unwrap();
        assert!(others.exists());
        perform(&Step::Remove(others)).unwrap();
        assert!(!drop_ins.exists() && dir.path().exists());
        assert!(perform(&Step::Remove(ours)).is_err());
    }
}

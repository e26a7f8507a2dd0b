//! `cargo xtask manifests`: plain manifests for `kubectl apply -k`, rendered from the chart.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{run, tools};

/// Where they are installed. The walkthrough's resources name the gateway's Service there.
const NAMESPACE: &str = "istio-system";
/// The rendered files, and the values that each is of.
const FILES: [(&str, Option<&str>); 2] = [
    ("deploy/kubernetes/egress-enforcer.yaml", None),
    ("deploy/kubernetes/detach/egress-enforcer.yaml", Some("deploy/chart/values/detach.yaml")),
];
const CHART: &str = "deploy/chart/egress-enforcer";

/// Options of `manifests`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Change nothing, and fail if a file is not what the chart renders to.
    #[arg(long)]
    check: bool,
}

impl Options {
    /// What the test command does.
    pub(crate) const CHECK: Self = Self { check: true };
}

/// Renders them, or compares.
///
/// # Errors
/// helm is missing or fails; with `--check`, a file differs.
pub(crate) fn run(options: &Options) -> Result<()> {
    let differ = compare_or_write(run::root(), options.check, render)?;
    if !options.check {
        return Ok(());
    }
    if !differ.is_empty() {
        let names: Vec<_> = differ.iter().map(|path| path.display().to_string()).collect();
        bail!("not what the chart renders to: {}. Run `cargo xtask manifests`", names.join(", "));
    }
    println!("the manifests are what the chart renders to");
    Ok(())
}

/// The files below `root` that differ from what is rendered; they are written unless it is a check.
fn compare_or_write(
    root: &Path,
    check: bool,
    render: impl Fn(Option<&str>) -> Result<String>,
) -> Result<Vec<PathBuf>> {
    let mut differ = Vec::new();
    for (file, values) in FILES {
        let text = render(values)?;
        let path = root.join(file);
        // One that is not there differs.
        if fs::read_to_string(&path).is_ok_and(|now| now == text) {
            continue;
        }
        if !check {
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            println!("{file}");
        }
        differ.push(path);
    }
    Ok(differ)
}

fn render(values: Option<&str>) -> Result<String> {
    let program = tools::directory().join("bin/helm");
    let mut helm = run::command(&program.to_string_lossy());
    // None of the user's own settings of helm counts.
    let home = tempfile::tempdir().context("a directory for helm")?;
    for name in ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"] {
        helm.env(name, home.path());
    }
    helm.args(["template", "egress-enforcer", CHART, "--namespace", NAMESPACE]);
    if let Some(values) = values {
        helm.args(["--values", values]);
    }
    let output = helm.output().with_context(|| {
        format!("cannot start {}; `cargo xtask setup` installs it", program.display())
    })?;
    if !output.status.success() {
        bail!("helm: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout).context("helm's output")?;
    Ok(with_header(&text, values))
}

/// Says where it comes from, and leaves out what only helm is interested in.
fn with_header(text: &str, values: Option<&str>) -> String {
    let of = values.map(|values| format!(" with {values}")).unwrap_or_default();
    let header = format!(
        "# Made by `cargo xtask manifests` from {CHART}{of}. Change the chart, not this file.\n"
    );
    let lines = text.lines().filter(|line| !line.starts_with("# Source: "));
    lines.fold(header, |text, line| text + line.trim_end() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_differs_is_found_and_written() {
        let root = tempfile::tempdir().expect("a directory");
        for (file, _) in FILES {
            let directory = root.path().join(file);
            fs::create_dir_all(directory.parent().expect("one")).expect("a directory");
        }
        let render = |values: Option<&str>| Ok(format!("{values:?}\n"));
        let run = |check| compare_or_write(root.path(), check, render).expect("it renders").len();
        assert_eq!(run(true), 2, "none is there");
        assert_eq!(run(true), 2, "a check writes nothing");
        assert_eq!(run(false), 2);
        assert_eq!((run(true), run(false)), (0, 0));
        fs::write(root.path().join(FILES[1].0), "edited\n").expect("a file");
        assert_eq!((run(true), run(false), run(true)), (1, 1, 0));
        let fails = |_: Option<&str>| bail!("no chart");
        assert!(compare_or_write(root.path(), true, fails).is_err());
    }

    #[test]
    fn what_only_helm_reads_is_left_out() {
        let text = with_header("---\n# Source: x/y.yaml\nkind: A  \n", Some("v.yaml"));
        assert!(text.ends_with("\n---\nkind: A\n"), "{text}");
        assert!(text.starts_with("# Made by `cargo xtask manifests`"), "{text}");
        assert!(text.contains(" with v.yaml."), "{text}");
    }
}

//! The chart, rendered by helm.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// The namespace that manifests are rendered for.
pub(crate) const NAMESPACE: &str = "istio-system";
/// The newest version of Kubernetes that is tested.
pub(crate) const NEWEST: &str = "1.36";

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the set-up installs: `target/tools`, beside the directory that this program is in.
pub(crate) fn tools() -> PathBuf {
    let own = env::current_exe().expect("this program's path");
    let tools = own.ancestors().nth(3).expect("a target directory").join("tools");
    assert!(tools.is_dir(), "{} is not there: run `cargo xtask setup`", tools.display());
    tools
}

pub(crate) fn chart() -> PathBuf {
    root().join("deploy/chart/egress-enforcer")
}

/// The documented sets of values, by name; without one it is the default.
pub(crate) fn sets() -> Vec<(String, Option<PathBuf>)> {
    let directory = root().join("deploy/chart/values");
    let files = fs::read_dir(directory).expect("sets of values").flatten().map(|file| file.path());
    let mut sets: Vec<_> = files
        .map(|path| (path.file_stem().expect("a name").to_string_lossy().into_owned(), Some(path)))
        .collect();
    sets.sort();
    assert!(sets.len() > 5, "{sets:?}");
    sets.insert(0, ("default".into(), None));
    sets
}

/// Runs helm on the chart, without any of the user's settings.
pub(crate) fn helm(command: &[&str], values: Option<&Path>, more: &[&str]) -> Output {
    let home = tempfile::tempdir().expect("a directory");
    let mut helm = Command::new(tools().join("bin/helm"));
    helm.env_clear().env("HOME", home.path()).args(command).arg(chart());
    if let Some(values) = values {
        helm.arg("--values").arg(values);
    }
    helm.args(more).output().expect("helm runs")
}

/// The chart's objects as this version of Kubernetes gets them.
pub(crate) fn render(
    values: Option<&Path>,
    minor: &str,
    more: &[&str],
) -> Result<Vec<Value>, String> {
    let version = format!("{minor}.0");
    let fixed = ["--namespace", NAMESPACE, "--kube-version", &version];
    let output = helm(&["template", "egress-enforcer"], values, &[&fixed[..], more].concat());
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).expect("text");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// The objects of the newest version.
pub(crate) fn rendered(values: Option<&Path>) -> Vec<Value> {
    render(values, NEWEST, &[]).unwrap_or_else(|error| panic!("{error}"))
}

/// `KIND NAME`.
pub(crate) fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

pub(crate) fn find<'a>(objects: &'a [Value], name: &str) -> Option<&'a Value> {
    objects.iter().find(|object| title(object) == name)
}

/// All containers of all pods, the first ones included: whose, and the container.
pub(crate) fn containers(objects: &[Value]) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for object in objects {
        let pod = &object["spec"]["template"]["spec"];
        for list in ["initContainers", "containers"] {
            let all = pod[list].as_array().into_iter().flatten();
            found.extend(all.map(|container| (title(object), container)));
        }
    }
    found
}

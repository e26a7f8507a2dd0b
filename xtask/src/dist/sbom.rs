//! The software bill of materials: CycloneDX 1.5 in JSON, from `cargo metadata` and the checksums of
//! `Cargo.lock`. The same sources make the same file, so it has neither a time nor a serial number.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::run;

/// The workspace's.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The packages whose dependencies are in the program: the agent, and the programs inside of it.
const ROOTS: [&str; 2] = ["egress-agent", "egress-ebpf"];

/// Writes it, and compares it with `Cargo.lock`.
///
/// # Errors
/// cargo fails, or a package has no checksum.
pub(super) fn write(dist: &Path) -> Result<PathBuf> {
    let mut cargo = run::command("cargo");
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform]);
    let output = cargo.output()?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let lock = run::root().join("Cargo.lock");
    let lock = Lock::parse(&fs::read_to_string(&lock).with_context(|| lock.display().to_string())?);
    let document = document(&metadata, &lock)?;
    let count = document["components"].as_array().map_or(0, Vec::len);
    let path = dist.join(format!("egress-agent-{VERSION}.cdx.json"));
    fs::write(&path, format!("{document:#}\n")).with_context(|| path.display().to_string())?;
    println!("{}: {count} of {} packages of Cargo.lock", path.display(), lock.0.len());
    Ok(path)
}

/// The packages of a `Cargo.lock` by name and version, with the checksum where they come from a registry.
struct Lock(BTreeMap<(String, String), Option<String>>);

impl Lock {
    fn parse(text: &str) -> Self {
        let mut packages = BTreeMap::new();
        for part in text.split("[[package]]").skip(1) {
            let value = |name: &str| {
                let start = format!("{name} = \"");
                part.lines().find_map(|line| line.strip_prefix(&*start)?.strip_suffix('"'))
            };
            if let (Some(name), Some(version)) = (value("name"), value("version")) {
                let key = (name.to_owned(), version.to_owned());
                packages.insert(key, value("checksum").map(str::to_owned));
            }
        }
        Self(packages)
    }
}

/// A package as cargo describes it.
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    license: Option<&'a str>,
    description: Option<&'a str>,
    local: bool,
}

impl<'a> Package<'a> {
    fn of(value: &'a Value) -> Result<Self> {
        Ok(Self {
            name: value["name"].as_str().context("a package without a name")?,
            version: value["version"].as_str().context("a package without a version")?,
            license: value["license"].as_str(),
            description: value["description"].as_str(),
            local: value["source"].is_null(),
        })
    }

    /// Its package URL, by which other tools know it.
    fn purl(&self) -> String {
        // A version may have build metadata, whose sign is escaped (RFC 3986).
        format!("pkg:cargo/{}@{}", self.name, self.version.replace('+', "%2B"))
    }

    fn component(&self, lock: &Lock, kind: &str) -> Result<Value> {
        let mut component = json!({
            "type": kind,
            "bom-ref": self.purl(),
            "name": self.name,
            "version": self.version,
            "purl": self.purl(),
        });
        if let Some(license) = self.license {
            // Older packages write `/` for `OR`.
            let expression = license.replace('/', " OR ");
            component["licenses"] = json!([{ "expression": expression }]);
        }
        if let Some(description) = self.description {
            component["description"] = json!(description.trim());
        }
        let key = (self.name.to_owned(), self.version.to_owned());
        match lock.0.get(&key) {
            Some(Some(checksum)) => {
                component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
            }
            Some(None) if self.local => {}
            Some(None) => bail!("{} {} has no checksum in Cargo.lock", self.name, self.version),
            None => bail!("{} {} is not in Cargo.lock", self.name, self.version),
        }
        Ok(component)
    }
}

/// The document: what the roots depend on, directly or not, to be built or to run; tests need more.
fn document(metadata: &Value, lock: &Lock) -> Result<Value> {
    let packages = metadata["packages"].as_array().context("no packages")?;
    let by_id: BTreeMap<&str, &Value> =
        packages.iter().filter_map(|package| Some((package["id"].as_str()?, package))).collect();
    let nodes = metadata["resolve"]["nodes"].as_array().context("no resolved dependencies")?;
    let edges: BTreeMap<&str, BTreeSet<&str>> =
        nodes.iter().filter_map(|node| Some((node["id"].as_str()?, needed(node)))).collect();
    let mut left: Vec<&str> = by_id
        .iter()
        .filter(|(_, package)| ROOTS.iter().any(|root| package["name"] == *root))
        .map(|(id, _)| *id)
        .collect();
    if left.len() != ROOTS.len() {
        bail!("the workspace has no {}", ROOTS.join(" or "));
    }
    let mut seen = BTreeSet::new();
    while let Some(id) = left.pop() {
        if seen.insert(id) {
            left.extend(edges.get(id).into_iter().flatten());
        }
    }
    let (mut components, mut dependencies) = (Vec::new(), Vec::new());
    let mut program = Value::Null;
    for id in &seen {
        let package = Package::of(by_id.get(id).context("a dependency that is no package")?)?;
        if package.name == ROOTS[0] {
            program = package.component(lock, "application")?;
        } else {
            components.push(package.component(lock, "library")?);
        }
        let on = edges.get(id).into_iter().flatten().filter_map(|id| by_id.get(id));
        let on: Vec<String> =
            on.map(|package| Ok(Package::of(package)?.purl())).collect::<Result<_>>()?;
        dependencies.push(json!({ "ref": package.purl(), "dependsOn": on }));
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": program },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// What a package needs but for its tests.
fn needed(node: &Value) -> BTreeSet<&str> {
    let all = node["deps"].as_array().into_iter().flatten();
    let needed = all.filter(|dependency| {
        dependency["dep_kinds"].as_array().into_iter().flatten().any(|kind| kind["kind"] != "dev")
    });
    needed.filter_map(|dependency| dependency["pkg"].as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0+x\"\nsource = \
                        \"registry+https://example.com\"\nchecksum = \"aa\"\n\n[[package]]\nname = \
                        \"egress-agent\"\nversion = \"0.1.0\"\ndependencies = [\n \"a\",\n]\n\n[[package]]\nname \
                        = \"egress-ebpf\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"test\"\nversion = \"2.0.0\"\n\
                        checksum = \"bb\"\n";

    fn metadata() -> Value {
        let package = |id: &str, name: &str, version: &str, source: Value| {
            json!({"id": id, "name": name, "version": version, "source": source,
                "license": "MIT/Apache-2.0", "description": " Words\n"})
        };
        let kind = |kind: Value| json!([{ "kind": kind }]);
        let registry = || json!("registry");
        json!({
            "packages": [
                package("0", "egress-agent", "0.1.0", Value::Null),
                package("1", "egress-ebpf", "0.1.0", Value::Null),
                package("2", "a", "1.0.0+x", registry()),
                package("3", "test", "2.0.0", registry()),
            ],
            "resolve": {"nodes": [
                {"id": "0", "deps": [
                    {"pkg": "2", "dep_kinds": kind(Value::Null)},
                    {"pkg": "3", "dep_kinds": kind(json!("dev"))},
                ]},
                {"id": "1", "deps": []},
                {"id": "2", "deps": []},
            ]},
        })
    }

    #[test]
    fn what_is_in_the_program_is_listed_and_nothing_else() {
        let document = document(&metadata(), &Lock::parse(LOCK)).expect("a document");
        let names: Vec<_> = document["components"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| &one["name"])
            .collect();
        assert_eq!(names, ["egress-ebpf", "a"]);
        let a = &document["components"][1];
        assert_eq!(a["purl"], "pkg:cargo/a@1.0.0%2Bx");
        assert_eq!(a["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(a["hashes"][0]["content"], "aa");
        assert_eq!(document["metadata"]["component"]["name"], "egress-agent");
        let of = |purl: &str| {
            document["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|one| one["ref"] == purl)
                .map(|one| one["dependsOn"].clone())
        };
        assert_eq!(of("pkg:cargo/egress-agent@0.1.0"), Some(json!(["pkg:cargo/a@1.0.0%2Bx"])));
    }

    #[test]
    fn a_package_without_a_checksum_is_an_error() {
        let without = LOCK.replace("checksum = \"aa\"\n", "");
        let error = document(&metadata(), &Lock::parse(&without)).expect_err("none");
        assert!(error.to_string().contains("no checksum"), "{error}");
        let gone = LOCK.replace("name = \"a\"", "name = \"b\"");
        let error = document(&metadata(), &Lock::parse(&gone)).expect_err("none");
        assert!(error.to_string().contains("not in Cargo.lock"), "{error}");
    }

    /// This workspace's: every package of the bill is one of the lock file, by name, version and checksum.
    #[test]
    fn the_lock_file_is_read_whole() {
        let text = fs::read_to_string(run::root().join("Cargo.lock")).expect("Cargo.lock");
        let lock = Lock::parse(&text);
        assert_eq!(lock.0.len(), text.matches("[[package]]").count());
        let sums = lock.0.values().flatten().count();
        assert_eq!(sums, text.lines().filter(|line| line.starts_with("checksum = ")).count());
        assert!(lock.0.values().flatten().all(|sum| sum.len() == 64));
    }
}

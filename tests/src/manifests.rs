//! The walkthrough's resources: this repository's, or another directory's of the same form.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::testbed::Testbed;

/// Where another copy of the walkthrough's resources lies, to be applied unchanged: directories
/// `1-http`, `2-tls-origination` and `3-https`.
pub const DIRECTORY: &str = "EGRESS_WALKTHROUGH_DIR";

/// One step's files.
#[derive(Clone, Debug)]
pub struct Step {
    /// Path and text of each.
    pub files: Vec<(PathBuf, String)>,
}

/// What the walkthrough applies, scenario by scenario.
#[derive(Clone, Debug)]
pub struct Walkthrough {
    /// The service entry alone.
    pub service_entry: Step,
    /// HTTP through the gateway.
    pub http: Step,
    /// TLS origination.
    pub tls_origination: Step,
    /// HTTPS passthrough.
    pub passthrough: Step,
}

impl Walkthrough {
    /// This repository's, from `deploy/example`.
    ///
    /// # Errors
    /// A file is missing.
    pub fn example() -> Result<Self> {
        Self::shipped("../deploy/example")
    }

    /// The same in its other form: mutual TLS between node and gateway. Certificates are in
    /// `/etc/certs`.
    ///
    /// # Errors
    /// A file is missing.
    pub fn example_mtls() -> Result<Self> {
        Self::shipped("../deploy/example-mtls")
    }

    /// The same as an `EgressPolicy` for pods of the namespace `shop` with the label `app=web`. There is no
    /// service entry, so the first step is empty.
    ///
    /// # Errors
    /// A file is missing.
    pub fn example_policy() -> Result<Self> {
        let root = root("../deploy/example-policy")?;
        let policy = |dir: &str| step(&root.join(dir), &["egress-policy.yaml"]);
        Ok(Self {
            service_entry: Step { files: Vec::new() },
            http: policy("1-http-gateway")?,
            tls_origination: policy("2-tls-origination")?,
            passthrough: policy("3-https-passthrough")?,
        })
    }

    /// The same in resources of the Gateway API.
    ///
    /// # Errors
    /// A file is missing.
    pub fn example_gateway_api() -> Result<Self> {
        Self::of("../deploy/example-gateway-api", "routes.yaml")
    }

    fn shipped(directory: &str) -> Result<Self> {
        Self::of(directory, "virtual-service.yaml")
    }

    fn of(directory: &str, routes: &str) -> Result<Self> {
        let root = root(directory)?;
        let all = ["service-entry.yaml", "gateway.yaml", routes];
        Ok(Self {
            service_entry: step(&root.join("1-service-entry"), &all[..1])?,
            http: step(&root.join("2-http-gateway"), &all)?,
            tls_origination: step(&root.join("3-tls-origination"), &all)?,
            passthrough: step(&root.join("4-https-passthrough"), &all)?,
        })
    }

    /// The one that the environment names, if it does.
    ///
    /// # Errors
    /// A file is missing.
    pub fn given() -> Result<Option<Self>> {
        let Some(root) = env::var_os(DIRECTORY).map(PathBuf::from) else { return Ok(None) };
        let all = ["service-entry.yaml", "gateway.yaml", "virtual-service.yaml"];
        Ok(Some(Self {
            service_entry: step(&root.join("1-http"), &all[..1])?,
            http: step(&root.join("1-http"), &all)?,
            tls_origination: step(&root.join("2-tls-origination"), &all)?,
            passthrough: step(&root.join("3-https"), &all[..2])?,
        }))
    }

    /// The one that the environment names in its other form: mutual TLS between node and gateway.
    ///
    /// # Errors
    /// A file is missing.
    pub fn given_mtls() -> Result<Option<Self>> {
        let Some(root) = env::var_os(DIRECTORY).map(PathBuf::from) else { return Ok(None) };
        let all = ["service-entry.yaml", "gateway-mtls.yaml", "virtual-service.yaml"];
        Ok(Some(Self {
            service_entry: step(&root.join("1-http"), &all[..1])?,
            http: step(&root.join("1-http"), &all)?,
            tls_origination: step(&root.join("2-tls-origination"), &all)?,
            passthrough: step(&root.join("3-https"), &all[..2])?,
        }))
    }

    /// The same resources in another version of the API group.
    #[must_use]
    pub fn in_version(mut self, version: &str) -> Self {
        for step in [
            &mut self.service_entry,
            &mut self.http,
            &mut self.tls_origination,
            &mut self.passthrough,
        ] {
            for (_, text) in &mut step.files {
                *text = in_version(text, version);
            }
        }
        self
    }
}

fn in_version(text: &str, version: &str) -> String {
    text.lines()
        .map(|line| match line.split_once("networking.istio.io/") {
            Some((before, _)) => format!("{before}networking.istio.io/{version}\n"),
            None => format!("{line}\n"),
        })
        .collect()
}

/// A directory of this repository.
fn root(directory: &str) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    root.canonicalize().with_context(|| root.display().to_string())
}

fn step(dir: &Path, names: &[&str]) -> Result<Step> {
    let mut files = Vec::new();
    for name in names {
        let path = dir.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => files.push((path, text)),
            // The virtual service may stand in gateway.yaml, as in the original.
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    && *name == "virtual-service.yaml"
                    && files.iter().any(|(_, text)| text.contains("kind: VirtualService")) => {}
            Err(error) => return Err(error).context(path.display().to_string()),
        }
    }
    Ok(Step { files })
}

impl Step {
    /// Applies the files.
    ///
    /// # Errors
    /// One can't be written.
    pub fn apply(&self, testbed: &Testbed) -> Result<()> {
        self.files.iter().try_for_each(|(path, text)| testbed.apply(&name(path), text))
    }

    /// Deletes them again.
    ///
    /// # Errors
    /// One isn't there.
    pub fn delete(&self, testbed: &Testbed) -> Result<()> {
        self.files.iter().rev().try_for_each(|(path, _)| testbed.delete(&name(path)))
    }

    /// The same in one file, which is there as a whole or not at all. In between two files the agents
    /// may do what the first one says by itself: a server of the gateway that no rule leads to is for
    /// applications that speak to it themselves, and their connections don't go through the tunnel.
    #[must_use]
    pub fn as_one(&self) -> Self {
        let texts: Vec<&str> = self.files.iter().map(|(_, text)| text.as_str()).collect();
        Self { files: vec![("step.yaml".into(), texts.join("\n---\n"))] }
    }

    /// The service entry alone.
    #[must_use]
    pub fn service_entry(&self) -> Self {
        Self { files: self.files[..1].to_vec() }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

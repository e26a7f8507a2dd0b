//! Where the configuration comes from: files, or a Kubernetes API server.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use tokio::sync::watch;

use super::{
    Directory, Files, ReadError, Timing, Watcher,
    kubernetes::{self, Kubernetes, More, Scope, Settings},
};
use crate::{pods::Pod, types::duration_within};

/// The options that both roles share.
#[derive(clap::Args, Clone, Debug)]
pub struct ConfigArgs {
    /// The directory of resources: `*.yaml` and `*.yml` in it and in the directories one level
    /// below. It is watched; a change takes effect within a second, and one that doesn't compile is
    /// reported and changes nothing.
    #[arg(long, value_name = "DIR", required_unless_present = "source")]
    pub config: Option<PathBuf>,
    /// The mesh-wide settings [default: mesh.yaml in the directory of resources].
    #[arg(long, value_name = "FILE")]
    pub mesh: Option<PathBuf>,
    /// Where the configuration comes from.
    #[arg(long, value_enum)]
    pub source: Option<SourceKind>,
    /// With `--source kubernetes`: how to reach the API server [default: the pod's service account].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// With `--source kubernetes`: the ConfigMap whose key `mesh.yaml` has the mesh-wide settings.
    #[arg(long, value_name = "NAMESPACE/NAME", default_value = "istio-system/egress-enforcer", value_parser = namespaced)]
    pub mesh_config_map: (String, String),
    /// With `--source kubernetes`: Services of type ExternalName are hosts of the registry, as in Istio. Whoever may
    /// make such a Service adds a host, which routes may lead to.
    #[arg(long)]
    pub external_name_services: bool,
    /// With `--source kubernetes`: the namespace of the gateways' Services.
    #[arg(long, value_name = "NAMESPACE", default_value = "istio-system")]
    pub gateway_namespace: String,
    /// With `--source kubernetes`: for how long the API server may be silent on a watch until it is asked
    /// again. It sends something each minute.
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = watch_silence)]
    pub watch_silence: Duration,
}

/// `--source`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum SourceKind {
    /// Files below `--config`.
    Files,
    /// The API server of the cluster that this runs in.
    Kubernetes,
}

fn watch_silence(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_secs(1)..=Duration::from_secs(3600), "from 1s to 1h")
}

/// Reads `NAMESPACE/NAME`.
///
/// # Errors
/// One of the two is missing.
pub fn namespaced(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok((namespace.into(), name.into()))
        }
        _ => Err(format!("found `{text}`, expected NAMESPACE/NAME")),
    }
}

/// All pods that are asked for; `None` before their first list is complete.
pub type Reported = Option<Arc<Vec<Pod>>>;

/// Where the next configuration comes from.
pub enum Origin {
    /// Files.
    Directory(Box<Watcher<Directory>>),
    /// An API server.
    Kubernetes(watch::Receiver<Option<Arc<Files>>>),
}

impl ConfigArgs {
    /// Of a directory.
    #[cfg(test)]
    fn of(config: PathBuf) -> Self {
        Self {
            config: Some(config),
            mesh: None,
            source: None,
            kubeconfig: None,
            mesh_config_map: ("istio-system".into(), "egress-enforcer".into()),
            external_name_services: false,
            gateway_namespace: "istio-system".into(),
            watch_silence: Duration::from_secs(90),
        }
    }

    /// Whether there is an API server to ask.
    pub fn is_kubernetes(&self) -> bool {
        self.source == Some(SourceKind::Kubernetes)
    }

    /// What `status` shows.
    pub fn place(&self) -> String {
        match &self.config {
            Some(directory) if !self.is_kubernetes() => directory.display().to_string(),
            _ => "the Kubernetes API server".into(),
        }
    }

    /// Opens it; the pods come with an API server alone, and so does what `more` asks for.
    pub async fn open(
        &self,
        scope: Scope,
        more: More,
    ) -> anyhow::Result<(Origin, Option<watch::Receiver<Reported>>)> {
        if self.is_kubernetes() {
            if let Some(config) = &self.config {
                bail!("--config {} and --source kubernetes: give one of them", config.display());
            }
            let settings = Settings {
                kubeconfig: self.kubeconfig.clone(),
                mesh: self.mesh_config_map.clone(),
                external_names: self.external_name_services,
                gateways: self.gateway_namespace.clone(),
                scope,
                more,
                silence: self.watch_silence,
            };
            let Kubernetes { files, pods } = kubernetes::start(settings).await?;
            return Ok((Origin::Kubernetes(files), Some(pods)));
        }
        let config = self.config.clone().context("--source files needs --config")?;
        Ok((Origin::directory(config, self.mesh.clone(), Timing::default()), None))
    }
}

impl Origin {
    /// Files.
    pub fn directory(config: PathBuf, mesh: Option<PathBuf>, timing: Timing) -> Self {
        Self::Directory(Box::new(Watcher::new(Directory::new(config, mesh), timing)))
    }

    /// The next configuration. Cancel safe: what was not returned is returned the next time.
    pub async fn next(&mut self) -> Result<Arc<Files>, Vec<ReadError>> {
        match self {
            Self::Directory(watcher) => watcher.next().await,
            Self::Kubernetes(files) => loop {
                if files.changed().await.is_err() {
                    return std::future::pending().await;
                }
                if let Some(files) = files.borrow_and_update().clone() {
                    return Ok(files);
                }
            },
        }
    }

    /// The same, read again though it may not have changed. What an API server has is known already.
    pub async fn again(&mut self) -> Result<Arc<Files>, Vec<ReadError>> {
        match self {
            Self::Directory(watcher) => watcher.again().await,
            Self::Kubernetes(files) => {
                let known = files.borrow_and_update().clone();
                match known {
                    Some(files) => Ok(files),
                    None => self.next().await,
                }
            }
        }
    }

    /// Waits until a configuration is there.
    pub async fn ready(&self) {
        if let Self::Kubernetes(files) = self {
            // An error is the end of the process.
            drop(files.clone().wait_for(Option::is_some).await.map(drop));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_maps_name_has_a_namespace() {
        assert_eq!(namespaced("a/b"), Ok(("a".into(), "b".into())));
        for text in ["", "a", "/b", "a/"] {
            assert!(namespaced(text).unwrap_err().contains("NAMESPACE/NAME"), "{text}");
        }
    }

    #[tokio::test]
    async fn an_api_server_and_files_exclude_each_other() {
        let both = ConfigArgs {
            source: Some(SourceKind::Kubernetes),
            ..ConfigArgs::of("/etc/egress/config".into())
        };
        let error = both.open(Scope::Cluster, More::default()).await.err().unwrap().to_string();
        assert!(error.contains("give one of them"), "{error}");
        let none = ConfigArgs { config: None, source: Some(SourceKind::Files), ..both };
        assert!(none.open(Scope::Cluster, More::default()).await.is_err());
    }
}

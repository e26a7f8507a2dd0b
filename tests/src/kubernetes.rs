//! A double of the Kubernetes API server: lists, watches and single objects over HTTPS with a bearer
//! token, as a kube-apiserver 1.36 answers them. `testdata/kubernetes` holds some of its exchanges, which
//! the double is checked against.
//!
//! It can be what a real one is at times: gone, silent, starting, with a compacted history, or without a
//! custom resource.

mod answer;
mod cluster;
mod crowd;
mod discovery;
mod objects;
mod pods;
#[cfg(test)]
mod recorded;
mod resource;
mod serve;
mod shared;
mod store;
mod target;
mod write;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use anyhow::{Context, Result};
use serde_json::Value;

use self::shared::Shared;
pub use self::{
    cluster::{MESH, TestCluster},
    crowd::{Crowd, CrowdPod, EmptyPod, routes},
    objects::{config_map, documents, endpoint_slice, node, pod, secret, service, service_cidr},
    pods::KubeletPod,
    resource::Resource,
    shared::Mood,
    store::Store,
};
use crate::{
    ca::{Authority, issue_pem},
    netns::NetNs,
};

/// A running double. It ends when this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    kubeconfig: PathBuf,
    _end: tokio::sync::oneshot::Sender<()>,
}

impl ApiServer {
    /// Serves at `addr` in a namespace, and writes a kubeconfig into `dir`.
    ///
    /// # Errors
    /// The port can't be bound.
    pub fn start(ns: &NetNs, addr: SocketAddr, dir: &Path) -> Result<Self> {
        let authority = Authority::new("Kubernetes authority")?;
        let (certificate, key) = issue_pem(&authority, &addr.ip().to_string())?;
        let tls = serve::tls(&certificate, &key)?;
        let shared = Arc::new(Shared::new(&format!("token-of-{}", std::process::id())));
        let (end, ended) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let serving = Arc::clone(&shared);
        ns.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(async {
                    tokio::select! {
                        () = serve::run(addr, tls, serving, ready) => {}
                        _ = ended => {}
                    }
                }),
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        is_ready.recv().context("the API server's thread ended")?.context("can't serve")?;
        let kubeconfig = dir.join("kubeconfig");
        let (ca, token) = (dir.join("kubernetes-ca.pem"), dir.join("kubernetes-token"));
        fs::write(&ca, authority.pem())?;
        fs::write(&token, &shared.token)?;
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: \"https://{addr}\", certificate-authority: {}}}}}]\n\
             users: [{{name: agent, user: {{tokenFile: {}}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: agent}}}}]\n",
            ca.display(),
            token.display()
        );
        fs::write(&kubeconfig, text)?;
        Ok(Self { shared, kubeconfig, _end: end })
    }

    /// For `--kubeconfig`.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        self.kubeconfig.to_string_lossy().into_owned()
    }

    /// Puts an object, new or changed.
    ///
    /// # Panics
    /// It is of a kind that the double doesn't have.
    pub fn apply(&self, object: Value) {
        self.change(|store| store.put(object).expect("a kind that is served"));
    }

    /// An object as it is now.
    #[must_use]
    pub fn get(&self, plural: &str, version: &str, namespace: &str, name: &str) -> Option<Value> {
        let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        let query = store::Query {
            plural: plural.into(),
            version: version.into(),
            namespace,
            ..store::Query::default()
        };
        self.shared.store().get(&query, name)
    }

    /// The Events about an object of this name.
    #[must_use]
    pub fn events(&self, regarding: &str) -> Vec<Value> {
        let query = store::Query {
            plural: "events".into(),
            version: "v1".into(),
            ..store::Query::default()
        };
        let list = self.shared.store().list(&query, 0, None).unwrap_or_default();
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.into_iter().filter(|event| event["regarding"]["name"] == regarding).collect()
    }

    /// Puts every document of a file of YAML.
    ///
    /// # Errors
    /// It isn't YAML.
    pub fn apply_yaml(&self, text: &str) -> Result<()> {
        documents(text)?.into_iter().for_each(|object| self.apply(object));
        Ok(())
    }

    /// Removes an object; `false` if it isn't there.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) -> bool {
        self.change(|store| store.remove(plural, namespace, name))
    }

    /// Forgets the history: whoever asks for what was before is told 410.
    pub fn compact(&self) {
        self.change(Store::compact);
    }

    /// Removes a custom resource with all its objects.
    pub fn remove_crd(&self, plural: &str) {
        self.change(|store| store.remove_kind(plural));
    }

    /// Stops serving a custom resource whose definition stays, as a server that starts does.
    pub fn hide_crd(&self, plural: &'static str) {
        self.change(|store| store.hide_kind(plural, true));
    }

    /// Serves it again.
    pub fn show_crd(&self, plural: &'static str) {
        self.change(|store| store.hide_kind(plural, false));
    }

    /// Serves a custom resource.
    pub fn add_crd(&self, resource: Resource) {
        self.change(|store| store.add_kind(resource));
    }

    /// Changes what is done with requests, open ones included.
    pub fn set_mood(&self, mood: Mood) {
        self.shared.mood.send_replace(mood);
    }

    /// The paths that were asked for since the last call.
    #[must_use]
    pub fn take_requests(&self) -> Vec<String> {
        let mut requests = self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *requests)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let result = change(&mut self.shared.store());
        self.shared.changes.send_modify(|count| *count += 1);
        result
    }
}

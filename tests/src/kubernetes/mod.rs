//! A double of the Kubernetes API server: lists, watches and single objects over HTTPS with a bearer
//! token, as a kube-apiserver 1.36 answers them. `testdata/kubernetes` holds some of its exchanges, which
//! the double is checked against.
//!
//! It can be what a real one is at times: gone, silent, starting, with a compacted history, or without a
//! custom resource.

mod objects;
mod pods;
#[cfg(test)]
mod recorded;
mod serve;
mod shared;
mod store;

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
    objects::{config_map, documents, endpoint_slice, node, pod, service},
    pods::KubeletPod,
    shared::Mood,
    store::{Resource, Store},
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

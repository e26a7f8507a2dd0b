//! The connection to the API server.

use std::time::Duration;

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use thiserror::Error;

use super::settings::Settings;

/// For a TCP connection and its TLS.
const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The file can't be used.
    #[error("can't use the kubeconfig {path}: {error}")]
    Kubeconfig {
        /// Its path.
        path: String,
        /// What is wrong.
        error: String,
    },
    /// Neither a file nor a pod's account.
    #[error("no service account in this pod ({0}); outside of a cluster give --kubeconfig")]
    Account(String),
    /// TLS can't be set up.
    #[error("can't set up the client of the API server: {0}")]
    Client(String),
}

/// A client that reads token and CA again when their files change.
pub(super) async fn new(settings: &Settings) -> Result<Client, ClientError> {
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let failed = |error: kube::config::KubeconfigError| ClientError::Kubeconfig {
                path: path.display().to_string(),
                error: error.to_string(),
            };
            let read = Kubeconfig::read_from(path).map_err(failed)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(read, &options).await.map_err(failed)?
        }
        None => Config::incluster().map_err(|error| ClientError::Account(error.to_string()))?,
    };
    config.connect_timeout = Some(CONNECT);
    // A server that goes down keeps a watch open for a minute and says nothing, and one that was cut
    // off for ever. Bookmarks come each minute.
    config.read_timeout = Some(settings.silence);
    config.reset_reader_on_write = true;
    // Errors are waited for here.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| ClientError::Client(error.to_string()))
}

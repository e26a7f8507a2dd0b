//! The testbed with mutual TLS between node and gateway: identities, settings, arguments.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    ca::{Authority, Subject, Time, issue_mutual},
    manifests::Step,
    plan,
    process::Process,
    testbed::{Testbed, mesh_yaml},
};

/// The identity of the gateway.
pub const GATEWAY_ID: &str =
    "spiffe://cluster.local/ns/istio-system/sa/istio-egressgateway-service-account";
/// The identity of the app node's agent.
pub const NODE_ID: &str = "spiffe://cluster.local/ns/istio-system/sa/egress-node";
/// The identity of the pod's workload.
pub const POD_ID: &str = "spiffe://cluster.local/ns/default/sa/sleep";
/// The port of the node's tunnel.
pub const LISTENER: u16 = 15001;
/// The gateways' port for tunnels.
pub const TUNNEL: u16 = 15008;

/// `mesh.yaml` with the app node and its pod; nothing is served directly.
#[must_use]
pub fn mesh(gateways: usize) -> String {
    format!(
        "{}accessLogEncoding: JSON\nnodes:\n- name: app\n  principal: {NODE_ID}\n  addresses: [{}, \"{}\"]\n\
         workloads:\n- name: sleep\n  namespace: default\n  node: app\n  serviceAccount: sleep\n  \
         labels: {{app: sleep}}\n  addresses: [{}, \"{}\"]\n",
        mesh_yaml(gateways).replace("direct: registry", "direct: deny"),
        plan::APP,
        plan::APP_V6,
        plan::POD,
        plan::POD_V6,
    )
}

/// Writes an identity as Istio mounts it: `cert-chain.pem`, `key.pem`, `root-cert.pem`.
///
/// # Errors
/// It can't be made or written.
pub fn write_identity(dir: &Path, authority: &Authority, subject: &Subject<'_>) -> Result<()> {
    fs::create_dir_all(dir)?;
    let (chain, key) = issue_mutual(authority, subject)?;
    for (name, text) in
        [("cert-chain.pem", chain), ("key.pem", key), ("root-cert.pem", authority.pem())]
    {
        fs::write(dir.join(name), text).with_context(|| dir.display().to_string())?;
    }
    Ok(())
}

impl Testbed {
    /// Settings, and identities of one authority for the gateways and for the app node.
    ///
    /// # Errors
    /// Something can't be written.
    pub fn prepare_mtls(&self, gateways: usize) -> Result<Authority> {
        let root = Authority::new("Mesh authority")?;
        self.apply_mesh(&mesh(gateways))?;
        for (name, uri, serial) in [("gateway", GATEWAY_ID, 1), ("node", NODE_ID, 2)] {
            let subject = Subject { name: "mesh.example", uri, serial, time: Time::Now };
            write_identity(&self.dir().join(name), &root, &subject)?;
        }
        Ok(root)
    }

    /// Arguments with which an agent shows the identity in this directory of the testbed.
    #[must_use]
    pub fn identity_args(&self, name: &str) -> Vec<String> {
        vec!["--identity-dir".into(), self.dir().join(name).to_string_lossy().into_owned()]
    }

    /// The addresses of the tunnel's listener.
    #[must_use]
    pub fn tunnel_args() -> Vec<String> {
        vec![
            "--tunnel-listen".into(),
            format!("{}:{LISTENER}", plan::APP),
            "--tunnel-listen".into(),
            format!("[{}]:{LISTENER}", plan::APP_V6),
        ]
    }

    /// Starts a gateway with its identity.
    ///
    /// # Errors
    /// As for [`Self::start_gateway`].
    pub fn start_gateway_mtls(&self, number: usize) -> Result<Process> {
        self.start_gateway_with(number, &self.identity_args("gateway"))
    }

    /// Starts the node agent with its identity and a tunnel.
    ///
    /// # Errors
    /// As for [`Self::start_node`].
    pub fn start_node_mtls(&self) -> Result<Process> {
        let args = [self.node_args(), self.identity_args("node"), Self::tunnel_args()].concat();
        self.start_node_with(&args)
    }

    /// The value of one of the node's metrics; 0 where it isn't there.
    ///
    /// # Errors
    /// They can't be read.
    pub fn node_metric(&self, series: &str) -> Result<u64> {
        let text = self.node_metrics()?;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(Ok(0), |value| value.trim().parse().with_context(|| value.to_owned()))
    }
}

impl Step {
    /// The same step with the gateway's own certificates where the files have `/etc/certs`.
    #[must_use]
    pub fn with_certificates(mut self, dir: &Path) -> Self {
        for (_, text) in &mut self.files {
            *text = text.replace("/etc/certs", &dir.to_string_lossy());
        }
        self
    }
}

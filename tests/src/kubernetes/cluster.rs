//! A cluster of an app node with a pod and a gateway node, whose agents read from the double.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{ApiServer, KubeletPod, config_map, endpoint_slice, node, pod, service};
use crate::{
    plan,
    process::Process,
    testbed::Testbed,
    wait::{START, until},
};

/// The pod's UID.
const UID: &str = "0f3f1c1e-7a5b-4c3d-9e8f-0123456789ab";

/// The settings that most tests want. The networks of pods and nodes are found.
pub const MESH: &str = "\
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
accessLogFile: /dev/stdout
clusterCidrs: [10.96.0.0/12]
gateways:
- service: istio-egressgateway.istio-system.svc.cluster.local
";

/// The cluster. Agents are started by the test.
#[derive(Debug)]
pub struct TestCluster {
    /// What the agents ask.
    pub api: ApiServer,
    /// `shop/web-0`, on the app node.
    pub pod: KubeletPod,
    /// The hosts.
    pub testbed: Testbed,
}

impl TestCluster {
    /// Its hosts and objects; the pod is known, and does not run yet.
    ///
    /// # Errors
    /// Something can't be set up.
    pub fn new() -> Result<Self> {
        let testbed = Testbed::test(1)?;
        let addr = format!("{}:6443", plan::APP).parse()?;
        let api = ApiServer::start(&testbed.app().ns, addr, &testbed.dir())?;
        let selector = json!({"istio": "egressgateway"});
        for object in [
            node("app", plan::APP, "10.244.1.0/24"),
            node("gateway", plan::GATEWAYS[0], "10.244.9.0/24"),
            service("istio-system", "istio-egressgateway", "10.96.0.20", selector),
            endpoint_slice("istio-system", "istio-egressgateway", &[plan::GATEWAYS[0]]),
        ] {
            api.apply(object);
        }
        KubeletPod::root(&testbed)?;
        let pod = KubeletPod::create(&testbed, UID)?;
        let cluster = Self { api, pod, testbed };
        cluster.apply_mesh(MESH);
        cluster.announce(json!({"app": "web"}));
        Ok(cluster)
    }

    /// Replaces the settings.
    pub fn apply_mesh(&self, text: &str) {
        self.api.apply(config_map("istio-system", "egress-enforcer", "mesh.yaml", text));
    }

    /// The pod with its address and these labels, as the API server has it.
    pub fn announce(&self, labels: Value) {
        self.announce_on("app", labels);
    }

    /// The same on another node, as the API server has it.
    pub fn announce_on(&self, node: &str, labels: Value) {
        let mut running = pod("shop", "web-0", UID, node, labels);
        running["status"] =
            json!({"phase": "Running", "podIP": plan::POD, "podIPs": [{"ip": plan::POD}]});
        self.api.apply(running);
    }

    /// Arguments for an API server instead of those for a directory of files.
    fn args(&self, of: Vec<String>) -> Vec<String> {
        let mut args = Vec::new();
        let mut given = of.into_iter();
        while let Some(arg) = given.next() {
            if arg == "--config" || arg == "--mesh" {
                given.next();
            } else {
                args.push(arg);
            }
        }
        let more = ["--source", "kubernetes", "--watch-silence", "3s", "--kubeconfig"];
        args.extend(more.into_iter().map(str::to_owned).chain([self.api.kubeconfig()]));
        args
    }

    /// Starts the gateway and waits until it is ready.
    ///
    /// # Errors
    /// It ends, or isn't ready within the limit.
    pub fn start_gateway(&self, more: &[&str]) -> Result<Process> {
        let place = self.testbed.gateway(0);
        let control = self.testbed.gateway_control(0);
        let mut args = self.args(self.testbed.gateway_args_with(&control));
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let mut gateway = self.testbed.start_agent(place, "gateway1", &args)?;
        let ready = until(START, "the gateway to be ready", || {
            let url = "http://localhost:15021/healthz/ready";
            let ready = place.run("curl", &["-sf", url]).is_ok_and(|ready| ready.ok());
            (ready || gateway.ended().is_some()).then_some(())
        });
        if ready.is_err() || gateway.ended().is_some() {
            bail!("{}", gateway.stderr());
        }
        Ok(gateway)
    }

    /// Starts the node agent and waits until it enforces.
    ///
    /// # Errors
    /// It ends, or doesn't enforce within the limit.
    pub fn start_node(&self, more: &[&str]) -> Result<Process> {
        self.testbed.start_node_with(&self.node_args(more)?)
    }

    /// Its arguments.
    ///
    /// # Errors
    /// There is no cgroup2.
    pub fn node_args(&self, more: &[&str]) -> Result<Vec<String>> {
        let mut args = self.args(self.testbed.node_args());
        for arg in &mut args {
            if arg.starts_with(plan::POD_INTERFACE) {
                *arg = "pod*".into();
            }
        }
        let root = KubeletPod::root(&self.testbed)?.to_string_lossy().into_owned();
        if let Some(value) =
            args.iter().position(|arg| arg == "--cgroup").and_then(|at| args.get_mut(at + 1))
        {
            *value = root;
        }
        args.extend(["--node-name".into(), "app".into()]);
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        Ok(args)
    }

    /// Starts the pod: from now on it has a network.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn run_pod(&mut self) -> Result<()> {
        self.pod.run(&self.testbed)
    }

    /// What `status` of an agent prints.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn status_of_gateway(&self) -> Result<String> {
        let control = self.testbed.gateway_control(0).to_string_lossy().into_owned();
        let agent = self.testbed.agent().to_string_lossy().into_owned();
        Ok(self.testbed.gateway(0).run(&agent, &["status", "--control", &control])?.stdout)
    }

    /// The same of the node agent.
    ///
    /// # Errors
    /// The program can't be started.
    pub fn status_of_node(&self) -> Result<String> {
        let control = self.testbed.node_control().to_string_lossy().into_owned();
        let agent = self.testbed.agent().to_string_lossy().into_owned();
        Ok(self.testbed.app().run(&agent, &["status", "--control", &control])?.stdout)
    }

    /// What curl sees from the pod: a status, or its exit code.
    ///
    /// # Errors
    /// It can't be started.
    pub fn curl(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["-s", "-o", "/dev/null", "-m", "20", "-w", "%{http_code}"];
        all.extend(args);
        let done = self.pod.place.run("curl", &all)?;
        Ok(if done.ok() { done.stdout } else { format!("curl: ({})", done.code) })
    }
}

//! The hosts, wired: see the picture in the crate's documentation.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    agent,
    ca::{Authority, Certificates},
    capture::Capture,
    cgroup,
    netns::NetNs,
    outside::{Record, Servers},
    plan,
    process::{Place, Process},
    site::{self, DEMO, Site},
    wait, wiring,
};

/// `mesh.yaml` as most tests want it; a test may append to it or replace parts.
#[must_use]
pub fn mesh_yaml(gateways: usize) -> String {
    format!(
        "outboundTrafficPolicy:\n  mode: REGISTRY_ONLY\naccessLogFile: /dev/stdout\n\
         enforcement: enforce\ndirect: registry\nclusterCidrs: [{}]\ngateways:\n\
         - service: istio-egressgateway.istio-system.svc.cluster.local\n  \
         labels: {{istio: egressgateway}}\n  endpoints: [{}]\n",
        plan::CLUSTER_CIDRS.map(|cidr| format!("\"{cidr}\"")).join(", "),
        plan::GATEWAYS[..gateways].join(", "),
    )
}

/// The hosts of one site. Agents are started by the test.
#[derive(Debug)]
pub struct Testbed {
    servers: Option<(Servers, Servers)>,
    agent: PathBuf,
    pod: Place,
    app: Place,
    gateways: Vec<Place>,
    outside: Place,
    site: Site,
}

impl Testbed {
    /// For a test: servers in this process, the agent freshly built.
    ///
    /// # Errors
    /// Something can't be set up.
    pub fn test(gateways: usize) -> Result<Self> {
        Self::with_servers(gateways, agent::built()?.to_owned())
    }

    /// For a program of its own: the same, with the agent beside the program.
    ///
    /// # Errors
    /// Something can't be set up.
    pub fn beside(gateways: usize) -> Result<Self> {
        Self::with_servers(gateways, agent::beside()?)
    }

    fn with_servers(gateways: usize, agent: PathBuf) -> Result<Self> {
        let mut testbed = Self::wire(Site::test()?, gateways, agent)?;
        testbed.servers = Some(serve(testbed.site.prefix(), &testbed.dir())?);
        Ok(testbed)
    }

    /// For the demo: servers in a process of their own, which outlives this one with `--keep`.
    ///
    /// # Errors
    /// Something can't be set up.
    pub fn demo(gateways: usize) -> Result<(Self, Process)> {
        let testbed = Self::wire(Site::demo()?, gateways, agent::beside()?)?;
        let program = site::demo_program()?;
        let program = program.to_string_lossy();
        let prefix = testbed.site.prefix();
        let servers =
            testbed.outside.start(&testbed.dir(), "servers", &program, &["--serve", prefix])?;
        wait::until(wait::SOON, "the outside's servers", || {
            testbed.dir().join("ready").exists().then_some(())
        })
        .with_context(|| servers.stderr())?;
        Ok((testbed, servers))
    }

    /// The pod of a demo that is up.
    ///
    /// # Errors
    /// No cgroup2.
    pub fn demo_pod() -> Result<Place> {
        let dir = site::dir(DEMO);
        let trust = dir.join("ca.pem").to_string_lossy().into_owned();
        Ok(Place {
            ns: NetNs::existing(format!("{DEMO}-pod")),
            cgroup: cgroup::mount_point()?.join(DEMO).join("pod"),
            resolv_conf: Some(dir.join("resolv.conf")),
            env: trust_in(&trust),
        })
    }

    fn wire(site: Site, gateways: usize, agent: PathBuf) -> Result<Self> {
        let dir = site.dir();
        fs::create_dir_all(dir.join("config"))?;
        fs::write(dir.join("mesh.yaml"), mesh_yaml(gateways))?;
        let resolv_conf = dir.join("resolv.conf");
        fs::write(&resolv_conf, format!("nameserver {}\n", plan::CLUSTER_DNS))?;

        let hosts = site.cgroup("hosts")?;
        let trust = dir.join("ca.pem").to_string_lossy().into_owned();
        let place = |host: &str| -> Result<Place> {
            Ok(Place {
                ns: site.netns(host)?,
                cgroup: hosts.clone(),
                resolv_conf: None,
                env: trust_in(&trust),
            })
        };
        let (app, outside, fabric) = (place("app")?, place("outside")?, place("fabric")?);
        let pod =
            Place { cgroup: site.cgroup("pod")?, resolv_conf: Some(resolv_conf), ..place("pod")? };
        let gateways = (1..=gateways)
            .map(|number| place(&format!("gateway{number}")))
            .collect::<Result<Vec<_>>>()?;
        wiring::connect(&pod.ns, &app.ns, &fabric.ns, &gateways, &outside.ns)?;
        for address in [plan::WEB, plan::WEB_V6] {
            // The first neighbour solicitation on a new link may be lost; the next one is a second later.
            wait::until(wait::SOON, "the way from the pod to the outside", || {
                pod.run("ping", &["-c1", "-W1", address]).ok()?.ok().then_some(())
            })?;
        }
        Ok(Self { servers: None, agent, pod, app, gateways, outside, site })
    }

    /// The pod.
    #[must_use]
    pub fn pod(&self) -> &Place {
        &self.pod
    }

    /// The pod's network, but another cgroup: a process that the cgroup hooks don't see.
    #[must_use]
    pub fn outside_cgroup(&self) -> Place {
        Place { cgroup: self.app.cgroup.clone(), ..self.pod.clone() }
    }

    /// The pod's network, and a cgroup of this name below the pod's: a container of its, as kubelet has them.
    ///
    /// # Errors
    /// The kernel refuses the cgroup.
    pub fn below_pod(&self, name: &str) -> Result<Place> {
        let cgroup = cgroup::create(&self.pod.cgroup.join(name))?;
        Ok(Place { cgroup, ..self.pod.clone() })
    }

    /// The pod's cgroup, but the app node's network: a workload on the host's network.
    #[must_use]
    pub fn host_network(&self) -> Place {
        Place { ns: self.app.ns.clone(), ..self.pod.clone() }
    }

    /// The app node.
    #[must_use]
    pub fn app(&self) -> &Place {
        &self.app
    }

    /// A gateway node, counted from 0.
    #[must_use]
    pub fn gateway(&self, number: usize) -> &Place {
        &self.gateways[number]
    }

    /// The outside.
    #[must_use]
    pub fn outside(&self) -> &Place {
        &self.outside
    }

    /// What reached the outside's servers; empty in the demo.
    #[must_use]
    pub fn record(&self) -> Record {
        self.servers.as_ref().map(|(outside, _)| outside.record.clone()).unwrap_or_default()
    }

    /// From now on the DNS servers answer with this address for a name.
    ///
    /// # Errors
    /// It is no IPv4 address.
    pub fn point(&self, name: &'static str, address: &str) -> Result<()> {
        self.point_to_all(name, &[address])
    }

    /// The same with several addresses at once.
    ///
    /// # Errors
    /// One is no IPv4 address.
    pub fn point_to_all(&self, name: &'static str, addresses: &[&str]) -> Result<()> {
        let parse = |text: &&str| text.parse().with_context(|| (*text).to_owned());
        let addresses: Vec<_> = addresses.iter().map(parse).collect::<Result<_>>()?;
        let servers = self.servers.iter().flat_map(|(outside, dns)| [outside, dns]);
        servers.for_each(|servers| servers.names.point(name, addresses.clone()));
        Ok(())
    }

    /// A capture of what the app node lets out.
    ///
    /// # Errors
    /// No packet socket.
    pub fn capture(&self) -> Result<Capture> {
        Capture::start(&self.outside.ns)
    }

    /// The testbed's files.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.site.dir()
    }

    /// The configuration's directory.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir().join("config")
    }

    /// `mesh.yaml`.
    #[must_use]
    pub fn mesh(&self) -> PathBuf {
        self.dir().join("mesh.yaml")
    }

    /// Where the node agent pins.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.site.bpffs().join("egress-agent")
    }

    /// The program under test.
    #[must_use]
    pub fn agent(&self) -> &Path {
        &self.agent
    }

    /// Puts a file into the configuration, at once (written beside, then renamed).
    ///
    /// # Errors
    /// It can't be written.
    pub fn apply(&self, name: &str, text: &str) -> Result<()> {
        replace(&self.config().join(name), text)
    }

    /// Takes a file out of the configuration.
    ///
    /// # Errors
    /// It isn't there.
    pub fn delete(&self, name: &str) -> Result<()> {
        let path = self.config().join(name);
        fs::remove_file(&path).with_context(|| path.display().to_string())
    }

    /// Replaces `mesh.yaml`.
    ///
    /// # Errors
    /// It can't be written.
    pub fn apply_mesh(&self, text: &str) -> Result<()> {
        replace(&self.mesh(), text)
    }

    /// Arguments of `egress-agent node`.
    #[must_use]
    pub fn node_args(&self) -> Vec<String> {
        let interface = format!("{}={},{}", plan::POD_INTERFACE, plan::POD, plan::POD_V6);
        let text = |path: &Path| path.to_string_lossy().into_owned();
        vec![
            "node".into(),
            "--config".into(),
            text(&self.config()),
            "--mesh".into(),
            text(&self.mesh()),
            "--cgroup".into(),
            text(&self.pod.cgroup),
            "--pod-interface".into(),
            interface,
            "--uplink".into(),
            plan::UPLINK.into(),
            "--resolver".into(),
            plan::CLUSTER_DNS.into(),
            "--bpffs".into(),
            text(&self.pins()),
            "--control".into(),
            text(&self.node_control()),
        ]
    }

    /// The node agent's control socket.
    #[must_use]
    pub fn node_control(&self) -> PathBuf {
        self.dir().join("node.sock")
    }

    /// A gateway's control socket, counted from 0.
    #[must_use]
    pub fn gateway_control(&self, number: usize) -> PathBuf {
        self.dir().join(format!("gateway{}.sock", number + 1))
    }

    /// Arguments of `egress-agent gateway`, which may run on any gateway node: without a control
    /// socket.
    #[must_use]
    pub fn gateway_args(&self) -> Vec<String> {
        self.gateway_args_with(Path::new("off"))
    }

    /// The same with a control socket.
    #[must_use]
    pub fn gateway_args_with(&self, control: &Path) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut args = vec!["gateway".into(), "--config".into(), text(&self.config())];
        args.extend(["--mesh".into(), text(&self.mesh())]);
        args.extend(["--control".into(), text(control)]);
        for arg in [
            "--labels",
            "istio=egressgateway",
            "--namespace",
            "istio-system",
            "--capture",
            "sk-lookup",
            "--workers",
            "1",
            "--resolver",
            plan::OUTSIDE_DNS,
        ] {
            args.push(arg.into());
        }
        args
    }

    /// What it leaves on the machine.
    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// Lets go of everything without removing it.
    pub fn keep(self) {
        self.site.keep();
    }
}

/// Trusts the outside's authority: the first for rustls-native-certs and OpenSSL, the second for
/// curl.
fn trust_in(authority: &str) -> Vec<(String, String)> {
    ["SSL_CERT_FILE", "CURL_CA_BUNDLE"].map(|name| (name.to_owned(), authority.to_owned())).to_vec()
}

fn replace(path: &Path, text: &str) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.new"));
    fs::write(&beside, text).with_context(|| beside.display().to_string())?;
    fs::rename(&beside, path).with_context(|| path.display().to_string())
}

/// Starts the outside's servers and the cluster's DNS, and writes `ca.pem` for those who trust.
///
/// # Errors
/// A port can't be bound.
pub fn serve(prefix: &str, dir: &Path) -> Result<(Servers, Servers)> {
    let authority = Authority::new("Testbed authority")?;
    fs::write(dir.join("ca.pem"), authority.pem())?;
    let ns = |host: &str| NetNs::existing(format!("{prefix}-{host}"));
    let outside = Servers::outside(&ns("outside"), Certificates::new(&authority)?)?;
    let dns = Servers::cluster_dns(&ns("app"))?;
    fs::write(dir.join("ready"), "")?;
    Ok((outside, dns))
}

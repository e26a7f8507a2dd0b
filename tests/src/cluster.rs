//! More of the cluster, for the tests that ask for it: a second pod beside the first, a second node
//! with a pod, and a program in each that serves HTTP and echoes.

use std::path::Path;

use anyhow::{Result, bail};

use crate::{
    netns::{End, NetNs, link},
    outside::Servers,
    plan,
    process::{Finished, Place, Process},
    site,
    testbed::Testbed,
    wait, wiring,
};

/// The other hosts of a testbed. Dropped before it.
#[derive(Debug)]
pub struct Cluster {
    /// The second pod on the app node.
    pub neighbour: Place,
    /// The second node. No agent runs there.
    pub remote: Place,
    /// Its pod. A DNS server with the cluster's answers runs there.
    pub remote_pod: Place,
    _peers: Vec<Process>,
    _dns: Servers,
}

impl Cluster {
    /// Adds the hosts to a testbed, and starts what they serve.
    ///
    /// # Errors
    /// Something can't be set up.
    pub fn grow(testbed: &Testbed) -> Result<Self> {
        let site = testbed.site();
        let another_pod = |name: &str| -> Result<Place> {
            Ok(Place { ns: site.netns(name)?, cgroup: site.cgroup(name)?, ..testbed.pod().clone() })
        };
        let (neighbour, remote_pod) = (another_pod("neighbour")?, another_pod("remote-pod")?);
        let remote = Place { ns: site.netns("remote")?, ..testbed.app().clone() };
        let fabric = NetNs::existing(format!("{}-fabric", site.prefix()));
        let (app, outside) = (&testbed.app().ns, &testbed.outside().ns);
        wiring::neighbour(app, &neighbour.ns)?;
        wiring::remote(&fabric, app, outside, &remote.ns, &remote_pod.ns)?;

        let mut peers = Vec::new();
        for (place, name, addresses) in [
            (testbed.pod(), "pod", [plan::POD, plan::POD_V6]),
            (&neighbour, "neighbour", [plan::NEIGHBOUR, plan::NEIGHBOUR_V6]),
            (testbed.app(), "app", [plan::APP, plan::APP_V6]),
            (&remote, "remote", [plan::REMOTE, plan::REMOTE_V6]),
            (&remote_pod, "remote-pod", [plan::REMOTE_POD, plan::REMOTE_POD_V6]),
        ] {
            let [v4, v6] = addresses;
            peers.push(start_peer(testbed, place, &format!("peer-{name}"), &["serve", v4, v6])?);
        }
        let dns = Servers::dns(&remote_pod.ns, plan::REMOTE_POD)?;
        let cluster = Self { neighbour, remote, remote_pod, _peers: peers, _dns: dns };
        cluster.wait(testbed)?;
        Ok(cluster)
    }

    /// Arguments of `egress-agent node` with the second pod.
    #[must_use]
    pub fn node_args(&self, testbed: &Testbed) -> Vec<String> {
        let (name, v4, v6) = (plan::NEIGHBOUR_INTERFACE, plan::NEIGHBOUR, plan::NEIGHBOUR_V6);
        let mut args = testbed.node_args();
        args.extend(["--pod-interface".into(), format!("{name}={v4},{v6}")]);
        args.extend(["--cgroup".into(), self.neighbour.cgroup.to_string_lossy().into_owned()]);
        args
    }

    /// Until every peer answers: neighbours have to be found, and a bridge's ports to be opened.
    fn wait(&self, testbed: &Testbed) -> Result<()> {
        let from_pod = [plan::NEIGHBOUR, plan::APP, plan::REMOTE, plan::REMOTE_POD];
        let from_pod_v6 = [plan::NEIGHBOUR_V6, plan::APP_V6, plan::REMOTE_V6, plan::REMOTE_POD_V6];
        let way = |from: &Place, to: &str| {
            wait::until(wait::SOON, &format!("a peer at {to}"), || {
                ask(from, "tcp", to, plan::PEER_ECHO, &[]).ok()?.ok().then_some(())
            })
        };
        for to in from_pod.into_iter().chain(from_pod_v6) {
            way(testbed.pod(), to)?;
        }
        for to in [plan::POD, plan::POD_V6] {
            way(&self.remote_pod, to)?;
        }
        Ok(())
    }
}

impl Testbed {
    /// A host behind a pod, which forwards for it under its own addresses: `NETWORK.2` behind
    /// `NETWORK.1`. Its processes are not in the pod's cgroup.
    ///
    /// # Errors
    /// Something can't be set up.
    pub fn inner(&self, pod: &Place, name: &str, network: &str) -> Result<Place> {
        let inner = Place { ns: self.site().netns(name)?, ..self.outside_cgroup() };
        let (outer_address, address) = (format!("{network}.1"), format!("{network}.2"));
        link(
            &End {
                ns: &pod.ns,
                name,
                mac: "02:00:0a:63:00:01",
                addresses: &[&format!("{outer_address}/24")],
            },
            &End {
                ns: &inner.ns,
                name: "eth0",
                mac: "02:00:0a:63:00:02",
                addresses: &[&format!("{address}/24")],
            },
        )?;
        inner.ns.ip(&["route", "add", "default", "via", &outer_address])?;
        pod.ns.forward()?;
        let rules = format!(
            "table ip inner {{ chain out {{ type nat hook postrouting priority 100; ip saddr {network}.0/24 masquerade; }}; }}"
        );
        let done = pod.run("nft", &[&rules])?;
        if !done.ok() {
            bail!("nft {rules}: {}", done.stderr.trim());
        }
        Ok(inner)
    }
}

/// Starts the peers' program on a host.
fn start_peer(testbed: &Testbed, place: &Place, name: &str, args: &[&str]) -> Result<Process> {
    let program = peer_program()?;
    place.start(&testbed.dir(), name, &program, args)
}

/// The program that serves and asks in the cluster's pods.
///
/// # Errors
/// It isn't built.
pub fn peer_program() -> Result<String> {
    let path = site::demo_program()?.with_file_name("egress-peer");
    if !Path::is_file(&path) {
        bail!("{} isn't built: cargo build --workspace --bins", path.display());
    }
    Ok(path.to_string_lossy().into_owned())
}

/// Asks for an echo over `tcp` or `udp`; exit code 0 where all came back, 1 refused, 2 no answer.
/// Further arguments: `--bytes N`, `--from ADDRESS`.
///
/// # Errors
/// It can't be started.
pub fn ask(from: &Place, protocol: &str, to: &str, port: u16, more: &[&str]) -> Result<Finished> {
    let to = if to.contains(':') { format!("[{to}]:{port}") } else { format!("{to}:{port}") };
    let mut args = vec!["ask", protocol, to.as_str()];
    args.extend(more);
    from.run(&peer_program()?, &args)
}

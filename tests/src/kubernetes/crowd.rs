//! Many pods of a node that run already. Each is probed as kubelet probes it, and asks the cluster's DNS
//! server again and again.

use std::fs;

use anyhow::{Context, Result};

use crate::{
    cgroup,
    netns::{End, link},
    plan,
    process::{Place, Process},
    testbed::Testbed,
    wait::{START, until},
};

/// A container's id.
const CONTAINER: &str = "cc0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd";

/// One of them.
#[derive(Debug)]
pub struct CrowdPod {
    /// Its UID.
    pub uid: String,
    /// Where its container's processes run.
    pub place: Place,
    address: String,
    container: Process,
}

/// The pods, and what probes them.
#[derive(Debug)]
pub struct Crowd {
    /// The pods. Each has an interface of its own on the node, of the names `pod100` and so on.
    pub pods: Vec<CrowdPod>,
    kubelet: Process,
    /// Lines about pods that did not listen yet.
    early: usize,
}

impl Crowd {
    /// Starts so many, up to a hundred, and waits until all of them are served.
    ///
    /// # Errors
    /// Something can't be set up.
    pub fn start(testbed: &Testbed, count: u8) -> Result<Self> {
        let script = testbed.dir().join("crowd.py");
        fs::write(&script, include_str!("crowd.py")).context("crowd.py")?;
        let script = script.to_string_lossy();
        routes(testbed)?;
        let pods =
            (100..100 + count.min(100)).map(|number| CrowdPod::start(testbed, &script, number));
        let pods = pods.collect::<Result<Vec<_>>>()?;
        let mut args = vec![&*script, "node"];
        args.extend(pods.iter().map(|pod| &*pod.address));
        let kubelet = testbed.app().start(&testbed.dir(), "kubelet", "/usr/bin/python3", &args)?;
        let mut crowd = Self { pods, kubelet, early: 0 };
        // Whoever is probed before it listens fails, as with kubelet.
        crowd.served(1)?;
        crowd.early = failed(&crowd.kubelet).len();
        Ok(crowd)
    }

    /// Waits until all pods have been probed, and have found a name, so many times more.
    ///
    /// # Errors
    /// One isn't.
    pub fn served(&self, times: usize) -> Result<()> {
        let all = || self.pods.iter().map(|pod| &pod.container).chain([&self.kubelet]);
        let count = |of: &Process| of.stdout().lines().filter(|line| *line == "ok").count();
        let before: Vec<usize> = all().map(count).collect();
        until(START, "every pod to be served", || {
            all().zip(&before).all(|(of, before)| count(of) >= before + times).then_some(())
        })
        .with_context(|| self.failures().join("\n"))
    }

    /// Probes and look-ups that failed since the start.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let probes = failed(&self.kubelet).split_off(self.early);
        let names = self.pods.iter().flat_map(|pod| failed(&pod.container));
        names.chain(probes).collect()
    }
}

/// The way back to all pods of the app node.
///
/// # Errors
/// The kernel refuses.
pub fn routes(testbed: &Testbed) -> Result<()> {
    for ns in [&testbed.outside().ns, &testbed.gateway(0).ns] {
        ns.ip(&["route", "add", "10.244.0.0/16", "via", plan::APP])?;
    }
    Ok(())
}

/// A pod without a process: its cgroup, its network namespace and its interface.
#[derive(Debug)]
pub struct EmptyPod {
    /// Its UID.
    pub uid: String,
    /// Where its container's processes are to run.
    pub place: Place,
    /// Its address.
    pub address: String,
}

fn failed(of: &Process) -> Vec<String> {
    let text = of.stdout() + &of.stderr();
    text.lines().filter(|line| *line != "ok").map(str::to_owned).collect()
}

impl EmptyPod {
    /// The UID of the pod of this number.
    #[must_use]
    pub fn uid(number: u8) -> String {
        format!("00000000-0000-4000-8000-{number:012x}")
    }

    /// The address of the pod of this number.
    #[must_use]
    pub fn address(number: u8) -> String {
        format!("10.244.{number}.10")
    }

    /// In the order in which kubelet and a container runtime make them. Its interface on the node is `pod` and the
    /// number.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn create(testbed: &Testbed, number: u8) -> Result<Self> {
        let (uid, name) = (Self::uid(number), format!("pod{number}"));
        let site = testbed.site();
        let cgroup = site.cgroup(&format!("kubepods/besteffort/pod{uid}"))?.join(CONTAINER);
        let place = Place {
            ns: site.netns(&name)?,
            cgroup: cgroup::create(&cgroup)?,
            ..testbed.pod().clone()
        };
        // Only what this test is about.
        for of in ["all", "default"] {
            place.ns.sysctl(&format!("ipv6/conf/{of}/disable_ipv6"), "1")?;
        }
        let (address, router) = (Self::address(number), format!("10.244.{number}.1"));
        link(
            &End {
                ns: &place.ns,
                name: "eth0",
                mac: &format!("02:00:0a:f4:{number:02x}:0a"),
                addresses: &[&format!("{address}/24")],
            },
            &End {
                ns: &testbed.app().ns,
                name: &name,
                mac: &format!("02:00:0a:f4:{number:02x}:01"),
                addresses: &[&format!("{router}/24")],
            },
        )?;
        place.ns.ip(&["route", "add", "default", "via", &router])?;
        Ok(Self { uid, place, address })
    }
}

impl CrowdPod {
    fn start(testbed: &Testbed, script: &str, number: u8) -> Result<Self> {
        let EmptyPod { uid, place, address } = EmptyPod::create(testbed, number)?;
        let args = [script, "pod", plan::CLUSTER_DNS, plan::HOST];
        let name = format!("pod{number}");
        let container = place.start(&testbed.dir(), &name, "/usr/bin/python3", &args)?;
        Ok(Self { uid, place, address, container })
    }
}

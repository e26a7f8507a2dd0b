//! A pod on a node, laid out as kubelet and containerd lay it out: a cgroup of the pod, in it one of the
//! sandbox, whose process holds the network namespace, and one of a container.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{
    cgroup,
    process::{Place, Process},
    testbed::Testbed,
};

/// A container's id.
const SANDBOX: &str = "aa0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd";
const CONTAINER: &str = "bb0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd";

/// A pod; its cgroup goes with it.
#[derive(Debug)]
pub struct KubeletPod {
    /// Where its container's processes run.
    pub place: Place,
    cgroup: PathBuf,
    sandbox: Option<Process>,
}

impl KubeletPod {
    /// Where kubelet has its pods.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn root(testbed: &Testbed) -> Result<PathBuf> {
        testbed.site().cgroup("kubepods")
    }

    /// The pod's cgroup, before there is a sandbox.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn create(testbed: &Testbed, uid: &str) -> Result<Self> {
        let cgroup = testbed.site().cgroup(&format!("kubepods/burstable/pod{uid}"))?;
        let place = Place { cgroup: cgroup.join(CONTAINER), ..testbed.pod().clone() };
        Ok(Self { place, cgroup, sandbox: None })
    }

    /// The sandbox and the container's cgroup.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn run(&mut self, testbed: &Testbed) -> Result<()> {
        let sandbox =
            Place { cgroup: cgroup::create(&self.cgroup.join(SANDBOX))?, ..self.place.clone() };
        self.sandbox = Some(sandbox.start(&testbed.dir(), "pause", "sleep", &["3600"])?);
        cgroup::create(&self.place.cgroup).context("the container's cgroup").map(drop)
    }

    /// Ends the pod: its processes, then its cgroup.
    ///
    /// # Errors
    /// Something survives.
    pub fn end(&mut self) -> Result<()> {
        self.sandbox = None;
        cgroup::remove(&self.cgroup)
    }
}

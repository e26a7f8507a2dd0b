//! Starting the program under test on the testbed's hosts.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    process::{Place, Process},
    testbed::Testbed,
    wait,
};

impl Testbed {
    /// Starts an agent on a host.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start_agent(&self, place: &Place, name: &str, args: &[String]) -> Result<Process> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        place.start(&self.dir(), name, &self.agent().to_string_lossy(), &args)
    }

    /// Starts the node agent and waits until it enforces its configuration.
    ///
    /// # Errors
    /// It ends, or doesn't enforce within the limit.
    pub fn start_node(&self) -> Result<Process> {
        self.start_node_with(&self.node_args())
    }

    /// The same with other arguments.
    ///
    /// # Errors
    /// As for [`Self::start_node`].
    pub fn start_node_with(&self, args: &[String]) -> Result<Process> {
        self.start_node_at(self.app(), args)
    }

    /// The same in another place, such as one with an environment of its own.
    ///
    /// # Errors
    /// As for [`Self::start_node`].
    pub fn start_node_at(&self, place: &Place, args: &[String]) -> Result<Process> {
        // An earlier one wrote to the same file.
        let earlier = fs::read(self.dir().join("node.err")).map_or(0, |text| text.len());
        let mut node = self.start_agent(place, "node", args)?;
        wait::until(wait::START, "the node agent to enforce", || {
            // It denies everything first, and is ready once the configuration is in force.
            let text = node.stderr();
            let ready = text.get(earlier..)?.lines().any(|line| line.ends_with(" ready"));
            (ready || node.ended().is_some()).then_some(())
        })
        .with_context(|| node.stderr())?;
        if let Some(status) = node.ended() {
            anyhow::bail!("egress-agent node: {status}\n{}", node.stderr());
        }
        Ok(node)
    }

    /// Starts a gateway and waits until it is ready.
    ///
    /// # Errors
    /// It ends, or isn't ready within the limit.
    pub fn start_gateway(&self, number: usize) -> Result<Process> {
        self.start_gateway_with(number, &[])
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// As for [`Self::start_gateway`].
    pub fn start_gateway_with(&self, number: usize, more: &[String]) -> Result<Process> {
        self.start_gateway_from(self.agent(), number, more)
    }

    /// The same, started from this path.
    ///
    /// # Errors
    /// As for [`Self::start_gateway`].
    pub fn start_gateway_from(
        &self,
        program: &Path,
        number: usize,
        more: &[String],
    ) -> Result<Process> {
        self.start_gateway_at(self.gateway(number), program, number, more)
    }

    /// The same in another place, such as one with an environment of its own.
    ///
    /// # Errors
    /// As for [`Self::start_gateway`].
    pub fn start_gateway_at(
        &self,
        place: &Place,
        program: &Path,
        number: usize,
        more: &[String],
    ) -> Result<Process> {
        let name = format!("gateway{}", number + 1);
        let mut args = self.gateway_args_with(&self.gateway_control(number));
        // An option is given once: what the test says takes the place of the usual value.
        for option in more.iter().filter(|arg| arg.starts_with("--")) {
            if let Some(at) = args.iter().position(|arg| arg == option) {
                args.drain(at..at + 2);
            }
        }
        args.extend_from_slice(more);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut gateway = place.start(&self.dir(), &name, &program.to_string_lossy(), &args)?;
        wait::until(wait::START, "the gateway to be ready", || {
            let ready = place.run("curl", &["-sf", "http://localhost:15021/healthz/ready"]);
            (ready.is_ok_and(|ready| ready.ok()) || gateway.ended().is_some()).then_some(())
        })
        .with_context(|| gateway.stderr())?;
        if let Some(status) = gateway.ended() {
            anyhow::bail!("egress-agent gateway: {status}\n{}", gateway.stderr());
        }
        Ok(gateway)
    }
}

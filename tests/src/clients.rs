//! What a test asks the hosts: curl and attacks from the pod, counters of the agents.

use anyhow::{Context, Result};

use crate::{
    process::{Finished, Place},
    testbed::Testbed,
    wait,
};

/// Curl's limit, in this machine's seconds.
fn max_time(seconds: u32) -> String {
    (seconds * wait::patience()).to_string()
}

impl Testbed {
    /// Real curl in the pod, silent and at most ten seconds; it trusts the outside's authority.
    ///
    /// # Errors
    /// It can't be started.
    pub fn curl(&self, args: &[&str]) -> Result<Finished> {
        let limit = max_time(10);
        let mut all = vec!["-s", "--max-time", &limit];
        all.extend(args);
        self.pod().run("curl", &all)
    }

    /// The statuses that curl saw on its way, as `301 200`; or `curl: (35)` and the like.
    ///
    /// # Errors
    /// It can't be started.
    pub fn curl_status(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["-o", "/dev/null", "-D", "-"];
        all.extend(args);
        let done = self.curl(&all)?;
        if !done.ok() {
            return Ok(format!("curl: ({})", done.code));
        }
        let statuses = done.stdout.lines().filter(|line| line.starts_with("HTTP/"));
        let codes = statuses.filter_map(|line| line.split(' ').nth(1));
        Ok(codes.collect::<Vec<_>>().join(" "))
    }

    /// One packet made by hand, see `frame.py`: exit code 1 refused, 2 sent.
    ///
    /// # Errors
    /// It can't be started.
    pub fn frame(&self, place: &Place, args: &[&str]) -> Result<Finished> {
        place.run("/usr/bin/python3", &[&["-c", include_str!("frame.py")], args].concat())
    }

    /// `curl -s localhost:15000/PATH` on a gateway node.
    ///
    /// # Errors
    /// It can't be started.
    pub fn admin(&self, number: usize, path: &str) -> Result<String> {
        let url = format!("localhost:15000/{path}");
        Ok(self.gateway(number).run("curl", &["-s", "--max-time", &max_time(5), &url])?.stdout)
    }

    /// A counter of `/stats` on a gateway node; 0 where it isn't there yet.
    ///
    /// # Errors
    /// `/stats` can't be read.
    pub fn stat(&self, number: usize, name: &str) -> Result<u64> {
        let stats = self.admin(number, "stats")?;
        let value = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map_or(Ok(0), |value| value.trim().parse().with_context(|| value.to_owned()))
    }

    /// The node agent's Prometheus metrics.
    ///
    /// # Errors
    /// They can't be read.
    pub fn node_metrics(&self) -> Result<String> {
        let url = "http://127.0.0.1:15020/metrics";
        Ok(self.app().run("curl", &["-s", "--max-time", &max_time(5), url])?.stdout)
    }
}

//! What a test asks the hosts: curl and attacks from the pod, counters of the agents.

use anyhow::{Context, Result};

use crate::{
    process::{Finished, Place, Process},
    testbed::Testbed,
    wait,
};

impl Place {
    /// The statuses of so many requests from here, on one connection as far as it stays open; 0 where there was no
    /// answer.
    ///
    /// # Errors
    /// Curl can't be started.
    pub fn statuses(&self, url: &str, count: usize) -> Result<Vec<u16>> {
        let limit = max_time(20);
        let urls = format!("{url}?n=[1-{count}]");
        let args = ["-s", "-o", "/dev/null", "-m", &limit, "-w", "%{http_code}\n", &urls];
        let text = self.run("curl", &args)?.stdout;
        let status = |line: &str| line.parse().with_context(|| line.to_owned());
        text.lines().map(status).collect()
    }
}

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

    /// Starts a server outside: a Python script, whose first argument is the TCP port that it listens on.
    ///
    /// # Errors
    /// It can't be started, or does not listen within the limit.
    pub fn serve_python(&self, name: &str, script: &str, args: &[&str]) -> Result<Process> {
        let all = [&["-c", script][..], args].concat();
        let server = self.outside().start(&self.dir(), name, "python3", &all)?;
        let port = format!(":{}", args.first().context("no port")?);
        wait::until(wait::SOON, "the server to listen", || {
            let listening = self.outside().run("ss", &["-Hltn"]).ok()?.stdout;
            listening.contains(&port).then_some(())
        })
        .with_context(|| server.stderr())?;
        Ok(server)
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

//! The demo's hosts and agents, and what can be asked of them.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use egress_tests::{
    cgroup, mtls, plan,
    process::{Finished, Process},
    testbed::{Testbed, mesh_yaml},
    wait,
    wiring::{Checksums, uplink_checksums},
};

use crate::screen::Screen;

/// The hosts, the agents that run on them, and the screen.
pub(crate) struct Stage {
    pub(crate) screen: Screen,
    pub(crate) testbed: Testbed,
    pub(crate) gateways: Vec<Process>,
    node: Option<Process>,
    servers: Process,
    /// Mutual TLS between node and gateway.
    mtls: bool,
    /// Bytes of each log, the gateways' and then the node's, that are older than the last command.
    mark: Vec<usize>,
}

impl Stage {
    /// Builds the hosts. No agent runs yet.
    pub(crate) fn set(mtls: bool, checksums: Checksums) -> Result<Self> {
        let screen = Screen::new();
        println!("Building hosts in network namespaces: a pod, an app node, two gateway nodes,");
        println!("and external hosts with DNS, HTTP and HTTPS at documentation addresses.");
        let (testbed, servers) = Testbed::demo(2)?;
        uplink_checksums(&testbed.app().ns, checksums)?;
        if checksums == Checksums::Left {
            println!("The app node's uplink leaves checksums as they are.");
        }
        if mtls {
            testbed.prepare_mtls(2)?;
            // The log as the other form has it.
            testbed.apply_mesh(&mtls::mesh(2).replace("accessLogEncoding: JSON\n", ""))?;
        } else {
            testbed.apply_mesh(&(mesh_yaml(2) + &workload(&testbed)?))?;
        }
        let (gateways, mark) = (Vec::new(), Vec::new());
        Ok(Self { screen, testbed, gateways, node: None, servers, mtls, mark })
    }

    /// Starts both gateways, then enforcement.
    pub(crate) fn start_agents(&mut self) -> Result<()> {
        for number in 0..2 {
            let host = self.testbed.gateway(number).ns.name().to_owned();
            let control = self.testbed.gateway_control(number);
            let mut args = self.testbed.gateway_args_with(&control);
            if self.mtls {
                args.extend(self.testbed.identity_args("gateway"));
            }
            self.screen.command(&host, &command_line(&args));
            let gateway = self.start_gateway(number)?;
            self.gateways.push(gateway);
        }
        let host = self.testbed.app().ns.name().to_owned();
        let mut args = self.testbed.node_args();
        if self.mtls {
            args.extend(self.testbed.identity_args("node"));
            args.extend(Testbed::tunnel_args());
        }
        self.screen.command(&host, &command_line(&args));
        self.node = Some(self.testbed.start_node_with(&args)?);
        Ok(())
    }

    /// Starts one gateway, in the form of this demo.
    pub(crate) fn start_gateway(&self, number: usize) -> Result<Process> {
        if self.mtls {
            self.testbed.start_gateway_mtls(number)
        } else {
            self.testbed.start_gateway(number)
        }
    }

    /// Puts a file of a step into the agents' configuration.
    pub(crate) fn apply(&self, name: &str, text: &str) -> Result<()> {
        self.screen.fact("apply", name);
        let file = name.rsplit('/').next().unwrap_or(name);
        let certificates = self.testbed.dir().join("gateway");
        self.testbed.apply(file, &text.replace("/etc/certs", &certificates.to_string_lossy()))
    }

    /// Takes every resource out of the configuration.
    pub(crate) fn delete_all(&self) -> Result<()> {
        let mut names: Vec<String> = fs::read_dir(self.testbed.config())?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.sort();
        for name in names {
            self.screen.fact("delete", &name);
            self.testbed.delete(&name)?;
        }
        Ok(())
    }

    /// Forgets what the logs hold so far: the next command begins.
    pub(crate) fn mark(&mut self) {
        self.mark = self.logs().iter().map(String::len).collect();
    }

    fn logs(&self) -> Vec<String> {
        self.gateways.iter().chain(&self.node).map(Process::stdout).collect()
    }

    /// The newest line since the last mark that is as wanted, waiting for it.
    fn line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let find = || {
            let logs = self.logs();
            let fresh = logs
                .iter()
                .enumerate()
                .filter_map(|(number, log)| log.get(self.mark.get(number).copied().unwrap_or(0)..));
            let mut lines = fresh.flat_map(|log| log.lines().rev());
            lines.find(|line| wanted(line)).map(str::to_owned)
        };
        wait::until(Duration::from_secs(5), what, find).ok()
    }

    /// The statuses that curl sees, once they are as wanted (`301 200`, or `curl: (35)` where it
    /// fails); the last ones where they never are.
    pub(crate) fn statuses(&mut self, args: &[&str], wanted: &str) -> Result<String> {
        let mut all = vec!["-S", "-o", "/dev/null", "-D", "-"];
        all.extend(args);
        self.screen.command("pod", &format!("curl -s{}", all.join(" ").trim_start_matches('-')));
        self.mark();
        let ask = || self.testbed.curl(&all).map(|done| (statuses(&done), done));
        let start = Instant::now();
        let (seen, done) = loop {
            let (seen, done) = ask()?;
            let is_there = seen == wanted && self.gateways_agree()?;
            if is_there || start.elapsed() > wait::SOON {
                break (seen, done);
            }
            // A change of the configuration takes a moment to arrive, at each gateway its own.
            thread::sleep(Duration::from_millis(50));
        };
        let shown = |line: &&str| line.starts_with("HTTP/") || line.starts_with("location:");
        let head: Vec<&str> = done.stdout.lines().filter(shown).collect();
        self.screen.output(&head.join("\n"));
        self.screen.output(&done.stderr);
        Ok(seen)
    }

    /// Whether the gateways that run have the same rules in force: the next connection may go to any.
    fn gateways_agree(&self) -> Result<bool> {
        let dumps = (0..self.gateways.len())
            .map(|number| self.testbed.admin(number, "config_dump?resource=gateway"));
        let mut dumps: Vec<String> = dumps.collect::<Result<_>>()?;
        dumps.retain(|dump| !dump.is_empty());
        dumps.dedup();
        Ok(dumps.len() <= 1)
    }

    /// What curl shows, body and error message.
    pub(crate) fn curl(&mut self, args: &[&str]) -> Result<Finished> {
        let mut shown = vec!["curl", "-sS"];
        shown.extend(args);
        self.screen.command("pod", &shown.join(" "));
        let mut all = vec!["-S"];
        all.extend(args);
        self.mark();
        let done = self.testbed.curl(&all)?;
        self.screen.output(&done.stdout);
        self.screen.output(&done.stderr);
        Ok(done)
    }

    /// The line of the gateways' access logs that holds all of `words`.
    pub(crate) fn log_line(&self, words: &[&str]) -> Option<String> {
        let holds = |line: &str| words.iter().all(|word| line.contains(word));
        let line = self.line("the access log", holds)?;
        self.screen.fact("gateway's access log", &line);
        Some(line)
    }

    /// The node's flow event with this reason.
    pub(crate) fn event(&self, reason: &str) -> Option<String> {
        let reason = format!("({reason})");
        let event = self.line("a flow event", |line| line.contains(&reason))?;
        self.screen.fact("flow event", &event);
        Some(event)
    }

    /// A counter of `/stats`, both gateways together.
    pub(crate) fn stat(&self, name: &str) -> Result<u64> {
        (0..self.gateways.len()).map(|number| self.testbed.stat(number, name)).sum()
    }

    /// Whether the node refuses what no packet hook sees: its kernel asks BPF among the security modules.
    pub(crate) fn asks_security_module(&self) -> bool {
        self.node.as_ref().is_none_or(|node| !node.stderr().contains("NOT refused"))
    }

    /// The node's counters of refusals by reason, and the gateways'.
    pub(crate) fn denials(&self) -> Result<Vec<(String, u64)>> {
        let metrics = |place: &egress_tests::process::Place, url: &str| -> Result<String> {
            Ok(place.run("curl", &["-s", "--max-time", "5", url])?.stdout)
        };
        let mut text = metrics(self.testbed.app(), "127.0.0.1:15020/metrics")?
            .lines()
            .filter(|line| line.contains("action=\"deny\""))
            .fold(String::new(), |text, line| text + line + "\n");
        for number in 0..2 {
            let gateway =
                metrics(self.testbed.gateway(number), "127.0.0.1:15090/stats/prometheus")?;
            let denied = gateway.lines().filter(|line| line.starts_with("egress_denied_total"));
            text.extend(denied.flat_map(|line| [line, "\n"]));
        }
        text.lines().map(denial).collect()
    }

    /// Leaves all of it running.
    pub(crate) fn keep(self) {
        for process in self.gateways.into_iter().chain(self.node).chain([self.servers]) {
            process.keep();
        }
        self.testbed.keep();
    }
}

/// The pod as a workload of `mesh.yaml`, so that logs and events name it.
fn workload(testbed: &Testbed) -> Result<String> {
    let pod = cgroup::below_mount(&testbed.pod().cgroup)?;
    Ok(format!(
        "workloads:\n- name: web\n  namespace: shop\n  labels: {{app: web}}\n  \
         addresses: [{}, \"{}\"]\n  cgroups: [{pod}]\n  interface: {}\n",
        plan::POD,
        plan::POD_V6,
        plan::POD_INTERFACE
    ))
}

/// `egress_…{…,reason="no_route"} 3` as its reason and number.
fn denial(line: &str) -> Result<(String, u64)> {
    let reason = line.split("reason=\"").nth(1).and_then(|rest| rest.split('"').next());
    let count = line.rsplit(' ').next().and_then(|count| count.parse().ok());
    Ok((
        reason.with_context(|| format!("no reason in {line}"))?.to_owned(),
        count.with_context(|| format!("no number in {line}"))?,
    ))
}

/// The statuses of curl's headers, or how it failed.
fn statuses(done: &Finished) -> String {
    if !done.ok() {
        return format!("curl: ({})", done.code);
    }
    let lines = done.stdout.lines().filter(|line| line.starts_with("HTTP/"));
    let codes: Vec<&str> = lines.filter_map(|line| line.split(' ').nth(1)).collect();
    codes.join(" ")
}

fn command_line(args: &[String]) -> String {
    format!("egress-agent {}", args.join(" "))
}

/// What a command gives away of its end: the last line that it wrote.
pub(crate) fn last_line(done: &Finished) -> String {
    let text = [done.stdout.trim(), done.stderr.trim()].join("\n");
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no output");
    let line: String = line.trim().chars().take(70).collect();
    format!("{line} (exit code {})", done.code)
}

/// The attacker's address as a URL's host.
pub(crate) fn url_v6(address: &str) -> String {
    format!("[{address}]")
}

/// The host of the walkthrough over HTTP.
pub(crate) fn politics() -> String {
    format!("http://{}/politics", plan::HOST)
}

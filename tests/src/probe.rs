//! `egress-agent probe` in the testbed: attempts from a host, and the canary outside.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    plan,
    process::{Finished, Place, Process},
    testbed::Testbed,
    wait,
};

/// The canary's ports: enough that each attempt has its own, by which its events are told apart.
pub const PORTS: &str = "7000-7255";

/// One attempt, made.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// With its family: `udplite-v6`.
    pub name: String,
    /// Without.
    pub attempt: String,
    /// Whether it was made over IPv6.
    pub v6: bool,
    /// What it is an example of.
    pub kinds: Vec<String>,
    /// The canary's port that it was sent to, if it has none of its own.
    pub port: u16,
    /// `answered`, `no_answer`, `intercepted`, `refused`, `not_applicable`, `error`.
    pub result: String,
    /// Where it was stopped, as far as the sender can tell.
    pub layer: Option<String>,
    /// The error of a refusal.
    pub errno: Option<String>,
    /// The rest.
    pub detail: String,
}

/// A run of the probe.
#[derive(Clone, Debug)]
pub struct Run {
    /// What its tokens carry.
    pub id: String,
    /// What it tried.
    pub attempts: Vec<Attempt>,
    /// 1 if something got out.
    pub code: i32,
}

impl Run {
    /// # Errors
    /// It isn't what `-o json` prints.
    fn read(done: &Finished) -> Result<Self> {
        // With `--hold` a line for the other side comes first.
        let json = done.stdout.find('{').map_or("", |at| &done.stdout[at..]);
        let read = || -> Option<Self> {
            let value: Value = serde_json::from_str(json).ok()?;
            let attempts = value["attempts"].as_array()?.iter().map(Attempt::read);
            Some(Self {
                id: value["probe"].as_str()?.to_owned(),
                attempts: attempts.collect::<Option<_>>()?,
                code: done.code,
            })
        };
        read().with_context(|| format!("the probe said: {done:?}"))
    }
}

impl Attempt {
    fn read(value: &Value) -> Option<Self> {
        let text = |name: &str| Some(value[name].as_str()?.to_owned());
        let kinds = value["kinds"].as_array()?.iter();
        Some(Self {
            name: text("name")?,
            attempt: text("attempt")?,
            v6: value["family"].as_str()? == "IPv6",
            kinds: kinds.filter_map(|kind| Some(kind.as_str()?.to_owned())).collect(),
            port: u16::try_from(value["port"].as_u64()?).ok()?,
            result: text("result")?,
            layer: text("layer"),
            errno: text("errno"),
            detail: text("detail")?,
        })
    }

    /// One line of a table.
    #[must_use]
    pub fn line(&self) -> String {
        let layer = self.layer.as_deref().unwrap_or("-");
        format!("{:<22}{:<16}{layer:<16}{}", self.name, self.result, self.detail)
    }
}

/// The canary at the attacker's addresses.
#[derive(Debug)]
pub struct Canary(Process);

impl Canary {
    /// Attempts of a run that arrived so far.
    #[must_use]
    pub fn arrived(&self, run: &str) -> BTreeSet<String> {
        let text = self.0.stdout();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_run = lines.filter(|line| line["probe"] == run);
        of_run.filter_map(|line| Some(line["arrived"].as_str()?.to_owned())).collect()
    }

    /// All that it wrote.
    #[must_use]
    pub fn said(&self) -> String {
        self.0.stdout()
    }
}

impl Testbed {
    /// Starts the canary at the attacker's addresses.
    ///
    /// # Errors
    /// It ends, or doesn't listen within the limit.
    pub fn canary(&self) -> Result<Canary> {
        let args =
            ["probe", "--canary-server", plan::ATTACKER, plan::ATTACKER_V6, "--ports", PORTS];
        let mut args = args.map(str::to_owned).to_vec();
        args.extend(["-o".to_owned(), "json".to_owned()]);
        let mut canary = self.start_agent(self.outside(), "canary", &args)?;
        wait::until(wait::SOON, "the canary to listen", || {
            let listens = canary.stderr().contains("the canary listens");
            (listens || canary.ended().is_some()).then_some(())
        })?;
        if canary.ended().is_some() {
            bail!("the canary ended: {}", canary.stderr());
        }
        Ok(Canary(canary))
    }

    /// Every attempt (or those that `more` names) to the attacker's addresses.
    ///
    /// # Errors
    /// The probe can't be started, or fails.
    pub fn probe_all(&self, place: &Place, more: &[&str]) -> Result<Run> {
        let mut args = vec![plan::ATTACKER, plan::ATTACKER_V6, "--ports", PORTS];
        args.extend(["--gateway", plan::GATEWAYS[0]]);
        let timeout = patient_seconds(1);
        if !more.contains(&"--timeout") {
            args.extend(["--timeout", &timeout]);
        }
        args.extend(more);
        Run::read(&self.run_probe(place, &args)?)
    }

    /// One attempt from the pod, `[NAME, ADDRESS, PORT]` or without the port. The exit code is 0 for
    /// answered, 1 for refused, 2 for no answer; standard output says more.
    ///
    /// # Errors
    /// It can't be started.
    pub fn probe(&self, args: &[&str]) -> Result<Finished> {
        self.probe_from(self.pod(), args)
    }

    /// The same from another place.
    ///
    /// # Errors
    /// It can't be started.
    pub fn probe_from(&self, place: &Place, args: &[&str]) -> Result<Finished> {
        let [way, address, port @ ..] = args else {
            bail!("found {args:?}, expected an attempt's name, an address, and perhaps a port");
        };
        let timeout = patient_seconds(1);
        let mut all = vec![*address, "--only", way, "--timeout", &timeout];
        if let [port] = port {
            all.extend(["--ports", port]);
        }
        let done = self.run_probe(place, &all)?;
        let run = Run::read(&done)?;
        let [attempt] = &run.attempts[..] else {
            bail!("{} attempts: {run:?}", run.attempts.len())
        };
        let code = match &*attempt.result {
            "answered" => 0,
            "refused" => 1,
            "no_answer" | "intercepted" => 2,
            _ => 3,
        };
        let stdout = format!("{}: {}\n", attempt.result.replace('_', " "), attempt.detail);
        Ok(Finished { code, stdout, stderr: done.stderr })
    }

    fn run_probe(&self, place: &Place, args: &[&str]) -> Result<Finished> {
        let mut all = vec!["probe", "-o", "json"];
        all.extend(args);
        place.run_for(Duration::from_secs(60), &self.agent().to_string_lossy(), &all)
    }
}

/// Seconds of an ordinary machine, as many as they are on this one.
#[must_use]
pub fn patient_seconds(seconds: u32) -> String {
    format!("{}s", seconds * wait::patience())
}

/// A probe that holds sockets and waits to be told to use them.
#[derive(Debug)]
pub struct Holding(std::process::Child);

impl Holding {
    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Lets it use its sockets.
    ///
    /// # Errors
    /// It fails.
    pub fn go(mut self) -> Result<Run> {
        use std::io::{Read, Write};
        let (stdin, stdout) = (self.0.stdin.take(), self.0.stdout.take());
        stdin.context("no standard input")?.write_all(b"go\n")?;
        let mut said = String::new();
        stdout.context("no standard output")?.read_to_string(&mut said)?;
        let code = self.0.wait()?.code().unwrap_or(128);
        Run::read(&Finished { code, stdout: said, stderr: String::new() })
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Testbed {
    /// Starts a probe that has opened its sockets when this returns.
    ///
    /// # Errors
    /// It can't be started, or ends early.
    pub fn hold(&self, place: &Place) -> Result<Holding> {
        self.hold_for(place, &patient_seconds(1))
    }

    /// The same, where each attempt waits so long for an answer.
    ///
    /// # Errors
    /// As for [`Self::hold`].
    pub fn hold_for(&self, place: &Place, timeout: &str) -> Result<Holding> {
        use std::io::Read;
        let args = ["probe", "-o", "json", "--hold", "--timeout", timeout, "--ports", PORTS];
        let args = [&args[..], &[plan::ATTACKER, plan::ATTACKER_V6]].concat();
        let mut child = place
            .command(&self.agent().to_string_lossy(), &args)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let mut ready = [0; 8];
        let stdout = child.stdout.as_mut().context("no standard output")?;
        stdout.read_exact(&mut ready).context("the probe ended early")?;
        Ok(Holding(child))
    }
}

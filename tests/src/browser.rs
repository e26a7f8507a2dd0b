//! Browsers without a window: Chromium, driven over the DevTools protocol, and Firefox, for one page.
//!
//! Each runs on a host of the testbed like any other client: with that host's network, cgroup and name servers. It
//! has a profile of its own, and trusts the outside's authority as people have it trust theirs: by its database
//! of certificates.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::{
    process::{Place, Process},
    sh, wait,
};

/// It takes a while to start on a machine that has other things to do.
const ANSWER: Duration = Duration::from_secs(60);
/// The protocol's file descriptors are 3 and 4.
const SCRIPT: &str = "exec \"$@\" 3<&0 4>&1 </dev/null >&2";
/// What it would do by itself: its maker's servers are not outside.
const QUIET: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-pipe",
];

/// The same for Firefox, as its preferences.
const FIREFOX: &str = "user_pref(\"browser.aboutwelcome.enabled\", false);
user_pref(\"datareporting.policy.dataSubmissionEnabled\", false);
user_pref(\"network.captive-portal-service.enabled\", false);
user_pref(\"network.connectivity-service.enabled\", false);
";

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: mpsc::Receiver<Value>,
    last: u64,
    session: Option<String>,
    events: Vec<Value>,
    stderr: PathBuf,
}

impl Browser {
    /// Starts it on a host. Its profile is below `dir`, where `ca.pem` is what it trusts.
    ///
    /// # Errors
    /// `chromium` or `certutil` is missing, or it does not answer.
    pub fn start(place: &Place, dir: &Path, name: &str) -> Result<Self> {
        let home = dir.join(name);
        trust(&home.join(".pki/nssdb"), &dir.join("ca.pem"))?;
        let mut place = place.clone();
        // It leaves directories wherever temporary ones are.
        for name in ["HOME", "TMPDIR"] {
            place.env.push((name.to_owned(), home.to_string_lossy().into_owned()));
        }
        let profile = format!("--user-data-dir={}", home.join("profile").display());
        let args = [&["-c", SCRIPT, "sh", "chromium"], QUIET, &[&profile, "about:blank"]].concat();
        let stderr = dir.join(format!("{name}.err"));
        let mut child = place
            .command("sh", &args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr)?)
            .spawn()
            .with_context(|| format!("cannot start chromium in {}", place.ns.name()))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("chromium was started without pipes");
        };
        let (from, last, session) = (listen(from), 0, None);
        let mut browser = Self { child, to, from, last, session, events: Vec::new(), stderr };
        let page = browser.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let target = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", &target)?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Network.enable", "Log.enable"] {
            browser.call(domain, &json!({}))?;
        }
        browser.call("Page.setLifecycleEventsEnabled", &json!({"enabled": true}))?;
        Ok(browser)
    }

    /// Asks for something of the protocol.
    ///
    /// # Errors
    /// The browser refuses, has ended, or does not answer.
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.last += 1;
        let id = self.last;
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.to.write_all(&bytes).with_context(|| self.complaint(method))?;
        let end = Instant::now() + wait::patiently(ANSWER);
        let answer = self.receive(method, end, |message| message["id"] == id)?;
        match answer.get("error") {
            Some(error) => bail!("{method}: {error}"),
            None => Ok(answer["result"].clone()),
        }
    }

    /// The next message that is `wanted`; events are kept.
    fn receive(
        &mut self,
        what: &str,
        end: Instant,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        loop {
            match self.from.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(message) => {
                    if message.get("method").is_some() {
                        self.events.push(message.clone());
                    }
                    if wanted(&message) {
                        return Ok(message);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no answer to {what}: {}", self.complaint(what))
                }
                Err(RecvTimeoutError::Disconnected) => bail!(self.complaint(what)),
            }
        }
    }

    fn complaint(&self, what: &str) -> String {
        let said = fs::read(&self.stderr).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        format!("{what}: chromium (package chromium) has ended or is stuck:\n{said}")
    }

    /// Loads a page. The browser's error where it could not, such as `net::ERR_CONNECTION_RESET`.
    ///
    /// # Errors
    /// The browser has ended or does not answer.
    pub fn open(&mut self, url: &str) -> Result<Option<String>> {
        self.events.clear();
        let begun = self.call("Page.navigate", &json!({"url": url}))?;
        if let Some(error) = begun["errorText"].as_str() {
            return Ok(Some(error.to_owned()));
        }
        // The page before it may have an event yet.
        let is_loaded = |message: &Value| {
            let params = &message["params"];
            message["method"] == "Page.lifecycleEvent"
                && params["name"] == "load"
                && params["loaderId"] == begun["loaderId"]
        };
        if !self.events.iter().any(is_loaded) {
            self.receive(url, Instant::now() + wait::patiently(ANSWER), is_loaded)?;
        }
        Ok(None)
    }

    /// What an expression has as its value in the page.
    ///
    /// # Errors
    /// It throws; the browser has ended or does not answer.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let params = json!({"expression": expression, "returnByValue": true});
        let done = self.call("Runtime.evaluate", &params)?;
        match done.get("exceptionDetails") {
            Some(thrown) => bail!("{expression}: {thrown}"),
            None => Ok(done["result"]["value"].clone()),
        }
    }

    /// Types text where the focus is.
    ///
    /// # Errors
    /// The browser has ended or does not answer.
    pub fn type_in(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", &json!({"text": text})).map(drop)
    }

    /// What the page has asked for since it was opened.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let sent = self.of("Network.requestWillBeSent");
        sent.filter_map(|event| event["request"]["url"].as_str()).map(str::to_owned).collect()
    }

    /// What the browser refused the page since it was opened, as its Content-Security-Policy says.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let entries = self.of("Log.entryAdded").map(|event| &event["entry"]);
        entries
            .filter(|entry| entry["source"] == "security")
            .map(|entry| entry["text"].to_string())
            .collect()
    }

    fn of(&self, method: &str) -> impl Iterator<Item = &Value> {
        let events = self.events.iter().filter(move |event| event["method"] == method);
        events.map(|event| &event["params"])
    }

    /// The page as it looks, as PNG.
    ///
    /// # Errors
    /// The browser has ended or does not answer.
    pub fn screenshot(&mut self, width: u32, height: u32) -> Result<Vec<u8>> {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size)?;
        let shot = self.call("Page.captureScreenshot", &json!({"format": "png"}))?;
        Ok(BASE64.decode(shot["data"].as_str().unwrap_or_default().as_bytes())?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // What it has started ends with it: their pipes close.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Firefox, without a window, on the way to a picture of a page: `DIR/NAME.png` is there when the page is loaded.
///
/// # Errors
/// `firefox-esr` or `certutil` is missing.
pub fn firefox(place: &Place, dir: &Path, name: &str, url: &str) -> Result<Process> {
    let home = dir.join(name);
    trust(&home, &dir.join("ca.pem"))?;
    fs::write(home.join("user.js"), FIREFOX)?;
    let mut place = place.clone();
    place.env.push(("HOME".to_owned(), home.to_string_lossy().into_owned()));
    let (profile, picture) = (home.to_string_lossy(), dir.join(format!("{name}.png")));
    let picture = picture.to_string_lossy();
    // A picture of a whole long page is more than it can make.
    let size = "--window-size=800,600";
    let args = ["--headless", "--profile", &profile, size, "--screenshot", &picture, url];
    place.start(dir, name, "firefox-esr", &args)
}

/// A database of certificates that has this authority's.
fn trust(database: &Path, authority: &Path) -> Result<()> {
    fs::create_dir_all(database)?;
    let database = format!("sql:{}", database.display());
    sh("certutil", &["-d", &database, "-N", "--empty-password"])
        .context("certutil is of the package libnss3-tools")?;
    let authority = authority.to_string_lossy();
    let add = ["-d", &database, "-A", "-n", "testbed", "-t", "C,,", "-i", &*authority];
    sh("certutil", &add).map(drop)
}

/// Messages as they come, each with a zero at its end.
fn listen(from: ChildStdout) -> mpsc::Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut bytes = Vec::new();
        while from.read_until(0, &mut bytes).is_ok_and(|read| read > 0) {
            bytes.pop();
            let sent = serde_json::from_slice(&bytes).ok().map(|message| sender.send(message));
            if sent.is_some_and(|sent| sent.is_err()) {
                return;
            }
            bytes.clear();
        }
    });
    receiver
}

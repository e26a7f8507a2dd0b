use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{live::FOLLOWERS, *};
use crate::{
    admin::{
        Admin, AdminPorts, AdminSources,
        tests::{status, telemetry},
    },
    telemetry::{FlowRecord, FlowVerdict, flow_tests::dropped},
};

const LONG: Duration = Duration::from_secs(20);

struct Bench {
    telemetry: Arc<Telemetry>,
    admin: Admin,
}

impl Bench {
    fn new(ui: bool) -> Self {
        let telemetry = Arc::new(telemetry());
        let sources = AdminSources { ui, ..AdminSources::default() };
        let ports = AdminPorts { admin: 0, health: 0, metrics: 0 };
        let admin =
            Admin::start(ports, sources, Arc::clone(&telemetry), Arc::new(status())).unwrap();
        Self { telemetry, admin }
    }

    fn send(&self, port: u16, line: &str, more: &str) -> TcpStream {
        let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    /// The whole answer.
    fn ask(&self, line: &str, more: &str) -> String {
        let more = format!("{more}Connection: close\r\n");
        let mut text = String::new();
        self.send(self.admin.ports().admin, line, &more).read_to_string(&mut text).unwrap();
        text
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path}"), "")
    }

    /// Follows, from the first sign of life on.
    fn follow(&self) -> Option<TcpStream> {
        let mut stream = self.send(self.admin.ports().admin, "GET /ui/flows", "");
        let seen = read_until(&mut stream, |text| text.contains(":\n\n") || text.contains(" 503 "));
        seen.starts_with("HTTP/1.1 200 ").then_some(stream)
    }
}

fn read_until(stream: &mut TcpStream, enough: impl Fn(&str) -> bool) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if enough(&text) {
            return text;
        }
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "it ended: {text}");
        seen.extend_from_slice(&buffer[..count]);
    }
}

/// A refusal of whatever a client has called its host.
fn refusal(host: &str) -> FlowRecord {
    FlowRecord {
        hook: "gateway".into(),
        verdict: FlowVerdict::Deny,
        reason: Some("host_not_in_registry".into()),
        host: Some(host.into()),
        detail: Some("two\nlines".into()),
        ..dropped()
    }
}

#[test]
fn it_is_off_unless_it_is_asked_for() {
    let off = Bench::new(false);
    for path in ["/ui", "/ui/summary", "/ui/flows", "/ui/page.js"] {
        let answer = off.get(path);
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("--admin-ui"), "{answer}");
    }
    let on = Bench::new(true);
    for path in ["/ui", "/ui/summary", "/ui/page.js", "/ui/page.css"] {
        let answer = on.get(path);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        assert!(
            answer.contains("content-security-policy: default-src 'none'; script-src 'self'"),
            "{answer}"
        );
        assert!(answer.contains("x-content-type-options: nosniff"), "{answer}");
    }
    // On the ports that others reach there is nothing of it.
    let AdminPorts { admin: _, health, metrics } = on.admin.ports();
    for port in [health, metrics] {
        let mut text = String::new();
        on.send(port, "GET /ui", "Connection: close\r\n").read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 404 "), "{text}");
    }
}

#[test]
fn other_pages_and_other_names_get_nothing() {
    let bench = Bench::new(true);
    let own = bench.ask("GET /ui/summary", "Sec-Fetch-Site: same-origin\r\n");
    assert!(own.starts_with("HTTP/1.1 200 "), "{own}");
    for foreign in [
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: http://a.example\r\n",
    ] {
        for path in ["/ui", "/ui/summary", "/ui/flows"] {
            let answer = bench.ask(&format!("GET {path}"), foreign);
            assert!(answer.starts_with("HTTP/1.1 403 "), "{path} {foreign}: {answer}");
        }
    }
    let posted = bench.ask("POST /ui/flows", "");
    assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
}

#[test]
fn the_summary_says_who_talks_to_what_and_what_is_refused() {
    let bench = Bench::new(true);
    for host in ["b.example", "<img src=x>", "b.example"] {
        bench.telemetry.flows.push(refusal(host));
    }
    let answer = bench.get("/ui/summary");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/json"), "{head}");
    let json: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&json["state"], &json["outbound_policy"]),
        (&"LIVE".into(), &"REGISTRY_ONLY".into())
    );
    let first = &json["refusals"][0];
    assert_eq!((&first["times"], &first["destination"]), (&2.into(), &"b.example:443".into()));
    assert_eq!(
        (&first["workload"], &first["reason"]),
        (&"default/web".into(), &"host_not_in_registry".into())
    );
    assert_eq!(json["refusals"][1]["destination"], "<img src=x>:443");
    let talk = &json["talks"][0];
    assert_eq!(talk["service"], "edition.cnn.com:443", "{json:#}");
}

#[test]
fn flows_arrive_as_they_happen_a_line_each() {
    let bench = Bench::new(true);
    let mut stream = bench.follow().unwrap();
    bench.telemetry.flows.push(refusal("new.example"));
    let seen = read_until(&mut stream, |text| text.contains("\n\n"));
    let line = seen.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let flow: FlowRecord = serde_json::from_str(line).unwrap();
    assert_eq!(flow, refusal("new.example"));
}

#[test]
fn followers_are_bounded_and_give_their_places_back() {
    let bench = Bench::new(true);
    let mut all: Vec<_> = (0..FOLLOWERS).map(|_| bench.follow().unwrap()).collect();
    assert!(bench.follow().is_none());
    assert!(bench.get("/ui/summary").starts_with("HTTP/1.1 200 "));
    drop(all.pop());
    let start = Instant::now();
    while bench.follow().is_none() {
        assert!(start.elapsed() < LONG, "a place becomes free");
    }
}

#[test]
fn the_page_has_nothing_inline_and_nothing_from_elsewhere() {
    for wanted in ["src=\"/ui/page.js\"", "href=\"/ui/page.css\""] {
        assert!(HTML.contains(wanted), "{wanted}");
    }
    let markup = HTML.to_ascii_lowercase();
    for bad in ["<style", "style=", "onclick", "onload", "javascript:", "http:", "https:", "//"] {
        assert!(!markup.contains(bad), "{bad}");
    }
    assert_eq!(markup.matches("<script").count(), 1);
    // What it shows is text: no way to make markup of it.
    for bad in
        ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("]
    {
        assert!(!SCRIPT.contains(bad), "{bad}");
    }
    for bad in ["url(", "@import", "http"] {
        assert!(!STYLE.contains(bad), "{bad}");
    }
    assert!(!POLICY.contains("unsafe"));
}

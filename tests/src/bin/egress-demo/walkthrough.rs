//! Istio's "Configure an Egress Gateway", step by step.

use anyhow::Result;
use egress_tests::{outside, plan};

use crate::stage::{Stage, last_line, politics};

/// A file of the examples, with its text.
macro_rules! example {
    ($name:literal) => {
        (concat!("deploy/", $name), include_str!(concat!("../../../../deploy/", $name)))
    };
}

pub(crate) use example;

pub(crate) type File = (&'static str, &'static str);

pub(crate) const SERVICE_ENTRY: File = example!("example/1-service-entry/service-entry.yaml");
const HTTP: [File; 2] = [
    example!("example/2-http-gateway/gateway.yaml"),
    example!("example/2-http-gateway/virtual-service.yaml"),
];
const ORIGINATION: [File; 3] = [
    example!("example/3-tls-origination/service-entry.yaml"),
    example!("example/3-tls-origination/gateway.yaml"),
    example!("example/3-tls-origination/virtual-service.yaml"),
];
const PASSTHROUGH: [File; 3] = [
    example!("example/4-https-passthrough/service-entry.yaml"),
    example!("example/4-https-passthrough/gateway.yaml"),
    example!("example/4-https-passthrough/virtual-service.yaml"),
];

/// All steps. At the end HTTPS passthrough is configured.
pub(crate) fn run(stage: &mut Stage) -> Result<()> {
    before(stage)?;
    enforcement(stage)?;
    service_entry(stage)?;
    http(stage)?;
    origination(stage)?;
    passthrough(stage)?;
    deletion(stage)?;
    failover(stage)
}

pub(crate) fn apply(stage: &Stage, files: &[File]) -> Result<()> {
    files.iter().try_for_each(|(name, text)| stage.apply(name, text))
}

pub(crate) fn before(stage: &mut Stage) -> Result<()> {
    stage.screen.step("Before: nothing enforces");
    stage.screen.say("The app node routes for the pod, so whatever the pod sends leaves.");
    let capture = stage.testbed.capture()?;
    let udp = plan::UDP_PORT.to_string();
    stage.screen.command("pod", &format!("send a UDP datagram to {}:{udp}", plan::ATTACKER));
    let done = stage.testbed.probe(&["udp", plan::ATTACKER, &udp])?;
    stage.screen.output(&done.stdout);
    let frames = capture.take();
    stage.screen.fact("capture outside", &format!("{} packets", frames.len()));
    let leaked = done.ok() && !frames.is_empty();
    stage.screen.check("the pod reaches an attacker's server", &last_line(&done), leaked);
    Ok(())
}

pub(crate) fn enforcement(stage: &mut Stage) -> Result<()> {
    stage.screen.step("Gateways and enforcement, no configuration yet");
    stage.start_agents()?;
    let done = stage.curl(&["--max-time", "5", &politics()])?;
    let refused = done.code == 7;
    stage.screen.check("without a ServiceEntry the host is refused", &last_line(&done), refused);
    Ok(())
}

fn service_entry(stage: &mut Stage) -> Result<()> {
    stage.screen.step("A ServiceEntry alone (direct: registry)");
    apply(stage, &[SERVICE_ENTRY])?;
    let seen = stage.statuses(&["-L", &politics()], "301 200")?;
    stage.screen.check("http: 301, then 200 over HTTPS", &seen, seen == "301 200");
    Ok(())
}

fn http(stage: &mut Stage) -> Result<()> {
    stage.screen.step("HTTP through the egress gateway");
    let before = stage.stat("cluster.outbound|80||edition.cnn.com.upstream_rq_total")?;
    apply(stage, &HTTP)?;
    let seen = stage.statuses(&["-L", &politics()], "301 200")?;
    stage.screen.check("the same output: 301, then 200", &seen, seen == "301 200");
    let line = stage.log_line(&["\"GET /politics HTTP/1.1\" 301 ", plan::HOST]);
    let after = stage.stat("cluster.outbound|80||edition.cnn.com.upstream_rq_total")?;
    let seen = format!("upstream_rq_total {before} → {after}");
    stage.screen.check("and the gateway logged it", &seen, line.is_some() && after > before);

    let done = stage.curl(&["http://www.example.com/"])?;
    let refused = done.stdout.contains("www.example.com");
    let line = stage.log_line(&["403 NR", "www.example.com"]);
    let what = "a host that isn't in the registry: 403, flag NR";
    stage.screen.check(what, done.stdout.trim(), refused && line.is_some());
    Ok(())
}

fn origination(stage: &mut Stage) -> Result<()> {
    stage.screen.step("TLS origination at the gateway");
    stage.delete_all()?;
    apply(stage, &ORIGINATION[..1])?;
    stage
        .screen
        .say("Port 443 is declared as HTTP now, and the application still speaks TLS on it:");
    let seen = stage.statuses(&["-L", &politics()], "curl: (35)")?;
    stage.screen.check("301, then curl fails with code 35", &seen, seen == "curl: (35)");
    apply(stage, &ORIGINATION[1..])?;
    served_over_tls(stage, &["-L", &politics()])
}

/// A request in clear is answered at once, by the upstream's port for TLS.
pub(crate) fn served_over_tls(stage: &mut Stage, args: &[&str]) -> Result<()> {
    let seen = stage.statuses(args, "200")?;
    stage.screen.check("http: 200 at once, without the 301", &seen, seen == "200");
    let line = stage.log_line(&["\"GET /politics HTTP/1.1\" 200 ", ":443\""]);
    let seen = if line.is_some() { "\"…:443\"" } else { "no such line" };
    stage.screen.check("the log line shows the upstream's port 443", seen, line.is_some());
    Ok(())
}

fn passthrough(stage: &mut Stage) -> Result<()> {
    stage.screen.step("HTTPS passthrough");
    stage.delete_all()?;
    apply(stage, &PASSTHROUGH)?;
    let url = format!("https://{}/politics", plan::HOST);
    let seen = stage.statuses(&[&url], "200")?;
    stage.screen.check("https: 200, encrypted from end to end", &seen, seen == "200");

    let name = "cluster.outbound|443||edition.cnn.com.upstream_cx_total";
    let before = stage.stat(name)?;
    let done =
        stage.testbed.curl(&["-o", "/dev/null", "-w", "%{http_code} %{size_download}", &url])?;
    let after = stage.stat(name)?;
    stage
        .screen
        .command("gateway", &format!("curl -s localhost:15000/stats | grep '{}'", &name[8..]));
    stage.screen.output(&format!("{name}: {after}"));
    let page = done.stdout == format!("200 {}", outside::PAGE_BYTES);
    let seen = format!("{before} → {after}, {}", done.stdout);
    let what = "upstream_cx_total grows by one with each connection";
    stage.screen.check(what, &seen, page && after == before + 1);
    stage.log_line(&["\"- - -\" 0 - "]);

    let done = stage.curl(&["https://www.example.com/"])?;
    let what = "another server name: TLS alert, curl fails with code 35";
    stage.screen.check(what, &last_line(&done), done.code == 35);
    stage.log_line(&["\"- - -\" 0 NR"]);
    Ok(())
}

fn deletion(stage: &mut Stage) -> Result<()> {
    stage.screen.step("Everything deleted");
    stage.delete_all()?;
    let url = format!("https://{}/politics", plan::HOST);
    let seen = stage.statuses(&[&url], "curl: (7)")?;
    stage.screen.check("what was allowed is refused again", &seen, seen == "curl: (7)");
    apply(stage, &PASSTHROUGH)?;
    let seen = stage.statuses(&[&url], "200")?;
    stage.screen.check("applied again, it is allowed again", &seen, seen == "200");
    Ok(())
}

pub(crate) fn failover(stage: &mut Stage) -> Result<()> {
    stage.screen.step("A gateway dies, then the other");
    let url = format!("https://{}/politics", plan::HOST);
    for (number, wanted, what) in [
        (0, "200", "the other gateway takes over"),
        (1, "curl: (7)", "with none left, connections are refused at once"),
    ] {
        let name = stage.testbed.gateway(number).ns.name().to_owned();
        stage.screen.command(&name, "kill -9 egress-agent");
        stage.gateways[number].kill();
        let seen = stage.statuses(&[&url], wanted)?;
        stage.screen.check(what, &seen, seen == wanted);
    }
    for number in 0..2 {
        stage.gateways[number] = stage.start_gateway(number)?;
    }
    let seen = stage.statuses(&[&url], "200")?;
    stage.screen.check("started again, they serve again", &seen, seen == "200");
    Ok(())
}

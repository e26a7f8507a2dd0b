//! The walkthrough with mutual TLS between node and gateway: the same scenarios, and what the hop is.

use anyhow::Result;
use egress_tests::{
    mtls::{GATEWAY_ID, TUNNEL},
    plan,
};

use crate::{
    stage::{Stage, politics},
    walkthrough::{self, File, SERVICE_ENTRY, apply, example, served_over_tls},
};

const HTTP: [File; 2] = [
    example!("example-mtls/2-http-gateway/gateway.yaml"),
    example!("example-mtls/2-http-gateway/virtual-service.yaml"),
];
const ORIGINATION: [File; 3] = [
    example!("example-mtls/3-tls-origination/service-entry.yaml"),
    example!("example-mtls/3-tls-origination/gateway.yaml"),
    example!("example-mtls/3-tls-origination/virtual-service.yaml"),
];
const PASSTHROUGH: [File; 3] = [
    example!("example-mtls/4-https-passthrough/service-entry.yaml"),
    example!("example-mtls/4-https-passthrough/gateway.yaml"),
    example!("example-mtls/4-https-passthrough/virtual-service.yaml"),
];

/// All steps. At the end HTTPS passthrough is configured.
pub(crate) fn run(stage: &mut Stage) -> Result<()> {
    walkthrough::before(stage)?;
    walkthrough::enforcement(stage)?;
    http(stage)?;
    origination(stage)?;
    passthrough(stage)?;
    identity(stage)?;
    walkthrough::failover(stage)
}

fn http(stage: &mut Stage) -> Result<()> {
    stage.screen.step("HTTP through the egress gateway, inside mutual TLS");
    stage.screen.say("Nothing is served without a route through the gateway (direct: deny).");
    apply(stage, &[SERVICE_ENTRY])?;
    apply(stage, &HTTP)?;
    let seen = stage.statuses(&[&politics()], "301")?;
    stage.screen.check("http: 301", &seen, seen == "301");
    let line = stage.log_line(&["\"GET /politics HTTP/1.1\" 301 ", plan::HOST]);
    let seen = if line.is_some() { "it is there" } else { "no such line" };
    stage.screen.check("and the gateway logged it", seen, line.is_some());
    let streams = stage.testbed.node_metric("egress_tunnel_streams_total")?;
    stage.screen.fact("egress_tunnel_streams_total", &streams.to_string());
    let seen = format!("{streams} connections in the tunnel");
    stage.screen.check("it went through the node's tunnel", &seen, streams > 0);
    Ok(())
}

fn origination(stage: &mut Stage) -> Result<()> {
    stage.screen.step("TLS origination at the gateway");
    stage.delete_all()?;
    apply(stage, &ORIGINATION)?;
    served_over_tls(stage, &[&politics()])
}

fn passthrough(stage: &mut Stage) -> Result<()> {
    stage.screen.step("HTTPS passthrough: the application's own TLS inside the tunnel");
    stage.delete_all()?;
    apply(stage, &PASSTHROUGH)?;
    let url = format!("https://{}/politics", plan::HOST);
    let seen = stage.statuses(&[&url], "200")?;
    stage.screen.check("https: 200, encrypted from end to end", &seen, seen == "200");
    Ok(())
}

fn identity(stage: &mut Stage) -> Result<()> {
    stage.screen.step("Whose certificate it is");
    let dir = stage.testbed.dir().join("node");
    let dir = dir.display();
    let script = format!(
        "openssl s_client -connect {}:{TUNNEL} -alpn h2 -cert {dir}/cert-chain.pem -key \
         {dir}/key.pem -CAfile {dir}/root-cert.pem </dev/null 2>/dev/null | openssl x509 -noout \
         -text | grep URI",
        plan::GATEWAYS[0]
    );
    let host = stage.testbed.gateway(0).ns.name().to_owned();
    stage.screen.command(&host, &script);
    let done = stage.testbed.gateway(0).run("sh", &["-c", &script])?;
    stage.screen.output(&done.stdout);
    let good = done.stdout.contains(&format!("URI:{GATEWAY_ID}"));
    stage.screen.check("the gateway shows its SPIFFE ID", done.stdout.trim(), good);
    Ok(())
}

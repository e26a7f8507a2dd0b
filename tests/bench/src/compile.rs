//! Compiling a configuration, from its text to what a node and a gateway go by.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use egress_agent::{
    bpf::{Contents, PlanInputs},
    config::{self, RawFile},
    policy::{GatewayPolicy, Snapshot},
    types::{GatewayIdentity, Namespace},
};
use egress_tests::site::Site;

use crate::table::{Row, median, milliseconds};

const ROUNDS: usize = 5;
/// A file has at most 4 MiB.
const HOSTS_A_FILE: usize = 1000;
const GATEWAY: &str = "egress.istio-system.svc.cluster.local";
const MESH: &str = "gateways:
- service: egress.istio-system.svc.cluster.local
  labels: {istio: egressgateway}
  endpoints: [192.0.2.10]
";

/// Compiles at several sizes: twice as many hosts are to take twice as long.
pub(crate) fn run(_: &Site) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for hosts in [1000, 10_000, 100_000] {
        let aim = if hosts == 100_000 { "≤ 1000 ms" } else { "" };
        let own = resources(hosts)?;
        rows.extend(measure(&format!("{hosts} hosts, two resources each"), &own, aim)?);
        let shared = lists(hosts)?;
        rows.extend(measure(&format!("{hosts} hosts, 250 in two resources"), &shared, aim)?);
    }
    Ok(rows)
}

/// What is needed for a number of hosts behind one gateway: HTTPS that is passed through.
fn text(name: usize, hosts: &[String]) -> Result<String> {
    let hosts = hosts.join(", ");
    let mut text = String::new();
    write!(
        text,
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: e{name}, namespace: apps}}
spec:
  hosts: [{hosts}]
  ports:
  - {{number: 443, name: tls, protocol: TLS}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: r{name}, namespace: apps}}
spec:
  hosts: [{hosts}]
  gateways: [mesh, istio-system/egress]
  tls:
  - match: [{{gateways: [mesh], port: 443, sniHosts: [{hosts}]}}]
    route: [{{destination: {{host: {GATEWAY}, port: {{number: 443}}}}}}]
  - match: [{{gateways: [istio-system/egress], port: 443, sniHosts: [{hosts}]}}]
    route: [{{destination: {{host: {first}, port: {{number: 443}}}}}}]
---
",
        first = hosts.split(',').next().unwrap_or_default(),
    )?;
    Ok(text)
}

fn host(number: usize) -> String {
    format!("h{number}.zone{}.example", number % 97)
}

/// A service entry and a virtual service for each host.
fn resources(hosts: usize) -> Result<Vec<RawFile>> {
    files(hosts, 1)
}

/// The same for 250 hosts at a time.
fn lists(hosts: usize) -> Result<Vec<RawFile>> {
    files(hosts, 250)
}

fn files(hosts: usize, together: usize) -> Result<Vec<RawFile>> {
    let all: Vec<String> = (0..hosts).map(host).collect();
    let mut files = vec![RawFile {
        path: "gateway.yaml".into(),
        text: "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress, namespace: istio-system}
spec:
  selector: {istio: egressgateway}
  servers:
  - port: {number: 443, name: tls, protocol: TLS}
    tls: {mode: PASSTHROUGH}
    hosts: ['*']
"
        .into(),
    }];
    for (number, part) in all.chunks(HOSTS_A_FILE).enumerate() {
        let mut file = RawFile { path: format!("{number:04}.yaml"), text: String::new() };
        for (at, own) in part.chunks(together).enumerate() {
            file.text += &text(number * HOSTS_A_FILE + at, own)?;
        }
        files.push(file);
    }
    Ok(files)
}

fn measure(what: &str, files: &[RawFile], aim: &str) -> Result<Vec<Row>> {
    let mesh = RawFile { path: "mesh.yaml".into(), text: MESH.into() };
    let (mut compile, mut gateway, mut node) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let compiled = config::compile(files, Some(&mesh))
            .map_err(|problems| anyhow::anyhow!("it doesn't compile: {:?}", problems.0.first()))?;
        compile.push(start.elapsed());
        if let Some(warning) = compiled.warnings.first() {
            bail!("it should be without a warning: {warning}");
        }
        let snapshot = Arc::new(compiled.snapshot);
        gateway.push(tables(&snapshot));
        node.push(plan(&snapshot));
    }
    let row = |part: &str, times: &[Duration], aim: &str| {
        let time = median(times).context("nothing was measured")?;
        anyhow::Ok(Row::new(format!("{what}: {part}"), milliseconds(time), aim))
    };
    Ok(vec![
        row("from text to a snapshot", &compile, aim)?,
        row("the gateway's tables", &gateway, "")?,
        row("the node's plan", &node, "")?,
    ])
}

fn tables(snapshot: &Arc<Snapshot>) -> Duration {
    let identity = GatewayIdentity {
        labels: [("istio".to_owned(), "egressgateway".to_owned())].into(),
        namespace: Namespace("istio-system".into()),
        addresses: Vec::new(),
    };
    let start = Instant::now();
    let policy = GatewayPolicy::new(Arc::clone(snapshot), &identity);
    let time = start.elapsed();
    drop(policy);
    time
}

fn plan(snapshot: &Snapshot) -> Duration {
    let facts = PlanInputs { generation: 1, max_groups: 256, ..PlanInputs::default() };
    let start = Instant::now();
    let planned = Contents::desired(snapshot, &facts);
    let time = start.elapsed();
    drop(planned);
    time
}

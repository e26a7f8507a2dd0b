//! The `suggest` command: resources for what was refused, or would have been but for audit mode.

mod into;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use super::{
    exit::{FAILURE, USAGE},
    flows::{filter::Filter, saved, source::Sources},
    output::stdout,
    paths,
};
use crate::{
    admin::control::{AskError, GATEWAY_SOCKET, GATEWAY_UNIT_SOCKET, Mesh, NODE_SOCKET, ask_mesh},
    bpf::DEFAULT_BPFFS,
    config,
    suggest::{ObservedTraffic, Suggestion, istio, policies},
    telemetry::FlowRecord,
};

/// Options of `suggest`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Hosts are what the workloads asked for, so a suggestion is to be read before it
is applied. Each host has its evidence beside it: how often it was asked for,
when first and when last. `egress-agent check` accepts the output as it is, and
what it allows is what was seen and nothing else.

A node sees addresses and no names: in audit mode it suggests raw TCP to
addresses, unless it knows the names. Ask the gateway's refusals, or put egress
policies into `mode: Audit`.

Examples:
  # What would the workloads of a namespace need, by what was refused in a day?
  egress-agent suggest --since 24h --namespace shop > policy.yaml

  # As Istio's resources, from flows that were kept.
  egress-agent flows -o json > flows.json
  egress-agent suggest --flows flows.json --config /etc/egress/config -o istio

  # Into the configuration itself, as often as something is missing.
  egress-agent suggest --since 1h -n shop -o istio --into /etc/egress/config

Exit codes: 0 printed or written (also if there is nothing to suggest), 1 nobody
could be asked, or a file was left as it is, 2 an option or a file can't be
read.")]
pub(super) struct SuggestArgs {
    #[command(flatten)]
    filter: Filter,
    /// What the resources are.
    #[arg(short, long, value_enum, default_value_t = OutputForm::Policy)]
    output: OutputForm,
    /// Put `*.example.com` in the place of three hosts or more below one domain.
    #[arg(long)]
    wildcards: bool,
    /// Write a file for each policy, or for each host of Istio's resources, into this directory of the
    /// configuration. The file of an earlier suggestion that this one takes the place of is replaced, and no
    /// other one.
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<PathBuf>,
    /// Flows that `egress-agent flows -o json` has written, or `-` for standard input [default: ask the
    /// agents that run here].
    #[arg(long, value_name = "FILE")]
    flows: Option<PathBuf>,
    /// Files and directories of the configuration, which has the workloads' labels and the gateway
    /// [default: what is in force here].
    #[arg(long, value_name = "PATH")]
    config: Vec<PathBuf>,
    /// The agent's control socket [default: those of a node agent and of a gateway on this host].
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

/// `--output`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum OutputForm {
    /// `EgressPolicy`.
    Policy,
    /// `ServiceEntry`, `Gateway` and `VirtualService`.
    Istio,
}

/// Prints them.
///
/// # Errors
/// No agent could be asked, or a file can't be read.
pub(super) fn run(args: &SuggestArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    let flows = match &args.flows {
        None => runtime.block_on(remembered(args.control.as_deref()))?,
        Some(path) => match saved::read(path).map(|(flows, _)| flows) {
            Ok(flows) => flows,
            Err(error) => return wrong(USAGE, &error),
        },
    };
    let mesh = if args.config.is_empty() {
        runtime.block_on(in_force(args.control.as_deref()))?
    } else {
        match by_files(&args.config) {
            Ok(mesh) => mesh,
            Err((code, error)) => return wrong(code, &error),
        }
    };
    let now = SystemTime::now();
    let flows: Vec<_> = flows.into_iter().filter(|flow| args.filter.matches(flow, now)).collect();
    let suggestion = match suggested(&flows, &mesh, args.output, args.wildcards) {
        Ok(suggestion) => suggestion,
        Err(error) => return wrong(FAILURE, error),
    };
    let mut out = stdout();
    let Some(directory) = &args.into else {
        write!(out, "{suggestion}")?;
        out.flush()?;
        return Ok(ExitCode::SUCCESS);
    };
    if !directory.is_dir() {
        return wrong(USAGE, &format!("{} is no directory", directory.display()));
    }
    let written = into::write(&suggestion, directory)
        .with_context(|| format!("can't write into {}", directory.display()))?;
    out.write_all(suggestion.head.as_bytes())?;
    for path in &written.files {
        writeln!(out, "written: {}", path.display())?;
    }
    out.flush()?;
    if written.left.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    wrong(FAILURE, &written.left.join("\nerror: "))
}

fn wrong(code: u8, why: &str) -> anyhow::Result<ExitCode> {
    writeln!(io::stderr().lock(), "error: {why}")?;
    Ok(ExitCode::from(code))
}

fn suggested(
    flows: &[FlowRecord],
    mesh: &Mesh,
    form: OutputForm,
    wildcards: bool,
) -> Result<Suggestion, &'static str> {
    let seen = ObservedTraffic::of(flows, &mesh.workloads);
    let seen = if wildcards { seen.with_wildcards() } else { seen };
    match (form, &mesh.gateway) {
        (OutputForm::Policy, _) => Ok(policies(&seen, &mesh.applied)),
        (OutputForm::Istio, Some(gateway)) => Ok(istio(&seen, gateway, &mesh.earlier)),
        (OutputForm::Istio, None) => {
            Err("the configuration names no gateway (gateways in mesh.yaml)")
        }
    }
}

/// What the agents of this host remember.
async fn remembered(control: Option<&Path>) -> anyhow::Result<Vec<FlowRecord>> {
    let mut sources = Sources::open(control, Path::new(DEFAULT_BPFFS), false).await?;
    let (history, _) = sources.history().await?;
    Ok(history)
}

/// The workloads and the gateway of what is in force here.
async fn in_force(control: Option<&Path>) -> anyhow::Result<Mesh> {
    let usual = [NODE_SOCKET, GATEWAY_SOCKET, GATEWAY_UNIT_SOCKET].map(Path::new);
    for path in control.map_or_else(|| usual.to_vec(), |path| vec![path]) {
        match ask_mesh(path).await {
            Ok(mesh) => return Ok(mesh),
            Err(AskError::Nobody) => {}
            Err(error) => bail!("{}: {error}", path.display()),
        }
    }
    // Without labels, policies are for whole namespaces.
    Ok(Mesh::default())
}

fn by_files(paths: &[PathBuf]) -> Result<Mesh, (u8, String)> {
    let (files, unreadable) = paths::read(paths, None);
    if !unreadable.is_empty() {
        return Err((USAGE, unreadable.join("\nerror: ")));
    }
    let compiled = config::compile(&files.resources, files.mesh.as_ref());
    let compiled = compiled.map_err(|problems| {
        let (errors, _) = problems.count();
        (FAILURE, format!("the configuration has {errors} errors; `egress-agent check` shows them"))
    })?;
    Ok(Mesh::of(&compiled.snapshot))
}

#[cfg(test)]
mod tests {
    use super::{super::testing::golden, *};
    use crate::telemetry::{FlowVerdict, flow_tests::dropped};

    fn mesh() -> Mesh {
        let file = |text: &str| config::RawFile { path: "mesh.yaml".into(), text: text.into() };
        let text = "\
gateways:
- {service: egress.istio-system.svc.cluster.local, labels: {istio: egressgateway}, endpoints: [192.0.2.10]}
workloads:
- {name: web-7d9f-x1, namespace: shop, labels: {app: web, pod-template-hash: 7d9f}, addresses: [10.0.0.5]}
- {name: web-7d9f-x2, namespace: shop, labels: {app: web, pod-template-hash: 7d9f}, addresses: [10.0.0.6]}
";
        Mesh::of(&config::compile(&[], Some(&file(text))).unwrap().snapshot)
    }

    fn asked(workload: &str, protocol: &str, host: &str, port: u16, second: u64) -> FlowRecord {
        FlowRecord {
            time: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000 + second),
            verdict: FlowVerdict::Deny,
            reason: Some("host_not_in_registry".into()),
            workload: Some(workload.into()),
            namespace: Some("shop".into()),
            host: Some(host.into()),
            protocol: protocol.into(),
            destination_address: None,
            destination_port: Some(port),
            ..dropped()
        }
    }

    fn flows() -> Vec<FlowRecord> {
        let mut flows = vec![
            asked("web-7d9f-x1", "TLS", "api.example.com", 443, 0),
            asked("web-7d9f-x2", "TLS", "api.example.com", 443, 60),
            asked("web-7d9f-x1", "TLS", "a.cdn.example.com", 443, 5),
            asked("web-7d9f-x1", "TLS", "b.cdn.example.com", 443, 5),
            asked("web-7d9f-x1", "TLS", "c.cdn.example.com", 443, 5),
            asked("web-7d9f-x1", "HTTP/1.1", "news.example.com:80", 80, 9),
            asked("gone", "TLS", "api.example.com", 443, 7),
        ];
        // A UDP packet, which no resource allows, and what is none of policy's refusals.
        flows.push(FlowRecord { protocol: "UDP".into(), ..flows[0].clone() });
        flows.push(FlowRecord { reason: Some("spoofed_source".into()), ..flows[0].clone() });
        let raw = FlowRecord {
            host: None,
            protocol: "TCP".into(),
            destination_address: Some("203.0.113.9".parse().unwrap()),
            reason: Some("no_route".into()),
            ..asked("web-7d9f-x1", "TCP", "", 5432, 3)
        };
        flows.push(FlowRecord { audit: true, ..raw });
        flows
    }

    #[test]
    fn suggestions_have_their_evidence_beside_them() {
        let text =
            |form, wildcards| suggested(&flows(), &mesh(), form, wildcards).unwrap().to_string();
        golden("suggest-policy.yaml", &text(OutputForm::Policy, false));
        golden("suggest-wildcards.yaml", &text(OutputForm::Policy, true));
        golden("suggest-istio.yaml", &text(OutputForm::Istio, false));
        let istio = text(OutputForm::Istio, true);
        assert!(istio.contains("# Left out: raw TCP of shop to 203.0.113.9 port 5432."), "{istio}");
        let without = Mesh { gateway: None, ..mesh() };
        assert!(suggested(&flows(), &without, OutputForm::Istio, false).is_err());
        let nothing = suggested(&[], &mesh(), OutputForm::Policy, false).unwrap().to_string();
        assert!(nothing.lines().all(|line| line.starts_with('#')), "{nothing}");
    }
}

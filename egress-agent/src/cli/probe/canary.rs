//! `probe --canary-server`.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

use super::{
    super::output::stdout,
    options::{Output, ProbeArgs},
};
use crate::probe::{
    ProbeId,
    canary::{Arrival, Canary},
};

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    arrived: &'a str,
    probe: String,
    from: &'a str,
    protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

/// Listens until SIGINT or SIGTERM, then sums up.
pub(super) fn run(args: &ProbeArgs) -> anyhow::Result<ExitCode> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, serve(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: &ProbeArgs) -> anyhow::Result<()> {
    let canary = Canary::open(&args.addresses, &args.ports.0).context("the canary can't listen")?;
    for deaf in &canary.deaf {
        tracing::warn!("can't hear {deaf}");
    }
    let addresses: Vec<String> = canary.addresses.iter().map(ToString::to_string).collect();
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tracing::info!("the canary listens on {}", addresses.join(", "));
    let seen: RefCell<BTreeMap<String, Vec<String>>> = RefCell::default();
    let arrived = |arrival: &Arrival| {
        let (id, name) = (id(arrival.token.id), arrival.token.name.clone());
        seen.borrow_mut().entry(id).or_default().push(name);
        // A reader that went away is no reason to stop answering.
        print(args.output, arrival).ok();
    };
    tokio::select! {
        ended = canary.serve(arrived) => ended.context("the capture broke")?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    if args.output == Output::Table {
        stdout().write_all(summary(&seen.into_inner()).as_bytes())?;
    }
    Ok(())
}

/// What arrived of each probe.
fn summary(seen: &BTreeMap<String, Vec<String>>) -> String {
    if seen.is_empty() {
        return "Nothing arrived.\n".into();
    }
    let line = |(id, names): (&String, &Vec<String>)| {
        format!("probe {id}: {} arrived: {}\n", names.len(), names.join(", "))
    };
    seen.iter().map(line).collect()
}

fn id(id: ProbeId) -> String {
    id.to_string()
}

fn line(arrival: &Arrival, at: Timestamp) -> Line<'_> {
    let Arrival { token, from, protocol, port } = arrival;
    Line {
        time: at.to_string(),
        arrived: &token.name,
        probe: token.id.to_string(),
        from,
        protocol,
        port: *port,
    }
}

fn print(output: Output, arrival: &Arrival) -> io::Result<()> {
    let Arrival { token, from, protocol, port } = arrival;
    let mut out = stdout();
    match output {
        Output::Table => {
            let port = port.map(|port| format!(" to port {port}")).unwrap_or_default();
            let (name, id) = (&token.name, token.id);
            writeln!(out, "arrived: {name} from {from}, {protocol}{port} (probe {id})")?;
        }
        Output::Json => {
            serde_json::to_writer(&mut out, &line(arrival, Timestamp::now()))?;
            writeln!(out)?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::{super::super::testing::documented, *};
    use crate::probe::Token;

    #[test]
    fn what_arrives_is_written_as_the_reference_says() {
        let token = Token { id: ProbeId::random(), name: "udp-v4".into() };
        let from = "192.0.2.1:40000";
        for port in [Some(7777), None] {
            let arrival =
                Arrival { token: token.clone(), from: from.into(), protocol: "UDP".into(), port };
            let json = serde_json::to_value(line(&arrival, Timestamp::UNIX_EPOCH)).unwrap();
            documented("probe --canary-server -o json", &json);
            assert_eq!((&json["arrived"], &json["from"]), (&"udp-v4".into(), &from.into()));
        }
        assert_eq!(summary(&BTreeMap::new()), "Nothing arrived.\n");
        let seen = [("1a2b3c4d".into(), vec!["udp-v4".into(), "tcp-v6".into()])].into();
        assert_eq!(summary(&seen), "probe 1a2b3c4d: 2 arrived: udp-v4, tcp-v6\n");
    }
}

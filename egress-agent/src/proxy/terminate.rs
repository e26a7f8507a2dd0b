//! A connection whose TLS is terminated here: the handshake, then what is inside.

use std::{rc::Rc, sync::Arc};

use bytes::BytesMut;
use egress_ebpf::reason::Reason;
use tokio::{net::TcpStream, time::Instant};

use super::{
    Downstream, Worker, forward,
    http::{self, Version},
    next_step::NextStep,
    record::Record,
    refuse::{RefusalKind, leave, refuse},
    transport::Transport,
};
use crate::{
    net::{PrefixedIo, RelayIo},
    policy::{Denied, InnerProtocol, Termination},
    telemetry::ResponseFlag,
    tls::{Refused, accept},
    types::Host,
};

/// Why the connection ended, in the access log.
const FAILED: &str = "tls_handshake_failed";

/// Terminates TLS as the server's settings say, and hands on what is inside. `read` is the
/// ClientHello.
pub(super) async fn terminate(
    worker: &Rc<Worker>,
    mut downstream: Downstream,
    stream: TcpStream,
    termination: Termination,
    name: Option<Host>,
    read: BytesMut,
) -> NextStep {
    let config = match worker.credentials.server(&termination.tls) {
        Ok(config) => config,
        Err(unusable) => {
            let reason = Reason::NoServerCertificate;
            let record = failed(worker, &downstream, name.as_ref(), reason, unusable.to_string());
            refuse(worker, stream, RefusalKind::tls(reason)).await;
            record.finish(worker, downstream);
            return NextStep::Nothing;
        }
    };
    let deadline = Instant::now() + worker.limits.tls_handshake;
    let accepted = tokio::select! {
        accepted = accept(config, PrefixedIo::new(read.freeze(), stream), deadline) => accepted,
        () = worker.drain.expired() => return NextStep::Nothing,
        () = downstream.holder.evicted() => {
            Record::overflow(worker, &downstream).finish(worker, downstream);
            return NextStep::Nothing;
        }
    };
    let (stream, tls) = match accepted {
        Ok(accepted) => accepted,
        Err(Refused { error, stream }) => {
            let reason = error.reason();
            let record = failed(worker, &downstream, name.as_ref(), reason, error.to_string());
            tracing::debug!("{}: {error} ({})", downstream.peer, reason.name());
            if let Some(stream) = stream {
                leave(worker, stream).await;
            }
            record.finish(worker, downstream);
            return NextStep::Nothing;
        }
    };
    if let (Some(principal), Ok(policy)) = (tls.principal(), worker.policy()) {
        downstream.source = policy.authenticated(downstream.source, principal);
    }
    downstream.tls = Some(Arc::new(tls));
    // Whatever is inside fails once the client's certificate is no longer valid.
    let stream = stream.held_to(&worker.credentials, &termination.tls);
    downstream.ending = stream.ending();
    match termination.tls.inside {
        InnerProtocol::Http => {
            let version = match stream.tls().alpn_protocol() {
                Some(b"h2") => Version::H2,
                _ => Version::H1,
            };
            let ended = http::TerminatedTls { termination, server_name: name };
            let hop = http::IncomingHop::Terminated(Box::new(ended));
            let worker = Rc::clone(worker);
            let read = BytesMut::new();
            let serving = http::serve(worker, downstream, hop, Box::new(stream), read, version);
            NextStep::Http(Box::pin(serving))
        }
        InnerProtocol::Tcp => {
            let decided = worker.policy().and_then(|policy| {
                let route = policy.tcp_inside(&termination, named(&name)?, &downstream.source)?;
                Ok((policy, route))
            });
            let (policy, route) = match decided {
                Ok(decided) => decided,
                Err(denied) => {
                    let mut record = Record::denied(worker, &downstream, &denied);
                    record.server_name = name.as_ref().map(Host::text);
                    stream.reset();
                    record.finish(worker, downstream);
                    return NextStep::Nothing;
                }
            };
            let down = Transport::Terminated(Box::new(stream));
            let read = BytesMut::new();
            let forward = forward::prepare(worker, &policy, downstream, down, route, name, read);
            forward.await.map_or(NextStep::Nothing, NextStep::Forward)
        }
    }
}

/// The server name, where one is needed.
fn named(name: &Option<Host>) -> Result<&Host, Denied> {
    name.as_ref().ok_or_else(|| Denied {
        reason: Reason::NoServerName,
        detail: "TLS without a server name, where nothing inside names the host".into(),
        matched: None,
    })
}

/// The record of a connection that failed before anything was inside.
pub(super) fn failed(
    worker: &Worker,
    downstream: &Downstream,
    name: Option<&Host>,
    reason: Reason,
    detail: String,
) -> Record {
    let mut record = Record::black_hole(worker, downstream, reason);
    record.flags.set(if reason == Reason::Reset {
        ResponseFlag::DownstreamConnectionTermination
    } else {
        ResponseFlag::LocalReset
    });
    record.details = Some(FAILED.into());
    record.server_name = name.map(Host::text);
    record.downstream_failure = Some(detail.clone());
    record.detail = Some(detail);
    record
}

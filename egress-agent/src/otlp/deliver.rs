//! One batch until the collector has it, or it is given up.

use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use tokio::time::{Instant, sleep};

use super::client::{Answer, Client, SendError, Status};
use crate::telemetry::{Loss, Queue};

/// The wait after the first failure; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two attempts, whatever a collector asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long a batch is tried: then the next one's turn comes, which is newer.
const GIVE_UP: Duration = Duration::from_secs(60);

/// What to do after an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// The collector has it, but for so many records.
    Taken { rejected: u64, why: String },
    /// It will never want it.
    Rejected(String),
    /// It may want it later.
    Again { why: String, after: Option<Duration> },
}

/// Sends a body of so many records.
pub(super) async fn deliver(client: &mut Client, queue: &Queue, body: Bytes, records: u64) {
    let start = Instant::now();
    let mut wait = FIRST_WAIT;
    loop {
        match outcome(client.send(body.clone()).await) {
            Outcome::Taken { rejected, why } => {
                let rejected = rejected.min(records);
                if queue.last_failure().is_some() {
                    tracing::info!("{} takes {} again", client.url(), queue.signal().name());
                }
                queue.exported(records - rejected);
                if rejected > 0 {
                    queue.lost(Loss::Rejected, rejected);
                    tracing::warn!("{} rejected {rejected} records: {why}", client.url());
                }
                return;
            }
            Outcome::Rejected(why) => {
                queue.lost(Loss::Rejected, records);
                report(client, queue, why);
                return;
            }
            Outcome::Again { why, after } => {
                report(client, queue, why);
                let pause = after.unwrap_or(wait).clamp(FIRST_WAIT, LONGEST_WAIT);
                if start.elapsed() + pause > GIVE_UP {
                    queue.lost(Loss::Undelivered, records);
                    return;
                }
                sleep(pause).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

/// Said once, until something arrives.
fn report(client: &Client, queue: &Queue, why: String) {
    let name = queue.signal().name();
    let text = format!("{}: {why}", client.url());
    if queue.failed(text.clone()) {
        tracing::warn!("{name} can't be exported: {text}; they wait, and traffic goes on");
    }
}

/// The rules of OTLP for what is tried again.
pub(super) fn outcome(result: Result<Answer, SendError>) -> Outcome {
    let Answer { status, retry_after, body } = match result {
        Ok(answer) => answer,
        Err(error) => return Outcome::Again { why: error.to_string(), after: None },
    };
    match status {
        Status::Http(status) => match status.as_u16() {
            200..=299 => taken(body),
            status @ (429 | 502 | 503 | 504) => {
                Outcome::Again { why: format!("it answers {status}"), after: retry_after }
            }
            status => Outcome::Rejected(format!("it answers {status}")),
        },
        Status::Grpc { code: 0, .. } => taken(body),
        Status::Grpc { code, message } => {
            let why = match &*message {
                "" => format!("it answers with gRPC status {code}"),
                message => format!("it answers with gRPC status {code}: {message}"),
            };
            match code {
                // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE and DATA_LOSS. A collector that
                // is short of something (RESOURCE_EXHAUSTED) says by a detail that it won't be for ever.
                1 | 4 | 10 | 11 | 14 | 15 => Outcome::Again { why, after: None },
                8 if retry_after.is_some() => Outcome::Again { why, after: retry_after },
                _ => Outcome::Rejected(why),
            }
        }
    }
}

/// The answer for spans has the same numbers for the same things.
fn taken(body: Bytes) -> Outcome {
    let partial = ExportLogsServiceResponse::decode(body);
    let partial = partial.unwrap_or_default().partial_success.unwrap_or_default();
    let rejected = u64::try_from(partial.rejected_log_records).unwrap_or_default();
    Outcome::Taken { rejected, why: partial.error_message }
}

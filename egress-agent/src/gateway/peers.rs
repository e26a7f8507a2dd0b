//! The other gateways: which are ready, and which revisions of policies they have in force.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{enforcement::ask_revisions, source::Rollout};

/// Between two questions to each, and for an answer.
const EVERY: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(1);

/// Asks them for ever, at this port.
pub(super) async fn ask(rollout: Rollout, port: u16) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut asked = JoinSet::new();
        for addr in rollout.peers() {
            asked.spawn(async move {
                let answer = timeout(ANSWER, ask_revisions(SocketAddr::new(addr, port))).await;
                (addr, answer.ok().flatten())
            });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok((addr, digest)) = answer {
                rollout.hear_gateway(Instant::now(), addr, digest.as_deref());
            }
        }
    }
}

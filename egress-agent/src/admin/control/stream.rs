//! `/flows`: lines of JSON.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use http_body::Frame;
use serde::{Deserialize, Serialize};
use tokio::{
    select,
    time::{Interval, MissedTickBehavior, interval},
};

use super::serving::Serving;
use crate::telemetry::{FlowRecord, FollowItem, Follower};

/// Lines are handed to the connection in pieces of this size.
const PIECE: usize = 16 * 1024;
/// How often a follower is told what the kernel lost.
const LOOK: Duration = Duration::from_millis(500);

/// One line of the answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line<F = Box<FlowRecord>> {
    /// A flow; borrowed by the server, which shares it among followers.
    Flow(F),
    /// Flows that happened, and that nobody will see here.
    Lost(u64),
    /// What comes now is new.
    Live,
}

impl<F: Serialize> Line<F> {
    fn write(&self, piece: &mut BytesMut) {
        // Of types that serialize without fail.
        piece.extend_from_slice(&serde_json::to_vec(self).unwrap_or_default());
        piece.extend_from_slice(b"\n");
    }
}

/// As the server writes them.
type Lined<'a> = Line<&'a FlowRecord>;

/// The state of one answer.
struct Answer {
    history: VecDeque<Arc<FlowRecord>>,
    /// Lost before the history begins, to be told first.
    lost_before: u64,
    follower: Option<Follower>,
    serving: Arc<Serving>,
    /// What the kernel had lost when it was told last.
    told: u64,
    looks: Interval,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Start,
    History,
    Live,
}

/// The answer to a `GET /flows`.
pub(super) fn answer(
    serving: Arc<Serving>,
    follow: bool,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    let (history, follower) = if follow {
        let (history, follower) = serving.flows.follow();
        (history, Some(follower))
    } else {
        (serving.flows.history(), None)
    };
    let told = (serving.lost)();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let answer = Answer {
        history: history.into(),
        lost_before: told,
        follower,
        serving,
        told,
        looks,
        stage: Stage::Start,
    };
    stream::unfold(answer, |mut answer| async {
        let piece = answer.next().await?;
        Some((Ok(Frame::data(piece)), answer))
    })
}

impl Answer {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::new();
        if self.stage == Stage::Start {
            self.stage = Stage::History;
            if self.lost_before > 0 {
                Lined::Lost(self.lost_before).write(&mut piece);
            }
        }
        if self.stage == Stage::History {
            while piece.len() < PIECE {
                let Some(flow) = self.history.pop_front() else {
                    self.stage = Stage::Live;
                    Lined::Live.write(&mut piece);
                    break;
                };
                Lined::Flow(&flow).write(&mut piece);
            }
            return Some(piece.freeze());
        }
        let follower = self.follower.as_mut()?;
        loop {
            select! {
                seen = follower.next() => match seen? {
                    FollowItem::Flow(flow) => Lined::Flow(&flow).write(&mut piece),
                    FollowItem::Lost(lost) => Lined::Lost(lost).write(&mut piece),
                },
                _ = self.looks.tick() => {
                    let now = (self.serving.lost)();
                    let lost = now.saturating_sub(self.told);
                    self.told = now;
                    if lost == 0 {
                        continue;
                    }
                    Lined::Lost(lost).write(&mut piece);
                }
            }
            return Some(piece.freeze());
        }
    }
}

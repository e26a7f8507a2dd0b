//! `/ui/flows`: flows as they happen, as server-sent events (HTML Living Standard §9.2).

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body::Frame;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{self, Interval, MissedTickBehavior},
};

use crate::telemetry::{FlowLog, FollowItem, Follower};

/// How often a comment is sent, by which a client that has gone is found out.
const BEAT: Duration = Duration::from_secs(15);

/// Followers at a time; more are refused. Each may be as far behind as the flow log's backlog.
pub(super) const FOLLOWERS: usize = 8;

/// The page's switch, and the places of those who follow.
#[derive(Clone, Debug)]
pub(in crate::admin) struct Ui(Option<Arc<Semaphore>>);

impl Ui {
    /// On or off.
    pub(in crate::admin) fn new(on: bool) -> Self {
        Self(on.then(|| Arc::new(Semaphore::new(FOLLOWERS))))
    }

    /// Whether it is served.
    pub(in crate::admin) const fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

/// One client's events. It holds nothing but its place in the flow log: what a slow client does not take in time
/// is lost to it, and it hears how many were.
pub(in crate::admin) struct Events {
    follower: Follower,
    beats: Interval,
    _place: OwnedSemaphorePermit,
}

/// Follows, unless too many do.
pub(in crate::admin) fn events(ui: &Ui, flows: &Arc<FlowLog>) -> Option<Events> {
    let place = Arc::clone(ui.0.as_ref()?).try_acquire_owned().ok()?;
    let (_, follower) = flows.follow();
    let mut beats = time::interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(Events { follower, beats, _place: place })
}

impl Events {
    /// The body.
    pub(in crate::admin) fn stream(self) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
        stream::unfold(self, |mut events| async {
            let text = events.next().await?;
            Some((Ok(Frame::data(Bytes::from(text))), events))
        })
    }

    async fn next(&mut self) -> Option<String> {
        tokio::select! {
            seen = self.follower.next() => match seen? {
                // JSON has no line breaks of its own, which would end the event.
                FollowItem::Flow(flow) => {
                    Some(format!("data: {}\n\n", serde_json::to_string(&*flow).unwrap_or_default()))
                }
                FollowItem::Lost(lost) => Some(format!("event: lost\ndata: {lost}\n\n")),
            },
            // The first comes at once, so that the browser knows that it is served.
            _ = self.beats.tick() => Some(":\n\n".into()),
        }
    }
}

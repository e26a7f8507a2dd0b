//! When the task that serves a connection must end, without a place in a list of waiters for each reason: an idle
//! connection is small.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use super::{ConnectionOwner, Limiter, Slot};
use crate::proxy::Drain;

impl Limiter {
    /// Wakes what serves connections when those that lie idle are to end, and again when all are.
    pub async fn rouse(self: Rc<Self>, drain: Drain) {
        drain.idle_ends().await;
        self.wake_all();
        drain.expired().await;
        self.wake_all();
    }

    fn wake_all(&self) {
        // What is woken runs later: the table is not borrowed then.
        for share in self.table.borrow().shares.values() {
            share.slots.values().for_each(|slot| slot.wake_task());
        }
    }
}

impl Slot {
    pub(super) fn wake_task(&self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

impl ConnectionOwner {
    /// Ready when the connection must end at once: the worker does, or another source needs the room. Only the
    /// task that serves the connection may ask, since only whoever asked last is woken. It is also woken when
    /// connections that lie idle are to end.
    ///
    /// The worker must run [`Limiter::rouse`].
    pub fn poll_ends(&self, cx: &Context<'_>, drain: &Drain) -> Poll<()> {
        if let Some(slot) = &self.0 {
            let task = slot.task.take().filter(|task| task.will_wake(cx.waker()));
            slot.task.set(Some(task.unwrap_or_else(|| cx.waker().clone())));
        }
        // Looked at after the waker is in its place: who wakes has changed this before.
        if drain.is_over() || self.is_evicted() { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        net::{IpAddr, Ipv4Addr},
    };

    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;
    use crate::{proxy::Limits, types::Source};

    #[tokio::test]
    async fn who_serves_a_connection_hears_of_each_end() {
        let serving = async {
            let drain = Drain::default();
            let limits = Limits { connections: 1, ..Limits::default() };
            let limiter = Limiter::new(limits, std::sync::Arc::default());
            let rousing = spawn_local(Rc::clone(&limiter).rouse(drain.clone()));
            let source =
                |last| Source::unauthenticated(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), None);
            let ending = |permit: super::super::Permit| {
                let drain = drain.clone();
                spawn_local(async move {
                    let mut polled = 0;
                    poll_fn(|cx| {
                        polled += 1;
                        permit.holder().poll_ends(cx, &drain)
                    })
                    .await;
                    polled
                })
            };
            let evicted = ending(limiter.admit(&source(1)).unwrap());
            yield_now().await;
            assert!(!evicted.is_finished());
            limiter.evict_from_largest(crate::telemetry::Resource::Connections, None, 0);
            assert_eq!(evicted.await.unwrap(), 2);

            let at_the_end = ending(limiter.admit(&source(2)).unwrap());
            yield_now().await;
            drain.hand_over();
            yield_now().await;
            assert!(!at_the_end.is_finished());
            drain.start();
            for _ in 0..4 {
                yield_now().await;
            }
            assert!(!at_the_end.is_finished());
            drain.expire();
            // Once at first, once where idle connections end, and at the end.
            assert_eq!(at_the_end.await.unwrap(), 3);
            rousing.await.unwrap();
        };
        LocalSet::new().run_until(serving).await;
    }
}

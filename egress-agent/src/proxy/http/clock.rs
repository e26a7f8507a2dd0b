//! The deadlines of one exchange: the route's, the try's, and that something moves.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::{deadline::Deadline, failure::Failure};
use crate::net::now;

/// Which deadline comes first, and what it means.
#[derive(Debug)]
pub(super) struct Clock<'a> {
    deadline: &'a mut Deadline,
    route: Option<Instant>,
    attempt: Option<Instant>,
    idle: Duration,
    moved: Instant,
    /// Bytes seen so far.
    progress: u64,
}

impl<'a> Clock<'a> {
    /// Starts now. `timeout` is the route's.
    pub(super) fn new(
        deadline: &'a mut Deadline,
        timeout: Option<Duration>,
        idle: Duration,
    ) -> Self {
        let now = now();
        let route = timeout.and_then(|timeout| now.checked_add(timeout));
        let mut clock = Self { deadline, route, attempt: None, idle, moved: now, progress: 0 };
        clock.arm();
        clock
    }

    /// A try begins.
    pub(super) fn attempt(&mut self, timeout: Option<Duration>) {
        self.moved = now();
        self.attempt = timeout.and_then(|timeout| self.moved.checked_add(timeout));
        self.arm();
    }

    /// The try has its response: from here on only the route's timeout counts.
    pub(super) fn answered(&mut self) {
        self.attempt = None;
        self.arm();
    }

    /// So many bytes have moved in all.
    pub(super) fn progress(&mut self, bytes: u64) {
        if bytes != self.progress {
            self.progress = bytes;
            self.moved = now();
            self.arm();
        }
    }

    fn arm(&mut self) {
        let idle = self.moved.checked_add(self.idle);
        let first = [self.route, self.attempt, idle].into_iter().flatten().min();
        self.deadline.set(first);
    }

    /// Ready with what ran out.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        ready!(self.deadline.poll_expired(cx));
        let now = Instant::now();
        Poll::Ready(match (self.route, self.attempt) {
            (Some(route), _) if route <= now => Failure::Timeout,
            (_, Some(attempt)) if attempt <= now => Failure::TryTimeout,
            _ => Failure::StreamIdle,
        })
    }
}

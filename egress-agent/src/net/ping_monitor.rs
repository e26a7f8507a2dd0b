//! Whether an HTTP/2 peer is still there, as a matter of time alone. Pure: time is passed in.
//!
//! A peer that was sent something and says nothing is asked with a PING (RFC 9113 §6.7); if it says
//! nothing to that either, it is gone. Any byte is a sign of life: a PING behind a slow upload may take
//! long, but the upload's own acknowledgements come.
//!
//! Servers of gRPC end connections that ask more than once in five minutes without having been sent an
//! answer in between (`too_many_pings`). So a second question waits for an answer to a request, or for
//! these five minutes.

use std::time::Duration;

use tokio::time::Instant;

/// What was seen on a connection, in all.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BytesSeen {
    /// Bytes that came.
    pub read: u64,
    /// Bytes that went.
    pub written: u64,
    /// Frames with headers or data that came.
    pub answers: u64,
}

/// How often and how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PingInterval {
    /// Silence of the peer before it is asked.
    pub ask_after: Duration,
    /// Silence after the question before it is given up.
    pub give_up_after: Duration,
    /// Between two questions without an answer to a request in between.
    pub between: Duration,
    /// Whether a peer is asked that was sent nothing.
    pub always: bool,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Look again at this time.
    Wait(Instant),
    /// Send a PING, and look again at this time.
    Ask(Instant),
    /// The peer is gone.
    GiveUp,
}

/// A peer's signs of life.
#[derive(Debug)]
pub struct PingMonitor {
    rhythm: PingInterval,
    /// At the last look.
    seen: BytesSeen,
    /// When the peer was last known to speak.
    heard: Instant,
    /// When something was first sent that nothing has followed.
    sent: Option<Instant>,
    /// A question that nothing has followed.
    asked: Option<Instant>,
    /// The last question, and the answers before it.
    last: Option<(Instant, u64)>,
}

impl PingMonitor {
    /// Of a connection that was opened now.
    #[must_use]
    pub fn new(rhythm: PingInterval, now: Instant) -> Self {
        let seen = BytesSeen::default();
        Self { rhythm, seen, heard: now, sent: None, asked: None, last: None }
    }

    /// Looks at what was seen until `now`.
    pub fn poll(&mut self, seen: BytesSeen, now: Instant) -> Step {
        let before = std::mem::replace(&mut self.seen, seen);
        if seen.read != before.read {
            (self.heard, self.sent, self.asked) = (now, None, None);
        }
        if self.sent.is_none() && (self.rhythm.always || seen.written != before.written) {
            // What was written and read since the last look may be in any order: the clock starts now.
            self.sent = Some(now);
        }
        if let Some(asked) = self.asked {
            let end = asked + self.rhythm.give_up_after;
            return if end <= now { Step::GiveUp } else { Step::Wait(end) };
        }
        let Some(sent) = self.sent else {
            return Step::Wait(now + self.rhythm.ask_after / 2);
        };
        let mut due = sent.max(self.heard) + self.rhythm.ask_after;
        if let Some((at, answers)) = self.last
            && answers == seen.answers
        {
            due = due.max(at + self.rhythm.between);
        }
        if due > now {
            // Nobody tells of what is sent and read: it is looked at twice in the time.
            return Step::Wait(due.min(now + self.rhythm.ask_after / 2));
        }
        (self.asked, self.last) = (Some(now), Some((now, seen.answers)));
        Step::Ask(now + self.rhythm.give_up_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RHYTHM: PingInterval = PingInterval {
        ask_after: Duration::from_secs(10),
        give_up_after: Duration::from_secs(10),
        between: Duration::from_secs(300),
        always: false,
    };

    /// Looks until something else than waiting comes, for at most so many seconds.
    fn until(
        pulse: &mut PingMonitor,
        seen: BytesSeen,
        now: &mut Instant,
        most: u64,
    ) -> Option<Step> {
        let end = *now + Duration::from_secs(most);
        loop {
            match pulse.poll(seen, *now) {
                Step::Wait(at) if at <= end => *now = at,
                Step::Wait(_) => return None,
                step @ (Step::Ask(_) | Step::GiveUp) => return Some(step),
            }
        }
    }

    #[test]
    fn a_silent_peer_is_asked_and_given_up() {
        let start = Instant::now();
        let (mut now, mut pulse) = (start, PingMonitor::new(RHYTHM, start));
        let seen = BytesSeen { read: 5, written: 10, answers: 1 };
        assert!(matches!(until(&mut pulse, seen, &mut now, 100), Some(Step::Ask(_))));
        assert_eq!(now - start, Duration::from_secs(10));
        assert_eq!(until(&mut pulse, seen, &mut now, 100), Some(Step::GiveUp));
        assert_eq!(now - start, Duration::from_secs(20));
    }

    #[test]
    fn any_byte_is_a_sign_of_life() {
        let start = Instant::now();
        let (mut now, mut pulse) = (start, PingMonitor::new(RHYTHM, start));
        let mut seen = BytesSeen { read: 5, written: 10, answers: 1 };
        assert!(matches!(until(&mut pulse, seen, &mut now, 100), Some(Step::Ask(_))));
        seen.read += 1;
        assert_eq!(until(&mut pulse, seen, &mut now, 1000), None, "nothing was sent since");
    }

    #[test]
    fn a_peer_that_answers_no_request_is_not_asked_again_at_once() {
        let start = Instant::now();
        let (mut now, mut pulse) = (start, PingMonitor::new(RHYTHM, start));
        let mut seen = BytesSeen { read: 5, written: 10, answers: 1 };
        assert!(matches!(until(&mut pulse, seen, &mut now, 100), Some(Step::Ask(_))));
        let first = now;
        // Its answer to the PING, and another message to it.
        (seen.read, seen.written) = (22, 40);
        assert!(matches!(until(&mut pulse, seen, &mut now, 1000), Some(Step::Ask(_))));
        assert_eq!(now - first, Duration::from_secs(300));
        // With an answer to a request in between it is.
        let second = now;
        seen = BytesSeen { read: 50, written: 60, answers: 2 };
        assert!(matches!(until(&mut pulse, seen, &mut now, 1000), Some(Step::Ask(_))));
        assert!(now - second <= Duration::from_secs(20), "{:?}", now - second);
    }

    #[test]
    fn a_peer_that_was_sent_nothing_is_left_alone_unless_always_asked() {
        let start = Instant::now();
        let (mut now, mut pulse) = (start, PingMonitor::new(RHYTHM, start));
        assert_eq!(until(&mut pulse, BytesSeen::default(), &mut now, 1000), None);
        let always = PingInterval { always: true, ..RHYTHM };
        let (mut now, mut pulse) = (start, PingMonitor::new(always, start));
        assert!(matches!(
            until(&mut pulse, BytesSeen::default(), &mut now, 100),
            Some(Step::Ask(_))
        ));
    }
}

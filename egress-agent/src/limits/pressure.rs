//! Watches what the process uses, and says when memory is short.

use std::{io, sync::Arc, thread, time::Duration};

use tokio::sync::watch;

use crate::{
    sys::memory,
    telemetry::{LimitStats, Resource},
};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(100);
/// Looks between two attempts to give memory back; more while they bring nothing.
const TRIM_EVERY: (u32, u32) = (20, 80);
/// Memory that is worth giving back, in bytes.
const WORTH: u64 = 16 << 20;
/// An attempt that brought less than this, in bytes, brought nothing.
const NOTHING: u64 = 1 << 20;

/// When memory is short, and when it no longer is. Pure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauge {
    pressed: bool,
    /// The least that was used after memory was given back.
    floor: Option<u64>,
    /// Looks since the last attempt, and until the next one.
    looks: u32,
    wait: u32,
}

impl Default for Gauge {
    fn default() -> Self {
        Self { pressed: false, floor: None, looks: 0, wait: TRIM_EVERY.0 }
    }
}

/// What follows from a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Advice {
    /// Nothing more is to be given out.
    pub(crate) pressed: bool,
    /// The allocator may hold memory without use.
    pub(crate) trim: bool,
}

impl Gauge {
    /// `used` of `limit` bytes. Short is above four fifths, until it is below seven tenths.
    pub(crate) fn look(&mut self, used: u64, limit: u64) -> Advice {
        let above = if self.pressed { limit / 10 * 7 } else { limit / 5 * 4 };
        self.pressed = limit > 0 && used > above;
        self.looks = self.looks.saturating_add(1);
        // What the allocator holds without use can't be told from what is used: whoever uses more
        // than once is asked now and then.
        let grown = used > self.floor.unwrap_or(0).saturating_add(WORTH);
        let wait = if self.pressed { TRIM_EVERY.0 / 4 } else { self.wait };
        let trim = (grown || self.pressed) && self.looks >= wait;
        if trim {
            self.looks = 0;
        }
        Advice { pressed: self.pressed, trim }
    }

    /// What was used before and after memory was given back.
    pub(crate) fn trimmed(&mut self, before: u64, after: u64) {
        self.floor = Some(self.floor.map_or(after, |floor| floor.min(after)));
        self.wait = match before.saturating_sub(after) {
            ..NOTHING => self.wait.saturating_mul(2).min(TRIM_EVERY.1),
            _ => TRIM_EVERY.0,
        };
    }
}

/// The running watch; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    _end: watch::Sender<()>,
}

/// Starts it.
///
/// # Errors
/// The thread cannot be started.
pub(crate) fn watch(stats: Arc<LimitStats>) -> io::Result<Watch> {
    let (end, ended) = watch::channel(());
    thread::Builder::new().name("limits".into()).spawn(move || {
        let mut gauge = Gauge::default();
        // It is closed when the handle is dropped.
        while ended.has_changed().is_ok() {
            look(&mut gauge, &stats);
            thread::sleep(EVERY);
        }
    })?;
    Ok(Watch { _end: end })
}

fn look(gauge: &mut Gauge, stats: &LimitStats) {
    if let Ok(open) = memory::descriptors_used() {
        stats.set_used(Resource::Descriptors, open);
    }
    let Ok(mut used) = memory::memory_used() else { return };
    let limit = stats.limit(Resource::Memory);
    let mut advice = gauge.look(used, limit);
    if advice.trim {
        memory::trim();
        let before = used;
        used = memory::memory_used().unwrap_or(used);
        gauge.trimmed(before, used);
        advice = gauge.look(used, limit);
    }
    stats.set_used(Resource::Memory, used);
    if advice.pressed != stats.is_pressed() {
        if advice.pressed {
            tracing::warn!(
                "memory is short: {used} of {limit} bytes are used; sources with more than their share are refused"
            );
        } else {
            tracing::info!("memory is no longer short: {used} of {limit} bytes are used");
        }
        stats.set_pressed(advice.pressed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_above_four_fifths_until_below_seven_tenths() {
        let mut gauge = Gauge::default();
        let mut look = |used| gauge.look(used, 1000).pressed;
        assert!(!look(800));
        assert!(look(801));
        assert!(look(750));
        assert!(!look(700));
        assert!(!look(750));
        // No limit is none.
        assert!(!Gauge::default().look(u64::MAX, 0).pressed);
    }

    #[test]
    fn memory_is_given_back_now_and_then_where_it_is_worth_it() {
        let limit = 1 << 40;
        let mut gauge = Gauge::default();
        let trims = |gauge: &mut Gauge, used, looks: u32| {
            (0..looks).filter(|_| gauge.look(used, limit).trim).count()
        };
        let (least, most) = TRIM_EVERY;
        assert_eq!(trims(&mut gauge, WORTH, most), 0);
        let mut gauge = Gauge::default();
        assert_eq!(trims(&mut gauge, 9 * WORTH, 2 * least), 2);
        // Nothing came of it: it is tried less often, but not given up.
        gauge.trimmed(9 * WORTH, 9 * WORTH);
        assert_eq!(trims(&mut gauge, 19 * WORTH, 2 * least), 1);
        gauge.trimmed(19 * WORTH, 19 * WORTH);
        gauge.trimmed(19 * WORTH, 19 * WORTH);
        assert_eq!(trims(&mut gauge, 19 * WORTH, most), 1);
        // Something came of it.
        gauge.trimmed(19 * WORTH, 2 * WORTH);
        assert_eq!(trims(&mut gauge, 3 * WORTH, most), 0);
        assert_eq!(trims(&mut gauge, 4 * WORTH, 2 * least), 2);
    }
}

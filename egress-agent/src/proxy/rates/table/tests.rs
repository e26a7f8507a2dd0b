use std::net::IpAddr;

use super::*;

fn limit(label: &str, per_second: u32, bytes: Option<u32>) -> Arc<RateLimit> {
    let rate = |per_second| Rate { per_second, burst: per_second };
    Arc::new(RateLimit {
        label: label.into(),
        requests: Some(rate(per_second)),
        connections: None,
        bytes: bytes.map(rate),
    })
}

fn owner(last: u8) -> ShareOwner {
    ShareOwner::of(None, IpAddr::from([192, 0, 2, last]))
}

/// A table, and a clock that stands still.
struct World {
    rates: Rates,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let rates = Rates::default();
        Self { now: rates.began + Duration::from_secs(1), rates }
    }

    fn meters(&self, limits: &[Arc<RateLimit>], last: u8, host: &str) -> Result<Meters, Limited> {
        self.rates.meters_at(limits.iter(), || owner(last), || host.into(), self.now)
    }

    /// How many requests of nine are allowed now.
    fn allowed(&self, limits: &[Arc<RateLimit>], last: u8, host: &str) -> usize {
        let meters = self.meters(limits, last, host).unwrap();
        (0..9).filter(|_| meters.count_at(RateUnit::Request, self.now).is_ok()).count()
    }
}

#[test]
fn each_workload_has_its_own_tokens_for_each_host() {
    let mut world = World::new();
    let limits = [limit("a", 3, None)];
    assert_eq!(world.allowed(&limits, 1, "a.example"), 3);
    // The same bucket, found again.
    assert_eq!(world.allowed(&limits, 1, "a.example"), 0);
    assert_eq!(world.allowed(&limits, 1, "b.example"), 3);
    assert_eq!(world.allowed(&limits, 2, "a.example"), 3);
    assert_eq!(world.allowed(&[limit("b", 2, None)], 1, "a.example"), 2);
    world.now += Duration::from_secs(1);
    assert_eq!(world.allowed(&limits, 1, "a.example"), 3);
}

#[test]
fn of_several_limits_the_strictest_counts_and_takes_nothing_of_the_others() {
    let world = World::new();
    let both = [limit("wide", 5, None), limit("narrow", 2, None)];
    assert_eq!(world.allowed(&both, 1, "a.example"), 2);
    let meters = world.meters(&both, 1, "a.example").unwrap();
    assert_eq!(
        meters.count_at(RateUnit::Request, world.now).unwrap_err().to_string(),
        "narrow allows each workload 2 requests a second to each host, 2 at once"
    );
    assert_eq!(meters.count_at(RateUnit::Connection, world.now), Ok(()), "they are not limited");
    // Eight were refused, and none of them cost the other limit anything.
    assert_eq!(world.allowed(&both[..1], 1, "a.example"), 3);
}

#[test]
fn nobody_loses_what_was_used_by_asking_for_more_hosts() {
    let mut world = World::new();
    let limits = [limit("a", 1, None)];
    let used = |world: &World, host: &str| {
        world.meters(&limits, 1, host)?.count_at(RateUnit::Request, world.now)
    };
    assert_eq!(used(&world, "first.example"), Ok(()));
    let mut hosts = 0;
    while used(&world, &format!("{hosts}.example")).is_ok() {
        hosts += 1;
    }
    // Its share, and no more; what it has used up it still has.
    assert!((CAPACITY / 10..CAPACITY / 6).contains(&hosts), "{hosts}");
    assert_eq!(used(&world, "another.example"), Err(Limited::Hosts));
    assert!(matches!(used(&world, "first.example"), Err(Limited::Rate { .. })));
    // Others have room.
    assert_eq!(world.allowed(&limits, 2, "a.example"), 1);
    // What is full again is forgotten.
    world.now += SWEEP_AT_MOST * 2;
    assert_eq!(used(&world, "another.example"), Ok(()));
    assert_eq!(world.rates.table.lock().unwrap().count, 1);
}

#[test]
fn bytes_wait_for_their_turn() {
    let world = World::new();
    let meters = world.meters(&[limit("a", 1, Some(1000))], 1, "a.example").unwrap();
    assert!(meters.paces());
    let (mut now, mut moved, mut parts) = (world.now, 0, 0);
    while moved < 5000 {
        let (allowed, until) = meters.allowance(4096, now);
        match until {
            Some(until) => now = until,
            None => {
                // A reader takes no more than it may.
                assert!((1..=1000).contains(&allowed), "{allowed}");
                meters.moved(allowed, now);
                moved += allowed;
                parts += 1;
            }
        }
    }
    // A burst at once, and four more, one a second.
    assert_eq!((moved, parts), (5000, 5));
    assert_eq!((now - world.now).as_millis(), 4000);
    // What was read beyond it is made up for.
    meters.moved(3000, now);
    let (_, until) = meters.allowance(4096, now);
    assert_eq!((until.unwrap() - now).as_millis(), 4000);
}

/// Through the text in which it is handed over.
fn handed_over(world: &World) -> Vec<crate::proxy::UsedRate> {
    let used = world.rates.used_at(world.now);
    serde_json::from_str(&serde_json::to_string(&used).unwrap()).unwrap()
}

#[test]
fn the_process_that_takes_over_goes_on_with_what_is_left() {
    let before = World::new();
    let limits = [limit("a", 5, Some(100))];
    let meters = before.meters(&limits, 1, "a.example").unwrap();
    for _ in 0..3 {
        meters.count_at(RateUnit::Request, before.now).unwrap();
    }
    meters.moved(100, before.now);
    assert_eq!(before.allowed(&limits, 2, "b.example"), 5);
    let used = handed_over(&before);
    assert_eq!(used.len(), 2);

    let mut after = World::new();
    // It has served one request already.
    let meters = after.meters(&limits, 1, "a.example").unwrap();
    meters.count_at(RateUnit::Request, after.now).unwrap();
    after.rates.count_used_at(used, after.now);
    assert_eq!(after.allowed(&limits, 1, "a.example"), 1, "five, of which four were used");
    assert!(meters.allowance(50, after.now).1.is_some(), "no byte is left at once");
    assert_eq!(after.allowed(&limits, 2, "b.example"), 0);
    // Whoever used nothing has all, and so has everybody in time.
    assert_eq!(after.allowed(&limits, 3, "a.example"), 5);
    after.now += Duration::from_secs(1);
    assert_eq!(after.allowed(&limits, 2, "b.example"), 5);
    assert!(meters.allowance(50, after.now).1.is_none());
}

#[test]
fn what_is_full_again_is_not_handed_over() {
    let mut world = World::new();
    assert_eq!(world.allowed(&[limit("a", 2, None)], 1, "a.example"), 2);
    assert_eq!(handed_over(&world).len(), 1);
    world.now += Duration::from_secs(1);
    assert_eq!(handed_over(&world), []);
}

#[test]
fn what_is_handed_over_takes_no_more_than_a_workloads_share() {
    let (before, after) = (World::new(), World::new());
    let limits = [limit("a", 1, None)];
    let share = CAPACITY / (SHARES + 1);
    for number in 0..share {
        let meters = before.meters(&limits, 1, &format!("{number}.example"));
        let counted = meters.map(|meters| meters.count_at(RateUnit::Request, before.now));
        counted.unwrap().unwrap();
    }
    let used = handed_over(&before);
    assert_eq!(used.len(), share);
    assert!(after.meters(&limits, 1, "own.example").is_ok());
    after.rates.count_used_at(used, after.now);
    let full = after.meters(&limits, 1, "one.more.example").err();
    assert_eq!(full, Some(Limited::Hosts));
    assert!(after.meters(&limits, 2, "a.example").is_ok());
}

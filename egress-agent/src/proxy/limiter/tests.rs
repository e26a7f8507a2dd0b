use std::task::{Context, Poll};

use super::*;

fn limits() -> Limits {
    Limits {
        connections: 10,
        connections_per_source: 8,
        requests: 10,
        requests_per_source: 8,
        request_bytes: 1000,
        request_bytes_per_source: 800,
        queued_bytes: 256 * 1024,
        ..Limits::default()
    }
}

fn limiter() -> Rc<Limiter> {
    Limiter::new(limits(), Arc::default())
}

fn source(last: u8) -> Source {
    Source::unauthenticated([10, 0, 0, last].into(), None)
}

fn many(limiter: &Rc<Limiter>, from: u8, count: usize) -> Vec<Permit> {
    (0..count).filter_map(|_| limiter.admit(&source(from))).collect()
}

fn evicted(permits: &[Permit]) -> Vec<usize> {
    let indices = 0..permits.len();
    indices.filter(|index| permits[*index].holder().is_evicted()).collect()
}

#[test]
fn one_source_is_refused_at_its_own_bound() {
    let limiter = limiter();
    let first = many(&limiter, 1, 20);
    assert_eq!(first.len(), 8);
    assert!(limiter.admit(&source(2)).is_some());
    assert_eq!(limiter.stats.refused_total(Resource::Connections), 12);
    drop(first);
    assert_eq!(limiter.stats.used(Resource::Connections), 0);
    assert_eq!(many(&limiter, 1, 20).len(), 8);
}

#[test]
fn where_all_is_taken_the_largest_makes_room_and_is_refused() {
    let limiter = limiter();
    let large = many(&limiter, 1, 8);
    let small = many(&limiter, 2, 2);
    // The third one gets its share of three, and no more.
    let third = many(&limiter, 3, 20);
    assert_eq!(third.len(), 3);
    assert_eq!(evicted(&large), [0, 1, 2]);
    assert!(evicted(&small).is_empty());
    assert!(limiter.admit(&source(1)).is_none());
    assert_eq!(limiter.stats.used(Resource::Connections), 10);
    assert_eq!(limiter.stats.closed_total(Resource::Connections), 3);
    // What was told to end gives nothing back twice.
    drop(large);
    assert_eq!(limiter.stats.used(Resource::Connections), 5);
    drop((small, third));
    assert_eq!(limiter.stats.used(Resource::Connections), 0);
    assert!(limiter.table.borrow().shares.is_empty());
}

#[test]
fn idle_connections_are_closed_before_busy_ones() {
    let limiter = limiter();
    let large = many(&limiter, 1, 8);
    let busy: Vec<_> = large.iter().take(7).map(|permit| permit.holder().request(1)).collect();
    assert!(busy.iter().all(Option::is_some));
    let _small = many(&limiter, 2, 2);
    let _third = many(&limiter, 3, 1);
    assert_eq!(evicted(&large), [7]);
}

#[test]
fn a_workload_has_one_share_whatever_its_addresses() {
    let limiter = limiter();
    let workload = Arc::new(crate::types::Workload {
        name: "w".into(),
        namespace: crate::types::Namespace("n".into()),
        labels: Default::default(),
        addresses: Vec::new(),
        cgroups: Vec::new(),
        interface: None,
        node: None,
        service_account: "default".into(),
    });
    let from =
        |last: u8| Source::unauthenticated([10, 0, 0, last].into(), Some(Arc::clone(&workload)));
    let permits: Vec<_> = (0..20).filter_map(|last| limiter.admit(&from(last))).collect();
    assert_eq!(permits.len(), 8);
}

#[test]
fn large_heads_are_refused_and_the_costliest_connection_gives_way() {
    let limiter = limiter();
    let large = many(&limiter, 1, 2);
    let works: Vec<_> = [(0, 500), (1, 300), (1, 1)]
        .map(|(index, bytes)| large[index].holder().request(bytes))
        .into();
    assert_eq!(works.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
    let small = many(&limiter, 2, 1);
    let work = small[0].holder().request(400);
    assert!(work.is_some());
    assert_eq!(evicted(&large), [0]);
    // Streams of a connection that is ended start nothing.
    assert!(large[0].holder().request(1).is_none());
    assert_eq!(limiter.stats.used(Resource::RequestBytes), 700);
    drop((works, work));
    assert_eq!(limiter.stats.used(Resource::RequestBytes), 0);
    assert_eq!(limiter.stats.used(Resource::Requests), 0);
}

#[test]
fn short_of_memory_nothing_more_is_given_out_and_the_largest_gives_back() {
    let limiter = limiter();
    let large = many(&limiter, 1, 5);
    let small = many(&limiter, 2, 1);
    limiter.stats.set_pressed(true);
    assert!(limiter.admit(&source(1)).is_none());
    let third = limiter.admit(&source(3));
    assert!(third.is_some());
    assert_eq!((evicted(&large), evicted(&small)), (vec![0], vec![]));
    limiter.shed();
    assert_eq!(evicted(&large), [0, 1]);
    limiter.stats.set_pressed(false);
    limiter.shed();
    assert_eq!(evicted(&large), [0, 1]);
    assert!(limiter.admit(&source(1)).is_some());
}

#[test]
fn bytes_that_nobody_reads_are_bounded_by_connection_and_in_all() {
    let limiter = limiter();
    let permits = many(&limiter, 1, 3);
    let mut cx = Context::from_waker(Waker::noop());
    let fill = |holder: &ConnectionOwner, cx: &mut Context<'_>| {
        let mut queued = Vec::new();
        while holder.poll_queue(cx) == Poll::Ready(()) {
            queued.push(holder.queue(vec![0; 8192].into()));
        }
        queued
    };
    let mut all: Vec<_> = permits.iter().map(|permit| fill(&permit.holder(), &mut cx)).collect();
    let total = usize::try_from(limiter.stats.used(Resource::QueuedBytes)).unwrap();
    assert!(total <= 256 * 1024 + 3 * (16 + 8) * 1024, "{total}");
    assert!(all.iter().all(|queued| queued.len() >= 2));
    // Half of it written: there is room again.
    let left = all[0].len() / 2 - 1;
    all[0].truncate(left);
    assert_eq!(permits[0].holder().poll_queue(&mut cx), Poll::Ready(()));
    drop(all);
    assert_eq!(limiter.stats.used(Resource::QueuedBytes), 0);
}

#[test]
fn who_holds_unread_bytes_beyond_its_share_loses_the_connection_that_holds_most() {
    let limiter = limiter();
    let (large, small) = (many(&limiter, 1, 3), many(&limiter, 2, 1));
    let holders: Vec<ConnectionOwner> = large.iter().map(Permit::holder).collect();
    small[0].holder().hold(100 * 1024);
    holders[0].hold(60 * 1024);
    holders[1].hold(68 * 1024);
    assert!(evicted(&large).is_empty(), "128 KiB are half of all");
    holders[2].hold(1);
    assert_eq!(evicted(&large), [1]);
    assert!(evicted(&small).is_empty());
    assert_eq!(limiter.stats.used(Resource::QueuedBytes), 160 * 1024 + 1);
    assert_eq!(limiter.stats.closed_total(Resource::QueuedBytes), 1);
    // What was told to end gives nothing back twice.
    holders[1].let_go(68 * 1024);
    assert_eq!(limiter.stats.used(Resource::QueuedBytes), 160 * 1024 + 1);
    small[0].holder().let_go(100 * 1024);
    holders[0].let_go(60 * 1024);
    holders[2].let_go(1);
    assert_eq!(limiter.stats.used(Resource::QueuedBytes), 0);
}

#[test]
fn where_all_unread_bytes_are_taken_the_source_with_the_most_gives_back() {
    let limiter = limiter();
    let permits: Vec<Permit> = (1..5).flat_map(|last| many(&limiter, last, 1)).collect();
    for (permit, kib) in permits.iter().zip([60, 70, 80, 40]) {
        permit.holder().hold(kib * 1024);
    }
    assert!(evicted(&permits).is_empty());
    permits[3].holder().hold(7 * 1024);
    assert_eq!(evicted(&permits), [2], "257 KiB of 256");
}

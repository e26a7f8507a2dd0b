use std::{
    sync::{Barrier, atomic::AtomicU32},
    thread,
    time::Duration,
};

use tokio::time::Instant;

use super::*;
use crate::policy::{
    ClusterLocality, ConnectionPool, Discovery, Distribution, EndpointPlace, Locality,
    LocalityPattern, LocalitySetting, hash_of,
};

fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
    (1u8..)
        .zip(weights)
        .map(|(last, weight)| Endpoint {
            addr: ([192, 0, 2, last], 443).into(),
            weight: *weight,
            place: 0,
        })
        .collect()
}

pub(super) fn cluster(max_connections: u32, outlier: Option<OutlierDetection>) -> Cluster {
    let name = ClusterName("outbound|443||test.example".into());
    Cluster {
        load_balancer: LoadBalancer::RoundRobin,
        pool: ConnectionPool { max_connections, ..ConnectionPool::default() },
        outlier,
        ..Cluster::new(name, Discovery::Static(Vec::new()))
    }
}

fn take(state: &Arc<ClusterState>, cluster: &Cluster) -> Option<Lease> {
    let place = state.connections.take(&ShareOwner::Own, cluster.pool.max_connections);
    place.map(|place| Lease::new(state, cluster, place))
}

fn ordered(
    state: &ClusterState,
    candidates: &[Endpoint],
    cluster: &Cluster,
    random: &Random,
) -> Vec<Endpoint> {
    let mut order = candidates.to_vec();
    state.order(&mut order, cluster, None, random, &Arc::default());
    order
}

fn choose(state: &ClusterState, from: &[Endpoint], how: LoadBalancer, times: usize) -> Vec<usize> {
    let random = Random::default();
    let how = Cluster { load_balancer: how, ..cluster(u32::MAX, None) };
    let mut counts = vec![0; from.len()];
    for _ in 0..times {
        let first = ordered(state, from, &how, &random)[0];
        counts[from.iter().position(|e| *e == first).unwrap()] += 1;
    }
    counts
}

#[test]
fn round_robin_takes_turns_and_keeps_to_the_weights() {
    let state = ClusterState::default();
    assert_eq!(choose(&state, &endpoints(&[1, 1, 1]), LoadBalancer::RoundRobin, 9), [3, 3, 3]);
    let state = ClusterState::default();
    assert_eq!(choose(&state, &endpoints(&[3, 1]), LoadBalancer::RoundRobin, 8), [6, 2]);
}

#[test]
fn the_first_address_is_kept_to() {
    let counts = choose(&ClusterState::default(), &endpoints(&[1, 1]), LoadBalancer::First, 9);
    assert_eq!(counts, [9, 0]);
}

#[test]
fn random_reaches_all() {
    let counts =
        choose(&ClusterState::default(), &endpoints(&[1, 1, 1]), LoadBalancer::Random, 3000);
    assert!(counts.iter().all(|count| (700..1300).contains(count)), "{counts:?}");
}

#[test]
fn least_request_avoids_the_loaded_one() {
    let states = ClusterStates::default();
    let cluster = cluster(u32::MAX, None);
    let state = states.get(&cluster.name);
    let from = endpoints(&[1, 1]);
    let mut lease = take(&state, &cluster).unwrap();
    lease.bind(UpstreamAddr(from[0].addr));
    // A connection that waits for its next request is no load.
    let counts = choose(&state, &from, LoadBalancer::LeastRequest, 4000);
    assert!(counts[0] > 1600, "{counts:?}");
    let request = lease.request();
    // The loaded one is chosen only when both draws hit it.
    let counts = choose(&state, &from, LoadBalancer::LeastRequest, 4000);
    assert!(counts[0] < 1400 && counts[0] > 600, "{counts:?}");
    drop(request);
    let counts = choose(&state, &from, LoadBalancer::LeastRequest, 4000);
    assert!(counts[0] > 1600, "the request was not given back: {counts:?}");
}

#[test]
fn places_are_limited_and_given_back() {
    let states = ClusterStates::default();
    let cluster = cluster(2, None);
    let state = states.get(&cluster.name);
    let first = take(&state, &cluster).unwrap();
    let _second = take(&state, &cluster).unwrap();
    assert!(take(&state, &cluster).is_none());
    drop(first);
    assert!(take(&state, &cluster).is_some());
}

#[tokio::test]
async fn errors_in_a_row_eject_for_a_growing_time() {
    let outlier = OutlierDetection {
        consecutive_errors: 2,
        gateway_errors: 0,
        local_origin_failures: None,
        base_ejection_time: Duration::from_millis(50),
        max_ejection_percent: 50,
    };
    let states = ClusterStates::default();
    let cluster = cluster(u32::MAX, Some(outlier));
    let state = states.get(&cluster.name);
    let from = endpoints(&[1, 1]);
    let random = Random::default();
    let order = || ordered(&state, &from, &cluster, &random);
    let lease = |index: usize| {
        let mut lease = take(&state, &cluster).unwrap();
        lease.bind(UpstreamAddr(from[index].addr));
        lease
    };
    assert_eq!(order().len(), 2);
    // One good answer between them: not in a row.
    for good in [false, true, false] {
        lease(0).report(good);
    }
    assert_eq!(order().len(), 2);
    lease(0).report(false);
    assert_eq!(order(), [from[1]]);
    assert_eq!(states.membership(&cluster.name), Membership { total: 2, ejected: 1 });
    // The other one stays: more than half may not go.
    for _ in 0..5 {
        lease(1).report(false);
    }
    assert_eq!(order(), [from[1]]);
    let until = state.endpoints.ejected_until(UpstreamAddr(from[0].addr));
    tokio::time::sleep_until(until).await;
    assert_eq!(order().len(), 2);
    lease(0).report(false);
    lease(0).report(false);
    let again = state.endpoints.ejected_until(UpstreamAddr(from[0].addr));
    let time = again.saturating_duration_since(Instant::now());
    assert!(time > Duration::from_millis(60), "the second ejection is longer: {time:?}");
    // Without the rule the endpoint is back at once, and stays when the rule returns.
    assert_eq!(order().len(), 1);
    let without = Cluster { outlier: None, ..cluster.clone() };
    assert_eq!(ordered(&state, &from, &without, &random).len(), 2);
    assert_eq!(order().len(), 2);
    assert_eq!(states.membership(&cluster.name), Membership { total: 2, ejected: 0 });
}

#[tokio::test]
async fn failures_of_connections_count_by_themselves_where_asked() {
    let from = endpoints(&[1, 1]);
    let left = |local_origin_failures, reports: &[Option<u16>]| {
        let outlier = OutlierDetection {
            consecutive_errors: 3,
            gateway_errors: 0,
            local_origin_failures,
            base_ejection_time: Duration::from_secs(60),
            max_ejection_percent: 50,
        };
        let (state, cluster) = (Arc::new(ClusterState::default()), cluster(9, Some(outlier)));
        let random = Random::default();
        let mut lease = take(&state, &cluster).unwrap();
        lease.bind(UpstreamAddr(from[0].addr));
        ordered(&state, &from, &cluster, &random);
        for report in reports {
            match report {
                Some(status) => lease.report_answer(StatusCode::from_u16(*status).unwrap()),
                None => lease.report(false),
            }
        }
        ordered(&state, &from, &cluster, &random).len()
    };
    let (error, failure) = (Some(500), None);
    // Together, without a number of their own.
    assert_eq!(left(None, &[failure, error, failure]), 1);
    assert_eq!(left(Some(2), &[failure, error, failure]), 2);
    assert_eq!(left(Some(2), &[failure, failure]), 1);
    assert_eq!(left(Some(9), &[failure, failure, failure]), 2);
    assert_eq!(left(Some(9), &[error, failure, error, failure, error]), 1);
}

/// As in Envoy: 502, 503 and 504 count both ways, other errors of servers end what counts as errors of gateways, and
/// failures of connections count both ways unless they count by themselves.
#[tokio::test]
async fn errors_of_gateways_count_beside_all_errors() {
    let from = endpoints(&[1, 1]);
    // How many reports of these, over and over, until the endpoint is set aside.
    let needed = |consecutive_errors, gateway_errors, local, reports: &[Option<u16>]| {
        let outlier = OutlierDetection {
            consecutive_errors,
            gateway_errors,
            local_origin_failures: local,
            base_ejection_time: Duration::from_secs(60),
            max_ejection_percent: 50,
        };
        let (state, cluster) = (Arc::new(ClusterState::default()), cluster(9, Some(outlier)));
        let random = Random::default();
        let mut lease = take(&state, &cluster).unwrap();
        lease.bind(UpstreamAddr(from[0].addr));
        ordered(&state, &from, &cluster, &random);
        (1..=12).find(|number| {
            match reports[(number - 1) % reports.len()] {
                Some(status) => lease.report_answer(StatusCode::from_u16(status).unwrap()),
                None => lease.report(false),
            }
            ordered(&state, &from, &cluster, &random).len() == 1
        })
    };
    for status in [502, 503, 504] {
        assert_eq!(needed(0, 2, None, &[Some(status)]), Some(2), "{status}");
        assert_eq!(needed(5, 2, None, &[Some(status)]), Some(2), "{status}");
        assert_eq!(needed(5, 0, None, &[Some(status)]), Some(5), "{status}");
        assert_eq!(needed(3, 9, None, &[Some(status)]), Some(3), "{status}");
    }
    for status in [500, 501, 505, 599] {
        assert_eq!(needed(0, 2, None, &[Some(status)]), None, "{status}");
        assert_eq!(needed(5, 2, None, &[Some(status)]), Some(5), "{status}");
        assert_eq!(needed(0, 2, None, &[Some(503), Some(status)]), None, "{status}");
        assert_eq!(needed(5, 2, None, &[Some(503), Some(status)]), Some(5), "{status}");
    }
    assert_eq!(needed(2, 2, None, &[Some(503), Some(404)]), None);
    assert_eq!(needed(0, 2, None, &[None]), Some(2));
    assert_eq!(needed(0, 2, None, &[None, Some(503)]), Some(2));
    assert_eq!(needed(0, 2, Some(0), &[None]), None);
    assert_eq!(needed(1, 2, Some(3), &[None]), Some(3));
    assert_eq!(needed(0, 3, Some(9), &[None, Some(503)]), Some(6));
}

#[test]
fn what_clusters_count_outlives_a_configuration_that_has_them() {
    let (states, cluster) = (ClusterStates::default(), cluster(1, None));
    // Dialled before any configuration, in use, and named by none: the place stays taken.
    let lease = take(&states.get(&cluster.name), &cluster).unwrap();
    states.configure([&cluster.name]);
    assert!(take(&states.get(&cluster.name), &cluster).is_none());
    states.configure([]);
    assert!(take(&states.get(&cluster.name), &cluster).is_none());
    drop(lease);
    let before = states.get(&cluster.name);
    states.configure([&cluster.name]);
    assert!(Arc::ptr_eq(&states.get(&cluster.name), &before));
    states.configure([]);
    assert!(states.configured.load().is_empty(), "nothing is kept of what nobody uses");
    assert!(take(&states.get(&cluster.name), &cluster).is_some());
}

#[test]
fn endpoints_without_load_make_room_for_others() {
    let (states, cluster) = (ClusterStates::default(), cluster(u32::MAX, None));
    let state = states.get(&cluster.name);
    let addr = |number: u32| UpstreamAddr((std::net::Ipv4Addr::from(number), 443).into());
    let mut busy = take(&state, &cluster).unwrap();
    busy.bind(addr(7));
    let _request = busy.request();
    (0..10_000).for_each(|number| drop(state.endpoints.get(addr(number))));
    assert!(state.endpoints.len() <= 4097, "{}", state.endpoints.len());
    assert_eq!(state.endpoints.load(addr(7)), 1, "what has load is remembered");
}

/// Threads at once: every count comes back to zero, places are never more than there are, and no more
/// endpoints are ejected than may be.
#[test]
fn threads_at_once_lose_no_count() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 2000;
    let outlier = OutlierDetection {
        consecutive_errors: 3,
        gateway_errors: 0,
        local_origin_failures: None,
        base_ejection_time: Duration::from_secs(3600),
        max_ejection_percent: 50,
    };
    let (states, cluster) = (ClusterStates::default(), cluster(5, Some(outlier)));
    states.configure([&cluster.name]);
    let from = endpoints(&[1; 10]);
    let (taken, start) = (AtomicU32::new(0), Barrier::new(THREADS));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (states, cluster, from, taken, start) = (&states, &cluster, &from, &taken, &start);
            scope.spawn(move || {
                let random = Random::default();
                start.wait();
                for round in 0..ROUNDS {
                    // One thread takes configurations, as in a gateway.
                    if thread == 0 && round % 20 == 0 {
                        let another = ClusterName(format!("another {round}").into());
                        states.configure([&another, &cluster.name]);
                    }
                    let state = states.get(&cluster.name);
                    let order = ordered(&state, from, cluster, &random);
                    assert!(order.len() >= 5, "half of them stay: {}", order.len());
                    let Some(mut lease) = take(&state, cluster) else { continue };
                    assert!(taken.fetch_add(1, Ordering::SeqCst) < 5);
                    lease.bind(UpstreamAddr(order[0].addr));
                    let request = lease.request();
                    lease.report(round % 7 == 0);
                    lease.report_failed(UpstreamAddr(order[1].addr));
                    drop(request);
                    taken.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    let state = states.get(&cluster.name);
    assert_eq!(state.connections.taken(), 0);
    assert_eq!(states.membership(&cluster.name).ejected, 5);
    for endpoint in &from {
        let known = state.endpoints.get(UpstreamAddr(endpoint.addr));
        assert_eq!(known.connections.load(Ordering::Relaxed), 0);
        assert_eq!(known.active.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn a_hash_keeps_to_one_locality_and_a_share_is_that_of_all_hashes() {
    let to = [("us", 75), ("eu", 25)].map(|(text, weight)| (LocalityPattern::parse(text), weight));
    let from = LocalityPattern::parse("*");
    let setting = LocalitySetting {
        distribute: vec![Distribution { from, to: to.into() }],
        ..LocalitySetting::default()
    };
    let at = |text: &str| EndpointPlace { locality: Locality::parse(text), ..Default::default() };
    let places = vec![at("us"), at("eu")];
    let locality = ClusterLocality { setting, ejects: false, places };
    let hash = ConsistentHash { key: None, table: crate::policy::HashTable::Ring { minimum: 64 } };
    let cluster = Cluster {
        locality: Some(Arc::new(locality)),
        hash: Some(Arc::new(hash)),
        ..cluster(u32::MAX, None)
    };
    let (state, random, origin) = (ClusterState::default(), Random::default(), Arc::default());
    let mut from = endpoints(&[1, 1]);
    from[1].place = 1;
    let chosen = |hash: u64| {
        let mut order = from.clone();
        state.order(&mut order, &cluster, Some(hash), &random, &origin);
        assert_eq!(order.len(), 1, "the other locality is no second choice");
        order[0]
    };
    let mut near = 0;
    for number in 0..1000_u64 {
        let hash = hash_of(&number.to_be_bytes());
        assert_eq!(chosen(hash), chosen(hash));
        near += usize::from(chosen(hash) == from[0]);
    }
    assert!((650..850).contains(&near), "{near}");
}

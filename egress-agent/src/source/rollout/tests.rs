use super::*;
use crate::types::Revision;

const POLICY: &str = "EgressPolicy shop/a";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The policy of this generation, and nothing else.
fn generation(number: i64) -> Arc<Revisions> {
    let revision = Revision { uid: "uid".into(), generation: number };
    Arc::new(Revisions::new([(POLICY.to_owned(), revision)].into()))
}

/// Gateway 10.0.0.11 of two, and two nodes.
fn rollout(now: Instant) -> Rollout {
    let rollout = Rollout::new(now);
    rollout.set_own(&[ip("127.0.0.1"), ip("10.0.0.11")]);
    let nodes = [("node-a", "10.0.0.1"), ("node-b", "10.0.0.2")];
    let nodes = nodes.map(|(name, addr)| (name.to_owned(), vec![ip(addr)]));
    rollout.set_nodes(nodes.into());
    rollout.in_force(&generation(1), [ip("10.0.0.11"), ip("10.0.0.12")].into());
    rollout
}

fn counts(rollout: &Rollout, now: Instant, number: i64) -> Counts {
    rollout.view(now).counts(POLICY, "uid", number)
}

#[test]
fn it_is_in_force_everywhere_when_everybody_has_said_so() {
    let now = Instant::now();
    let (rollout, one) = (rollout(now), generation(1));
    let none = counts(&rollout, now, 1);
    assert_eq!((none.nodes, none.gateways), ((0, 2), (1, 1)));
    assert_eq!(none.waiting, ["node-a", "node-b"]);
    rollout.hear_node(now, ip("10.0.0.1"), "node-a", one.digest());
    assert!(!counts(&rollout, now, 1).is_everywhere());
    rollout.hear_node(now, ip("::ffff:10.0.0.2"), "node-b", one.digest());
    assert!(counts(&rollout, now, 1).is_everywhere());
    assert!(!counts(&rollout, now, 2).is_everywhere(), "another generation");
    assert!(!rollout.view(now).counts(POLICY, "other", 1).is_everywhere());
    // A second gateway that is ready counts, from the moment that it is known.
    rollout.hear_gateway(now, ip("10.0.0.12"), Some(Revisions::default().digest()));
    let behind = counts(&rollout, now, 1);
    assert_eq!((behind.gateways, behind.waiting), ((1, 2), vec!["10.0.0.12".to_owned()]));
    rollout.hear_gateway(now, ip("10.0.0.12"), Some(one.digest()));
    assert!(counts(&rollout, now, 1).is_everywhere());
    // The next generation is in force nowhere until each says so.
    let two = generation(2);
    rollout.in_force(&two, [ip("10.0.0.11"), ip("10.0.0.12")].into());
    let next = counts(&rollout, now, 2);
    assert_eq!((next.nodes, next.gateways), ((0, 2), (1, 2)));
    rollout.hear_node(now, ip("10.0.0.1"), "node-a", two.digest());
    rollout.hear_node(now, ip("10.0.0.2"), "node-b", two.digest());
    rollout.hear_gateway(now, ip("10.0.0.12"), Some(two.digest()));
    assert!(counts(&rollout, now, 2).is_everywhere());
    // A node that comes is behind.
    let mut nodes: BTreeMap<String, Vec<IpAddr>> = rollout.state().nodes.clone();
    nodes.insert("node-c".into(), vec![ip("10.0.0.3")]);
    rollout.set_nodes(nodes);
    assert_eq!(counts(&rollout, now, 2).waiting, ["node-c"]);
}

#[test]
fn nobody_speaks_for_another_node() {
    let now = Instant::now();
    let (rollout, one) = (rollout(now), generation(1));
    rollout.hear_node(now, ip("10.0.0.2"), "node-a", one.digest());
    rollout.hear_node(now, ip("192.0.2.7"), "node-a", one.digest());
    rollout.hear_node(now, ip("10.0.0.1"), "stranger", one.digest());
    assert_eq!(counts(&rollout, now, 1).nodes, (0, 2));
    rollout.hear_gateway(now, ip("192.0.2.7"), Some(one.digest()));
    assert_eq!(counts(&rollout, now, 1).gateways, (1, 1));
    assert!(rollout.state().heard_nodes.is_empty() && rollout.state().heard_gateways.is_empty());
}

#[test]
fn what_is_not_known_says_nothing_new_and_nothing_is_nothing() {
    let now = Instant::now();
    let (rollout, one) = (rollout(now), generation(1));
    let say = |digest: &str| rollout.hear_node(now, ip("10.0.0.1"), "node-a", digest);
    say("0123");
    assert_eq!(counts(&rollout, now, 1).nodes, (0, 2), "never known");
    say(one.digest());
    assert_eq!(counts(&rollout, now, 1).nodes, (1, 2));
    // It is ahead: it still has that, or a newer one, which is not this one.
    say(generation(2).digest());
    assert_eq!((counts(&rollout, now, 1).nodes, counts(&rollout, now, 2).nodes), ((1, 2), (0, 2)));
    rollout.in_force(&generation(2), [ip("10.0.0.11")].into());
    say(generation(2).digest());
    assert_eq!((counts(&rollout, now, 1).nodes, counts(&rollout, now, 2).nodes), ((0, 2), (1, 2)));
    // Its maps are behind.
    say(NONE);
    assert_eq!(counts(&rollout, now, 2).nodes, (0, 2));
}

#[test]
fn who_is_silent_is_behind() {
    let mut now = Instant::now();
    let (rollout, one) = (rollout(now), generation(1));
    rollout.hear_node(now, ip("10.0.0.1"), "node-a", one.digest());
    rollout.hear_node(now, ip("10.0.0.2"), "node-b", one.digest());
    assert!(counts(&rollout, now, 1).is_everywhere() && !rollout.view(now).is_warm);
    now += HOLDS - Duration::from_secs(1);
    rollout.hear_node(now, ip("10.0.0.2"), "node-b", one.digest());
    assert!(counts(&rollout, now, 1).is_everywhere() && rollout.view(now).is_warm);
    now += Duration::from_secs(2);
    assert_eq!(counts(&rollout, now, 1).waiting, ["node-a"]);
}

#[test]
fn the_first_gateway_that_is_ready_reports() {
    let mut now = Instant::now();
    let (rollout, one) = (rollout(now), generation(1));
    let reports = |now| rollout.is_reporter(now);
    assert!(reports(now) && rollout.peers() == [ip("10.0.0.12")]);
    rollout.hear_gateway(now, ip("10.0.0.12"), Some(one.digest()));
    assert!(reports(now), "the other one comes after it");
    rollout.in_force(&one, [ip("10.0.0.9"), ip("10.0.0.11")].into());
    assert!(reports(now), "nothing is known of the first one");
    rollout.hear_gateway(now, ip("10.0.0.9"), Some(one.digest()));
    assert!(!reports(now));
    // It is not ready, or does not answer any more.
    rollout.hear_gateway(now, ip("10.0.0.9"), None);
    assert!(reports(now));
    rollout.hear_gateway(now, ip("10.0.0.9"), Some(one.digest()));
    assert!(!reports(now));
    now += GATEWAY_HOLDS;
    assert!(reports(now));
    // One that is no endpoint, or drains, does not.
    rollout.in_force(&one, [ip("10.0.0.12")].into());
    assert!(!reports(now));
    rollout.in_force(&one, [ip("10.0.0.11")].into());
    assert!(reports(now));
    rollout.stop();
    assert!(!reports(now));
}

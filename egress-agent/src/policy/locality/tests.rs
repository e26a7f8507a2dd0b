use super::*;

fn place(text: &str, labels: &[(&str, &str)]) -> EndpointPlace {
    let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    EndpointPlace { locality: Locality::parse(text), labels }
}

fn cluster(setting: LocalitySetting, places: &[&str]) -> ClusterLocality {
    let places = places.iter().map(|text| place(text, &[])).collect();
    ClusterLocality { setting, ejects: true, places }
}

fn origin(text: &str) -> Origin {
    Origin { locality: Locality::parse(text), labels: Labels::new() }
}

fn health(of: &[(u64, u64)]) -> Vec<GroupHealth> {
    of.iter().map(|(healthy, total)| GroupHealth { total: *total, healthy: *healthy }).collect()
}

/// Of a thousand points that are spread evenly, how many fall to each group.
fn counts(preferences: &Preferences, of: &[(u64, u64)]) -> Vec<u64> {
    let mut counts = vec![0; preferences.len()];
    for point in 0..1000 {
        let chosen = preferences.choose(&health(of), u64::MAX / 1000 * point + u64::MAX / 2000);
        if let Some(group) = chosen {
            counts[group] += 1;
        }
    }
    counts
}

#[test]
fn a_pattern_is_a_locality_with_what_is_in_it() {
    for (pattern, locality, expected) in [
        ("us/a/1", "us/a/1", true),
        ("us/a/1", "us/a/2", false),
        ("us/a/*", "us/a/2", true),
        ("us/a", "us/a/2", true),
        ("us/*", "us/b", true),
        ("us", "us/b/3", true),
        ("us", "eu/b/3", false),
        ("us/a", "us/ab", false),
        ("*", "eu", true),
        ("*", "", true),
        ("us", "", false),
    ] {
        let matches = LocalityPattern::parse(pattern).matches(&Locality::parse(locality));
        assert_eq!(matches, expected, "{pattern} {locality}");
    }
    for text in ["us/a/1", "us/a", "us", "", "us//1"] {
        assert_eq!(Locality::parse(text).to_string(), text);
    }
}

#[test]
fn shares_are_those_that_are_given() {
    let to = |list: &[(&str, u32)]| {
        list.iter().map(|(text, weight)| (LocalityPattern::parse(text), *weight)).collect()
    };
    let distribute = vec![
        Distribution { from: LocalityPattern::parse("us/a"), to: to(&[("us/a", 70), ("eu", 30)]) },
        Distribution { from: LocalityPattern::parse("eu/*"), to: to(&[("eu/*", 100)]) },
    ];
    let setting = LocalitySetting { distribute, ..LocalitySetting::default() };
    let all = cluster(setting, &["us/a", "us/b", "eu/a", "eu/b"]);
    let from_us = all.preferences(&origin("us/a/rack")).unwrap();
    let groups = |of: &Preferences| (0..4).map(|place| of.group(place)).collect::<Vec<_>>();
    assert_eq!(groups(&from_us), [Some(0), None, Some(1), Some(1)]);
    assert_eq!(counts(&from_us, &[(1, 1), (2, 2)]), [700, 300]);
    // A group keeps its share until less than five of seven are left.
    assert_eq!(counts(&from_us, &[(1, 1), (1, 2)]), [769, 231]);
    assert_eq!(counts(&from_us, &[(0, 1), (2, 2)]), [0, 1000]);
    assert_eq!(counts(&from_us, &[(0, 1), (0, 2)]), [0, 0]);
    let from_eu = all.preferences(&origin("eu/b")).unwrap();
    assert_eq!(groups(&from_eu), [None, None, Some(0), Some(0)]);
    // From elsewhere nothing is said, and nobody fails over either.
    assert_eq!(all.preferences(&origin("ap")), None);
    assert_eq!(all.preferences(&origin("")), None);
}

#[test]
fn the_nearest_comes_first() {
    let all = cluster(LocalitySetting::default(), &["us/a/1", "us/a/2", "us/b", "eu", "us/a/1"]);
    let preferences = all.preferences(&origin("us/a/1")).unwrap();
    let groups: Vec<_> = (0..5).map(|place| preferences.group(place)).collect();
    assert_eq!(groups, [Some(0), Some(1), Some(2), Some(3), Some(0)]);
    assert_eq!(counts(&preferences, &[(2, 2), (1, 1), (1, 1), (1, 1)]), [1000, 0, 0, 0]);
    // Half of the first: seven tenths of the load.
    assert_eq!(counts(&preferences, &[(1, 2), (1, 1), (1, 1), (1, 1)]), [700, 300, 0, 0]);
    assert_eq!(counts(&preferences, &[(0, 2), (0, 1), (1, 1), (1, 1)]), [0, 0, 1000, 0]);
    // Levels that no endpoint has are none.
    let far = all.preferences(&origin("ap")).unwrap();
    assert_eq!(far.len(), 1);
    // Without ejections, or without a locality of the gateway's, there is no first one.
    assert_eq!(all.preferences(&origin("")), None);
    assert_eq!(ClusterLocality { ejects: false, ..all }.preferences(&origin("us/a/1")), None);
}

#[test]
fn a_region_fails_over_to_the_one_that_is_named() {
    let failover = vec![("us".into(), "ap".into())];
    let setting = LocalitySetting { failover, ..LocalitySetting::default() };
    let all = cluster(setting, &["eu", "ap", "us"]);
    let groups = |from: &str| {
        let preferences = all.preferences(&origin(from)).unwrap();
        (0..3).map(|place| preferences.group(place).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(groups("us"), [2, 1, 0]);
    assert_eq!(groups("eu"), [0, 1, 1]);
}

#[test]
fn labels_come_in_their_order() {
    let failover_priority = vec![
        (Box::from("network"), None),
        (Box::from("tier"), Some("gold".into())),
        (REGION.into(), None),
    ];
    let setting = LocalitySetting { failover_priority, ..LocalitySetting::default() };
    let places = vec![
        place("us", &[("network", "n1"), ("tier", "gold")]),
        place("eu", &[("network", "n1"), ("tier", "gold")]),
        place("us", &[("network", "n1"), ("tier", "lead")]),
        place("us", &[("network", "n2"), ("tier", "gold")]),
        place("us", &[]),
    ];
    let all = ClusterLocality { setting, ejects: true, places };
    let labels = [("network".to_owned(), "n1".to_owned())].into_iter().collect();
    let from = Origin { locality: Locality::parse("us"), labels };
    let preferences = all.preferences(&from).unwrap();
    let groups: Vec<_> = (0..5).map(|place| preferences.group(place).unwrap()).collect();
    assert_eq!(groups, [0, 1, 2, 3, 3]);
}

use proptest::prelude::*;

use super::*;

fn claim() -> AssertedWorkload {
    AssertedWorkload {
        cluster: None,
        namespace: Namespace("apps".into()),
        name: "sleep".into(),
        service_account: Some("sleeper".into()),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn what_ztunnel_sends_is_read() {
    let text = "k8s.cluster.name=Kubernetes,k8s.namespace.name=apps,k8s.deployment.name=sleep,\
                service.name=sleep,service.version=latest,cloud.region=,cloud.availability_zone=";
    let read = read_baggage(text).unwrap();
    let expected =
        AssertedWorkload { cluster: Some("Kubernetes".into()), service_account: None, ..claim() };
    assert_eq!(read, expected);
    let client = |text: &str| ClientAddr(text.parse().unwrap());
    assert_eq!(read_forwarded("for=\"10.0.0.5:41234\""), Ok(client("10.0.0.5:41234")));
    assert_eq!(read_forwarded("for=\"[fd00::5]:41234\";host=a"), Ok(client("[fd00::5]:41234")));
}

#[test]
fn what_is_sent_reads_like_what_ztunnel_sends() {
    let text = "k8s.namespace.name=apps,k8s.pod.name=sleep,k8s.serviceaccount.name=sleeper,\
                service.name=sleep";
    assert_eq!(baggage(&claim()), text);
    let strange = AssertedWorkload { name: "a b,c;d=e%\"ä".into(), ..claim() };
    assert!(baggage(&strange).to_str().unwrap().contains("a%20b%2Cc%3Bd%3De%25%22%C3%A4"));
    let from = |text: &str| forwarded(ClientAddr(text.parse().unwrap()));
    assert_eq!(from("10.0.0.5:41234"), "for=\"10.0.0.5:41234\"");
    assert_eq!(from("[fd00::5]:41234"), "for=\"[fd00::5]:41234\"");
    assert_eq!(from("[::ffff:10.0.0.5]:1"), "for=\"10.0.0.5:1\"");
}

#[test]
fn whitespace_and_properties_say_nothing() {
    let text = " k8s.namespace.name = apps ;p=1;q,\tk8s.pod.name=sleep\t, ,other=%2c;p";
    let read = read_baggage(text).unwrap();
    assert_eq!(read, AssertedWorkload { service_account: None, ..claim() });
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let with = |more: &str| read_baggage(&format!("k8s.namespace.name=apps,k8s.pod.name=a{more}"));
    assert!(with("").is_ok());
    assert!(with(",k8s.pod.name=a").is_ok());
    let error = |more: &str| with(more).unwrap_err();
    assert_eq!(error(",k8s.pod.name=b"), HboneError::Twice("k8s.pod.name".into()));
    assert_eq!(error(",k8s.namespace.name=b"), HboneError::Twice("k8s.namespace.name".into()));
    assert_eq!(error(",x"), HboneError::Member("x".into()));
    assert_eq!(error(",=x"), HboneError::Member("=x".into()));
    assert_eq!(error(",a b=x"), HboneError::Member("a b=x".into()));
    assert_eq!(error(",x=%"), HboneError::Encoding("%".into()));
    assert_eq!(error(",x=%4"), HboneError::Encoding("%4".into()));
    assert_eq!(error(",x=%g0"), HboneError::Encoding("%g0".into()));
    assert_eq!(error(",x=%ff"), HboneError::Encoding("%ff".into()));
    assert_eq!(error(",k8s.serviceaccount.name="), HboneError::Empty("k8s.serviceaccount.name"));
}

#[test]
fn a_workload_has_a_namespace_and_a_name() {
    for (text, missing) in [
        ("", NAMESPACE),
        ("k8s.pod.name=a", NAMESPACE),
        ("k8s.namespace.name=a", POD),
        ("k8s.namespace.name=a,service.name=b", POD),
        ("K8S.NAMESPACE.NAME=a,k8s.pod.name=b", NAMESPACE),
    ] {
        assert_eq!(read_baggage(text), Err(HboneError::Missing(missing)), "{text}");
    }
    assert_eq!(
        read_baggage("k8s.namespace.name=,k8s.pod.name=a"),
        Err(HboneError::Empty(NAMESPACE))
    );
    let long = "a".repeat(LONGEST + 1);
    let error = HboneError::TooLong { what: "baggage", found: LONGEST + 1 };
    assert_eq!(read_baggage(&long), Err(error));
}

#[test]
fn addresses_of_forwarded() {
    for (text, addr) in [
        ("for=10.0.0.5", "10.0.0.5"),
        ("For=10.0.0.5:80", "10.0.0.5"),
        ("by=x; for=\"10.0.0.5\" ;proto=http", "10.0.0.5"),
        ("for=\"[fd00::5]\"", "fd00::5"),
        ("for=fd00::5", "fd00::5"),
        ("for=\"[::ffff:10.0.0.5]:1\"", "10.0.0.5"),
        ("for=10.0.0.5, for=10.0.0.6", "10.0.0.5"),
    ] {
        assert_eq!(read_forwarded(text).map(ClientAddr::ip), Ok(ip(addr)), "{text}");
    }
    for text in [
        "",
        "for",
        "for=",
        "for=unknown",
        "for=_hidden",
        "for=\"10.0.0.5",
        "by=10.0.0.5",
        "for=a.example",
    ] {
        assert_eq!(read_forwarded(text), Err(HboneError::Forwarded(text.into())), "{text}");
    }
}

#[test]
fn an_authority_is_an_address_and_a_port() {
    for (text, addr) in [
        ("198.51.100.7:443", "198.51.100.7:443"),
        ("[2001:db8::7]:443", "[2001:db8::7]:443"),
        ("[::ffff:198.51.100.7]:443", "198.51.100.7:443"),
    ] {
        let read = read_authority(text).unwrap();
        assert_eq!(read, OriginalDst(addr.parse().unwrap()));
        assert_eq!(authority(read), addr);
    }
    for text in [
        "",
        "edition.cnn.com:443",
        "198.51.100.7",
        "198.51.100.7:",
        "198.51.100.7:0",
        "198.51.100.7:65536",
        "198.51.100.7:+443",
        "2001:db8::7:443",
        "[2001:db8::7]",
        "[fe80::1%2]:443",
        "user@198.51.100.7:443",
        "198.51.100.7:443/",
        " 198.51.100.7:443",
        "198.51.100.07:443",
        "0xc6336407:443",
    ] {
        assert_eq!(read_authority(text), Err(HboneError::Authority(text.into())), "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        cluster in proptest::option::of("\\PC{1,20}"),
        namespace in "\\PC{1,20}",
        name in "\\PC{1,20}",
        account in proptest::option::of("\\PC{1,20}"),
    ) {
        let claim = AssertedWorkload {
            cluster: cluster.map(Into::into),
            namespace: Namespace(namespace.into()),
            name: name.into(),
            service_account: account.map(Into::into),
        };
        let text = baggage(&claim);
        prop_assert_eq!(read_baggage(text.to_str().unwrap()), Ok(claim));
    }

    #[test]
    fn addresses_are_read_back(addr: SocketAddr) {
        let client = ClientAddr(addr);
        let text = forwarded(client);
        let read = read_forwarded(text.to_str().unwrap()).unwrap();
        prop_assert_eq!((read.ip(), read.0.port()), (client.ip(), addr.port()));
        if addr.port() != 0 {
            let dialled = OriginalDst(addr);
            let read = read_authority(&authority(dialled)).unwrap();
            prop_assert_eq!((read.ip(), read.0.port()), (dialled.ip(), addr.port()));
        }
    }

    #[test]
    fn no_input_panics(text in "\\PC{0,80}|[a-z0-9.=,;%\"\\[\\]: ]{0,80}") {
        let _claim = read_baggage(&text);
        let _addr = read_forwarded(&text);
        if let Ok(read) = read_authority(&text) {
            prop_assert_eq!(read_authority(&authority(read)), Ok(read));
        }
    }
}

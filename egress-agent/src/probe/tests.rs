use std::net::IpAddr;

use rustix::thread::CapabilitySet;

use super::*;

fn settings(targets: Vec<IpAddr>, port: u16) -> Settings {
    Settings {
        id: ProbeId::random(),
        targets,
        ports: vec![port],
        timeout: Duration::from_millis(300),
        gateway: None,
        risky: false,
        capabilities: CapabilitySet::empty(),
        network: Err("a test".into()),
        held: None,
        passed: None,
    }
}

fn outcomes(names: &[&str], settings: &Settings) -> Vec<(String, Outcome)> {
    let cases: Vec<Case> = cases(&settings.ports)
        .into_iter()
        .filter(|case| names.contains(&case.attempt.name))
        .collect();
    let reports = run(&cases, settings, 4, |_| ());
    reports.into_iter().map(|report| (report.case.name(), report.outcome)).collect()
}

#[test]
fn an_echo_is_an_answer_and_silence_is_none() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let settings = settings(vec![[127, 0, 0, 1].into()], port);
    let sent = outcomes(&["udp"], &settings);
    assert_eq!(sent[0], ("udp-v4".into(), Outcome::NoAnswer("sent, no answer".into())));
    let mut buffer = [0; 100];
    let (count, _) = silent.recv_from(&mut buffer).unwrap();
    assert_eq!(Token::find(&buffer[..count]).unwrap().id, settings.id);

    let echo = thread::spawn(move || {
        let (count, peer) = silent.recv_from(&mut buffer).unwrap();
        silent.send_to(&buffer[..count], peer).unwrap();
    });
    let sent = outcomes(&["udp-connected"], &settings);
    assert!(matches!(sent[0].1, Outcome::Answered(_)), "{sent:?}");
    echo.join().unwrap();
}

#[test]
fn what_is_missing_is_said() {
    let settings = settings(vec![[127, 0, 0, 1].into()], 1);
    let not = |name: &str, cause: &str| {
        let outcomes = outcomes(&[name], &settings);
        assert!(
            outcomes.iter().any(|(_, outcome)| *outcome == Outcome::NotApplicable(cause.into())),
            "{outcomes:?}"
        );
    };
    not("tcp", "no IPv6 address was given");
    not("packet", "needs CAP_NET_RAW");
    not("netlink", "needs CAP_NET_ADMIN");
    not("gateway-udp", "needs --gateway");
    not("device", "no network here: a test");
    not("held-tcp", "needs --hold");
}

#[test]
fn ports_are_taken_in_turn() {
    let cases = cases(&[1, 2, 3]);
    let ports: Vec<u16> = cases.iter().take(4).map(|case| case.port).collect();
    assert_eq!(ports, [1, 2, 3, 1]);
    assert!(cases.len() > 100);
}

use std::time::Duration;

use clap::Parser as _;

use super::{
    super::{
        testing::{documented, golden},
        wrap::WIDTH,
    },
    *,
};
use crate::probe::{Call, cases};

#[derive(clap::Parser, Debug)]
struct Cli {
    #[command(flatten)]
    args: ProbeArgs,
}

fn args(words: &[&str]) -> ProbeArgs {
    let words = ["probe"].iter().chain(words);
    Cli::try_parse_from(words).unwrap().args
}

fn selected(words: &[&str]) -> Vec<String> {
    let args = args(words);
    args.select(cases(&[1])).unwrap().iter().map(Case::name).collect()
}

#[test]
fn attempts_are_chosen_by_name() {
    assert_eq!(selected(&["--only", "tcp", "--only", "udp-v6"]), ["tcp-v4", "tcp-v6", "udp-v6"]);
    let without = selected(&["--skip", "tcp"]);
    assert!(!without.contains(&"tcp-v4".to_owned()) && without.len() > 100);
    let error = args(&["--only", "udp-light"]).select(cases(&[1])).unwrap_err();
    assert_eq!(error.to_string(), "there is no attempt udp-light; did you mean udplite?");
    let error = args(&["--skip", "zzz"]).select(cases(&[1])).unwrap_err();
    assert!(error.to_string().contains("--list"), "{error}");
    assert!(args(&["--only", "tcp", "--skip", "tcp"]).select(cases(&[1])).is_err());
}

#[test]
fn ports_and_targets_are_read() {
    assert_eq!(args(&["--ports", "22,7000-7002"]).ports.0, [22, 7000, 7001, 7002]);
    for bad in ["0", "70000", "x", "9-8", ""] {
        assert!(Cli::try_parse_from(["probe", "--ports", bad]).is_err(), "{bad}");
    }
    assert_eq!(args(&["--timeout", "1m30s"]).timeout, Duration::from_secs(90));
    for bad in ["0", "-1", "x", "inf", "NaN", "2", "11m"] {
        assert!(Cli::try_parse_from(["probe", "--timeout", bad]).is_err(), "{bad}");
    }
    assert_eq!(args(&["192.0.2.1", "2001:db8::1"]).targets().unwrap().len(), 2);
    assert!(args(&["192.0.2.1", "192.0.2.2"]).targets().is_err());
    // Without a target there is nothing to do, and it says how to have one.
    let error = prepare(&args(&[])).unwrap_err().to_string();
    assert!(error.contains("--canary-server"), "{error}");
    let error = prepare(&args(&["192.0.2.1", "--only", "hop-by-hop"])).unwrap_err().to_string();
    assert!(error.contains("family"), "{error}");
}

fn reports(outcomes: Vec<Outcome>) -> Vec<Report> {
    let cases = cases(&[7]);
    let with = |(case, outcome)| Report { case, outcome, time: Duration::from_millis(5) };
    cases.into_iter().zip(outcomes).map(with).collect()
}

fn settings() -> Settings {
    Settings {
        id: ProbeId::random(),
        targets: vec![[192, 0, 2, 1].into()],
        ports: vec![7],
        timeout: Duration::from_secs(1),
        gateway: None,
        risky: false,
        capabilities: rustix::thread::CapabilitySet::empty(),
        network: Err("a test".into()),
        held: None,
        passed: None,
    }
}

#[test]
fn the_exit_code_says_what_got_out() {
    let refused = || Outcome::Refused { call: Call::Connect, errno: 13 };
    let held = reports(vec![refused(), Outcome::NoAnswer("sent".into())]);
    assert_eq!(verdict(&held, &Allowed::NotChecked), 0);
    assert_eq!(verdict(&held, &Allowed::Works(String::new())), 0);
    assert_eq!(verdict(&held, &Allowed::Fails(String::new())), INCONCLUSIVE);
    let leaked = reports(vec![refused(), Outcome::Answered("out".into())]);
    assert_eq!(verdict(&leaked, &Allowed::NotChecked), FAILURE);
    assert_eq!(verdict(&leaked, &Allowed::Fails(String::new())), FAILURE);
}

#[test]
fn the_table_says_what_to_think_of_it() {
    let settings = settings();
    let text = |outcomes, allowed: &Allowed| {
        let (mut out, reports) = (Vec::new(), reports(outcomes));
        let summary = Summary { settings: &settings, reports: &reports, allowed };
        summary.text(false, width(false), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let refused = Outcome::Refused { call: Call::Connect, errno: 13 };
    let quiet = text(vec![refused.clone(), Outcome::NoAnswer("sent".into())], &Allowed::NotChecked);
    assert!(
        quiet.contains("tcp-v4                refused         socket hook     connect: EACCES")
    );
    assert!(
        quiet.contains("was not checked") && quiet.contains("what the canary printed"),
        "{quiet}"
    );
    assert!(!quiet.contains("\x1b["));
    assert!(quiet.contains("IPv6 wasn't tried") && !quiet.contains("IPv4 wasn't tried"));
    let all_refused = text(vec![refused], &Allowed::Works("x:1".into()));
    assert!(!all_refused.contains("what the canary printed"), "{all_refused}");
    let out = text(vec![Outcome::Answered("out".into())], &Allowed::NotChecked);
    assert!(out.contains("1 got out."), "{out}");
}

/// As a terminal shows it.
#[test]
fn the_table_fits_a_terminal() {
    let settings = settings();
    let refused = Outcome::Refused { call: Call::Connect, errno: 13 };
    let sent = "sent 3 packets by way of a socket that was bound before enforcement";
    let reports = reports(vec![refused, Outcome::NoAnswer(sent.into())]);
    let allowed = Allowed::Fails("192.0.2.2:443: connection refused".into());
    let mut out = Vec::new();
    let summary = Summary { settings: &settings, reports: &reports, allowed: &allowed };
    summary.text(false, width(true), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let wide = text.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None, "{text}");
    // A detail goes on in its own column.
    let below = format!("\n{}socket that was bound\n", " ".repeat(54));
    assert!(text.contains(&below), "{text}");
    assert!(text.contains("connect: EACCES\n"), "{text}");
}

/// Everything that an attempt can come to, with and without a leak, and the list of all.
#[test]
fn the_pages_are_shown_in_80_columns() {
    let refused = |call, errno| Outcome::Refused { call, errno };
    let held = vec![
        refused(Call::Connect, 13),
        refused(Call::Send, 1),
        Outcome::NoAnswer(
            "sent 3 packets by way of a socket that was bound before enforcement".into(),
        ),
        Outcome::Intercepted("HTTP/1.1 403 Forbidden, which the canary does not say".into()),
        Outcome::NotApplicable("it needs CAP_NET_RAW, which this process does not have".into()),
        Outcome::Error("can't open /proc/self/ns/net: permission denied".into()),
    ];
    let leaked = vec![refused(Call::Connect, 13), Outcome::Answered("an answer came back".into())];
    let settings = settings();
    let mut out = Vec::new();
    for (outcomes, allowed) in [
        (held.clone(), Allowed::NotChecked),
        (held, Allowed::Fails("192.0.2.2:443: connection refused".into())),
        (leaked, Allowed::Works("192.0.2.2:443".into())),
    ] {
        let reports = reports(outcomes);
        let summary = Summary { settings: &settings, reports: &reports, allowed: &allowed };
        summary.text(false, WIDTH, &mut out).unwrap();
        out.push(b'\n');
    }
    // Each run has another number.
    let text = String::from_utf8(out).unwrap().replace(&settings.id.to_string(), "1a2b3c4d");
    golden("probe.txt", &text);
    let mut out = Vec::new();
    table::list(Output::Table, WIDTH, &mut out).unwrap();
    let mut json = Vec::new();
    table::list(Output::Json, WIDTH, &mut json).unwrap();
    let json: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
    assert!(json.len() > 50, "{}", json.len());
    for listed in &json {
        documented("probe --list -o json", listed);
    }
    golden("probe-list.txt", &String::from_utf8(out).unwrap());
}

#[test]
fn json_holds_every_attempt() {
    let settings = settings();
    let reports = reports(vec![Outcome::Refused { call: Call::Send, errno: 1 }]);
    let mut out = Vec::new();
    let allowed = Allowed::Works("192.0.2.2:443".into());
    Summary { settings: &settings, reports: &reports, allowed: &allowed }.json(&mut out).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    documented("probe -o json", &value);
    assert_eq!(value["allowed"], true);
    let first = &value["attempts"][0];
    assert_eq!((&first["name"], &first["errno"]), (&"tcp-v4".into(), &"EPERM".into()));
    assert_eq!((&first["result"], &first["layer"]), (&"refused".into(), &"packet hook".into()));
}

//! Bad input: each kind gets a clear error, and nothing is lost by it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use egress_tests::{
    agent, copy_program,
    manifests::Walkthrough,
    plan,
    process::Finished,
    testbed::Testbed,
    wait::{SOON, patiently, until_is},
};

/// `egress-agent check` on these files.
fn check(files: &[(&str, &str)]) -> Finished {
    let run = || -> anyhow::Result<Finished> {
        let dir = tempfile::tempdir()?;
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text)?;
        }
        let output =
            std::process::Command::new(agent::built()?).arg("check").arg(dir.path()).output()?;
        Ok(Finished {
            code: output.status.code().unwrap_or(128),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    };
    match run() {
        Ok(finished) => finished,
        Err(error) => panic!("{error:#}"),
    }
}

const ENTRY: &str = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cnn}
spec:
  hosts: [edition.cnn.com]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
";

#[test]
fn check_names_file_and_field_of_every_mistake() {
    let good = check(&[("entry.yaml", ENTRY)]);
    assert_eq!(good.code, 0, "{good:?}");

    let missing = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: lost}
spec:
  hosts: [edition.cnn.com]
  gateways: [mesh, no-such-gateway]
  tls:
  - match: [{gateways: [mesh], port: 443, sniHosts: [edition.cnn.com]}]
    route: [{destination: {host: no-such-host.example.com, port: {number: 443}}}]
";
    let unreadable = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: tls}
spec:
  host: edition.cnn.com
  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /no/such/ca.pem}}
";
    let twice = ENTRY.replace("name: cnn", "name: again");
    let cases: &[(&str, &str, &[&str])] = &[
        ("malformed YAML", "kind: [unclosed\n  a: b: c\n", &["bad.yaml"]),
        ("unknown kind", &ENTRY.replace("ServiceEntry", "ServiceEntrance"), &["ServiceEntrance"]),
        (
            "unknown field",
            &twice.replace("resolution", "resolutoin"),
            &["resolutoin", "resolution"],
        ),
        ("wrong type", &twice.replace("number: 443", "number: [443]"), &["number"]),
        ("wrong value", &twice.replace("DNS", "DNSSEC"), &["resolution", "DNSSEC"]),
        ("missing reference", missing, &["no-such-gateway"]),
        ("duplicate host", &twice, &["edition.cnn.com"]),
    ];
    for (what, text, words) in cases {
        let done = check(&[("a.yaml", ENTRY), ("bad.yaml", text)]);
        let said = format!("{}{}", done.stdout, done.stderr);
        assert_ne!(done.code, 0, "{what}: {said}");
        assert!(said.contains("bad.yaml"), "{what}: {said}");
        for word in *words {
            assert!(said.contains(word), "{what} must say {word}: {said}");
        }
        assert!(!said.contains("panicked"), "{what}: {said}");
    }
    // It may be readable where the gateway runs: a warning. The gateway itself then refuses.
    let done = check(&[("a.yaml", ENTRY), ("bad.yaml", unreadable)]);
    let said = format!("{}{}", done.stdout, done.stderr);
    assert!(
        done.code == 0 && said.contains("warning") && said.contains("/no/such/ca.pem"),
        "{said}"
    );

    // All at once.
    let all: Vec<(String, &str)> =
        cases.iter().enumerate().map(|(n, (_, text, _))| (format!("bad{n}.yaml"), *text)).collect();
    let files: Vec<(&str, &str)> = all.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    let done = check(&files);
    let said = format!("{}{}", done.stdout, done.stderr);
    for word in ["bad0.yaml", "bad1.yaml", "bad3.yaml", "bad4.yaml"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn agents_that_cannot_start_say_why() {
    let testbed = Testbed::test(1).unwrap();
    let fails = |what: &str, args: &[String], words: &[&str]| {
        let mut agent = testbed.start_agent(testbed.gateway(0), what, args).unwrap();
        let status = agent.wait(SOON).unwrap();
        let said = agent.stderr();
        assert!(!status.success(), "{what}: {said}");
        assert!(!said.contains("panicked"), "{what}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{what} must say {words:?}: {said}");
    };
    let bound = |capture: &str| {
        let mut args = testbed.gateway_args();
        let at = args.iter().position(|arg| arg == "sk-lookup").unwrap();
        args[at] = capture.to_owned();
        args
    };
    // Port in use: the outside's namespace isn't needed, a listener of ours in the gateway's is.
    let _busy = testbed
        .gateway(0)
        .ns
        .enter(|| std::net::TcpListener::bind("0.0.0.0:8080"))
        .unwrap()
        .unwrap();
    fails("busy", &bound("bind:8080"), &["8080", "in use"]);

    // No such directory: said, and nothing is served until it is there.
    let mut nowhere = testbed.gateway_args();
    nowhere[2] = "/no/such/directory".into();
    let mut waiting = testbed.start_agent(testbed.gateway(0), "nowhere", &nowhere).unwrap();
    let said = || waiting.stderr();
    until_is(SOON, "the directory to be named", said, |said| said.contains("/no/such/directory"))
        .unwrap();
    let url = "http://localhost:15021/healthz/ready";
    let ready = ["-s", "-o", "/dev/null", "-w", "%{http_code}", url];
    assert_eq!(testbed.gateway(0).run("curl", &ready).unwrap().stdout, "503");
    assert!(waiting.end().unwrap().success(), "{}", waiting.stderr());

    // No privilege: the node, and a gateway with sk-lookup.
    let agent = testbed.agent().to_string_lossy().into_owned();
    for (what, args) in [("node", testbed.node_args()), ("gateway", testbed.gateway_args())] {
        let mut all = vec!["--reuid=65534", "--regid=65534", "--clear-groups", agent.as_str()];
        all.extend(args.iter().map(String::as_str));
        // The program must be readable for that user, wherever it was built.
        let copy = testbed.dir().join("agent");
        copy_program(testbed.agent(), &copy).unwrap();
        let copy = copy.to_string_lossy();
        all[3] = &copy;
        let done = testbed.app().run("setpriv", &all).unwrap();
        assert_ne!(done.code, 0, "{what}: {done:?}");
        assert!(done.stderr.contains("CAP_") || done.stderr.contains("root"), "{what}: {done:?}");
    }

    // No cgroup2: a path that is none.
    let mut no_cgroup = testbed.node_args();
    let at = no_cgroup.iter().position(|arg| arg == "--cgroup").unwrap();
    no_cgroup[at + 1] = testbed.dir().to_string_lossy().into_owned();
    let mut node = testbed.start_agent(testbed.app(), "no-cgroup", &no_cgroup).unwrap();
    assert!(!node.wait(SOON).unwrap().success());
    assert!(node.stderr().contains("cgroup"), "{}", node.stderr());
    // Nothing of it stays in force. A probe waits for a second, which is short on a busy machine.
    let probe = || testbed.probe(&["tcp", plan::ATTACKER, "22"]).unwrap().code;
    until_is(SOON, "an answer from outside", probe, |code| *code == 0).unwrap();
}

/// A user without privilege listens on high ports alone, unless it has the one capability.
#[test]
fn a_user_without_privilege_binds_high_ports_and_is_told_what_low_ones_need() {
    const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    const LOW: &str = "bind:80,443";
    const MAY_BIND: [&str; 2] =
        ["--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service"];
    let testbed = Testbed::test(1).unwrap();
    // Readable for that user, wherever the program was built.
    let copy = testbed.dir().join("agent");
    copy_program(testbed.agent(), &copy).unwrap();
    let place = testbed.gateway(0);
    let start = |name: &str, more: &[&str], capture: &str| {
        let program = copy.to_string_lossy().into_owned();
        let mut args = testbed.gateway_args();
        let at = args.iter().position(|arg| arg == "sk-lookup").unwrap();
        args[at] = capture.to_owned();
        let user = NOBODY.iter().chain(more).copied().chain([program.as_str()]);
        let args: Vec<&str> = user.chain(args.iter().map(String::as_str)).collect();
        place.start(&testbed.dir(), name, "setpriv", &args).unwrap()
    };
    // The ports are those that the help names, with what it says of them.
    let help = place.run(&copy.to_string_lossy(), &["gateway", "--help"]).unwrap().stdout;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let said =
        format!("`{LOW}` listens on these ports (those below 1024 need CAP_NET_BIND_SERVICE");
    assert!(help.contains(&said), "{help}");
    let mut refused = start("low", &[], LOW);
    let status = refused.wait(SOON).unwrap();
    let said = refused.stderr();
    assert_eq!(status.code(), Some(1), "{said}");
    for words in [
        "--capture: found port 80",
        "expected a port from 1024 on, or CAP_NET_BIND_SERVICE",
        "Choose a higher port",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }

    // The twins: curl ends with 7 where nobody listens.
    let answers = |port: u16| {
        let url = format!("http://{}:{port}/", plan::GATEWAYS[0]);
        place.run("curl", &["-s", "-o", "/dev/null", "--max-time", "5", &url]).unwrap().code != 7
    };
    for (name, more, capture, ports) in [
        ("high", &[][..], "bind:8080,8443", [8080, 8443]),
        ("capable", &MAY_BIND[..], LOW, [80, 443]),
    ] {
        assert_eq!(ports.map(answers), [false; 2], "{name}");
        let mut gateway = start(name, more, capture);
        until_is(SOON, name, || ports.map(answers), |all| *all == [true; 2])
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.stderr()));
        assert!(gateway.end().unwrap().success(), "{}", gateway.stderr());
    }
}

#[test]
fn an_empty_configuration_denies_everything() {
    let testbed = Testbed::test(1).unwrap();
    let _gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    for url in ["http://edition.cnn.com/", "https://edition.cnn.com/"] {
        let seen = testbed.curl_status(&[url]).unwrap();
        assert!(seen.starts_with("curl: "), "{url}: {seen}");
    }
    assert_eq!(capture.frames(), Vec::<String>::new());
}

#[test]
fn hostile_bytes_on_the_capture_port_harm_nobody() {
    let testbed = Testbed::test(1).unwrap();
    let files = Walkthrough::example().unwrap();
    files.http.apply(&testbed).unwrap();
    let mut gateway = testbed.start_gateway(0).unwrap();
    let _node = testbed.start_node().unwrap();
    let served = || testbed.curl_status(&["http://edition.cnn.com/"]).unwrap();
    until_is(SOON, "the allowed way", served, |seen| seen == "301").unwrap();

    // Straight to the gateway, as a pod may.
    let send = |chunks: &[&[u8]], limit: Duration| -> Vec<u8> {
        let talk = || -> std::io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect((plan::GATEWAYS[0], 80))?;
            stream.set_read_timeout(Some(limit))?;
            for chunk in chunks {
                // The gateway may have hung up already, which is its right.
                if stream.write_all(chunk).is_err() {
                    break;
                }
            }
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).ok();
            Ok(answer)
        };
        // From the outside's cgroup-free side of the app node: the node's own traffic.
        testbed.app().ns.enter(talk).unwrap().unwrap()
    };
    let long = patiently(Duration::from_secs(5));
    let garbage: Vec<u8> =
        (0..4096_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    assert!(!text(&send(&[&garbage], long)).contains(" 200 "));
    // Half a ClientHello, then silence: not answered, and not waited for without end.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let start = Instant::now();
    let limit = patiently(Duration::from_secs(40));
    let answer = send(&[&hello], limit);
    assert!(start.elapsed() < limit, "half a ClientHello must have a deadline");
    assert!(!text(&answer).contains("HTTP/"), "{}", text(&answer));
    // A megabyte of headers: refused with 431 or hung up on, not stored.
    let mut headers = b"GET / HTTP/1.1\r\nHost: edition.cnn.com\r\n".to_vec();
    for number in 0..10_000 {
        headers.extend(format!("X-Filler-{number}: {}\r\n", "x".repeat(80)).bytes());
    }
    headers.extend(b"\r\n");
    let answer = text(&send(&[&headers], long));
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    // Two ways to read one message: refused.
    let smuggled = b"POST / HTTP/1.1\r\nHost: edition.cnn.com\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX";
    let answer = text(&send(&[smuggled], long));
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");

    // A request a byte at a time is slow, but a request.
    let slow: Vec<&[u8]> =
        b"GET / HTTP/1.1\r\nHost: edition.cnn.com\r\nConnection: close\r\n\r\n".chunks(1).collect();
    let answer = text(&send(&slow, long));
    assert!(answer.starts_with("HTTP/1.1 301"), "{answer}");

    assert!(gateway.ended().is_none(), "{}", gateway.stderr());
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
    assert_eq!(served(), "301");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

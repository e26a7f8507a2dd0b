//! Two gateways. Connections are spread over both. One dies: what runs breaks visibly, what comes next goes to the
//! other gateway or nowhere, and nothing goes directly.

use std::time::{Duration, Instant};

use egress_tests::{
    manifests::Walkthrough,
    plan,
    testbed::Testbed,
    wait::{SOON, patiently, until, until_is},
};

/// The download takes some seconds.
const SECURE_DOWNLOAD: &str = "https://edition.cnn.com/download";

#[test]
fn a_gateway_killed_during_a_download_breaks_it_and_the_other_takes_over() {
    let testbed = Testbed::test(2).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let mut gateways = [testbed.start_gateway(0).unwrap(), testbed.start_gateway(1).unwrap()];
    let _node = testbed.start_node().unwrap();
    let capture = testbed.capture().unwrap();
    let status = || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap();
    until_is(SOON, "the host to be served", status, |seen| seen == "200").unwrap();

    let file = testbed.dir().join("download").to_string_lossy().into_owned();
    let args = ["-s", "--max-time", "30", "-o", &file, SECURE_DOWNLOAD];
    let mut download = testbed.pod().start(&testbed.dir(), "download", "curl", &args).unwrap();
    until(SOON, "the download to be under way", || {
        std::fs::metadata(&file).ok().filter(|meta| meta.len() > 1 << 20)
    })
    .unwrap();
    let busy = until(SOON, "the gateway that carries it", || {
        let active = "cluster.outbound|443||edition.cnn.com.upstream_cx_active";
        (0..2).find(|number| testbed.stat(*number, active).unwrap() > 0)
    })
    .unwrap();
    let other = 1 - busy;
    assert!(download.ended().is_none(), "it must be running when its gateway is killed");

    gateways[busy].kill();
    let ended = download.wait(Duration::from_secs(10)).unwrap();
    assert!(!ended.success(), "a short download must not look whole");
    // Until the dead one is noticed, a connect may still be sent to it and is refused.
    let ten = || (0..10).map(|_| status()).collect::<Vec<_>>();
    let all_served = |seen: &Vec<String>| seen.iter().all(|seen| seen == "200");
    until_is(SOON, "the dead gateway to be left out", ten, all_served).unwrap();

    // None is left: refused, and at once.
    gateways[other].kill();
    until_is(
        SOON,
        "connects to be refused",
        || testbed.probe(&["tcp", plan::WEB, "443"]).unwrap(),
        |probe| probe.stdout.contains("ECONNREFUSED"),
    )
    .unwrap();
    let start = Instant::now();
    assert_eq!(status(), "curl: (7)");
    assert!(start.elapsed() < patiently(Duration::from_secs(5)), "{:?}", start.elapsed());

    // One comes back.
    let _back = testbed.start_gateway(other).unwrap();
    until_is(SOON, "the gateway that came back", status, |seen| seen == "200").unwrap();
    assert_eq!(capture.frames(), Vec::<String>::new());
}

/// Opens connections to `ADDRESS PORT` until no local port is left, and writes how many there
/// are. It is refused now and then if only one of several gateways has no port left, so it tries on for a while.
const CONNECT: &str = r#"
import errno, socket, struct, sys

connections, failures = [], 0
while failures < 40:
    connection = socket.socket()
    # The ports are free again at once.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    try:
        connection.connect((sys.argv[1], int(sys.argv[2])))
        connections.append(connection)
        failures = 0
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        failures += 1
print(len(connections))
"#;

/// Local ports that the pod has in the test below.
const PORTS: usize = 32;

/// To a gateway's address and one port, a pod has as many connections as local ports; to two of them twice as many.
#[test]
fn a_pods_local_ports_count_for_each_gateway_on_its_own() {
    let testbed = Testbed::test(2).unwrap();
    Walkthrough::example().unwrap().passthrough.apply(&testbed).unwrap();
    let _first = testbed.start_gateway(0).unwrap();
    let mut second = testbed.start_gateway(1).unwrap();
    let _node = testbed.start_node().unwrap();
    let status = || testbed.curl_status(&["https://edition.cnn.com/"]).unwrap();
    until_is(SOON, "the host to be served", status, |seen| seen == "200").unwrap();
    let range = format!("20000 {}", 20_000 + PORTS - 1);
    testbed.pod().ns.sysctl("ipv4/ip_local_port_range", &range).unwrap();
    // Until a gateway is known to be up, or not to be, there are fewer, or some are refused.
    let most = || {
        let args = ["-c", CONNECT, plan::WEB, "443"];
        let done = testbed.pod().run("/usr/bin/python3", &args).unwrap();
        done.stdout.trim().parse::<usize>().unwrap_or_default()
    };
    until_is(SOON, "connections to both gateways", most, |most| *most == 2 * PORTS).unwrap();
    second.kill();
    until_is(SOON, "connections to the one that is left", most, |most| *most == PORTS).unwrap();
}

//! Interfaces with great indices, and many of them.

use std::process::{Command, Stdio};

use crate::site::{INSIDE, OUTSIDE, Site, sh, until};

/// More than fits in 16 bits.
const GREAT: u32 = 70_000;
/// How many slots there are: interfaces whose indices differ by it have the same home.
const SLOTS: u32 = egress_ebpf::abi::capacity::SLOTS;

/// Pods on a bridge of the node, each in a namespace of its own.
struct Pods<'a> {
    site: &'a Site,
    /// The index of each one's interface.
    indices: Vec<u32>,
}

impl<'a> Pods<'a> {
    fn new(site: &'a Site, indices: Vec<u32>) -> Self {
        let (node, out) = (&site.name, site.outside());
        sh(&format!(
            "ip netns exec {node} sysctl -qw net.ipv4.ip_forward=1
             ip -n {node} link del pod0
             ip -n {node} link add br0 type bridge; ip -n {node} link set br0 up
             ip -n {node} addr add 10.78.0.1/16 dev br0
             ip -n {out} route add 10.78.0.0/16 via 10.77.0.1"
        ));
        for (number, index) in indices.iter().enumerate() {
            let pod = format!("{node}-{number}");
            let address = address(number);
            sh(&format!(
                "ip netns add {pod}
                 ip -n {node} link add p{number} index {index} type veth peer name eth0 netns {pod}
                 ip -n {node} link set p{number} master br0 up
                 ip -n {pod} link set lo up; ip -n {pod} link set eth0 up
                 ip -n {pod} addr add {address}/16 dev eth0
                 ip -n {pod} route add default via 10.78.0.1"
            ));
        }
        site.mesh("clusterCidrs: [10.77.0.0/24, 10.78.0.0/16]\n");
        Self { site, indices }
    }

    /// What the agent is to be given beside the site's own arguments, which name an interface that is gone.
    fn args(&self) -> Vec<String> {
        let mut args: Vec<String> = self.site.node_args();
        let own = args.iter().position(|arg| arg == "--pod-interface").unwrap();
        args.drain(own..own + 2);
        for number in 0..self.indices.len() {
            args.extend(["--pod-interface".into(), format!("p{number}={}", address(number))]);
        }
        args.extend(["--metrics-addr".into(), "off".into()]);
        args
    }

    /// Pings that a host outside sends to each pod: which pods answer.
    fn answer(&self) -> Vec<usize> {
        let mut asking: Vec<_> = (0..self.indices.len())
            .map(|number| {
                Command::new("ip")
                    .args([
                        "netns",
                        "exec",
                        &self.site.outside(),
                        "ping",
                        "-c1",
                        "-W10",
                        "-q",
                        "-I",
                    ])
                    .args([OUTSIDE, &address(number)])
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let answered = asking.iter_mut().map(|ping| ping.wait().unwrap().success());
        answered.enumerate().filter_map(|(number, answered)| answered.then_some(number)).collect()
    }

    /// Whether a pod gets an answer to a ping of its own.
    fn asks(&self, number: usize, to: &str) -> bool {
        let pod = format!("{}-{number}", self.site.name);
        let args = ["netns", "exec", &pod, "ping", "-c1", "-W2", "-q", to];
        Command::new("ip").args(args).output().unwrap().status.success()
    }
}

impl Drop for Pods<'_> {
    fn drop(&mut self) {
        let name = &self.site.name;
        let last = self.indices.len() - 1;
        let script = format!("for i in $(seq 0 {last}); do ip netns del {name}-$i; done");
        // Nothing here decides a test.
        Command::new("sh").args(["-c", &script]).output().ok();
    }
}

fn address(number: usize) -> String {
    format!("10.78.{}.{}", 1 + number / 200, 10 + number % 200)
}

/// What a pod on a bridge answers to a ping from outside leaves by the uplink because the pod's own interface has
/// seen who asked: so the uplink has to know the interface. Its index may be any.
#[test]
fn pods_whose_interfaces_have_great_indices_answer_the_outside() {
    let site = Site::new("great");
    // Two of them have the same home.
    let pods = Pods::new(&site, vec![1000, GREAT, GREAT + SLOTS, GREAT + 1]);
    let all: Vec<usize> = (0..pods.indices.len()).collect();
    until("the pods to answer without enforcement", || pods.answer() == all);
    let agent = site.start_as(&pods.args(), "ready");
    until("the pods to answer", || pods.answer() == all);
    for number in all.clone() {
        assert!(pods.asks(number, INSIDE), "{number}");
        assert!(!pods.asks(number, OUTSIDE), "{number}");
    }
    // Another agent gives each the slot that it had.
    agent.kill();
    assert_eq!(pods.answer(), all);
    let _agent = site.start_as(&pods.args(), "took over");
    assert_eq!(pods.answer(), all);
    assert!(!pods.asks(1, OUTSIDE));
}

#[test]
fn three_hundred_pods_are_each_known_by_their_own_interface() {
    let site = Site::new("many");
    // Half of them at homes that the other half has.
    let indices = (0..300).map(|number| 2000 + number % 150 + number / 150 * SLOTS).collect();
    let pods = Pods::new(&site, indices);
    let _agent = site.start_as(&pods.args(), "ready");
    let all: Vec<usize> = (0..pods.indices.len()).collect();
    until("the pods to answer", || pods.answer() == all);
    for number in [0, 149, 150, 299] {
        assert!(pods.asks(number, INSIDE), "{number}");
        assert!(!pods.asks(number, OUTSIDE), "{number}");
    }
}

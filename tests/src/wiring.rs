//! Links, addresses and routes between the hosts.

use std::path::Path;

use anyhow::Result;

use crate::{
    netns::{End, NetNs, link},
    plan,
    process::Place,
    sh,
};

/// Links, addresses and routes.
pub(crate) fn connect(
    pod: &NetNs,
    app: &NetNs,
    fabric: &NetNs,
    gateways: &[Place],
    outside: &NetNs,
) -> Result<()> {
    app.forward()?;
    link(
        &End {
            ns: pod,
            name: "eth0",
            mac: "02:00:0a:f4:01:0a",
            addresses: &[&format!("{}/24", plan::POD), &format!("{}/64", plan::POD_V6)],
        },
        &End {
            ns: app,
            name: plan::POD_INTERFACE,
            mac: plan::POD_ROUTER_MAC,
            addresses: &[
                &format!("{}/24", plan::POD_ROUTER),
                &format!("{}/64", plan::POD_ROUTER_V6),
            ],
        },
    )?;
    routes(pod, plan::POD_ROUTER, plan::POD_ROUTER_V6)?;
    app.ip(&["addr", "add", &format!("{}/32", plan::CLUSTER_DNS), "dev", "lo"])?;

    // A bridge that snoops has its own reports to send, which would be taken for somebody's.
    fabric.ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
    fabric.ip(&["link", "set", "br0", "up"])?;
    // A switch forwards frames as they are, whatever the IPv4 checksum in them: the kernel's bridge does
    // not where br_netfilter is loaded (each namespace has its own copy of these settings).
    for family in ["ip", "ip6"] {
        let key = format!("bridge/bridge-nf-call-{family}tables");
        if Path::new("/proc/sys/net").join(&key).exists() {
            fabric.sysctl(&key, "0")?;
        }
    }
    node(fabric, app, "app", plan::APP_MAC, plan::APP, plan::APP_V6)?;
    uplink_checksums(app, Checksums::Filled)?;
    routes(app, plan::ROUTER, plan::ROUTER_V6)?;
    node(fabric, outside, "outside", plan::OUTSIDE_MAC, plan::ROUTER, plan::ROUTER_V6)?;
    for (number, (gateway, address)) in gateways.iter().zip(plan::GATEWAYS).enumerate() {
        let (port, suffix) = (format!("gateway{}", number + 1), 11 + number);
        let (mac, v6) = (plan::GATEWAY_MACS[number], format!("fd00:10:10::{suffix}"));
        node(fabric, &gateway.ns, &port, mac, address, &v6)?;
        routes(&gateway.ns, plan::ROUTER, plan::ROUTER_V6)?;
        to_pods(&gateway.ns)?;
    }
    to_pods(outside)?;
    for address in plan::OUTSIDE_ADDRESSES {
        let mut args = vec!["addr", "add", address, "dev", "lo"];
        if address.contains(':') {
            args.push("nodad");
        }
        outside.ip(&args)?;
    }
    Ok(())
}

/// A node's uplink, to the network between the nodes.
fn node(fabric: &NetNs, ns: &NetNs, port: &str, mac: &str, v4: &str, v6: &str) -> Result<()> {
    let addresses = [format!("{v4}/24"), format!("{v6}/64")];
    let addresses = addresses.each_ref().map(String::as_str);
    // The bridge's port keeps its own address.
    let port_mac = mac.replacen("02:", "06:", 1);
    link(
        &End { ns, name: plan::UPLINK, mac, addresses: &addresses },
        &End { ns: fabric, name: port, mac: &port_mac, addresses: &[] },
    )?;
    fabric.ip(&["link", "set", port, "master", "br0"])?;
    Ok(())
}

/// What becomes of checksums that the sender left to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksums {
    /// They are filled in on the way out, after the last program has seen the packet: as every real
    /// device does, or the kernel for one that can't.
    Filled,
    /// They are left as they are. A veth pair by itself does so.
    Left,
}

/// Sets what an uplink does with checksums (`ETHTOOL_STXCSUM`, as `ethtool -K eth0 tx off` does).
///
/// # Errors
/// The kernel refuses.
pub fn uplink_checksums(ns: &NetNs, checksums: Checksums) -> Result<()> {
    let offload = match checksums {
        Checksums::Filled => "0",
        Checksums::Left => "1",
    };
    let args = ["netns", "exec", ns.name(), "/usr/bin/python3", "-c", TX_CHECKSUMS];
    sh("ip", &[&args[..], &[plan::UPLINK, offload]].concat())?;
    Ok(())
}

/// `struct ifreq` with a pointer to `struct ethtool_value` (linux/ethtool.h).
const TX_CHECKSUMS: &str = r#"
import array, fcntl, socket, struct, sys
value = array.array("I", [0x17, int(sys.argv[2])])
request = struct.pack("16sP", sys.argv[1].encode(), value.buffer_info()[0])
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8946, request)
"#;

/// A second pod on the app node. The first one's interface becomes a port of a bridge that both
/// share, as with the bridge CNI: what was the app node's on that interface is the bridge's now.
pub(crate) fn neighbour(app: &NetNs, neighbour: &NetNs) -> Result<()> {
    let (router, router_v6) =
        (format!("{}/24", plan::POD_ROUTER), format!("{}/64", plan::POD_ROUTER_V6));
    for address in [&router, &router_v6] {
        app.ip(&["addr", "del", address, "dev", plan::POD_INTERFACE])?;
    }
    app.ip(&["link", "add", BRIDGE, "address", plan::POD_ROUTER_MAC, "type", "bridge"])?;
    app.ip(&["link", "set", BRIDGE, "up"])?;
    app.ip(&["addr", "add", &router, "dev", BRIDGE])?;
    app.ip(&["addr", "add", &router_v6, "dev", BRIDGE, "nodad"])?;
    link(
        &End {
            ns: neighbour,
            name: "eth0",
            mac: "02:00:0a:f4:01:14",
            addresses: &[&format!("{}/24", plan::NEIGHBOUR), &format!("{}/64", plan::NEIGHBOUR_V6)],
        },
        &End { ns: app, name: plan::NEIGHBOUR_INTERFACE, mac: "06:00:0a:f4:01:14", addresses: &[] },
    )?;
    // The hardware address that the pod knows its router by is the bridge's.
    app.ip(&["link", "set", plan::POD_INTERFACE, "address", "06:00:0a:f4:01:01"])?;
    for port in [plan::POD_INTERFACE, plan::NEIGHBOUR_INTERFACE] {
        app.ip(&["link", "set", port, "master", BRIDGE])?;
        // A pod that dials itself over a Service gets its packets back on the port they came in on.
        app.ip(&["link", "set", port, "type", "bridge_slave", "hairpin", "on"])?;
    }
    routes(neighbour, plan::POD_ROUTER, plan::POD_ROUTER_V6)
}

/// A second node with a pod.
pub(crate) fn remote(
    fabric: &NetNs,
    app: &NetNs,
    outside: &NetNs,
    remote: &NetNs,
    pod: &NetNs,
) -> Result<()> {
    remote.forward()?;
    node(fabric, remote, "remote", plan::REMOTE_MAC, plan::REMOTE, plan::REMOTE_V6)?;
    routes(remote, plan::ROUTER, plan::ROUTER_V6)?;
    to_pods(remote)?;
    link(
        &End {
            ns: pod,
            name: "eth0",
            mac: "02:00:0a:f4:02:0a",
            addresses: &[
                &format!("{}/24", plan::REMOTE_POD),
                &format!("{}/64", plan::REMOTE_POD_V6),
            ],
        },
        &End {
            ns: remote,
            name: plan::POD_INTERFACE,
            mac: "02:00:0a:f4:02:01",
            addresses: &[
                &format!("{}/24", plan::REMOTE_POD_ROUTER),
                &format!("{}/64", plan::REMOTE_POD_ROUTER_V6),
            ],
        },
    )?;
    routes(pod, plan::REMOTE_POD_ROUTER, plan::REMOTE_POD_ROUTER_V6)?;
    for ns in [app, outside] {
        ns.ip(&["route", "add", "10.244.2.0/24", "via", plan::REMOTE])?;
        ns.ip(&["-6", "route", "add", "fd00:10:244:2::/64", "via", plan::REMOTE_V6])?;
    }
    Ok(())
}

/// The bridge of the app node's pods, once there is more than one.
pub(crate) const BRIDGE: &str = "cni0";

fn routes(ns: &NetNs, v4: &str, v6: &str) -> Result<()> {
    ns.ip(&["route", "add", "default", "via", v4])?;
    ns.ip(&["-6", "route", "add", "default", "via", v6])?;
    Ok(())
}

/// The way back to the pod. The outside has it too: there is no NAT that would hide a leak.
fn to_pods(ns: &NetNs) -> Result<()> {
    ns.ip(&["route", "add", "10.244.1.0/24", "via", plan::APP])?;
    ns.ip(&["-6", "route", "add", "fd00:10:244:1::/64", "via", plan::APP_V6])?;
    Ok(())
}

//! Links, addresses and routes between the hosts.

use anyhow::Result;

use crate::{
    netns::{End, NetNs, link},
    plan,
    process::Place,
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

    fabric.ip(&["link", "add", "br0", "type", "bridge"])?;
    fabric.ip(&["link", "set", "br0", "up"])?;
    let node = |ns: &NetNs, port: &str, mac: &str, v4: &str, v6: &str| -> Result<()> {
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
    };
    node(app, "app", plan::APP_MAC, plan::APP, plan::APP_V6)?;
    routes(app, plan::ROUTER, plan::ROUTER_V6)?;
    node(outside, "outside", plan::OUTSIDE_MAC, plan::ROUTER, plan::ROUTER_V6)?;
    for (number, (gateway, address)) in gateways.iter().zip(plan::GATEWAYS).enumerate() {
        let (port, suffix) = (format!("gateway{}", number + 1), 11 + number);
        let (mac, v6) = (format!("02:00:0a:0a:00:{suffix}"), format!("fd00:10:10::{suffix}"));
        node(&gateway.ns, &port, &mac, address, &v6)?;
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

//! Services as kube-proxy makes them: NAT rules on the app node, for its pods and for itself.

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path};

use anyhow::{Result, bail};

use crate::{plan, sh, testbed::Testbed};

/// One port of a Service: whoever dials `address`, a cluster address, an external one or a node's,
/// gets to the endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service<'a> {
    /// `tcp` or `udp`.
    pub protocol: &'a str,
    /// What is dialled: `10.96.1.1:80`.
    pub address: &'a str,
    /// Where that leads.
    pub endpoint: &'a str,
}

/// Puts these Services, and no others, in force on the app node. Pods that leave the cluster get
/// the node's address, as CNIs do it; so do those that dial themselves over a Service.
///
/// # Errors
/// An address can't be read, or `nft` fails.
pub fn apply(testbed: &Testbed, services: &[Service<'_>]) -> Result<()> {
    // An answer of a pod on the same bridge must meet the NAT rules too, as Kubernetes asks of a node.
    if !Path::new("/proc/sys/net/bridge").exists() {
        sh("modprobe", &["br_netfilter"])?;
    }
    let path = testbed.dir().join("services.nft");
    fs::write(&path, ruleset(services)?)?;
    let done = testbed.app().run("nft", &["-f", &path.to_string_lossy()])?;
    if !done.ok() {
        bail!("nft -f {}: {}", path.display(), done.stderr.trim());
    }
    Ok(())
}

fn ruleset(services: &[Service<'_>]) -> Result<String> {
    let (mut dnat, mut hairpin) = (String::new(), String::new());
    for Service { protocol, address, endpoint } in services {
        let (address, endpoint): (SocketAddr, SocketAddr) = (address.parse()?, endpoint.parse()?);
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        let (dialled, port, pod) = (address.ip(), address.port(), endpoint.ip());
        writeln!(
            dnat,
            "    {family} daddr {dialled} {protocol} dport {port} dnat {family} to {endpoint}"
        )?;
        writeln!(
            hairpin,
            "    {family} saddr {pod} {family} daddr {pod} ct status dnat masquerade"
        )?;
    }
    let [nodes, pods, services, v6] = plan::CLUSTER_CIDRS;
    // `add` before `delete`, which fails for a table that isn't there.
    Ok(format!(
        "add table inet services
delete table inet services
table inet services {{
  chain dial {{
{dnat}  }}
  chain prerouting {{
    type nat hook prerouting priority -100
    jump dial
  }}
  chain output {{
    type nat hook output priority -100
    jump dial
  }}
  chain postrouting {{
    type nat hook postrouting priority 100
{hairpin}    ip saddr {pods} ip daddr != {{ {nodes}, {pods}, {services} }} masquerade
    ip6 saddr fd00:10:244::/48 ip6 daddr != {v6} masquerade
  }}
}}
"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_a_rule() {
        let service =
            Service { protocol: "udp", address: "[fd00::1]:53", endpoint: "[2001:db8::1]:5353" };
        let rules = ruleset(&[service]).unwrap();
        let rule = "ip6 daddr fd00::1 udp dport 53 dnat ip6 to [2001:db8::1]:5353\n";
        assert!(rules.contains(rule), "{rules}");
        assert!(ruleset(&[Service { endpoint: "nowhere", ..service }]).is_err());
    }
}

//! The networks inside the cluster, as the API server's objects tell of them. What is not found, or can't be
//! right, is external, and so denied.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use super::objects::Object;

/// The shortest prefixes of a network inside. Kubernetes takes none for Services that is wider than /12 or /64,
/// and one for pods that is wider than these would be all private addresses.
const SHORTEST_V4: u8 = 8;
const SHORTEST_V6: u8 = 32;

/// What is inside, and what was found and can't be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Networks {
    pub(super) inside: Vec<IpNet>,
    pub(super) refused: Vec<IpNet>,
}

impl Networks {
    /// Of everything that was found.
    pub(super) fn of(found: impl IntoIterator<Item = IpNet>) -> Self {
        let (inside, mut refused): (Vec<IpNet>, Vec<IpNet>) =
            found.into_iter().map(|net| net.trunc()).partition(is_plausible);
        refused.sort();
        refused.dedup();
        Self { inside: IpNet::aggregate(&inside), refused }
    }
}

/// Whether a cluster can have it: not so wide that it would be half of the Internet, and of addresses that hosts
/// have.
fn is_plausible(net: &IpNet) -> bool {
    let shortest = if net.addr().is_ipv4() { SHORTEST_V4 } else { SHORTEST_V6 };
    let mapped = IpAddr::to_canonical(&net.addr()).is_ipv4() && net.addr().is_ipv6();
    let special = match net.addr() {
        IpAddr::V4(addr) => {
            addr.is_loopback()
                || addr.is_link_local()
                || addr.is_multicast()
                || addr.octets()[0] == 0
                || addr.octets()[0] >= 240
        }
        IpAddr::V6(addr) => {
            addr.is_loopback()
                || addr.is_multicast()
                || addr.is_unspecified()
                || addr.segments()[0] & 0xffc0 == 0xfe80
        }
    };
    net.prefix_len() >= shortest && !mapped && !special
}

fn networks<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<IpNet> {
    texts.into_iter().filter_map(|text| text.trim().parse().ok()).collect()
}

/// A ServiceCIDR's networks.
pub(super) fn service_cidr(object: &Object) -> Option<Vec<IpNet>> {
    let list = object.spec.as_ref()?["cidrs"].as_array()?;
    Some(networks(list.iter().filter_map(|text| text.as_str())))
}

/// What kubeadm was told of the cluster, as far as it counts.
#[derive(Debug, Default, Deserialize)]
struct ClusterConfiguration {
    #[serde(default)]
    networking: Networking,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Networking {
    service_subnet: String,
    pod_subnet: String,
}

/// The networks of Services and of pods in kubeadm's ConfigMap; two of each with two families.
pub(super) fn kubeadm(object: &Object) -> Option<Kubeadm> {
    let text = object.data.as_ref()?.0.get("ClusterConfiguration")?;
    let ClusterConfiguration { networking } = serde_saphyr::from_str(text).ok()?;
    Some(Kubeadm {
        services: networks(networking.service_subnet.split(',')),
        pods: networks(networking.pod_subnet.split(',')),
    })
}

/// What kubeadm's ConfigMap says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kubeadm {
    pub(super) services: Vec<IpNet>,
    pub(super) pods: Vec<IpNet>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_cannot_be_inside_is_refused() {
        let good =
            ["10.244.1.7/24", "10.96.0.0/12", "100.64.0.0/10", "fd00:10::/108", "192.0.2.7/32"];
        let bad = [
            "0.0.0.0/0",
            "10.0.0.0/7",
            "128.0.0.0/1",
            "::/0",
            "2000::/3",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/8",
            "240.0.0.0/8",
            "0.0.0.0/8",
            "fe80::/64",
            "ff00::/32",
            "::ffff:0.0.0.0/96",
            "::/32",
        ];
        let found = Networks::of(nets(&good).into_iter().chain(nets(&bad)));
        assert_eq!(found.refused.len(), bad.len(), "{found:?}");
        assert_eq!(found.inside.len(), good.len());
        assert!(found.inside.contains(&"10.244.1.0/24".parse().unwrap()), "{found:?}");
        for (a, b) in [(bad[0], "198.51.100.7"), (bad[3], "2001:db8::1")] {
            let addr: IpAddr = b.parse().unwrap();
            assert!(!found.inside.iter().any(|net| net.contains(&addr)), "{a}");
        }
    }

    fn object(text: serde_json::Value) -> Object {
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn the_range_of_services_is_read_where_it_is_told() {
        let cidr = object(
            json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12", "fd00:1::/112"]}}),
        );
        assert_eq!(service_cidr(&cidr), Some(nets(&["10.96.0.0/12", "fd00:1::/112"])));
        let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnetworking:\n  \
                    dnsDomain: cluster.local\n  podSubnet: 10.244.0.0/16,fd00:2::/64\n  serviceSubnet: 10.96.0.0/12, fd00:1::/112\n";
        let map = |text: &str| {
            object(
                json!({"metadata": {"name": "kubeadm-config"}, "data": {"ClusterConfiguration": text}}),
            )
        };
        let read = kubeadm(&map(text)).unwrap();
        assert_eq!(read.services, nets(&["10.96.0.0/12", "fd00:1::/112"]));
        assert_eq!(read.pods, nets(&["10.244.0.0/16", "fd00:2::/64"]));
        // What can't be read is nothing, and nothing denies.
        assert_eq!(kubeadm(&map("- [")), None);
        assert_eq!(kubeadm(&map("networking: {serviceSubnet: x}")).unwrap().services, nets(&[]));
        assert_eq!(kubeadm(&map("kind: ClusterConfiguration")).unwrap().services, nets(&[]));
        assert_eq!(service_cidr(&object(json!({"metadata": {"name": "x"}}))), None);
    }
}

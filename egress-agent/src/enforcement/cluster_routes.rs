//! Whether what the configuration calls inside has routes of its own on this node.

use ipnet::IpNet;

use crate::sys::netlink::routes;

/// A sentence for each network of `clusterCidrs` that no routes cover but the default route: an address in it that
/// has no route of its own leaves with the default route, and counts as inside.
pub(crate) fn warnings(inside: &[IpNet]) -> Vec<String> {
    match routes::list() {
        Ok(routes) => uncovered(inside, &routes)
            .iter()
            .map(|net| {
                format!(
                    "clusterCidrs: no route covers {net} but the default route. Packets to addresses \
                     in it that have no route of their own leave the cluster, and nothing refuses them"
                )
            })
            .collect(),
        Err(error) => vec![format!("can't ask for the node's routes: {error}")],
    }
}

/// The networks that only default routes cover as a whole. Several routes that adjoin cover what they make up, as those
/// to the pods of each node do. Without a default route what has none of its own goes nowhere.
fn uncovered<'a>(inside: &'a [IpNet], routes: &[IpNet]) -> Vec<&'a IpNet> {
    let (defaults, own): (Vec<IpNet>, Vec<IpNet>) =
        routes.iter().partition(|route| route.prefix_len() == 0);
    let own = IpNet::aggregate(&own);
    let covered = |routes: &[IpNet], net: &IpNet| routes.iter().any(|route| route.contains(net));
    inside.iter().filter(|net| covered(&defaults, net) && !covered(&own, net)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_only_the_default_route_covers_is_told() {
        let told = |inside: &[&str], routes: &[&str]| -> Vec<String> {
            let inside = nets(inside);
            uncovered(&inside, &nets(routes)).iter().map(ToString::to_string).collect()
        };
        let nothing = Vec::<String>::new();
        let routes = ["0.0.0.0/0", "10.10.0.0/24", "10.244.1.0/24", "10.0.0.0/9"];
        assert_eq!(told(&["10.10.0.0/24"], &routes), nothing);
        assert_eq!(told(&["10.96.0.0/12"], &routes), nothing, "a wider route covers it");
        assert_eq!(told(&["10.244.0.0/16", "10.10.0.0/25"], &routes), ["10.244.0.0/16"]);
        assert_eq!(told(&["10.244.0.0/16"], &["10.244.1.0/24"]), nothing, "there is no way out");
        // The pods of four nodes, each with a route of its own.
        let nodes =
            ["0.0.0.0/0", "10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"];
        assert_eq!(told(&["10.244.0.0/23", "10.244.0.0/22"], &nodes), nothing);
        assert_eq!(told(&["10.244.0.0/21"], &nodes), ["10.244.0.0/21"], "half of it has none");
        assert_eq!(told(&["10.244.0.0/23"], &["0.0.0.0/0", nodes[2]]), ["10.244.0.0/23"]);
        assert_eq!(told(&["fd00::/8"], &routes), nothing, "of another family");
        assert_eq!(told(&["fd00::/8"], &["::/0"]), ["fd00::/8"]);
        assert_eq!(told(&["0.0.0.0/0"], &["0.0.0.0/0"]), ["0.0.0.0/0"]);
        assert_eq!(told(&[], &routes), nothing);
    }
}

//! The workloads, nodes and gateways of the mesh, and the source of a request.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, sync::Arc};

use super::{Namespace, SpiffeId, TrustDomain};

/// Kubernetes labels.
pub type Labels = BTreeMap<String, String>;

/// A workload that the configuration knows (`mesh.yaml`'s `workloads`, or a pod).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workload {
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its cgroups, below the cgroup2 mount: `/pods/web`. No other workload claims them.
    pub cgroups: Vec<PathBuf>,
    /// The host side of its interface, by name. No other workload claims it.
    pub interface: Option<Arc<str>>,
    /// The [`Node`] that it runs on, by name, where that is known. Only that node may speak for it.
    pub node: Option<Arc<str>>,
    /// Its service account, which is the last part of its identity.
    pub service_account: Arc<str>,
}

/// The service account of workloads that name none, as in Kubernetes.
pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";

impl Workload {
    /// Its identity in the mesh.
    #[must_use]
    pub fn principal(&self, trust_domain: &TrustDomain) -> SpiffeId {
        SpiffeId {
            trust_domain: trust_domain.clone(),
            namespace: self.namespace.clone(),
            service_account: Arc::clone(&self.service_account),
        }
    }
}

/// An application node: who may speak for the workloads that run there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its name; `workloads[].node` refers to it.
    pub name: Arc<str>,
    /// The identity that its agent proves.
    pub principal: SpiffeId,
    /// The addresses that its agent speaks from; empty for any. Nodes with the same identity are
    /// told apart by them.
    pub addresses: Vec<IpAddr>,
}

/// A set of workloads. What has no namespace and no label here isn't asked for; one without either
/// would be every workload, so the configuration refuses it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selector {
    /// In any of these namespaces; none given is no condition.
    pub namespaces: Vec<Namespace>,
    /// With all of these labels.
    pub labels: Labels,
}

impl Selector {
    /// Whether the workload is in the set.
    #[must_use]
    pub fn matches(&self, workload: &Workload) -> bool {
        let Self { namespaces, labels } = self;
        let somewhere = namespaces.is_empty() || namespaces.contains(&workload.namespace);
        let labelled = labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value));
        // Nothing asked for is nobody meant.
        somewhere && labelled && !(namespaces.is_empty() && labels.is_empty())
    }
}

impl fmt::Display for Selector {
    /// `namespaces dev, test; labels app=batch`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (i, namespace) in self.namespaces.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "namespaces " } else { ", " }, namespace.0)?;
            between = "; ";
        }
        for (i, (key, value)) in self.labels.iter().enumerate() {
            let lead = if i == 0 { format!("{between}labels ") } else { ", ".to_owned() };
            write!(f, "{lead}{key}={value}")?;
        }
        Ok(())
    }
}

/// Where a request comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// The address that the connection came from, IPv4-mapped ones as IPv4.
    pub addr: IpAddr,
    /// The workload at that address, if one is known. Without one, rules that ask for a namespace
    /// or labels don't match.
    pub workload: Option<Arc<Workload>>,
    /// The identity that the client proved with its certificate, if it did.
    pub principal: Option<SpiffeId>,
}

impl Source {
    /// What the address says: nothing is proven.
    #[must_use]
    pub fn unauthenticated(addr: IpAddr, workload: Option<Arc<Workload>>) -> Self {
        Self { addr, workload, principal: None }
    }

    /// The same source once it has proven who it is. A workload of another namespace that is known
    /// at the address isn't it: the certificate counts, the address does not.
    #[must_use]
    pub fn authenticated(mut self, principal: SpiffeId) -> Self {
        self.workload = self.workload.filter(|known| known.namespace == principal.namespace);
        self.principal = Some(principal);
        self
    }

    /// Its namespace: as proven, or else as known of the address.
    #[must_use]
    pub fn namespace(&self) -> Option<&Namespace> {
        let proven = self.principal.as_ref().map(|principal| &principal.namespace);
        proven.or_else(|| self.workload.as_ref().map(|workload| &workload.namespace))
    }
}

/// The gateway process: which `Gateway` resources select it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayIdentity {
    /// The labels of its pod, or of `--labels`.
    pub labels: Labels,
    /// Its namespace.
    pub namespace: Namespace,
    /// Every address of the machine, or the network namespace, that it runs in.
    pub addresses: Vec<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(of: &[(&str, &str)]) -> Labels {
        of.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    fn selector(namespaces: &[&str], with: &[(&str, &str)]) -> Selector {
        let namespaces = namespaces.iter().map(|name| Namespace((*name).into())).collect();
        Selector { namespaces, labels: labels(with) }
    }

    #[test]
    fn a_set_is_any_of_the_namespaces_and_all_of_the_labels() {
        let workload = Workload {
            name: "job".into(),
            namespace: Namespace("dev".into()),
            labels: labels(&[("app", "batch"), ("tier", "back")]),
            addresses: Vec::new(),
            cgroups: Vec::new(),
            interface: None,
            node: None,
            service_account: DEFAULT_SERVICE_ACCOUNT.into(),
        };
        for (namespaces, with, matches) in [
            (&["dev"][..], &[][..], true),
            (&["test", "dev"], &[], true),
            (&["test"], &[], false),
            (&[], &[("app", "batch")], true),
            (&[], &[("app", "batch"), ("tier", "back")], true),
            (&[], &[("app", "batch"), ("tier", "front")], false),
            (&[], &[("app", "batch"), ("owner", "me")], false),
            (&["dev"], &[("app", "batch")], true),
            (&["test"], &[("app", "batch")], false),
            (&["dev"], &[("app", "web")], false),
            // An empty selector means nothing, never everything.
            (&[], &[], false),
        ] {
            let selector = selector(namespaces, with);
            assert_eq!(selector.matches(&workload), matches, "{selector}");
        }
    }

    #[test]
    fn what_is_proven_counts_for_more_than_the_address() {
        let workload = Arc::new(Workload {
            name: "job".into(),
            namespace: Namespace("dev".into()),
            labels: Labels::new(),
            addresses: Vec::new(),
            cgroups: Vec::new(),
            interface: None,
            node: None,
            service_account: DEFAULT_SERVICE_ACCOUNT.into(),
        });
        let addr = IpAddr::from([10, 0, 0, 5]);
        let source = Source::unauthenticated(addr, Some(workload));
        assert_eq!(source.namespace(), Some(&Namespace("dev".into())));
        let id = |namespace: &str| {
            SpiffeId::parse(&format!("spiffe://cluster.local/ns/{namespace}/sa/job")).unwrap()
        };
        let same = source.clone().authenticated(id("dev"));
        assert!(same.workload.is_some());
        let other = source.authenticated(id("test"));
        assert_eq!(other.namespace(), Some(&Namespace("test".into())));
        assert!(other.workload.is_none());
    }

    #[test]
    fn a_selector_reads_like_a_sentence() {
        let shown = |namespaces: &[&str], with: &[_]| selector(namespaces, with).to_string();
        assert_eq!(shown(&["dev", "test"], &[]), "namespaces dev, test");
        assert_eq!(shown(&[], &[("a", "b"), ("c", "d")]), "labels a=b, c=d");
        assert_eq!(shown(&["dev"], &[("a", "b")]), "namespaces dev; labels a=b");
    }
}

//! Workloads of the platform itself that reach something past the gateways.

use std::{fmt, sync::Arc};

use ipnet::IpNet;

use crate::types::{Port, Selector, Workload};

/// One of `exemptions`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exemption {
    /// Its name, unique among all sets of workloads.
    pub name: Arc<str>,
    /// Whom it is for; it names namespaces in any case.
    pub selector: Selector,
    /// With one of these service accounts; none given is no condition.
    pub service_accounts: Vec<Arc<str>>,
    /// What they reach, and nothing else that is external. `None`: nothing of theirs is judged.
    pub to: Option<Vec<ExemptDestination>>,
}

/// What an exempt workload reaches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ExemptDestination {
    /// The addresses.
    pub net: IpNet,
    /// The port.
    pub port: Port,
    /// How.
    pub transport: Transport,
}

/// The protocol above IP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Its number in IP headers.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

impl Exemption {
    /// Whether it is for this workload.
    #[must_use]
    pub fn is_for(&self, workload: &Workload) -> bool {
        let Self { name: _, selector, service_accounts, to: _ } = self;
        selector.matches(workload)
            && (service_accounts.is_empty() || service_accounts.contains(&workload.service_account))
    }
}

impl fmt::Display for Exemption {
    /// `cluster-dns (namespaces kube-system; labels k8s-app=kube-dns) reaches 192.0.2.53/32 at UDP port 53`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, selector, service_accounts, to } = self;
        write!(f, "{name} ({selector}")?;
        for (index, account) in service_accounts.iter().enumerate() {
            write!(f, "{}{account}", if index == 0 { "; service accounts " } else { ", " })?;
        }
        f.write_str(") ")?;
        let Some(to) = to else { return f.write_str("is not judged: it reaches everything") };
        for (index, ExemptDestination { net, port, transport }) in to.iter().enumerate() {
            let lead = if index == 0 { "reaches " } else { ", " };
            write!(f, "{lead}{net} at {transport} port {}", port.get())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Namespace;

    fn exemption(accounts: &[&str]) -> Exemption {
        Exemption {
            name: "dns".into(),
            selector: Selector {
                namespaces: vec![Namespace("kube-system".into())],
                labels: [("k8s-app".to_owned(), "kube-dns".to_owned())].into(),
            },
            service_accounts: accounts.iter().map(|account| (*account).into()).collect(),
            to: None,
        }
    }

    #[test]
    fn every_condition_has_to_hold() {
        let pod = |namespace: &str, label: &str, account: &str| Workload {
            namespace: Namespace(namespace.into()),
            labels: [("k8s-app".to_owned(), label.to_owned())].into(),
            service_account: account.into(),
            name: "x".into(),
            addresses: Vec::new(),
            cgroups: Vec::new(),
            interface: None,
            node: None,
        };
        let dns = pod("kube-system", "kube-dns", "coredns");
        assert!(exemption(&[]).is_for(&dns) && exemption(&["x", "coredns"]).is_for(&dns));
        assert!(!exemption(&["x"]).is_for(&dns));
        assert!(!exemption(&[]).is_for(&pod("kube-system", "web", "coredns")));
        assert!(!exemption(&[]).is_for(&pod("shop", "kube-dns", "coredns")));
    }

    #[test]
    fn it_is_shown_with_what_it_opens() {
        let mut dns = exemption(&["coredns"]);
        assert_eq!(
            dns.to_string(),
            "dns (namespaces kube-system; labels k8s-app=kube-dns; service accounts coredns) is not \
             judged: it reaches everything"
        );
        let (net, port) = ("192.0.2.53/32".parse().unwrap(), Port::new(53).unwrap());
        let of = |transport| ExemptDestination { net, port, transport };
        dns.to = Some(vec![of(Transport::Udp), of(Transport::Tcp)]);
        let shown = dns.to_string();
        let end = "reaches 192.0.2.53/32 at UDP port 53, 192.0.2.53/32 at TCP port 53";
        assert!(shown.ends_with(end), "{shown}");
    }
}

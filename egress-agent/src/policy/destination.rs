//! What a host and port of the registry mean to whom. Scoping comes first: nothing that one
//! namespace cannot see decides about another one's traffic.

use std::{fmt, sync::Arc};

use egress_ebpf::reason::Reason;

use super::{
    Cluster, Denied, Exported, HostPattern, Scoped, has_labels, preferred,
    trace::{self, Step},
};
use crate::types::{Host, Labels, Namespace, Source};

/// A host, port and subset, as each namespace sees it.
#[derive(Clone, Debug, Default)]
pub struct Destination {
    /// The service entries that declare it: the most specific host first, then the oldest.
    pub providers: Vec<Provider>,
}

/// A service entry's part of a destination.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The host that the service entry declares.
    pub host: HostPattern,
    /// What declares it: `ServiceEntry default/cnn`, or an egress policy.
    pub entry: Arc<str>,
    /// The service entry's namespace.
    pub namespace: Namespace,
    /// Who may use it.
    pub exported: Exported,
    /// How these clients reach it, where that differs from all others; the first that a client is of counts.
    pub by_client: Vec<(Clients, VisibleDestination)>,
    /// How all others do.
    pub others: VisibleDestination,
}

/// Clients of a namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clients {
    /// The namespace.
    pub namespace: Namespace,
    /// The labels that they have; none for all of them.
    pub labels: Labels,
}

impl fmt::Display for Clients {
    /// `apps`, `apps[app=curl]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.namespace.0)?;
        if self.labels.is_empty() {
            return Ok(());
        }
        let labels: Vec<_> =
            self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        write!(f, "[{}]", labels.join(","))
    }
}

impl Scoped for Provider {
    fn namespace(&self) -> &Namespace {
        &self.namespace
    }
    fn exported(&self) -> &Exported {
        &self.exported
    }
}

/// How a client's namespace reaches a destination: with the destination rules that it sees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VisibleDestination {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// The destination rules that count: `DestinationRule default/cnn`.
    pub rules: Arc<[Arc<str>]>,
    /// What is refused all the same, the first that applies.
    pub refusals: Vec<Refusal>,
}

/// Requests to a destination that are refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Only those to these hosts.
    pub hosts: Option<HostPattern>,
    /// Only those of workloads in this namespace.
    pub source: Option<Namespace>,
    /// The reason.
    pub reason: Reason,
    /// A sentence.
    pub detail: Arc<str>,
}

impl Refusal {
    /// A refusal of everything.
    #[must_use]
    pub fn of_all(reason: Reason, detail: &str) -> Self {
        Self { hosts: None, source: None, reason, detail: detail.into() }
    }

    fn applies(&self, source: Option<&Namespace>, host: Option<&Host>) -> bool {
        self.source.as_ref().is_none_or(|wanted| source == Some(wanted))
            && match (&self.hosts, host) {
                (Some(wanted), Some(host)) => wanted.matches(host),
                // Which host it is cannot be told, so it may be one of these.
                (Some(_), None) | (None, _) => true,
            }
    }
}

/// On whose behalf a destination is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client<'a> {
    /// The namespace of the workload that asks, where it is known.
    pub source: Option<&'a Namespace>,
    /// The namespace of the gateway, at its stage: its destination rules count, and it may use what
    /// is exported to it.
    pub gateway: Option<&'a Namespace>,
    /// The labels of the gateway, at its stage, and else of the workload, where it is known.
    pub labels: Option<&'a Labels>,
}

impl<'a> Client<'a> {
    /// A source by itself, before any gateway.
    #[must_use]
    pub fn of(source: &'a Source) -> Self {
        let labels = source.workload.as_deref().map(|workload| &workload.labels);
        Self { source: source.namespace(), gateway: None, labels }
    }
}

impl Destination {
    /// The service entry that counts for the client: of those that the workload sees, the most
    /// specific host's; there its own namespace's, then the oldest. At the gateway's stage what
    /// only the gateway sees comes last.
    #[must_use]
    pub fn provider(&self, client: Client<'_>) -> Option<&Provider> {
        self.seen_by(client.source).or_else(|| {
            let gateway = client.gateway?;
            self.seen_by(Some(gateway))
        })
    }

    fn seen_by(&self, namespace: Option<&Namespace>) -> Option<&Provider> {
        let mut by_host = self.providers.chunk_by(|a, b| a.host == b.host);
        by_host.find_map(|providers| preferred(providers, namespace))
    }

    /// The cluster for a client's request to `host`.
    ///
    /// # Errors
    /// [`Denied`]: the client sees no such service, or must not reach it in this way.
    pub fn cluster(
        &self,
        client: Client<'_>,
        host: Option<&Host>,
    ) -> Result<&Arc<Cluster>, Denied> {
        let Some(provider) = self.provider(client) else {
            let name = self.providers.first().map(|provider| provider.host.to_string());
            return Err(Denied {
                reason: Reason::HostNotInRegistry,
                detail: format!(
                    "no ServiceEntry for {} is exported to this workload's namespace",
                    name.unwrap_or_default()
                ),
                matched: None,
            });
        };
        let reached = provider.reached(client.gateway.or(client.source), client.labels);
        trace::note(|| Step::Destination {
            entry: Arc::clone(&provider.entry),
            rules: Arc::clone(&reached.rules),
            cluster: Arc::clone(&reached.cluster.name.0),
        });
        match reached.refusals.iter().find(|refusal| refusal.applies(client.source, host)) {
            Some(Refusal { reason, detail, .. }) => {
                Err(Denied { reason: *reason, detail: detail.to_string(), matched: None })
            }
            None => Ok(&reached.cluster),
        }
    }
}

impl Provider {
    /// How a client of a namespace with these labels reaches it.
    #[must_use]
    pub fn reached(
        &self,
        client: Option<&Namespace>,
        labels: Option<&Labels>,
    ) -> &VisibleDestination {
        let own = self.by_client.iter().find(|(clients, _)| {
            Some(&clients.namespace) == client
                && (clients.labels.is_empty()
                    || labels.is_some_and(|own| has_labels(own, &clients.labels)))
        });
        own.map_or(&self.others, |(_, reached)| reached)
    }
}

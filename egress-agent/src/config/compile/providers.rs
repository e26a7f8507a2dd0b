//! A host, port and subset of the registry as each namespace sees it: scoping first, then the
//! destination rules that count, then the cluster. A rule that asks for TLS and does not count
//! turns into a refusal, never into clear text.

use std::sync::Arc;

use egress_ebpf::reason::Reason;

use super::{
    Compiler, egress_addresses,
    entry::{CompiledEntry, with_names},
    fits,
    lookup::{Lookup, Traffic},
    precedence::{Merged, most_specific},
    rule::Rule,
    traffic::TlsWish,
};
use crate::{
    policy::{
        ClientTls, ClientTlsMode, Clients, Cluster, ClusterHandles, ClusterLocality, Destination,
        EgressAddresses, HostPattern, LoadBalancer, LocalitySetting, Provider, Refusal,
        VisibleDestination,
    },
    types::{Labels, Namespace, Port},
};

impl Compiler<'_> {
    /// Everything that declares the host and port, whoever sees it.
    pub(super) fn destination(&mut self, wanted: &Lookup) -> Arc<Destination> {
        if let Some(known) = self.destinations.get(wanted) {
            return Arc::clone(known);
        }
        let covering = self.entries.covering(&wanted.host).into_iter();
        let found: Vec<(usize, HostPattern)> =
            covering.map(|(index, host)| (index, host.clone())).collect();
        let providers = found
            .into_iter()
            .filter_map(|(index, host)| self.provider(index, host, wanted))
            .collect();
        let destination = Arc::new(Destination { providers });
        self.destinations.insert(wanted.clone(), Arc::clone(&destination));
        destination
    }

    /// The destination, dialled from these addresses.
    pub(super) fn from(
        &mut self,
        destination: &Destination,
        from: &Arc<EgressAddresses>,
    ) -> Arc<Destination> {
        let providers = egress_addresses::dialled_from(destination, from).into_iter();
        let providers = providers.map(|provider| self.share(provider)).collect();
        Arc::new(Destination { providers })
    }

    /// The destination of an entry's own port, without any route.
    pub(super) fn own_destination(
        &mut self,
        entry: usize,
        host: &HostPattern,
        port: Port,
    ) -> Option<(Arc<Cluster>, Arc<Destination>)> {
        let traffic = self.entries.get(entry)?.port(port)?.protocol.into();
        let wanted = Lookup { host: host.clone(), port, subset: String::new(), traffic };
        let provider = self.provider(entry, host.clone(), &wanted)?;
        let cluster = Arc::clone(&provider.others.cluster);
        Some((cluster, Arc::new(Destination { providers: vec![provider] })))
    }

    /// The destination of a host and port of an egress policy, which stands for a service entry. Where the
    /// gateway starts TLS it verifies the certificate, with what a destination rule says besides.
    pub(super) fn policy_destination(
        &mut self,
        entry: &CompiledEntry,
        wanted: &Lookup,
        originate: bool,
    ) -> Option<Arc<Destination>> {
        let mut provider = self.provided(entry, wanted.host.clone(), wanted)?;
        if originate {
            let clients = provider.by_client.iter_mut().map(|(_, reached)| reached);
            for reached in clients.chain(std::iter::once(&mut provider.others)) {
                let cluster = Arc::make_mut(&mut reached.cluster);
                let tls = cluster.tls.take().unwrap_or_else(|| ClientTls {
                    mode: ClientTlsMode::Simple,
                    sni: None,
                    subject_alt_names: Vec::new(),
                    ca_certificates: None,
                    ca_crl: None,
                    key_groups: self.mesh.key_groups.clone(),
                    insecure_skip_verify: false,
                });
                cluster.tls = Some(ClientTls { insecure_skip_verify: false, ..tls });
            }
        }
        let providers = vec![self.share(provider)];
        Some(Arc::new(Destination { providers }))
    }

    /// One entry's part of a destination.
    fn provider(&mut self, index: usize, host: HostPattern, wanted: &Lookup) -> Option<Provider> {
        let provider = self.provided(self.entries.get(index)?, host, wanted)?;
        Some(self.share(provider))
    }

    /// The same before its clusters are shared.
    pub(super) fn provided(
        &self,
        entry: &CompiledEntry,
        host: HostPattern,
        key: &Lookup,
    ) -> Option<Provider> {
        entry.port(key.port)?;
        let rules = self.rules.meeting(&key.host);
        let rules = Relevant {
            covering: rules.iter().filter(|rule| rule.covers(&key.host)).copied().collect(),
            asking: rules
                .iter()
                .filter(|rule| rule.asks_tls(key.port, &key.subset))
                .copied()
                .collect(),
            all: rules,
        };
        let mut clients: Vec<&Namespace> =
            rules.all.iter().flat_map(|rule| rule.namespaces()).collect();
        clients.push(&self.mesh.root_namespace);
        clients.sort_unstable();
        clients.dedup();
        let others = self.reached(entry, &rules, key, None, None)?;
        let mut by_client = Vec::new();
        // Those that rules select come first.
        let mut selected: Vec<(&Namespace, &Labels)> = Vec::new();
        for rule in &rules.all {
            let Some(labels) = &rule.selector else { continue };
            let one = (&rule.meta.namespace, labels);
            if !selected.contains(&one) {
                selected.push(one);
            }
        }
        for (client, labels) in selected {
            let reached = self.reached(entry, &rules, key, Some(client), Some(labels))?;
            let clients = Clients { namespace: client.clone(), labels: labels.clone() };
            by_client.push((clients, reached));
        }
        for client in clients {
            let reached = self.reached(entry, &rules, key, Some(client), None)?;
            if reached != others {
                let clients = Clients { namespace: client.clone(), labels: Labels::new() };
                by_client.push((clients, reached));
            }
        }
        let (namespace, exported) = (entry.meta.namespace.clone(), entry.exported.clone());
        let entry = entry.meta.label.as_str().into();
        Some(Provider { host, entry, namespace, exported, by_client, others })
    }

    /// The same with one cluster for all that are equal, whichever entry they are of.
    fn share(&mut self, provider: Provider) -> Provider {
        let Provider { host, entry, namespace, exported, by_client, others } = provider;
        let others = self.shared(others);
        let by_client =
            by_client.into_iter().map(|(client, reached)| (client, self.shared(reached))).collect();
        Provider { host, entry, namespace, exported, by_client, others }
    }

    /// The same with one cluster for all that are equal.
    fn shared(&mut self, reached: VisibleDestination) -> VisibleDestination {
        let all = self.clusters.entry(reached.cluster.name.clone()).or_default();
        let cluster = match all.iter().find(|known| **known == reached.cluster) {
            Some(known) => Arc::clone(known),
            None => {
                all.push(Arc::clone(&reached.cluster));
                reached.cluster
            }
        };
        VisibleDestination { cluster, ..reached }
    }

    /// How clients of a namespace reach a host and port of an entry.
    fn reached(
        &self,
        entry: &CompiledEntry,
        rules: &Relevant<'_>,
        wanted: &Lookup,
        client: Option<&Namespace>,
        selected: Option<&Labels>,
    ) -> Option<VisibleDestination> {
        let Lookup { host, port, subset, traffic } = wanted;
        let service = entry.port(*port)?;
        let rules = &Relevant {
            all: Vec::new(),
            covering: rules
                .covering
                .iter()
                .filter(|rule| rule.selects(client, selected))
                .copied()
                .collect(),
            asking: rules
                .asking
                .iter()
                .filter(|rule| rule.selects(client, selected))
                .copied()
                .collect(),
        };
        let chosen = self.chosen(&rules.covering, host, &entry.meta.namespace, client);
        let merged = Merged::of(&chosen, *port, subset);
        let mut refusals = Vec::new();
        let name = format!("{host} port {port}");
        if !subset.is_empty() && !merged.has_subset {
            let detail = format!("no DestinationRule for {host} has the subset {subset:?}");
            refusals.push(Refusal::of_all(Reason::NoGatewayRoute, &detail));
        }
        let tls = match &merged.settings.tls {
            Some(TlsWish::Originate(tls)) => {
                let key_groups = self.mesh.key_groups.clone();
                Some(with_names(ClientTls { key_groups, ..tls.clone() }, entry))
            }
            Some(TlsWish::Unavailable(why)) if *traffic != Traffic::Tls => {
                let rule = merged.base.map(|rule| rule.meta.label.as_str()).unwrap_or_default();
                let detail =
                    format!("{rule} asks for TLS to {name} and cannot be applied: it {why}");
                refusals.push(Refusal::of_all(Reason::TlsPolicyUnavailable, &detail));
                None
            }
            Some(TlsWish::Disable | TlsWish::Unavailable(_)) => None,
            // What the application has encrypted is never sent in clear.
            None if *traffic == Traffic::Tls => None,
            None => {
                refusals.extend(self.missed(
                    entry,
                    &rules.asking,
                    &chosen,
                    &merged,
                    wanted,
                    client,
                ));
                None
            }
        };
        let settings = merged.settings;
        let connect = settings.beyond.connect.is_some();
        let misfit = fits::misfit(*traffic, service.protocol, tls.is_some(), connect, &name);
        refusals.extend(misfit.map(|detail| Refusal::of_all(Reason::WrongProtocol, &detail)));
        let refused = settings.beyond.refused.as_deref();
        refusals.extend(refused.map(|why| Refusal::of_all(Reason::TlsPolicyUnavailable, why)));
        let balancing = settings.load_balancer.unwrap_or_default();
        let outlier = settings.outlier.flatten();
        let (mut pool, version) = settings.pool.unwrap_or_default();
        pool.keepalive = pool.keepalive.or(self.mesh.keepalive);
        let cluster = Arc::new(Cluster {
            discovery: entry.discovery(host, service, &merged.labels),
            http: version.unwrap_or(service.http),
            tls,
            load_balancer: if entry.uses_one_address() {
                LoadBalancer::First
            } else {
                balancing.method
            },
            hash: balancing.hash.filter(|_| !entry.uses_one_address()),
            warmup: balancing.warmup,
            locality: self.locality(entry, &merged.labels, balancing.locality, outlier.is_some()),
            from: None,
            proxy_protocol: settings.beyond.proxy_protocol,
            connect: settings.beyond.connect,
            retry_budget: settings.beyond.retry_budget,
            pool,
            outlier,
            rate: entry.rate.clone(),
            name: wanted.cluster_name(),
            kept: ClusterHandles::default(),
        });
        let rules = chosen.iter().map(|rule| rule.meta.label.as_str().into()).collect();
        Some(VisibleDestination { cluster, rules, refusals })
    }

    /// Which endpoints are preferred for where they are; nothing where none differs.
    fn locality(
        &self,
        entry: &CompiledEntry,
        labels: &Labels,
        own: Option<Option<LocalitySetting>>,
        ejects: bool,
    ) -> Option<Arc<ClusterLocality>> {
        let setting = own.unwrap_or_else(|| self.mesh.locality_setting.clone())?;
        let places = entry.places(labels);
        let differ = places.windows(2).any(|two| two[0] != two[1]);
        let is_needed = match setting.distribute.is_empty() {
            true => ejects && differ,
            // Shares also leave localities out.
            false => !places.is_empty(),
        };
        is_needed.then(|| Arc::new(ClusterLocality { setting, ejects, places }))
    }

    /// The rules that count for a host: of the client's namespace, or else of the service's, or
    /// else of the root namespace, and there the most specific that the client sees. For clients
    /// in the root namespace the service's comes before what the root exports to all (Istio's
    /// `PushContext.destinationRule`).
    pub(super) fn chosen<'a>(
        &self,
        rules: &[&'a Rule],
        host: &HostPattern,
        service: &Namespace,
        client: Option<&Namespace>,
    ) -> Vec<&'a Rule> {
        let root = &self.mesh.root_namespace;
        if let Some(client) = client {
            let selecting = most_specific(rules, host, |rule| {
                rule.selector.is_some() && rule.meta.namespace == *client
            });
            if !selecting.is_empty() {
                return selecting;
            }
            let own = most_specific(rules, host, |rule| {
                rule.meta.namespace == *client
                    && rule.exported.includes(Some(client))
                    && (client != root || rule.is_private())
            });
            if !own.is_empty() {
                return own;
            }
        }
        let exported_from = |namespace: &Namespace| {
            most_specific(rules, host, |rule| {
                rule.meta.namespace == *namespace
                    && !rule.is_private()
                    && rule.exported.includes(client)
            })
        };
        let found = exported_from(service);
        if found.is_empty() { exported_from(root) } else { found }
    }

    /// Rules that ask for TLS to this destination, although what counts says nothing about it.
    fn missed(
        &self,
        entry: &CompiledEntry,
        asking: &[&Rule],
        chosen: &[&Rule],
        merged: &Merged<'_>,
        wanted: &Lookup,
        client: Option<&Namespace>,
    ) -> Vec<Refusal> {
        let Lookup { host, port, subset: _, traffic: _ } = wanted;
        let (service, root) = (&entry.meta.namespace, &self.mesh.root_namespace);
        let mut refusals = Vec::new();
        for rule in asking {
            if merged.base.is_some_and(|base| std::ptr::eq(base, *rule)) {
                continue;
            }
            let own = &rule.meta.namespace;
            let label = &rule.meta.label;
            let why = if !rule.covers(host) {
                format!("it is for {} alone, and {host} is one destination", rule.host)
            } else if chosen.iter().any(|other| std::ptr::eq(*other, *rule)) {
                let base = merged.base.map(|base| base.meta.label.clone()).unwrap_or_default();
                format!("{base} is for the same host and its traffic policy comes first")
            } else if let Some(first) = chosen.first() {
                format!("{} is used instead and has no TLS settings", first.meta.label)
            } else if rule.exported.includes(client) {
                format!(
                    "only rules of the client's namespace{}, of the ServiceEntry's ({}) and of \
                     the root namespace ({}) count",
                    client.map(|client| format!(" ({})", client.0)).unwrap_or_default(),
                    service.0,
                    root.0
                )
            } else {
                format!(
                    "it is not exported to the client's namespace{}",
                    client.map(|client| format!(" ({})", client.0)).unwrap_or_default()
                )
            };
            let detail = format!(
                "{label} asks for TLS to {} port {port} and cannot be applied: {why}",
                if rule.covers(host) { host } else { &rule.host }
            );
            // A namespace decides about its own services and its own workloads, the root about all;
            // nobody else's requests are refused because of its rules.
            let for_all = own == service || own == root && !rule.is_private();
            refusals.push(Refusal {
                hosts: (!rule.covers(host)).then(|| rule.host.clone()),
                source: (!for_all).then(|| own.clone()),
                reason: Reason::TlsPolicyUnavailable,
                detail: detail.into(),
            });
        }
        refusals
    }
}

/// The rules that have to do with a host, port and subset.
struct Relevant<'a> {
    /// All that have a host in common with it.
    all: Vec<&'a Rule>,
    /// Those of them that cover it.
    covering: Vec<&'a Rule>,
    /// Those of them that ask for TLS there.
    asking: Vec<&'a Rule>,
}

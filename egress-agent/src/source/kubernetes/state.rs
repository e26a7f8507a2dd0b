//! What the API server has, as far as it counts here, and what becomes of it. Without I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use tokio::sync::watch;

use super::{
    kinds::CUSTOM,
    networks::{Kubeadm, Networks},
    objects::{Endpoints, KnownObject, KnownObjects, NodeInfo, ServiceInfo},
    step::{Key, Step},
};
use crate::{
    config::{Discovered, DiscoveredGateway, RawFile},
    pods::Pod,
    source::{
        Files,
        verdicts::{ObjectGenerations, Verdicts},
    },
    types::{Revision, Revisions},
};

/// The same, of whichever kind.
#[derive(Clone, Debug)]
pub(super) enum Update {
    /// A custom resource, by its kind's place in [`CUSTOM`].
    Custom(usize, Step<(RawFile, KnownObject)>),
    Namespace(Step<RawFile>),
    Mesh(Step<RawFile>),
    Service(Step<ServiceInfo>),
    /// A Service of type ExternalName, as a service entry.
    ExternalName(Step<RawFile>),
    Slice(Step<Endpoints>),
    Node(Step<NodeInfo>),
    ServiceCidr(Step<Vec<IpNet>>),
    Kubeadm(Step<Kubeadm>),
    /// The Service `kubernetes`.
    ApiService(Step<ServiceInfo>),
    Pod(Step<Pod>),
}

/// The objects of a kind; `None` before their first list is complete.
#[derive(Debug)]
struct Objects<T>(Option<BTreeMap<Key, T>>);

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: PartialEq> Objects<T> {
    /// Whether anything is different now.
    fn take(&mut self, step: Step<T>) -> bool {
        match step {
            Step::Replace(all) => {
                let all: BTreeMap<Key, T> = all.into_iter().collect();
                let changed = self.0.as_ref() != Some(&all);
                self.0 = Some(all);
                changed
            }
            Step::Put(key, value) => {
                let Some(all) = &mut self.0 else { return false };
                let changed = all.get(&key) != Some(&value);
                all.insert(key, value);
                changed
            }
            Step::Remove(key) => self.0.as_mut().is_some_and(|all| all.remove(&key).is_some()),
        }
    }
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct State {
    custom: [Objects<RawFile>; CUSTOM.len()],
    /// What is known of the same objects besides.
    known: [Objects<KnownObject>; CUSTOM.len()],
    /// Who wants to know what becomes of them.
    judged: Option<watch::Sender<Arc<Verdicts>>>,
    namespaces: Objects<RawFile>,
    mesh: Objects<RawFile>,
    services: Objects<ServiceInfo>,
    external_names: Objects<RawFile>,
    slices: Objects<Endpoints>,
    nodes: Objects<NodeInfo>,
    service_cidrs: Objects<Vec<IpNet>>,
    kubeadm: Objects<Kubeadm>,
    api_service: Objects<ServiceInfo>,
    pods: Objects<Pod>,
}

/// What an update changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Changed {
    Nothing,
    /// Something that an object shows.
    Objects,
    Configuration,
    Pods,
}

impl State {
    /// Takes an update.
    pub(super) fn take(&mut self, update: Update) -> Changed {
        let changed = match update {
            Update::Pod(step) => {
                return if self.pods.take(step) { Changed::Pods } else { Changed::Nothing };
            }
            Update::Custom(index, step) => {
                let (files, known) = step.split();
                let changed = self.custom.get_mut(index).is_some_and(|objects| objects.take(files));
                let shown = self.known.get_mut(index).is_some_and(|objects| objects.take(known));
                if shown && !changed {
                    return Changed::Objects;
                }
                changed
            }
            Update::Namespace(step) => self.namespaces.take(step),
            Update::Mesh(step) => self.mesh.take(step),
            Update::Service(step) => self.services.take(step),
            Update::ExternalName(step) => self.external_names.take(step),
            Update::Slice(step) => self.slices.take(step),
            Update::Node(step) => self.nodes.take(step),
            Update::ServiceCidr(step) => self.service_cidrs.take(step),
            Update::Kubeadm(step) => self.kubeadm.take(step),
            Update::ApiService(step) => self.api_service.take(step),
        };
        if changed { Changed::Configuration } else { Changed::Nothing }
    }

    /// The pods, once their first list is complete.
    pub(super) fn pods(&self) -> Option<Arc<Vec<Pod>>> {
        self.pods.0.as_ref().map(|pods| Arc::new(pods.values().cloned().collect()))
    }

    /// Reports to this sender what becomes of the objects of each configuration.
    pub(super) fn reporting(judged: watch::Sender<Arc<Verdicts>>) -> Self {
        Self { judged: Some(judged), ..Self::default() }
    }

    /// The custom resources by the name that messages call them.
    pub(super) fn objects(&self) -> KnownObjects {
        let mut all = KnownObjects::new();
        for (files, known) in self.custom.iter().zip(&self.known) {
            let (Some(files), Some(known)) = (&files.0, &known.0) else { continue };
            // Both have the same keys, in the same order.
            let pairs = files.values().zip(known.values());
            all.extend(pairs.map(|(file, known)| (file.path.clone(), known.clone())));
        }
        all
    }

    /// The revisions of the product's own kinds.
    fn revisions(&self) -> Arc<Revisions> {
        let own = CUSTOM.iter().zip(self.custom.iter().zip(&self.known));
        let own = own.filter(|(kind, _)| kind.has_conditions());
        let pairs = own.flat_map(|(_, (files, known))| {
            files.0.iter().flat_map(BTreeMap::values).zip(known.0.iter().flat_map(BTreeMap::values))
        });
        let one = |(file, known): (&RawFile, &KnownObject)| {
            let revision =
                Revision { uid: known.uid.as_str().into(), generation: known.generation };
            (file.path.clone(), revision)
        };
        Arc::new(Revisions::new(pairs.map(one).collect()))
    }

    /// The nodes that should run an agent, with their addresses.
    pub(super) fn agents(&self) -> BTreeMap<String, Vec<IpAddr>> {
        let all = self.nodes.0.iter().flatten();
        let agents = all.filter(|(_, node)| node.runs_agent);
        agents.map(|((_, name), node)| (name.clone(), node.addresses.clone())).collect()
    }

    /// The networks of nodes, pods and Services.
    fn networks(&self) -> Option<Networks> {
        let nodes = self.nodes.0.as_ref()?.values().flat_map(|node| &node.networks);
        let services = self.service_cidrs.0.as_ref()?.values().flatten();
        let kubeadm = self.kubeadm.0.as_ref()?.values();
        let kubeadm = kubeadm.flat_map(|said| said.services.iter().chain(&said.pods));
        Some(Networks::of(nodes.chain(services).chain(kubeadm).copied()))
    }

    /// The configuration, once every first list is complete, the pods' too: nobody is judged unknown
    /// before.
    pub(super) fn files(&self) -> Option<Files> {
        self.pods.0.as_ref()?;
        let mut resources = Vec::new();
        for objects in self.custom.iter().chain([&self.namespaces, &self.external_names]) {
            resources.extend(objects.0.as_ref()?.values().cloned());
        }
        let mesh = self.mesh.0.as_ref()?.values().next().cloned();
        let (services, slices) = (self.services.0.as_ref()?, self.slices.0.as_ref()?);
        let mut gateways: BTreeMap<String, DiscoveredGateway> = BTreeMap::new();
        for ((namespace, name), ServiceInfo { labels, addresses }) in services {
            let of =
                slices.iter().filter(|((of, _), slice)| of == namespace && slice.service == *name);
            let endpoints: BTreeSet<IpAddr> =
                of.flat_map(|(_, slice)| slice.addresses.iter().copied()).collect();
            let gateway = DiscoveredGateway {
                labels: labels.clone(),
                endpoints: endpoints.into_iter().collect(),
                other_addresses: addresses.clone(),
            };
            gateways.insert(format!("{name}.{namespace}.svc.cluster.local"), gateway);
        }
        let Networks { inside, refused } = self.networks()?;
        let api = self.api_service.0.as_ref()?.values();
        let discovered = Discovered {
            gateways: Some(gateways),
            cluster_cidrs: inside,
            refused_cidrs: refused,
            api_service: api.flat_map(|service| service.addresses.iter().copied()).collect(),
            nodes: self
                .nodes
                .0
                .as_ref()?
                .iter()
                .map(|((_, name), node)| (name.clone(), node.addresses.clone()))
                .collect(),
            external_addresses: self
                .nodes
                .0
                .iter()
                .flatten()
                .flat_map(|(_, node)| node.external.iter().copied())
                .collect(),
            localities: self
                .nodes
                .0
                .iter()
                .flatten()
                .filter(|(_, node)| !node.locality.is_empty())
                .map(|((_, name), node)| (name.clone(), node.locality.clone()))
                .collect(),
        };
        // A node's agent reports on none.
        let judged = self.judged.clone().filter(|judged| judged.receiver_count() > 0);
        let known = judged.as_ref().map(|_| self.objects()).unwrap_or_default();
        let generations = known.into_iter().map(|(name, known)| (name, known.generation));
        let objects = ObjectGenerations::new(generations.collect(), self.revisions(), judged);
        Some(Files { resources, mesh, discovered, objects })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        ("istio-system".into(), name.into())
    }

    fn file(name: &str) -> RawFile {
        RawFile { path: format!("VirtualService istio-system/{name}"), text: name.to_owned() }
    }

    /// The same with what is known besides.
    fn custom(text: &str) -> (RawFile, KnownObject) {
        (file(text), shown(1, None))
    }

    fn shown(generation: i64, message: Option<&str>) -> KnownObject {
        KnownObject {
            kind: 3,
            namespace: Some("istio-system".into()),
            name: "a".into(),
            uid: "uid".into(),
            generation,
            programmed: None,
            api: None,
            accepted: message.map(|message| crate::source::kubernetes::objects::Condition {
                holds: true,
                generation,
                reason: "Accepted".into(),
                message: message.into(),
                since: None,
            }),
        }
    }

    #[test]
    fn what_an_object_shows_is_no_change_of_the_configuration() {
        let mut state = State::default();
        complete(&mut state, usize::MAX);
        let put = |known: KnownObject| Update::Custom(3, Step::Put(key("a"), (file("a"), known)));
        assert_eq!(state.take(put(shown(1, None))), Changed::Configuration);
        let before = state.files().unwrap();
        assert_eq!(state.take(put(shown(1, Some("fine")))), Changed::Objects);
        assert_eq!(state.take(put(shown(1, Some("fine")))), Changed::Nothing);
        assert_eq!(state.files().unwrap(), before);
        let objects = state.objects();
        assert_eq!(objects["VirtualService istio-system/a"], shown(1, Some("fine")));
        state.take(Update::Custom(3, Step::Remove(key("a"))));
        assert!(state.objects().is_empty());
    }

    /// All lists but that of `missing`.
    fn complete(state: &mut State, missing: usize) {
        let service = ServiceInfo {
            labels: [("istio".to_owned(), "egressgateway".to_owned())].into(),
            addresses: vec!["10.96.0.20".parse().unwrap()],
        };
        let slice = |addresses: &[&str]| Endpoints {
            service: "gw".into(),
            addresses: addresses.iter().map(|addr| addr.parse().unwrap()).collect(),
        };
        let node = NodeInfo {
            addresses: vec!["10.0.0.7".parse().unwrap()],
            networks: vec!["10.244.1.1/24".parse().unwrap(), "10.0.0.7/32".parse().unwrap()],
            external: vec!["203.0.113.7".parse().unwrap()],
            runs_agent: true,
            locality: "eu/a".into(),
        };
        let slices =
            vec![(key("gw-a"), slice(&["10.0.0.12"])), (key("gw-b"), slice(&["10.0.0.11"]))];
        let mut updates: Vec<Update> = (0..CUSTOM.len())
            .map(|index| Update::Custom(index, Step::Replace(Vec::new())))
            .collect();
        updates.extend([
            Update::Namespace(Step::Replace(Vec::new())),
            Update::Mesh(Step::Replace(vec![(key("settings"), file("settings"))])),
            Update::Service(Step::Replace(vec![(key("gw"), service)])),
            Update::ExternalName(Step::Replace(Vec::new())),
            Update::Slice(Step::Replace(slices)),
            Update::Node(Step::Replace(vec![(key("node-1"), node)])),
            Update::ServiceCidr(Step::Replace(Vec::new())),
            Update::Kubeadm(Step::Replace(Vec::new())),
            Update::ApiService(Step::Replace(Vec::new())),
            Update::Pod(Step::Replace(Vec::new())),
        ]);
        for (index, update) in updates.into_iter().enumerate() {
            if index != missing {
                state.take(update);
            }
        }
    }

    #[test]
    fn nothing_is_published_before_every_list_is_complete() {
        for missing in 0..CUSTOM.len() + 10 {
            let mut state = State::default();
            complete(&mut state, missing);
            assert!(state.files().is_none(), "list {missing}");
        }
        let mut state = State::default();
        complete(&mut state, usize::MAX);
        let files = state.files().unwrap();
        let gateways = files.discovered.gateways.unwrap();
        let gateway = &gateways["gw.istio-system.svc.cluster.local"];
        let addresses =
            |list: &[&str]| list.iter().map(|addr| addr.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!(gateway.endpoints, addresses(&["10.0.0.11", "10.0.0.12"]));
        assert_eq!(gateway.other_addresses, addresses(&["10.96.0.20"]));
        let nets: Vec<String> =
            files.discovered.cluster_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(nets, ["10.0.0.7/32", "10.244.1.0/24"]);
        assert_eq!(files.discovered.nodes["node-1"], addresses(&["10.0.0.7"]));
        assert_eq!(files.discovered.localities["node-1"], "eu/a");
        assert_eq!(files.mesh.unwrap().text, "settings");
    }

    #[test]
    fn the_revisions_are_those_of_the_own_kinds_and_agents_run_on_selected_nodes() {
        let mut state = State::default();
        complete(&mut state, usize::MAX);
        let of = |kind: &str| CUSTOM.iter().position(|custom| custom.kind == kind).unwrap();
        let put = |state: &mut State, kind: &str, generation| {
            let known = KnownObject { kind: of(kind), ..shown(generation, None) };
            let file = RawFile { path: format!("{kind} istio-system/a"), text: String::new() };
            state.take(Update::Custom(of(kind), Step::Put(key("a"), (file, known))));
            state.revisions()
        };
        let none = state.revisions();
        assert_eq!(put(&mut state, "VirtualService", 3), none);
        let one = put(&mut state, "EgressPolicy", 1);
        assert!(one.has("EgressPolicy istio-system/a", "uid", 1) && one != none);
        assert_ne!(put(&mut state, "EgressPolicy", 2).digest(), one.digest());
        assert_eq!(state.agents().len(), 1);
        let node = NodeInfo {
            addresses: Vec::new(),
            networks: Vec::new(),
            external: Vec::new(),
            runs_agent: false,
            locality: String::new(),
        };
        state.take(Update::Node(Step::Put((String::new(), "node-2".into()), node)));
        assert_eq!(state.agents().into_keys().collect::<Vec<_>>(), ["node-1"]);
    }

    #[test]
    fn what_is_found_of_the_networks_is_inside_unless_it_cannot_be() {
        let mut state = State::default();
        complete(&mut state, usize::MAX);
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>();
        let put = |state: &mut State, name: &str, list: &[&str]| {
            let step = Step::Put((String::new(), name.to_owned()), nets(list));
            assert_eq!(state.take(Update::ServiceCidr(step)), Changed::Configuration);
            state.files().unwrap().discovered
        };
        let Discovered { cluster_cidrs: before, external_addresses, .. } =
            state.files().unwrap().discovered;
        // A node's address for the outside is none of the cluster's networks.
        assert_eq!(external_addresses, ["203.0.113.7".parse::<IpAddr>().unwrap()]);
        assert!(!before.iter().any(|net| net.contains(&external_addresses[0])));
        let found = put(&mut state, "kubernetes", &["10.96.0.0/12"]);
        assert_eq!(found.cluster_cidrs.len(), before.len() + 1);
        assert!(found.cluster_cidrs.contains(&"10.96.0.0/12".parse().unwrap()));
        // All addresses are no network of a cluster.
        let found = put(&mut state, "wrong", &["0.0.0.0/0"]);
        assert_eq!(found.cluster_cidrs.len(), before.len() + 1);
        assert_eq!(found.refused_cidrs, nets(&["0.0.0.0/0"]));
        let said = Kubeadm { services: nets(&["10.112.0.0/12"]), pods: nets(&["10.244.0.0/16"]) };
        state.take(Update::Kubeadm(Step::Put(key("kubeadm-config"), said)));
        let found = state.files().unwrap().discovered.cluster_cidrs;
        assert!(["10.96.0.0/12", "10.112.0.0/12", "10.244.0.0/16"].iter().all(|net| {
            let net: IpNet = net.parse().unwrap();
            found.iter().any(|found| found.contains(&net))
        }));
    }

    #[test]
    fn only_what_differs_is_a_change() {
        let mut state = State::default();
        // Before the first list, one object alone is not enough.
        assert_eq!(
            state.take(Update::Custom(3, Step::Put(key("a"), custom("a")))),
            Changed::Nothing
        );
        complete(&mut state, usize::MAX);
        let put = |text: &str| Update::Custom(3, Step::Put(key("a"), custom(text)));
        assert_eq!(state.take(put("1")), Changed::Configuration);
        assert_eq!(state.take(put("1")), Changed::Nothing);
        assert_eq!(state.take(put("2")), Changed::Configuration);
        assert_eq!(state.files().unwrap().resources[0].text, "2");
        assert_eq!(state.take(Update::Custom(3, Step::Remove(key("a")))), Changed::Configuration);
        assert_eq!(state.take(Update::Custom(3, Step::Remove(key("a")))), Changed::Nothing);
        assert_eq!(state.take(Update::Custom(3, Step::Replace(Vec::new()))), Changed::Nothing);
        assert_eq!(state.take(Update::Pod(Step::Replace(Vec::new()))), Changed::Nothing);
    }
}

//! The parts of Kubernetes' objects that are read. An object is parsed, what counts is taken from it, and
//! the rest is dropped before the next one is parsed.

use std::{borrow::Cow, collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;
use kube::{Resource, api::ObjectMeta, core::DynamicResourceScope};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    api_object::{ApiObject, Shows},
    kinds::{CUSTOM, Custom, GATEWAY_API, Kind},
};
use crate::{
    config::{ANNOTATION_PREFIX, RawFile},
    pods::{Pod, PodUid},
    policy::{REGION, SUBZONE, ZONE},
    source::NodeSelector,
    types::{DEFAULT_SERVICE_ACCOUNT, Labels, Namespace},
};

/// An annotation that changes what an `AuthorizationPolicy` does. No other one does.
const DRY_RUN: &str = "istio.io/dry-run";
/// An annotation that names the service of a `Gateway` of the Gateway API.
const NAME_OVERRIDE: &str = "gateway.istio.io/name-override";

/// An object of any kind that is read.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Object {
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: Option<Value>,
    #[serde(default)]
    status: Option<Status>,
    /// Of a ConfigMap or a Secret.
    #[serde(default)]
    pub(super) data: Option<Data>,
    /// Of an EndpointSlice; `null` where there are none.
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
}

/// Keys with their values.
#[derive(Clone, Deserialize)]
pub(super) struct Data(pub(super) BTreeMap<String, String>);

impl fmt::Debug for Data {
    /// Without the values: those of a Secret are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Of a pod or a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    phase: Option<String>,
    #[serde(default, rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
    #[serde(default)]
    addresses: Option<Vec<NodeAddress>>,
    #[serde(default)]
    conditions: Option<Vec<ShownCondition>>,
    /// Of a route of the Gateway API.
    #[serde(default)]
    parents: Option<Vec<Value>>,
    /// Of a Gateway of the Gateway API.
    #[serde(default)]
    listeners: Option<Vec<Value>>,
}

/// A condition as any kind shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ShownCondition {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    observed_generation: Option<i64>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    last_transition_time: Option<String>,
}

impl ShownCondition {
    fn value(&self) -> Value {
        let Self { kind, status, observed_generation, reason, message, last_transition_time } =
            self;
        json!({
            "type": kind, "status": status, "observedGeneration": observed_generation,
            "reason": reason, "message": message, "lastTransitionTime": last_transition_time,
        })
    }
}

#[derive(Clone, Debug, Deserialize)]
struct PodIp {
    ip: String,
}

#[derive(Clone, Debug, Deserialize)]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
}

impl Resource for Object {
    type DynamicType = Kind;
    type Scope = DynamicResourceScope;

    fn kind(of: &Kind) -> Cow<'_, str> {
        of.kind.into()
    }

    fn group(of: &Kind) -> Cow<'_, str> {
        of.group.into()
    }

    fn version(of: &Kind) -> Cow<'_, str> {
        of.version.into()
    }

    fn plural(of: &Kind) -> Cow<'_, str> {
        of.plural.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A custom resource as a document that is read like a file's. Its name stands for the path.
pub(super) fn resource(of: Custom, object: &Object) -> Option<RawFile> {
    let metadata = &object.metadata;
    let path = name_of(of, object)?;
    let created = metadata.creation_timestamp.as_ref().map(|time| json!(time));
    let annotations = metadata.annotations.iter().flatten();
    let annotations: BTreeMap<&String, &String> = annotations
        .filter(|(key, _)| {
            [DRY_RUN, NAME_OVERRIDE].contains(&key.as_str()) || key.starts_with(ANNOTATION_PREFIX)
        })
        .collect();
    let document = json!({
        "apiVersion": of.api_version(),
        "kind": of.kind,
        "metadata": {
            "name": metadata.name, "namespace": metadata.namespace, "creationTimestamp": created,
            "annotations": annotations,
        },
        "spec": object.spec,
    });
    Some(RawFile { path, text: document.to_string() })
}

/// What messages call an object of this kind.
fn name_of(of: Custom, object: &Object) -> Option<String> {
    let ObjectMeta { namespace, name, .. } = &object.metadata;
    let place = namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    Some(format!("{} {place}{}", of.title(), name.as_ref()?))
}

/// A condition that an object shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ConditionKind {
    /// Whether gateways decide by it.
    Accepted,
    /// Whether it is in force on every node and gateway.
    Programmed,
}

impl ConditionKind {
    /// Its `type`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Programmed => "Programmed",
        }
    }
}

/// Custom resources by the name that messages call them.
pub(super) type KnownObjects = BTreeMap<String, KnownObject>;

/// What is known of a custom resource for reports on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct KnownObject {
    /// Its kind's place in `CUSTOM`.
    pub(super) kind: usize,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) generation: i64,
    /// What it shows of [`ConditionKind::Accepted`].
    pub(super) accepted: Option<Condition>,
    /// And of [`ConditionKind::Programmed`].
    pub(super) programmed: Option<Condition>,
    /// What else counts of a Gateway or a route of the Gateway API.
    pub(super) api: Option<Box<ApiObject>>,
}

/// A condition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Condition {
    pub(super) holds: bool,
    pub(super) generation: i64,
    pub(super) reason: String,
    pub(super) message: String,
    /// Since when it holds or does not.
    pub(super) since: Option<String>,
}

/// What is known of a custom resource.
pub(super) fn known(kind: usize, object: &Object) -> Option<KnownObject> {
    let ObjectMeta { namespace, name, uid, generation, .. } = &object.metadata;
    let conditions = object.status.as_ref().and_then(|status| status.conditions.as_ref());
    let shown = |kind: ConditionKind| {
        let shown = conditions.into_iter().flatten().find(|shown| shown.kind == kind.name())?;
        Some(Condition {
            holds: shown.status == "True",
            generation: shown.observed_generation.unwrap_or(0),
            reason: shown.reason.clone().unwrap_or_default(),
            message: shown.message.clone().unwrap_or_default(),
            since: shown.last_transition_time.clone(),
        })
    };
    Some(KnownObject {
        kind,
        namespace: namespace.clone(),
        name: name.clone()?,
        uid: uid.clone().unwrap_or_default(),
        generation: generation.unwrap_or(0),
        accepted: shown(ConditionKind::Accepted),
        programmed: shown(ConditionKind::Programmed),
        api: api(kind, object),
    })
}

/// What else counts of a resource of the Gateway API.
fn api(kind: usize, object: &Object) -> Option<Box<ApiObject>> {
    CUSTOM.get(kind).filter(|custom| custom.group == GATEWAY_API)?;
    let status = object.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let shown = Shows {
        conditions: conditions.map(ShownCondition::value).collect(),
        parents: status.and_then(|status| status.parents.clone()).unwrap_or_default(),
        listeners: status.and_then(|status| status.listeners.clone()).unwrap_or_default(),
    };
    let version = object.metadata.resource_version.clone();
    Some(Box::new(ApiObject::new(object.spec.as_ref(), shown, version)))
}

/// A namespace with its labels, as a document too.
pub(super) fn namespace(object: &Object) -> Option<RawFile> {
    let ObjectMeta { name, labels, .. } = &object.metadata;
    let name = name.as_deref()?;
    let metadata = json!({"name": name, "labels": labels});
    let document = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
    Some(RawFile { path: format!("Namespace {name}"), text: document.to_string() })
}

/// The key of the ConfigMap that holds the mesh-wide settings.
const SETTINGS: &str = "mesh.yaml";

/// The mesh-wide settings.
pub(super) fn settings(object: &Object) -> Option<RawFile> {
    let metadata = &object.metadata;
    let (namespace, name) = (metadata.namespace.as_deref()?, metadata.name.as_deref()?);
    let text = object.data.as_ref()?.0.get(SETTINGS)?.clone();
    Some(RawFile { path: format!("ConfigMap {namespace}/{name}, {SETTINGS}"), text })
}

/// A Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ServiceInfo {
    /// Its selector.
    pub(super) labels: Labels,
    /// Its own addresses.
    pub(super) addresses: Vec<IpAddr>,
}

/// A slice of a Service's endpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Endpoints {
    pub(super) service: String,
    pub(super) addresses: Vec<IpAddr>,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NodeInfo {
    /// Its own addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// These, and the networks of its pods.
    pub(super) networks: Vec<IpNet>,
    /// Those by which it is reached from outside.
    pub(super) external: Vec<IpAddr>,
    /// Whether it should run a node agent.
    pub(super) runs_agent: bool,
    /// `region/zone/subzone`; empty where no label says it.
    pub(super) locality: String,
}

/// A Service: which pods, and at which addresses.
pub(super) fn service(object: &Object) -> Option<ServiceInfo> {
    let spec = object.spec.as_ref()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let selector = spec["selector"].as_object().into_iter().flatten();
    let addresses = spec["clusterIPs"].as_array().into_iter().flatten();
    Some(ServiceInfo {
        labels: selector.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect(),
        addresses: addresses.filter_map(|value| value.as_str()?.parse().ok()).collect(),
    })
}

/// A slice of a Service's endpoints. Those that aren't ready count: the node asks each for its health.
pub(super) fn slice(object: &Object) -> Option<Endpoints> {
    let labels = object.metadata.labels.as_ref()?;
    let service = labels.get("kubernetes.io/service-name")?.clone();
    let all = object.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
    Some(Endpoints { service, addresses: all.filter_map(|text| text.parse().ok()).collect() })
}

/// A node: its addresses, and the networks of its pods. Those that `agents` selects run agents.
pub(super) fn node(object: &Object, agents: &NodeSelector) -> Option<NodeInfo> {
    let labels = object.metadata.labels.iter().flatten();
    let labels: BTreeMap<&str, &str> =
        labels.map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let part = |key: &str| labels.get(key).copied().unwrap_or_default();
    let locality = [REGION, ZONE, SUBZONE].map(part).join("/");
    let locality = locality.trim_end_matches('/').to_owned();
    let networks = object.spec.as_ref().and_then(|spec| spec["podCIDRs"].as_array());
    let networks = networks.into_iter().flatten();
    let of_kind = |kind: &str| -> Vec<IpAddr> {
        let all = object.status.iter().filter_map(|status| status.addresses.as_ref()).flatten();
        let of_kind = all.filter(|address| address.kind == kind);
        of_kind.filter_map(|address| address.address.parse().ok()).collect()
    };
    let (addresses, external) = (of_kind("InternalIP"), of_kind("ExternalIP"));
    let networks = networks.filter_map(|value| value.as_str()?.parse::<IpNet>().ok());
    let networks = networks.chain(addresses.iter().copied().map(IpNet::from)).collect();
    Some(NodeInfo { addresses, networks, external, runs_agent: agents.selects(&labels), locality })
}

/// The hash of a static pod's configuration, which its cgroup is named after.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// The same on the pod that a kubelet makes for it, the mirror.
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// What a static pod's cgroup is named after. Anybody may write an annotation: of a pod that is no mirror, or
/// that names another pod's UID, it says nothing.
fn static_hash(metadata: &ObjectMeta) -> Option<&String> {
    let said = |key| metadata.annotations.as_ref().and_then(|all| all.get(key));
    let mut owners = metadata.owner_references.iter().flatten();
    let hash = said(CONFIG_HASH).filter(|hash| said(CONFIG_MIRROR) == Some(*hash))?;
    (owners.any(|owner| owner.kind == "Node") && !hash.contains('-')).then_some(hash)
}

/// A pod; `None` for one whose UID no cgroup could have.
pub(super) fn pod(object: &Object) -> Option<Pod> {
    let ObjectMeta { name, namespace, uid, labels, .. } = &object.metadata;
    let uid = PodUid::parse(static_hash(&object.metadata).or(uid.as_ref())?)?;
    let spec = object.spec.as_ref();
    let text = |field: &str| spec.and_then(|spec| spec[field].as_str());
    let status = object.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let addresses = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten();
    Some(Pod {
        uid,
        namespace: Namespace(namespace.as_deref()?.into()),
        name: name.as_deref()?.into(),
        labels: labels.clone().unwrap_or_default(),
        service_account: text("serviceAccountName").unwrap_or(DEFAULT_SERVICE_ACCOUNT).into(),
        node: text("nodeName").map(Into::into),
        host_network: spec.is_some_and(|spec| spec["hostNetwork"] == true),
        finished: matches!(phase, Some("Succeeded" | "Failed")),
        addresses: addresses.filter_map(|address| address.ip.parse().ok()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kubernetes::kinds::CUSTOM;

    fn object(text: Value) -> Object {
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn a_node_has_addresses_of_its_own_and_for_the_outside() {
        let text = json!({
            "metadata": {"name": "n1"},
            "spec": {"podCIDRs": ["10.244.1.0/24"]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "10.0.0.7"},
                {"type": "ExternalIP", "address": "203.0.113.7"},
                {"type": "ExternalIP", "address": "2001:db8::7"},
                {"type": "Hostname", "address": "n1"},
            ]},
        });
        let node = node(&object(text), &NodeSelector::default()).unwrap();
        let addresses = |list: &[IpAddr]| list.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(addresses(&node.addresses), ["10.0.0.7"]);
        assert_eq!(addresses(&node.external), ["203.0.113.7", "2001:db8::7"]);
        let networks: Vec<String> = node.networks.iter().map(IpNet::to_string).collect();
        assert_eq!(networks, ["10.244.1.0/24", "10.0.0.7/32"]);
    }

    #[test]
    fn a_pod_is_read_as_the_server_writes_it() {
        let text = json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "00000000-0000-4000-8000-000000000001",
                "labels": {"app": "web"},
            },
            "spec": {"nodeName": "node-1", "serviceAccountName": "web", "containers": null},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
        });
        let read = pod(&object(text.clone())).unwrap();
        assert_eq!(read.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!((&*read.service_account, read.node.as_deref()), ("web", Some("node-1")));
        assert!(!read.finished && !read.host_network);
        let mut over = text.clone();
        over["status"]["phase"] = json!("Failed");
        assert!(pod(&object(over)).unwrap().finished);
        // A static pod's mirror has a UID of its own, and its cgroup another name.
        let mut mirror = text.clone();
        let hash = "0123456789abcdef0123456789abcdef";
        mirror["metadata"]["annotations"] = json!({CONFIG_HASH: hash, CONFIG_MIRROR: hash});
        mirror["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "1"}]);
        assert_eq!(pod(&object(mirror.clone())).unwrap().uid.as_str(), hash);
        // Who writes the annotation on a pod of his own is not taken for another one.
        let own = pod(&object(text.clone())).unwrap().uid;
        let other = "11111111-2222-3333-4444-555555555555";
        for (hash, mirrored, owner) in
            [(hash, "", "Node"), (hash, hash, "ReplicaSet"), (other, other, "Node")]
        {
            let mut forged = mirror.clone();
            forged["metadata"]["annotations"] = json!({CONFIG_HASH: hash, CONFIG_MIRROR: mirrored});
            forged["metadata"]["ownerReferences"][0]["kind"] = json!(owner);
            assert_eq!(pod(&object(forged)).unwrap().uid, own, "{hash} {mirrored} {owner}");
        }
        let mut odd = text;
        odd["metadata"]["uid"] = json!("../../etc");
        assert_eq!(pod(&object(odd)), None);
    }

    #[test]
    fn a_service_without_pods_has_endpoints_that_are_null() {
        let labels = json!({"kubernetes.io/service-name": "gw"});
        let none = json!({"metadata": {"name": "gw-x", "labels": labels}, "endpoints": null, "ports": null});
        assert_eq!(slice(&object(none)).unwrap().addresses, Vec::<IpAddr>::new());
        let stray = json!({"metadata": {"name": "x"}, "endpoints": []});
        assert!(slice(&object(stray)).is_none());
        let headless = json!({"metadata": {"name": "x"}, "spec": {"clusterIPs": ["None"]}});
        assert!(service(&object(headless)).unwrap().addresses.is_empty());
    }

    /// A kind that is read from files and not watched would allow more in a cluster than its files do.
    #[test]
    fn every_kind_that_is_read_from_files_is_watched() {
        let mut watched: Vec<_> =
            CUSTOM.iter().map(|of| (of.group, of.kind, of.versions.to_vec())).collect();
        let mut read: Vec<_> = crate::config::kinds()
            .map(|(group, kind, versions)| (group, kind, versions.to_vec()))
            .collect();
        watched.sort_unstable();
        read.sort_unstable();
        assert_eq!(watched, read);
    }

    #[test]
    fn a_policy_that_is_only_tried_out_stays_one() {
        let of = CUSTOM.iter().find(|of| of.kind == "AuthorizationPolicy").unwrap();
        let metadata = json!({
            "name": "x", "namespace": "shop",
            "annotations": {
                DRY_RUN: "true", "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "egress-enforcer.io/rate-limit": "{}",
            },
        });
        let text = json!({"metadata": metadata, "spec": {"action": "DENY"}});
        let read: Value =
            serde_json::from_str(&resource(*of, &object(text)).unwrap().text).unwrap();
        assert_eq!(read["apiVersion"], "security.istio.io/v1");
        let kept = json!({DRY_RUN: "true", "egress-enforcer.io/rate-limit": "{}"});
        assert_eq!(read["metadata"]["annotations"], kept);
    }

    #[test]
    fn what_is_in_no_namespace_is_read_too() {
        let of = CUSTOM.iter().find(|of| of.kind == "ClusterEgressPolicy").unwrap();
        let text =
            json!({"metadata": {"name": "all"}, "spec": {"namespaceSelector": {}, "rules": []}});
        let file = resource(*of, &object(text)).unwrap();
        assert_eq!(file.path, "ClusterEgressPolicy all");
        let labels = json!({"tier": "front"});
        let shop =
            namespace(&object(json!({"metadata": {"name": "shop", "labels": labels}}))).unwrap();
        assert_eq!(shop.path, "Namespace shop");
        let compiled = crate::config::compile(&[file, shop], None);
        assert!(compiled.is_ok(), "{compiled:?}");
    }

    #[test]
    fn a_resource_keeps_its_age_and_its_name() {
        let text = json!({
            "metadata": {
                "name": "x", "namespace": "shop", "creationTimestamp": "2026-11-28T20:29:22Z",
                "managedFields": [], "generation": 2,
            },
            "spec": {"hosts": ["a.example"]}, "status": {},
        });
        let file = resource(CUSTOM[3], &object(text)).unwrap();
        assert_eq!(file.path, "VirtualService shop/x");
        let read: Value = serde_json::from_str(&file.text).unwrap();
        assert_eq!(read["metadata"]["creationTimestamp"], "2026-11-28T20:29:22Z");
        assert_eq!(read["spec"]["hosts"][0], "a.example");
    }
}

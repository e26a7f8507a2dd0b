//! From documents to typed resources: which kinds there are, and who they are.

mod api;
mod documents;
mod name;
mod policy;

pub(super) use super::meta::Meta;
pub(super) use documents::documents;
pub(super) use name::{is_label, is_name};

use std::{collections::HashMap, rc::Rc};

use super::{
    RawFile,
    annotations::Annotations,
    decode::{Cx, Record, Report, SourcePosition, nearest},
    destination_rule::DestinationRule,
    gateway::Gateway,
    gateway_api::{self, GatewayApi},
    guards::{self, Guard},
    meta::warn_about_unknown,
    policies::{self, Policy},
    service_entry::ServiceEntry,
    virtual_service::VirtualService,
    yaml::{Node, Value, shorten},
};
use crate::types::{Labels, Namespace};

/// Resources that one configuration may have.
const MAX_RESOURCES: usize = 400_000;
/// The group of all kinds that are read.
const GROUP: &str = "networking.istio.io";
/// Its versions, one schema for all.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha3"];
const KINDS: [&str; 4] = ["ServiceEntry", "Gateway", "DestinationRule", "VirtualService"];
/// Kinds of the group that have no meaning here.
const OTHER_KINDS: [&str; 3] = ["WorkloadEntry", "WorkloadGroup", "ProxyConfig"];

/// The kinds that are read: group, name, versions, the newest first.
pub(super) fn kinds() -> impl Iterator<Item = (&'static str, &'static str, &'static [&'static str])>
{
    let versions: &'static [&'static str] = &VERSIONS;
    let istio = KINDS.iter().map(move |kind| (GROUP, *kind, versions)).chain(guards::KINDS);
    istio.chain(policies::kinds()).chain(gateway_api::kinds())
}

/// A resource.
#[derive(Clone, Debug)]
pub(super) struct Resource<T> {
    /// Who it is.
    pub(super) meta: Meta,
    /// What it says.
    pub(super) spec: T,
}

/// All resources, by kind, the oldest first: those with a creation time by it, then all others in
/// the order of files and documents.
#[derive(Debug, Default)]
pub(super) struct Resources {
    pub(super) entries: Vec<Resource<ServiceEntry>>,
    pub(super) gateways: Vec<Resource<Gateway>>,
    pub(super) rules: Vec<Resource<DestinationRule>>,
    pub(super) routes: Vec<Resource<VirtualService>>,
    /// Those without hosts, which others delegate to.
    pub(super) delegates: Vec<Resource<VirtualService>>,
    /// What restricts gateways.
    pub(super) guards: Vec<Guard>,
    /// Egress policies of both kinds.
    pub(super) policies: Vec<Policy>,
    /// Resources of the Gateway API.
    pub(super) api: GatewayApi,
    /// Namespaces with their labels.
    pub(super) namespaces: Vec<(Namespace, Labels)>,
    seen: HashMap<String, String>,
    count: usize,
}

impl Resources {
    /// Reads all files.
    pub(super) fn read<'a>(files: impl Iterator<Item = &'a RawFile>, report: &mut Report) -> Self {
        let mut all = Self::default();
        for file in files {
            let name: Rc<str> = file.path.as_str().into();
            for document in documents(file, report) {
                all.document(&name, &document, report);
            }
        }
        sort(&mut all.entries);
        sort(&mut all.gateways);
        sort(&mut all.rules);
        sort(&mut all.routes);
        policies::sort(&mut all.policies);
        all.api.sort();
        let hosted = std::mem::take(&mut all.routes).into_iter();
        (all.delegates, all.routes) = hosted.partition(|route| route.spec.hosts.is_empty());
        all
    }

    fn document(&mut self, file: &Rc<str>, node: &Node, report: &mut Report) {
        let mut cx = Cx { report, file, resource: None };
        let root = SourcePosition::root(node.line, "");
        if !matches!(node.value, Value::Map(_)) {
            let found = node.value.describe();
            cx.wrong(
                &root,
                found,
                "a resource with apiVersion, kind, metadata and spec",
                "not a resource",
            );
            return;
        }
        let Some(kind) = node.text("kind") else {
            cx.wrong(
                &root.field("kind"),
                found(node, "kind"),
                KINDS.join(", "),
                "the field \"kind\" is missing or no text",
            );
            return;
        };
        let version = node.text("apiVersion");
        let Some(version) = version else {
            let known = format!("{GROUP}/{}", VERSIONS[0]);
            cx.wrong(
                &root.field("apiVersion"),
                found(node, "apiVersion"),
                known,
                "the field \"apiVersion\" is missing or no text",
            );
            return;
        };
        if kind == "List" && version == "v1" {
            match node.get("items").map(|items| &items.value) {
                Some(Value::List(items)) => {
                    for item in items {
                        self.document(file, item, cx.report);
                    }
                }
                _ => cx.wrong(
                    &root.field("items"),
                    found(node, "items"),
                    "a list",
                    "a List without items",
                ),
            }
            return;
        }
        self.resource(kind, version, node, &mut cx);
    }

    fn resource(&mut self, kind: &str, version: &str, node: &Node, cx: &mut Cx<'_>) {
        let root = SourcePosition::root(node.line, "");
        let (group, short) = version.split_once('/').unwrap_or(("", version));
        if let Some(versions) = guards::versions(group, kind) {
            if !versions.contains(&short) {
                let known = versions.iter().map(|version| format!("{group}/{version}"));
                let known: Vec<_> = known.collect();
                let found = format!("{version:?}");
                cx.wrong(&root.field("apiVersion"), found, known.join(", "), "unknown version");
            } else if self.counted(&root, cx)
                && let Some(meta) = self.meta(kind, node, Scope::Namespace, cx)
            {
                self.guards.push(Guard::read(kind, meta, node));
            }
            return;
        }
        if self.policy(group, short, kind, node, cx) {
            return;
        }
        if group == gateway_api::GROUP {
            self.gateway_api(short, kind, node, cx);
            return;
        }
        let own = guards::KINDS.iter().find(|(_, name, _)| *name == kind);
        if let Some((own, ..)) = own.filter(|(own, ..)| {
            group.is_empty() || group == GROUP || nearest(group, [*own].into_iter()).is_some()
        }) {
            let message = "wrong apiVersion for this kind";
            cx.wrong(
                &root.field("apiVersion"),
                format!("{version:?}"),
                format!("{own}/v1"),
                message,
            );
            return;
        }
        if kind == "PeerAuthentication" {
            let message =
                "ignored: whether a gateway asks for mutual TLS, its servers say (tls.mode)";
            cx.warn(&root, message);
            return;
        }
        if group != GROUP {
            if KINDS.contains(&kind)
                && (group.is_empty() || nearest(group, [GROUP].into_iter()).is_some())
            {
                cx.wrong(
                    &root.field("apiVersion"),
                    format!("{version:?}"),
                    supported(),
                    "wrong apiVersion for this kind",
                );
            } else {
                let name = shorten(kind);
                cx.warn(&root, format!("ignored: {name} of {} is none of Istio's resources that are read here ({})", shorten(version), KINDS.join(", ")));
            }
            return;
        }
        if !VERSIONS.contains(&short) {
            cx.wrong(
                &root.field("apiVersion"),
                format!("{version:?}"),
                supported(),
                "unknown version",
            );
            return;
        }
        if OTHER_KINDS.contains(&kind) {
            cx.warn(
                &root.field("kind"),
                format!("ignored: {kind} is not supported; supported are {}", KINDS.join(", ")),
            );
            return;
        }
        if !KINDS.contains(&kind) {
            let hint = nearest(kind, KINDS.into_iter());
            let hint = hint.map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
            let message = format!("unknown kind{hint}");
            cx.wrong(
                &root.field("kind"),
                format!("{:?}", shorten(kind)),
                format!("one of {}", KINDS.join(", ")),
                message,
            );
            return;
        }
        if !self.counted(&root, cx) {
            return;
        }
        let Some(meta) = self.meta(kind, node, Scope::Namespace, cx) else { return };
        let (file, report) = (cx.file, &mut *cx.report);
        let mut cx = Cx { report, file, resource: Some(&meta.label) };
        warn_about_unknown(node, &mut cx);
        match kind {
            "ServiceEntry" => push(&mut self.entries, &meta, node, &mut cx),
            "Gateway" => push(&mut self.gateways, &meta, node, &mut cx),
            "DestinationRule" => push(&mut self.rules, &meta, node, &mut cx),
            _ => push(&mut self.routes, &meta, node, &mut cx),
        }
    }

    /// Whether there is room for one more.
    fn counted(&mut self, root: &SourcePosition, cx: &mut Cx<'_>) -> bool {
        self.count += 1;
        if self.count == MAX_RESOURCES + 1 {
            cx.error(root, format!("more than {MAX_RESOURCES} resources"));
        }
        self.count <= MAX_RESOURCES
    }

    fn meta(&mut self, kind: &str, node: &Node, scope: Scope, cx: &mut Cx<'_>) -> Option<Meta> {
        let root = SourcePosition::root(node.line, "");
        let metadata = node.get("metadata");
        let at = SourcePosition::root(metadata.map_or(node.line, |m| m.line), "metadata");
        let name = metadata.and_then(|m| m.text("name")).unwrap_or_default();
        if !is_name(name) {
            let found = metadata.map_or("nothing".into(), |m| found(m, "name"));
            cx.wrong(
                &at.field("name"),
                found,
                "a name of lower-case letters, digits, - and .",
                format!("this {kind} has no valid name"),
            );
            return None;
        }
        let namespace = match metadata.and_then(|m| m.get("namespace")).map(|n| &n.value) {
            None | Some(Value::Null) => "default",
            Some(_) if scope == Scope::Cluster => {
                let message = format!("has no effect: a {kind} is in no namespace");
                cx.warn(&at.field("namespace"), message);
                "default"
            }
            Some(Value::Text(text)) if is_label(text) => text,
            Some(other) => {
                cx.wrong(
                    &at.field("namespace"),
                    other.describe(),
                    "a name of lower-case letters, digits and -",
                    format!("this {kind} has no valid namespace"),
                );
                return None;
            }
        };
        let label = match scope {
            Scope::Namespace => format!("{kind} {namespace}/{name}"),
            Scope::Cluster => format!("{kind} {name}"),
        };
        let mut own = Cx { report: &mut *cx.report, file: cx.file, resource: Some(&label) };
        let meta = Meta {
            annotations: Annotations::read(kind, node, &mut own),
            file: cx.file.into(),
            name: name.into(),
            namespace: Namespace(namespace.into()),
            label,
            line: node.line,
            created: metadata.and_then(|m| m.text("creationTimestamp")).map(Into::into),
        };
        if let Some(other) = self.seen.insert(meta.label.clone(), meta.place()) {
            let message = format!("{} is defined twice; the other one is at {other}", meta.label);
            cx.error(&root, message).resource = Some(meta.label);
            return None;
        }
        Some(meta)
    }
}

/// Whether a resource is in a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    Namespace,
    Cluster,
}

/// The oldest first; what has no creation time was never applied, so it is the youngest.
pub(super) fn sort<T>(all: &mut [Resource<T>]) {
    all.sort_by(|a, b| {
        let created = |resource: &Resource<T>| {
            (resource.meta.created.is_none(), resource.meta.created.clone())
        };
        created(a).cmp(&created(b))
    });
}

fn push<T: Record>(all: &mut Vec<Resource<T>>, meta: &Meta, node: &Node, cx: &mut Cx<'_>) {
    let Some(spec) = node.get("spec").filter(|spec| spec.value != Value::Null) else {
        let line = node.get("spec").map_or(node.line, |spec| spec.line);
        let at = SourcePosition::root(line, "spec");
        cx.wrong(&at, "nothing", "a mapping", "the field \"spec\" is missing");
        return;
    };
    if let Some(spec) = T::decode_record(spec, &SourcePosition::root(spec.line, "spec"), cx) {
        all.push(Resource { meta: meta.clone(), spec });
    }
}

fn supported() -> String {
    VERSIONS.map(|version| format!("{GROUP}/{version}")).join(", ")
}

fn found(node: &Node, key: &str) -> String {
    node.get(key).map_or("nothing".into(), |value| value.value.describe())
}

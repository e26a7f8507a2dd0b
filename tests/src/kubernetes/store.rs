//! The double's objects and their history, without I/O.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::resource::Resource;

/// Plural, namespace and name.
type Key = (String, String, String);

/// A change of an object.
#[derive(Clone, Debug)]
struct Change {
    version: u64,
    key: Key,
    /// As it is now; of one that was deleted, as it was last.
    object: Value,
    deleted: bool,
    before: Option<Value>,
}

/// Objects and history.
#[derive(Debug)]
pub struct Store {
    kinds: Vec<Resource>,
    /// Plurals of kinds that are defined and not served, as while a server starts.
    hidden: BTreeSet<&'static str>,
    /// Since when a kind is served: what was before, a watch can't begin at.
    since: BTreeMap<&'static str, u64>,
    objects: BTreeMap<Key, Value>,
    history: Vec<Change>,
    version: u64,
    compacted: u64,
    uids: u64,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// `virtualservices`.
    pub plural: String,
    /// The version of the path.
    pub version: String,
    /// All where absent.
    pub namespace: Option<String>,
    /// `key=value`, all of them.
    pub labels: Vec<(String, String)>,
    /// `metadata.name=x`, `spec.nodeName=x`.
    pub fields: Vec<(String, String)>,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No such kind: `text/plain`.
    NoKind,
    /// The history doesn't reach so far back. Which was asked for, and which would do.
    Expired(u64, u64),
}

impl Default for Store {
    fn default() -> Self {
        let kinds = vec![
            Resource::core("configmaps", "ConfigMap"),
            Resource { group: "events.k8s.io", versions: &["v1"], plural: "events", kind: "Event" },
            Resource::core("namespaces", "Namespace"),
            Resource::core("nodes", "Node"),
            Resource::core("pods", "Pod"),
            Resource::core("secrets", "Secret"),
            Resource::core("services", "Service"),
            Resource {
                group: "discovery.k8s.io",
                versions: &["v1"],
                plural: "endpointslices",
                kind: "EndpointSlice",
            },
            Resource {
                group: "networking.k8s.io",
                versions: &["v1", "v1beta1"],
                plural: "servicecidrs",
                kind: "ServiceCIDR",
            },
            Resource::istio("destinationrules", "DestinationRule"),
            Resource::istio("gateways", "Gateway"),
            Resource::istio("serviceentries", "ServiceEntry"),
            Resource::istio("virtualservices", "VirtualService"),
        ];
        Self {
            kinds,
            hidden: BTreeSet::new(),
            since: BTreeMap::new(),
            objects: BTreeMap::new(),
            history: Vec::new(),
            version: 100,
            compacted: 0,
            uids: 0,
        }
    }
}

impl Store {
    /// The kind with this group, version and plural, where it is served.
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        self.kinds.iter().find(|kind| {
            kind.group == group
                && kind.plural == plural
                && kind.versions.contains(&version)
                && !self.hidden.contains(kind.plural)
        })
    }

    /// The kinds that are served.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &Resource> {
        self.kinds.iter().filter(|kind| !self.hidden.contains(kind.plural))
    }

    /// The custom resource with this definition, `virtualservices.networking.istio.io`, served or not.
    pub fn definition(&self, name: &str) -> Option<&Resource> {
        let mut custom = self.kinds.iter().filter(|kind| kind.is_custom());
        custom.find(|kind| format!("{}.{}", kind.plural, kind.group) == name)
    }

    /// Stops serving a kind that stays defined, or serves it again.
    pub fn hide_kind(&mut self, plural: &'static str, hidden: bool) {
        if hidden {
            self.hidden.insert(plural);
        } else {
            self.hidden.remove(plural);
        }
    }

    /// The latest version of everything.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Puts an object, and gives it what the server gives: UID, version, time of creation.
    ///
    /// # Errors
    /// No such kind, or no name.
    pub fn put(&mut self, mut object: Value) -> Result<()> {
        let kind = object["kind"].as_str().context("no kind")?.to_owned();
        let resource = self.kinds.iter().find(|known| known.kind == kind);
        let resource = resource.with_context(|| format!("no kind {kind}"))?.clone();
        let namespace = if is_cluster_wide(resource.plural) {
            String::new()
        } else {
            object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned()
        };
        let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned) else {
            bail!("no name")
        };
        let key = (resource.plural.to_owned(), namespace.clone(), name);
        let before = self.objects.get(&key).cloned();
        self.version += 1;
        self.uids += 1;
        let metadata = object["metadata"].as_object_mut().context("no metadata")?;
        if !namespace.is_empty() {
            metadata.insert("namespace".into(), json!(namespace));
        }
        let kept = before.as_ref().map(|before| &before["metadata"]);
        let uid = format!("00000000-0000-4000-8000-{:012x}", self.uids);
        for (field, fresh) in
            [("uid", json!(uid)), ("creationTimestamp", json!("2026-11-28T20:29:22Z"))]
        {
            let value = kept.map_or(fresh, |kept| kept[field].clone());
            metadata.entry(field).or_insert(value);
        }
        metadata.insert("resourceVersion".into(), json!(self.version.to_string()));
        if resource.is_custom() {
            // The status has a way of its own, and only what is asked for makes a new generation.
            let old = before.as_ref().unwrap_or(&Value::Null);
            let generation = old["metadata"]["generation"].as_u64().unwrap_or(0);
            let news = u64::from(old["spec"] != object["spec"]);
            object["metadata"]["generation"] = json!(generation + news);
            object.as_object_mut().context("no object")?.remove("status");
            if !old["status"].is_null() {
                object["status"] = old["status"].clone();
            }
        }
        object["apiVersion"] = json!(resource.api_version(resource.versions[0]));
        self.objects.insert(key.clone(), object.clone());
        self.history.push(Change { version: self.version, key, object, deleted: false, before });
        Ok(())
    }

    /// Writes an object's status.
    pub(super) fn set_status(&mut self, query: &Query, name: &str, status: Value) {
        let namespace = query.namespace.clone().unwrap_or_default();
        let key = (query.plural.clone(), namespace, name.to_owned());
        let Some(object) = self.objects.get_mut(&key) else { return };
        self.version += 1;
        let before = Some(object.clone());
        object["status"] = status;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = object.clone();
        self.history.push(Change { version: self.version, key, object, deleted: false, before });
    }

    /// Group and kind of what is asked for.
    pub(super) fn names(&self, query: &Query) -> Option<(String, String)> {
        let kind = self.find(query).ok()?;
        Some((kind.group.to_owned(), kind.kind.to_owned()))
    }

    /// Removes an object.
    pub fn remove(&mut self, plural: &str, namespace: &str, name: &str) -> bool {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let Some(mut object) = self.objects.remove(&key) else { return false };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let before = Some(object.clone());
        self.history.push(Change { version: self.version, key, object, deleted: true, before });
        true
    }

    /// Forgets the history.
    pub fn compact(&mut self) {
        // Something happens all the time in a real cluster.
        self.version += 1;
        self.compacted = self.version;
        self.history.clear();
    }

    /// Removes a kind: each of its objects is deleted, then it is no longer served.
    pub fn remove_kind(&mut self, plural: &str) {
        let keys: Vec<Key> = self.objects.keys().filter(|key| key.0 == plural).cloned().collect();
        for (plural, namespace, name) in keys {
            self.remove(&plural, &namespace, &name);
        }
        self.kinds.retain(|kind| kind.plural != plural);
    }

    /// Serves a kind from now on, or with other versions.
    pub fn add_kind(&mut self, resource: Resource) {
        self.version += 1;
        self.kinds.retain(|kind| kind.plural != resource.plural);
        self.since.insert(resource.plural, self.version);
        self.kinds.push(resource);
    }

    /// One object.
    #[must_use]
    pub fn get(&self, query: &Query, name: &str) -> Option<Value> {
        let namespace = query.namespace.clone().unwrap_or_default();
        let object = self.objects.get(&(query.plural.clone(), namespace, name.to_owned()))?;
        Some(self.shown(query, object))
    }

    /// A list, from the object after `from` on, of at most `limit`. What comes after is named by the last
    /// object's key.
    ///
    /// # Errors
    /// The kind isn't served.
    pub fn list(&self, query: &Query, limit: usize, from: Option<&str>) -> Result<Value, Refusal> {
        let kind = self.find(query)?;
        let name = |key: &Key| format!("{}/{}", key.1, key.2);
        let all = self.objects.iter().filter(|(key, object)| query.matches(key, object));
        let mut left =
            all.filter(|(key, _)| from.is_none_or(|from| name(key).as_str() > from)).peekable();
        let mut items = Vec::new();
        let mut last = String::new();
        while let Some((key, object)) = left.next_if(|_| limit == 0 || items.len() < limit) {
            let mut object = self.shown(query, object);
            if !kind.is_custom()
                && let Some(object) = object.as_object_mut()
            {
                // Items of the server's own kinds don't say what they are.
                object.remove("kind");
                object.remove("apiVersion");
            }
            items.push(object);
            last = name(key);
        }
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        let more = left.count();
        if more > 0 {
            metadata["continue"] = json!(last);
            if query.labels.is_empty() && query.fields.is_empty() {
                metadata["remainingItemCount"] = json!(more);
            }
        }
        Ok(json!({
            "kind": format!("{}List", kind.kind),
            "apiVersion": kind.api_version(&query.version),
            "metadata": metadata,
            "items": items,
        }))
    }

    /// What happened after a version, and up to which one that is.
    ///
    /// # Errors
    /// The kind isn't served, or the history doesn't reach so far back.
    pub fn after(&self, query: &Query, version: u64) -> Result<(Vec<Value>, u64), Refusal> {
        self.find(query)?;
        let oldest =
            self.compacted.max(self.since.get(query.plural.as_str()).copied().unwrap_or(0));
        if version < oldest {
            return Err(Refusal::Expired(version, oldest));
        }
        let news = self.history.iter().filter(|change| change.version > version);
        let events = news.filter_map(|change| self.event(query, change)).collect();
        Ok((events, self.version))
    }

    /// The deletions of a kind that is no longer served.
    #[must_use]
    pub fn farewell(&self, query: &Query, version: u64) -> Vec<Value> {
        let news = self.history.iter().filter(|change| change.version > version);
        news.filter_map(|change| self.event(query, change)).collect()
    }

    /// What a watch shows at its beginning where it names no version.
    ///
    /// # Errors
    /// The kind isn't served.
    pub fn initial(&self, query: &Query) -> Result<(Vec<Value>, u64), Refusal> {
        self.find(query)?;
        let all = self.objects.iter().filter(|(key, object)| query.matches(key, object));
        let added =
            all.map(|(_, object)| json!({"type": "ADDED", "object": self.shown(query, object)}));
        Ok((added.collect(), self.version))
    }

    /// A bookmark of this version.
    #[must_use]
    pub fn bookmark(&self, query: &Query, version: u64, initial: bool) -> Value {
        let kind = self.find(query).map_or("", |kind| kind.kind);
        let api_version =
            self.find(query).map_or(String::new(), |kind| kind.api_version(&query.version));
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        json!({"type": "BOOKMARK", "object": object})
    }

    fn find(&self, query: &Query) -> Result<&Resource, Refusal> {
        let mut kinds = self.kinds.iter();
        let served = |kind: &&Resource| {
            kind.plural == query.plural
                && kind.versions.contains(&query.version.as_str())
                && !self.hidden.contains(kind.plural)
        };
        kinds.find(served).ok_or(Refusal::NoKind)
    }

    /// What leaves the selection is deleted, with its new state; what enters is added.
    fn event(&self, query: &Query, change: &Change) -> Option<Value> {
        let now = !change.deleted && query.matches(&change.key, &change.object);
        let before =
            change.before.as_ref().is_some_and(|before| query.matches(&change.key, before));
        let kind = match (before, now) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        Some(json!({"type": kind, "object": self.shown(query, &change.object)}))
    }

    /// As the version of the path has it.
    fn shown(&self, query: &Query, object: &Value) -> Value {
        let mut object = object.clone();
        if let Ok(kind) = self.find(query) {
            object["apiVersion"] = json!(kind.api_version(&query.version));
        }
        object
    }
}

/// Whether objects of this kind are in no namespace.
pub(super) fn is_cluster_wide(plural: &str) -> bool {
    matches!(plural, "nodes" | "namespaces" | "clusteregresspolicies" | "servicecidrs")
}

impl Query {
    fn matches(&self, key: &Key, object: &Value) -> bool {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let none = Map::new();
        let labels = object["metadata"]["labels"].as_object().unwrap_or(&none);
        key.0 == self.plural
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.1)
            && self
                .labels
                .iter()
                .all(|(name, value)| labels.get(name).is_some_and(|own| text(own) == *value))
            && self.fields.iter().all(|(path, value)| {
                let found = path.split('.').fold(object, |at, part| &at[part]);
                text(found) == *value
            })
    }
}

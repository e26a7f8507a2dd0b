//! In a cluster each object stands for itself: one that is not valid keeps nothing else out of force.
//!
//! Tenants write the objects, and an API server takes many that cannot be compiled. Such an object counts as it was
//! when it was last valid. Where that is not known, what it would route or ask TLS for is refused, so that nothing
//! is served by less than what is written.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use serde_json::{Value, json};

use super::{
    Compiled, Discovered, Problem, Problems, RawFile, Severity, compile_in,
    resource::{is_label, is_name},
    yaml::documents,
};
use crate::policy::HostPattern;

/// How often a configuration is compiled at most. Errors are found all at once, but for those that others hide.
const ROUNDS: usize = 8;
/// After so many rounds an object with an error is left out at once.
const PATIENT_ROUNDS: usize = 4;
/// Kinds whose absence allows nothing more. Of the others an object that is not valid is replaced by one that
/// refuses, or keeps the whole configuration out of force.
const MAY_BE_ABSENT: [&str; 11] = [
    "ClusterEgressPolicy",
    "DestinationRule",
    "EgressPolicy",
    "GRPCRoute",
    "Gateway",
    "HTTPRoute",
    "ReferenceGrant",
    "ServiceEntry",
    "TCPRoute",
    "TLSRoute",
    "VirtualService",
];
/// A host that no service has (RFC 2606, section 2): what is routed to it is refused.
const NOWHERE: &str = "refused.invalid";

/// The objects of a cluster, each as it was when it was last in force.
#[derive(Debug, Default)]
pub struct LastGood(HashMap<String, String>);

/// What counts for an object that is not valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fallback {
    /// Its last valid version.
    Earlier,
    /// Nothing but that what it names is refused.
    Refusing,
    /// Nothing. What is only reached because of it is refused by that.
    Nothing,
}

impl Fallback {
    /// What the user reads about it.
    fn consequence(self) -> &'static str {
        match self {
            Self::Earlier => "the last valid version of the object stays in force",
            Self::Refusing => REFUSED,
            Self::Nothing => NO_EFFECT,
        }
    }
}

const REFUSED: &str = "what the object is for is refused";
const NO_EFFECT: &str = "the object has no effect";

impl LastGood {
    /// Whether a problem is about an object of which no valid version is known here.
    #[must_use]
    pub fn is_without_version(problem: &str) -> bool {
        problem
            .lines()
            .next()
            .is_some_and(|line| line.ends_with(REFUSED) || line.ends_with(NO_EFFECT))
    }

    /// Compiles the objects in `files`, each of which has one file. Errors of single objects are refusals here.
    ///
    /// # Errors
    /// The settings are wrong, or an object is whose absence could allow more.
    pub fn compile(
        &mut self,
        discovered: &Discovered,
        files: &[RawFile],
        mesh: Option<&RawFile>,
    ) -> Result<Compiled, Problems> {
        let mut replaced: BTreeMap<String, Fallback> = BTreeMap::new();
        let mut told: Vec<Problem> = Vec::new();
        let others_pass = mesh.is_some_and(|mesh| lets_others_pass(&mesh.text));
        for round in 0..ROUNDS {
            let counted = self.counted(files, &replaced, others_pass);
            match compile_in(discovered, &counted, mesh) {
                Ok(compiled) => {
                    drop(counted);
                    self.remember(files, &replaced);
                    return Ok(with_refusals(compiled, told, &replaced));
                }
                Err(Problems(problems)) => {
                    let bad = erroneous(&problems);
                    let next: Option<Vec<_>> = bad
                        .iter()
                        .map(|path| {
                            let now = replaced.get(*path).copied();
                            self.next(files, path, now, round >= PATIENT_ROUNDS, others_pass)
                        })
                        .collect();
                    let Some(next) = next.filter(|next| !next.is_empty()) else {
                        told.extend(problems);
                        return Err(Problems(told));
                    };
                    for (path, instead) in next {
                        if !replaced.contains_key(&path) {
                            told.extend(problems.iter().filter(|p| p.file == path).cloned());
                        }
                        replaced.insert(path, instead);
                    }
                }
            }
        }
        let message =
            "errors of objects hide one another; nothing of this configuration is put in force";
        told.push(Problem::new(Severity::Error, "", message));
        Err(Problems(told))
    }

    /// The objects as they count.
    fn counted<'a>(
        &self,
        files: &'a [RawFile],
        replaced: &BTreeMap<String, Fallback>,
        others_pass: bool,
    ) -> Cow<'a, [RawFile]> {
        if replaced.is_empty() {
            return Cow::Borrowed(files);
        }
        let counted = files.iter().filter_map(|file| match replaced.get(&file.path) {
            None => Some(file.clone()),
            Some(Fallback::Earlier) => {
                let text = self.0.get(&file.path)?.clone();
                Some(RawFile { path: file.path.clone(), text })
            }
            Some(Fallback::Refusing) => refusing(file, others_pass),
            Some(Fallback::Nothing) => None,
        });
        Cow::Owned(counted.collect())
    }

    /// What counts next for an object that is not valid as it counts now; `None` where nothing may.
    fn next(
        &self,
        files: &[RawFile],
        path: &str,
        now: Option<Fallback>,
        at_once: bool,
        others_pass: bool,
    ) -> Option<(String, Fallback)> {
        let file = files.iter().find(|file| file.path == path)?;
        let kind = kind(file)?;
        let may_be_absent = MAY_BE_ABSENT.contains(&kind.as_str());
        let earlier = self.0.get(path).is_some_and(|text| *text != file.text);
        let instead = match now {
            None if earlier && !at_once => Fallback::Earlier,
            None | Some(Fallback::Earlier) if refusing(file, others_pass).is_some() => {
                Fallback::Refusing
            }
            None | Some(Fallback::Earlier | Fallback::Refusing) if may_be_absent => {
                Fallback::Nothing
            }
            None | Some(_) => return None,
        };
        Some((path.to_owned(), instead))
    }

    /// Keeps what is in force now, and of replaced objects what they were.
    fn remember(&mut self, files: &[RawFile], replaced: &BTreeMap<String, Fallback>) {
        let known: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        self.0.retain(|path, _| known.contains(path.as_str()));
        for file in files.iter().filter(|file| !replaced.contains_key(&file.path)) {
            match self.0.get_mut(&file.path) {
                Some(text) if *text == file.text => {}
                Some(text) => text.clone_from(&file.text),
                None => drop(self.0.insert(file.path.clone(), file.text.clone())),
            }
        }
    }
}

/// Whether settings let out hosts without a service entry. What cannot be read keeps everything out of force anyway.
fn lets_others_pass(settings: &str) -> bool {
    documents(settings).into_iter().flatten().any(|settings| {
        let policy = settings.get("outboundTrafficPolicy");
        policy.and_then(|policy| policy.text("mode")) == Some("ALLOW_ANY")
    })
}

/// The files with errors.
fn erroneous(problems: &[Problem]) -> BTreeSet<&str> {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(|problem| problem.file.as_str()).collect()
}

/// The problems of objects that were replaced, in the place of those of what replaces them.
fn with_refusals(
    mut compiled: Compiled,
    told: Vec<Problem>,
    replaced: &BTreeMap<String, Fallback>,
) -> Compiled {
    compiled.warnings.retain(|problem| !replaced.contains_key(&problem.file));
    for mut problem in told {
        if problem.severity == Severity::Error {
            problem.severity = Severity::Refusal;
            if let Some(instead) = replaced.get(&problem.file) {
                problem.message = format!("{}; {}", problem.message, instead.consequence());
            }
        }
        compiled.warnings.push(problem);
    }
    compiled.warnings.sort_by(Problem::by_place);
    compiled
}

fn kind(file: &RawFile) -> Option<String> {
    let object: Value = serde_json::from_str(&file.text).ok()?;
    Some(object["kind"].as_str()?.to_owned())
}

/// An object that refuses what this one is for; `None` where leaving it out does so. `others_pass` says that hosts
/// without a service entry are let out.
fn refusing(file: &RawFile, others_pass: bool) -> Option<RawFile> {
    let object: Value = serde_json::from_str(&file.text).ok()?;
    let spec = &object["spec"];
    let kind = object["kind"].as_str()?;
    let mut instead = match kind {
        "VirtualService" => refusing_routes(spec)?,
        "ServiceEntry" if others_pass => return refusing_entry(file, &object),
        "DestinationRule" => refusing_rule(spec)?,
        // It selects every pod, and allows none anything.
        "EgressPolicy" => json!({"podSelector": {}, "rules": []}),
        "ClusterEgressPolicy" => {
            json!({"namespaceSelector": {}, "podSelector": {}, "rules": []})
        }
        // One without rules allows nothing.
        "AuthorizationPolicy" => json!({}),
        "Sidecar" => json!({"egress": [{"hosts": ["~/*"]}]}),
        // They deny whatever they say; annotations may be what is wrong.
        "EnvoyFilter" | "RequestAuthentication" | "WasmPlugin" => spec.clone(),
        _ => return None,
    };
    if matches!(kind, "DestinationRule" | "VirtualService") {
        export(spec, &mut instead);
    }
    let text = json!({
        "apiVersion": object["apiVersion"], "kind": kind, "metadata": identity(&object), "spec": instead,
    });
    Some(RawFile { path: file.path.clone(), text: text.to_string() })
}

/// Who an object is, and how old, without annotations.
fn identity(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let field = |name: &str| metadata[name].clone();
    json!({
        "name": field("name"), "namespace": field("namespace"),
        "creationTimestamp": field("creationTimestamp"),
    })
}

/// Adds to whom a specification is exported. What cannot be read refuses for all: that is what it means where it
/// is left out.
fn export(spec: &Value, instead: &mut Value) {
    if let Some(exported) = spec.get("exportTo") {
        let good = exported.as_array().is_some_and(|names| names.iter().all(is_namespace));
        instead["exportTo"] = if good { exported.clone() } else { json!(["*"]) };
    }
}

/// A service entry of the same hosts, which are nowhere, and a virtual service that leads to nothing. Without the
/// service entry its hosts would be like all others that nobody has named.
fn refusing_entry(file: &RawFile, object: &Value) -> Option<RawFile> {
    let spec = &object["spec"];
    let mut routes = refusing_routes(&json!({"hosts": spec["hosts"]}))?;
    let numbers = spec["ports"].as_array().into_iter().flatten();
    let numbers = numbers.filter_map(|port| port["number"].as_u64());
    let numbers: BTreeSet<u64> =
        numbers.filter(|number| (1..=65535).contains(number)).chain([80, 443]).collect();
    let ports: Vec<_> = numbers
        .into_iter()
        .map(|number| {
            let protocol = if number == 443 { "TLS" } else { "HTTP" };
            json!({"number": number, "name": format!("p{number}"), "protocol": protocol})
        })
        .collect();
    let mut entry = json!({
        "hosts": routes["hosts"], "ports": ports, "resolution": "DNS",
        "endpoints": [{"address": NOWHERE}],
    });
    export(spec, &mut entry);
    export(spec, &mut routes);
    let item = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": identity(object),
            "spec": spec,
        })
    };
    let mut service = item("VirtualService", routes);
    service["metadata"]["name"] =
        format!("{}.refused", object["metadata"]["name"].as_str()?).into();
    let items = [item("ServiceEntry", entry), service];
    let text = json!({"apiVersion": "v1", "kind": "List", "items": items});
    Some(RawFile { path: file.path.clone(), text: text.to_string() })
}

/// A destination rule for the same host by which it is refused: the mesh's certificates are for the way to a
/// gateway, and to any other host that is no TLS that can be had.
fn refusing_rule(spec: &Value) -> Option<Value> {
    let host = spec["host"].as_str().filter(|host| is_host(host))?;
    // A gateway's service is reached through the tunnel because of it, so that is left to rules that ask for it.
    let may_be_gateway = host.contains('*') || host.ends_with(".svc.cluster.local");
    if may_be_gateway && !mentions(spec, "tls") {
        return None;
    }
    Some(json!({"host": host, "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}}))
}

/// Whether a field has this name, at any depth.
fn mentions(value: &Value, name: &str) -> bool {
    match value {
        Value::Object(fields) => {
            fields.iter().any(|(field, value)| field == name || mentions(value, name))
        }
        Value::Array(values) => values.iter().any(|value| mentions(value, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A virtual service for the same hosts and gateways whose every route leads nowhere.
fn refusing_routes(spec: &Value) -> Option<Value> {
    let texts = |list: &Value, is_good: fn(&str) -> bool| -> Vec<String> {
        let list = list.as_array().into_iter().flatten();
        list.filter_map(Value::as_str).filter(|text| is_good(text)).map(str::to_owned).collect()
    };
    let hosts = texts(&spec["hosts"], is_host);
    let route = json!([{"destination": {"host": NOWHERE, "port": {"number": 443}}}]);
    let http = json!([{"route": route}]);
    if hosts.is_empty() {
        // Others delegate to one without hosts.
        let is_delegate = spec.get("hosts").is_none_or(|hosts| *hosts == json!([]));
        return is_delegate.then(|| json!({"http": http}));
    }
    let mut instead = json!({"hosts": hosts, "http": http, "tcp": http});
    let names: Vec<_> = hosts.iter().filter(|host| *host != "*").collect();
    if !names.is_empty() {
        instead["tls"] = json!([{"match": [{"sniHosts": names}], "route": route}]);
    }
    if let Some(gateways) = spec.get("gateways") {
        let gateways = texts(gateways, is_gateway);
        if gateways.is_empty() {
            return None;
        }
        instead["gateways"] = json!(gateways);
    }
    Some(instead)
}

fn is_host(text: &str) -> bool {
    HostPattern::parse(text).is_ok()
}

fn is_namespace(name: &Value) -> bool {
    name.as_str().is_some_and(|name| name == "." || name == "*" || is_label(name))
}

/// `mesh`, `name` or `namespace/name`.
fn is_gateway(name: &str) -> bool {
    name.split_once('/').map_or_else(
        || is_name(name),
        |(namespace, name)| (namespace == "." || is_label(namespace)) && is_name(name),
    )
}

#[cfg(test)]
mod tests;

//! `BackendTLSPolicy` to destination rules. One that cannot be applied leaves its destination refused, never in
//! clear text.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use super::{
    super::{
        api_policies::{
            AltNameKind, BackendTlsPolicy, BackendValidation, PolicyTarget, SubjectAltName,
        },
        decode::{Records, Report, SourcePosition, Spanned},
        destination_rule::{
            ClientMode, ClientTlsSettings, DestinationRule, PortPolicy, PortSelector, TrafficPolicy,
        },
        gateway_api::Read,
        meta::Meta,
        names,
        problem::Severity,
        references::LocalRef,
        resource::{Resource, is_name},
        service_entry::ServiceEntry,
    },
    attach::ISTIO,
    gateways::Gateways,
    notes::{are_unread, at, refuse, take},
    servers::readable,
    world::World,
};
use crate::{
    policy::{HostPattern, config_map_credential},
    types::Port,
};

/// What policies come to.
#[derive(Debug, Default)]
pub(super) struct Policies {
    pub(super) made: Vec<Resource<DestinationRule>>,
    /// Services that TLS of a policy cannot be started to, each after the policy's namespace, with the reason.
    pub(super) unserved: HashMap<(String, String), String>,
}

/// What the policies of a namespace say about a host.
struct HostPolicies<'a> {
    /// Of the first one.
    meta: &'a Meta,
    at: &'a SourcePosition,
    /// For every port without settings of its own.
    tls: Option<ClientTlsSettings>,
    ports: Vec<(Port, ClientTlsSettings)>,
}

/// Service entries by namespace and name.
type Entries<'a> = HashMap<(&'a str, &'a str), &'a Resource<ServiceEntry>>;

pub(super) fn translate(
    policies: &[Read<BackendTlsPolicy>],
    entries: &Entries<'_>,
    gateways: &Gateways,
    world: &World<'_>,
    report: &mut Report,
) -> Policies {
    let mut all = Policies::default();
    let mut by_host: BTreeMap<(&str, String), HostPolicies<'_>> = BTreeMap::new();
    for Read { meta, spec, problems } in policies {
        let Some(BackendTlsPolicy { at: spot, targets, validation, options }) = spec else {
            take(problems, report);
            continue;
        };
        let wrong = problems.iter().find(|problem| problem.severity != Severity::Warning);
        let settings = match (wrong, validation, options.0.first()) {
            (Some(problem), ..) => Err((spot.clone(), problem.message.clone())),
            (None, _, Some((key, _))) => {
                Err((key.at.clone(), format!("the option {:?} is not supported", key.value)))
            }
            (None, Some(validation), None) => settings(meta, validation, world),
            (None, None, None) => Err((spot.clone(), "nothing says how to verify".into())),
        };
        let mut is_used = are_unread(problems, "targetRef");
        for target in &targets.0 {
            let hosts = hosts(meta, target, entries, gateways, world, &mut all, report);
            let Some(hosts) = hosts else { continue };
            is_used = true;
            if hosts.is_empty() {
                continue;
            }
            let tls = match &settings {
                Ok(tls) => tls.clone(),
                Err((spot, why)) => unavailable(why, spot),
            };
            let policy = TrafficPolicy { tls: Some(tls.clone()), ..TrafficPolicy::empty(spot) };
            let tls = match (world.trials.policy)(&policy, meta) {
                None => tls,
                Some(why) => {
                    refuse(meta, spot, format!("{why}; the destination is refused"), report);
                    unavailable(&why, spot)
                }
            };
            for (host, port) in hosts {
                let new = HostPolicies { meta, at: spot, tls: None, ports: Vec::new() };
                let own = by_host.entry((&*meta.namespace.0, host.clone())).or_insert(new);
                let is_taken = match port {
                    None => own.tls.is_some(),
                    Some(port) => own.ports.iter().any(|(known, _)| *known == port),
                };
                if is_taken {
                    let first = &own.meta.label;
                    let message = format!("has no effect on {host}: {first} comes before");
                    meta.cx(report).warn(&target.at, message);
                    continue;
                }
                match port {
                    None => own.tls = Some(tls.clone()),
                    Some(port) => own.ports.push((port, tls.clone())),
                }
            }
        }
        if is_used {
            take(problems, report);
            if let Err((spot, why)) = settings.as_ref().map_err(|(s, w)| (s, w))
                && wrong.is_none()
            {
                refuse(meta, spot, format!("{why}; the destination is refused"), report);
            }
        }
    }
    for ((_, host), HostPolicies { meta, at: spot, tls, ports }) in by_host {
        let ports = ports.into_iter().map(|(number, tls)| {
            let number = Some(at(number, spot));
            let port = Some(PortSelector { number, ..PortSelector::empty(spot) });
            PortPolicy { port, tls: Some(tls), ..PortPolicy::empty(spot) }
        });
        let port_level_settings = Records(ports.collect());
        let policy = TrafficPolicy { tls, port_level_settings, ..TrafficPolicy::empty(spot) };
        let spec = DestinationRule {
            host: Some(at(host, spot)),
            traffic_policy: Some(policy),
            ..DestinationRule::empty(spot)
        };
        all.made.push(Resource { meta: meta.clone(), spec });
    }
    all
}

/// The hosts of a target, each with the port where there is one; `None` where it is another controller's.
fn hosts(
    meta: &Meta,
    target: &PolicyTarget,
    entries: &Entries<'_>,
    gateways: &Gateways,
    world: &World<'_>,
    all: &mut Policies,
    report: &mut Report,
) -> Option<Vec<(String, Option<Port>)>> {
    let PolicyTarget { at: spot, group, kind, name, section_name } = target;
    let group = group.as_ref().map_or("", |group| group.value.as_str());
    let (kind, name) = (kind.as_ref()?, name.as_ref()?);
    let own = &*meta.namespace.0;
    let services = world.mesh.gateways.iter().map(|group| group.service.to_string());
    let services: BTreeSet<String> = services.chain(gateways.services.iter().cloned()).collect();
    let named: Vec<(String, Option<Port>)> = match (group, kind.value.as_str()) {
        (ISTIO, "ServiceEntry") => {
            let Some(entry) = entries.get(&(own, name.value.as_str())) else {
                let message = format!("there is no ServiceEntry {own}/{}", name.value);
                meta.cx(report).dangling(&name.at, message);
                return Some(Vec::new());
            };
            let port = section_name.as_ref().and_then(|section| {
                let is_named = |name: &Option<Spanned<String>>| {
                    name.as_ref().is_some_and(|name| name.value == section.value)
                };
                let port = entry.spec.ports.0.iter().find(|port| is_named(&port.name));
                let number = port.and_then(|port| port.number.as_ref()).map(|port| port.value);
                if number.is_none() {
                    // Every port, so that none is reached in clear text.
                    let message =
                        format!("no port is named {:?}: every port is meant", section.value);
                    refuse(meta, &section.at, message, report);
                }
                number
            });
            entry.spec.hosts.iter().map(|host| (host.value.clone(), port)).collect()
        }
        (ISTIO, "Hostname") => {
            section(meta, section_name.as_ref(), report);
            match HostPattern::parse(&name.value) {
                Ok(host) if host != HostPattern::Any => vec![(name.value.clone(), None)],
                Ok(_) | Err(_) => {
                    let message = "this is no host; the policy has no effect there";
                    refuse(meta, &name.at, message, report);
                    return Some(Vec::new());
                }
            }
        }
        ("", "Service") => {
            let full = format!("{}.{own}.svc.cluster.local", name.value);
            if !services.contains(&full) {
                let mut hosts = entries.values().flat_map(|entry| &entry.spec.hosts);
                if !hosts.any(|host| host.value == full) {
                    return None;
                }
                section(meta, section_name.as_ref(), report);
            }
            vec![(full, None)]
        }
        _ => return None,
    };
    let mut hosts = Vec::new();
    for (text, port) in named {
        // What is wrong with a host is told of its service entry.
        let Ok(host) = HostPattern::parse(&names::expand(&text, &meta.namespace)) else { continue };
        let mut is_gateway = false;
        for service in &services {
            let Ok(own) = HostPattern::parse(service) else { continue };
            if host.covers(&own) {
                let why = "TLS to a gateway is for a DestinationRule with ISTIO_MUTUAL";
                let message = format!("{why}; what routes lead to {service} is refused");
                refuse(meta, spot, message, report);
                all.unserved.insert((meta.namespace.0.to_string(), service.clone()), why.into());
                is_gateway |= host == own;
            }
        }
        if !is_gateway {
            hosts.push((host.to_string(), port));
        }
    }
    Some(hosts)
}

/// The port of a name that is not known: every port is meant, so that none is reached in clear text.
fn section(meta: &Meta, name: Option<&Spanned<String>>, report: &mut Report) {
    if let Some(name) = name {
        let message = "ports of this kind have no names here: every port is meant";
        meta.cx(report).warn(&name.at, message);
    }
}

fn settings(
    meta: &Meta,
    validation: &BackendValidation,
    world: &World<'_>,
) -> Result<ClientTlsSettings, (SourcePosition, String)> {
    let BackendValidation { at: spot, ca_certificates, well_known, hostname, subject_alt_names } =
        validation;
    let hostname = hostname.as_ref().ok_or((spot.clone(), "hostname is missing".to_owned()))?;
    let roots = match (ca_certificates.0.as_slice(), well_known) {
        ([], Some(_)) => Roots::System,
        ([one], None) => roots(meta, one, world)?,
        ([], None) => return Err((spot.clone(), "nothing says whom to trust".into())),
        (_, Some(_)) => {
            return Err((
                spot.clone(),
                "caCertificateRefs and wellKnownCACertificates are one too many".into(),
            ));
        }
        (several, None) => {
            let why =
                format!("{} caCertificateRefs are named, and one is supported", several.len());
            return Err((spot.clone(), why));
        }
    };
    let mut names = Vec::new();
    for SubjectAltName { at: spot, kind, hostname, uri } in &subject_alt_names.0 {
        let name = match kind.as_ref().map(|kind| kind.value) {
            Some(AltNameKind::Hostname) => hostname,
            Some(AltNameKind::Uri) => uri,
            None => &None,
        };
        let Some(name) = name else {
            return Err((spot.clone(), "the name of this type is missing".into()));
        };
        names.push(name.clone());
    }
    if names.is_empty() {
        names.push(hostname.clone());
    }
    let (credential_name, config_map) = match roots {
        Roots::System => (None, None),
        Roots::Credential(name) => (Some(name), None),
        Roots::ConfigMap(name) => (None, Some(name)),
    };
    Ok(ClientTlsSettings {
        mode: Some(at(ClientMode::Simple, spot)),
        credential_name,
        config_map,
        subject_alt_names: names,
        sni: Some(hostname.clone()),
        ..ClientTlsSettings::empty(spot)
    })
}

/// Where the roots are.
enum Roots {
    System,
    /// A Secret of the gateway's namespace, or a directory.
    Credential(Spanned<String>),
    /// A ConfigMap of the policy's namespace.
    ConfigMap(Rc<str>),
}

fn roots(
    meta: &Meta,
    from: &LocalRef,
    world: &World<'_>,
) -> Result<Roots, (SourcePosition, String)> {
    let LocalRef { at: spot, group, kind, name } = from;
    let name = name.as_ref().ok_or((spot.clone(), "a name is missing".to_owned()))?;
    let kind = kind.as_ref().map_or("", |kind| kind.value.as_str());
    let is_core = group.as_ref().is_none_or(|group| group.value.is_empty());
    if !is_core || !matches!(kind, "ConfigMap" | "Secret") {
        return Err((spot.clone(), "roots are in a ConfigMap or a Secret".into()));
    }
    if world.in_cluster && kind == "ConfigMap" {
        if !is_name(&name.value) {
            return Err((spot.clone(), "this is no name of a ConfigMap".into()));
        }
        let name = config_map_credential(&meta.namespace, &name.value);
        return Ok(Roots::ConfigMap(name.into()));
    }
    readable(&meta.namespace.0, world).map_err(|why| (spot.clone(), why))?;
    Ok(Roots::Credential(name.clone()))
}

fn unavailable(why: &str, spot: &SourcePosition) -> ClientTlsSettings {
    let why = format!("says what cannot be carried out: {why}");
    ClientTlsSettings { unavailable: Some(why.into()), ..ClientTlsSettings::empty(spot) }
}

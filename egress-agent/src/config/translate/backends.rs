//! What backends are: destinations, or the reasons why there are none.

use std::collections::HashMap;

use super::{
    super::{
        decode::{Report, SourcePosition, Spanned},
        meta::Meta,
        names,
        problem::StatusReason,
        references::BackendRef,
        resource::is_label,
        virtual_service::{Destination, DestinationPort},
    },
    attach::ISTIO,
    grants::Grants,
    notes::{at, refuse_for, refused},
};
use crate::{policy::HostPattern, types::Port};

/// What backends are looked up in.
pub(super) struct Backends<'a> {
    pub(super) grants: &'a Grants,
    /// Services that a policy cannot be applied to, each after the policy's namespace, with the reason. A policy is
    /// for routes of its own namespace, and for all where it is beside the service.
    pub(super) unserved: &'a HashMap<(String, String), String>,
}

/// A reference to a backend.
#[derive(Clone, Copy)]
pub(super) struct Reference<'a> {
    pub(super) at: &'a SourcePosition,
    pub(super) group: Option<&'a Spanned<String>>,
    pub(super) kind: Option<&'a Spanned<String>>,
    pub(super) name: Option<&'a Spanned<String>>,
    pub(super) namespace: Option<&'a Spanned<String>>,
    pub(super) port: Option<&'a Spanned<Port>>,
}

impl<'a> From<&'a BackendRef> for Reference<'a> {
    fn from(backend: &'a BackendRef) -> Self {
        let BackendRef { at, group, kind, name, namespace, port, weight: _ } = backend;
        let (group, kind, name) = (group.as_ref(), kind.as_ref(), name.as_ref());
        let (namespace, port) = (namespace.as_ref(), port.as_ref());
        Self { at, group, kind, name, namespace, port }
    }
}

/// A route that refers to backends.
#[derive(Clone, Copy)]
pub(super) struct Referring<'a> {
    pub(super) kind: &'static str,
    pub(super) meta: &'a Meta,
    /// Whether traffic leaves the application there: then no grant is asked for, as in Istio.
    pub(super) at_mesh: bool,
}

/// Why there is no destination.
struct Unresolved {
    reason: StatusReason,
    why: String,
}

impl Unresolved {
    fn not_found(why: impl Into<String>) -> Self {
        Self { reason: StatusReason::BackendNotFound, why: why.into() }
    }
}

impl Backends<'_> {
    /// The destination of a backend. What is sent to one that is not valid is refused.
    pub(super) fn destination(
        &self,
        reference: Reference<'_>,
        from: Referring<'_>,
        report: &mut Report,
    ) -> Destination {
        let spot = reference.at;
        match self.host(reference, from) {
            Ok((host, port)) => Destination {
                host: Some(at(host, spot)),
                port: Some(DestinationPort {
                    number: Some(port.clone()),
                    ..DestinationPort::empty(spot)
                }),
                ..Destination::empty(spot)
            },
            Err(Unresolved { reason, why }) => {
                let message = format!("{why}; what is sent there is refused");
                refuse_for(reason, from.meta, spot, message, report);
                refused(&why, spot)
            }
        }
    }

    fn host<'r>(
        &self,
        reference: Reference<'r>,
        from: Referring<'_>,
    ) -> Result<(String, &'r Spanned<Port>), Unresolved> {
        let Reference { at: _, group, kind, name, namespace, port } = reference;
        let group = group.map_or("", |group| group.value.as_str());
        let kind = kind.map_or("Service", |kind| kind.value.as_str());
        let name = name
            .map(|name| name.value.as_str())
            .ok_or_else(|| Unresolved::not_found("a backend without a name"))?;
        let own = &*from.meta.namespace.0;
        let host = match (group, kind) {
            ("", "Service") if name.contains('.') => {
                return Err(Unresolved::not_found(format!(
                    "{name:?} is not the name of a Service; a host is of kind Hostname"
                )));
            }
            ("", "Service") => {
                let namespace = namespace.map_or(own, |namespace| namespace.value.as_str());
                if !is_label(name) || !is_label(namespace) {
                    let why = format!("there is no Service {name:?} of namespace {namespace:?}");
                    return Err(Unresolved::not_found(why));
                }
                let granted = || self.grants.allow((from.kind, own), (namespace, "Service", name));
                if namespace != own && !from.at_mesh && !granted() {
                    let why = format!(
                        "no ReferenceGrant of {namespace} lets a {} of {own} refer to its Service {name}",
                        from.kind
                    );
                    return Err(Unresolved { reason: StatusReason::RefNotPermitted, why });
                }
                format!("{name}.{namespace}.svc.cluster.local")
            }
            (ISTIO, "Hostname") if namespace.is_some() => {
                return Err(Unresolved::not_found("a Hostname is in no namespace"));
            }
            (ISTIO, "Hostname") => {
                let full = names::expand(name, &from.meta.namespace);
                match HostPattern::parse(&full) {
                    Ok(HostPattern::Any) => {
                        return Err(Unresolved::not_found("a destination is one service"));
                    }
                    Ok(_) => full,
                    Err(error) => {
                        return Err(Unresolved::not_found(format!("{name:?} is no host: {error}")));
                    }
                }
            }
            (ISTIO, "ServiceEntry") => {
                let why = "a backend is no ServiceEntry, but a host of it, of kind Hostname".into();
                return Err(Unresolved { reason: StatusReason::InvalidKind, why });
            }
            _ => {
                let why = format!("a backend of kind {kind:?} and group {group:?} is not known");
                return Err(Unresolved { reason: StatusReason::InvalidKind, why });
            }
        };
        let service = names::namespace_of(&host);
        let service = service.as_ref().map_or(own, |namespace| &*namespace.0);
        for namespace in [own, service] {
            if let Some(why) = self.unserved.get(&(namespace.to_owned(), host.clone())) {
                return Err(Unresolved::not_found(why.clone()));
            }
        }
        let port = port.ok_or_else(|| Unresolved::not_found("the backend's port is not said"))?;
        Ok((host, port))
    }
}

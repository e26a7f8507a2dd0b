//! Listeners as routes see them: for which hosts, and which routes they take.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use super::{
    super::{
        api_gateway::{
            AllowedRoutes, FromNamespaces, Listener as Mirror, ListenerMode, RouteKind,
            RouteNamespaces,
        },
        decode::{Records, Report},
        gateway_api::GROUP,
        label_selector::selector,
        meta::Meta,
        problem::{Severity, StatusReason},
    },
    notes::{refuse, refuse_for},
};
use crate::{
    policy::{HostPattern, LabelSelector, NamespaceLabels},
    types::{Namespace, Port},
};

/// A listener, as routes see it.
#[derive(Debug)]
pub(super) struct Listener {
    /// Its name.
    pub(super) name: String,
    /// What rules name it by: `default/cnn-egress-gateway/http`.
    pub(super) full_name: Rc<str>,
    pub(super) port: Port,
    pub(super) host: HostPattern,
    pub(super) protocol: Protocol,
    /// The kinds of routes that it takes.
    pub(super) kinds: Vec<&'static str>,
    pub(super) namespaces: Allowed,
    /// The routes that it has taken, as messages call them.
    pub(super) routes: RefCell<BTreeSet<String>>,
}

impl Listener {
    /// Why this one and another one of the same port and host cannot both be served: of a host at a port one protocol
    /// is served.
    pub(super) fn conflict(&self, other: &Self) -> StatusReason {
        match self.protocol == other.protocol {
            true => StatusReason::HostnameConflict,
            false => StatusReason::ProtocolConflict,
        }
    }
}

/// What a listener speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    Http,
    Https,
    /// TLS that is passed through.
    Passthrough,
    /// TLS that is terminated, with any bytes inside.
    Tls,
    Tcp,
}

impl Protocol {
    /// The kinds of routes that it can have.
    fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Http | Self::Https => &["HTTPRoute", "GRPCRoute"],
            Self::Passthrough => &["TLSRoute"],
            Self::Tls => &["TLSRoute", "TCPRoute"],
            Self::Tcp => &["TCPRoute"],
        }
    }
}

/// Of which namespaces a listener takes routes.
#[derive(Clone, Debug)]
pub(super) enum Allowed {
    All,
    Same,
    None,
    Selected(LabelSelector),
}

impl Allowed {
    /// Whether it takes routes of `namespace`.
    pub(super) fn allows(
        &self,
        own: &Namespace,
        namespace: &Namespace,
        labels: &NamespaceLabels,
    ) -> bool {
        match self {
            Self::All => true,
            Self::Same => own == namespace,
            Self::None => false,
            Self::Selected(selector) => labels.are_selected(selector, namespace),
        }
    }
}

/// A listener as routes see it; `None` where there is no such thing as its protocol.
pub(super) fn listener(meta: &Meta, mirror: &Mirror, report: &mut Report) -> Option<Listener> {
    let Mirror { at: _, name, hostname, port, protocol, tls, allowed_routes } = mirror;
    let (name, port) = (name.as_ref()?, port.as_ref()?);
    let mode = tls.as_ref().and_then(|tls| tls.mode.as_ref()).map(|mode| mode.value);
    let passes = mode == Some(ListenerMode::Passthrough);
    let protocol = protocol.as_ref()?;
    let kind = match protocol.value.as_str() {
        "HTTP" => Protocol::Http,
        "HTTPS" => Protocol::Https,
        "TLS" if passes => Protocol::Passthrough,
        "TLS" => Protocol::Tls,
        "TCP" => Protocol::Tcp,
        _ => {
            let message = "this protocol is not served; the listener has no effect";
            let mut cx = meta.cx(report);
            let problem = cx.note(Severity::Refusal, &protocol.at, message);
            problem.found = Some(format!("{:?}", protocol.value));
            problem.expected = Some("HTTP, HTTPS, TLS or TCP".into());
            problem.status_reason = Some(StatusReason::UnsupportedProtocol);
            return None;
        }
    };
    let host = match hostname {
        None => HostPattern::Any,
        Some(text) if text.value.is_empty() => HostPattern::Any,
        Some(text) => match HostPattern::parse(&text.value) {
            Ok(HostPattern::Ending(_)) => {
                let why = "a wildcard stands for whole labels; the listener has no effect";
                refuse(meta, &text.at, why, report);
                return None;
            }
            Ok(host) => host,
            Err(error) => {
                refuse(meta, &text.at, format!("{error}; the listener has no effect"), report);
                return None;
            }
        },
    };
    let (kinds, namespaces) = allowed(meta, allowed_routes.as_ref(), kind, report);
    Some(Listener {
        name: name.value.clone(),
        full_name: format!("{}/{}", meta.full_name(), name.value).into(),
        port: port.value,
        host,
        protocol: kind,
        kinds,
        namespaces,
        routes: RefCell::default(),
    })
}

fn allowed(
    meta: &Meta,
    routes: Option<&AllowedRoutes>,
    protocol: Protocol,
    report: &mut Report,
) -> (Vec<&'static str>, Allowed) {
    let possible = protocol.kinds();
    let kinds = match routes.and_then(|routes| routes.kinds.as_ref()) {
        None => possible.to_vec(),
        Some(Records(list)) if list.is_empty() => possible.to_vec(),
        Some(Records(list)) => {
            let mut kinds = Vec::new();
            for RouteKind { at: spot, group, kind } in list {
                let group = group.as_ref().map_or(GROUP, |group| group.value.as_str());
                let kind = kind.as_ref().map_or("", |kind| kind.value.as_str());
                match possible.iter().find(|known| group == GROUP && **known == kind) {
                    Some(known) => kinds.push(*known),
                    None => {
                        let message = format!("a listener of this protocol takes no {kind}");
                        let reason = StatusReason::InvalidRouteKinds;
                        refuse_for(reason, meta, spot, message, report);
                    }
                }
            }
            kinds
        }
    };
    let Some(RouteNamespaces { at: spot, from, selector: wanted }) =
        routes.and_then(|routes| routes.namespaces.as_ref())
    else {
        return (kinds, Allowed::Same);
    };
    let namespaces = match from.as_ref().map_or(FromNamespaces::Same, |from| from.value) {
        FromNamespaces::All => Allowed::All,
        FromNamespaces::Same => Allowed::Same,
        FromNamespaces::None => Allowed::None,
        FromNamespaces::Selector => match wanted {
            Some(wanted) => {
                let mut trial = Report::default();
                let read = selector(Some(wanted), &mut meta.cx(&mut trial));
                let (problems, is_wrong) = trial.into_parts();
                if is_wrong {
                    let why = problems.first().map(|p| p.message.clone()).unwrap_or_default();
                    refuse(meta, spot, format!("{why}; the listener takes no route"), report);
                    Allowed::None
                } else {
                    Allowed::Selected(read)
                }
            }
            None => {
                refuse(meta, spot, "without a selector the listener takes no route", report);
                Allowed::None
            }
        },
    };
    (kinds, namespaces)
}

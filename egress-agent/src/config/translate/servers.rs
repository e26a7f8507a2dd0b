//! Servers of listeners: what they do with TLS.

use super::{
    super::{
        api_gateway::{Listener as Mirror, ListenerMode, ListenerTls},
        decode::{Report, SourcePosition, Spanned},
        gateway::{GatewayServerPort, Server, ServerMode, ServerTls},
        meta::Meta,
        names,
        problem::{Severity, StatusReason},
        references::SecretRef,
    },
    grants::Grants,
    listeners::{Listener, Protocol},
    notes::{at, refuse, refuse_for},
    world::World,
};

/// The option of a listener that says how TLS is terminated.
const TERMINATE_MODE: &str = "gateway.istio.io/tls-terminate-mode";

/// Certificates that a listener has at most, as with Istio: one for each kind of key.
const MOST_CERTIFICATES: usize = 2;

/// The server of a listener; `None` where it cannot be carried out.
pub(super) fn server(
    meta: &Meta,
    mirror: &Mirror,
    listener: &Listener,
    grants: &Grants,
    world: &World<'_>,
    report: &mut Report,
) -> Option<Server> {
    let spot = &mirror.at;
    let tls = match (listener.protocol, &mirror.tls) {
        (Protocol::Http | Protocol::Tcp, None) => None,
        (Protocol::Http | Protocol::Tcp, Some(tls)) => {
            refuse(meta, &tls.at, "a listener for clear text has no tls; it has no effect", report);
            return None;
        }
        (Protocol::Https | Protocol::Tls, None) => {
            let message = "without tls there is no certificate; the listener has no effect";
            let reason = StatusReason::InvalidCertificateRef;
            refuse_for(reason, meta, &spot.field("tls"), message, report);
            return None;
        }
        (Protocol::Passthrough, Some(tls)) => {
            if let Some((key, _)) = tls.options.0.first() {
                let why = format!("the option {:?} is not supported, and may restrict", key.value);
                refuse(meta, &key.at, format!("{why}; the listener has no effect"), report);
                return None;
            }
            let mode = Some(at(ServerMode::Passthrough, &tls.at));
            Some(ServerTls { mode, ..ServerTls::empty(&tls.at) })
        }
        // Without tls it would not be passed through.
        (Protocol::Passthrough, None) => return None,
        (Protocol::Https | Protocol::Tls, Some(tls)) => {
            match terminating(meta, tls, grants, world, report) {
                Ok(settings) => Some(settings),
                Err(wrong) => {
                    wrong.refuse(meta, "the listener has no effect", report);
                    return None;
                }
            }
        }
    };
    let protocol = match listener.protocol {
        Protocol::Http => "HTTP",
        Protocol::Https => "HTTPS",
        Protocol::Passthrough | Protocol::Tls => "TLS",
        Protocol::Tcp => "TCP",
    };
    let server = Server {
        port: Some(GatewayServerPort {
            number: Some(at(listener.port, spot)),
            name: Some(at(listener.name.clone(), spot)),
            protocol: Some(at(protocol.into(), spot)),
            ..GatewayServerPort::empty(spot)
        }),
        hosts: vec![at(listener.host.to_string(), spot)],
        tls,
        ..Server::empty(spot)
    };
    match (world.trials.server)(&server, meta, world.mesh) {
        None => Some(server),
        Some(why) => {
            refuse(meta, spot, format!("{why}; the listener has no effect"), report);
            None
        }
    }
}

/// What is wrong with the TLS settings of a listener.
struct TlsSettingsError {
    at: SourcePosition,
    why: String,
    /// What the listener shows for it, where the place alone does not say so.
    reason: Option<StatusReason>,
}

impl TlsSettingsError {
    fn new(at: SourcePosition, why: impl Into<String>) -> Self {
        Self { at, why: why.into(), reason: None }
    }

    /// Of a certificate.
    fn certificate(at: SourcePosition, why: impl Into<String>) -> Self {
        let reason = Some(StatusReason::InvalidCertificateRef);
        Self { at, why: why.into(), reason }
    }

    fn refuse(self, meta: &Meta, effect: &str, report: &mut Report) {
        let message = format!("{}; {effect}", self.why);
        let mut cx = meta.cx(report);
        cx.note(Severity::Refusal, &self.at, message).status_reason = self.reason;
    }
}

fn terminating(
    meta: &Meta,
    tls: &ListenerTls,
    grants: &Grants,
    world: &World<'_>,
    report: &mut Report,
) -> Result<ServerTls, TlsSettingsError> {
    let ListenerTls { at: spot, mode, certificates, options } = tls;
    if let Some(mode) = mode.as_ref().filter(|mode| mode.value == ListenerMode::Passthrough) {
        let why = "HTTPS is terminated; Passthrough is for TLS";
        return Err(TlsSettingsError::new(mode.at.clone(), why));
    }
    let mut wanted = ServerMode::Simple;
    for (key, value) in &options.0 {
        if key.value != TERMINATE_MODE {
            let why = format!("the option {:?} is not supported, and may restrict", key.value);
            return Err(TlsSettingsError::new(key.at.clone(), why));
        }
        wanted = match value.value.as_str() {
            "SIMPLE" => ServerMode::Simple,
            "MUTUAL" => ServerMode::Mutual,
            "OPTIONAL_MUTUAL" => ServerMode::OptionalMutual,
            "ISTIO_MUTUAL" => ServerMode::IstioMutual,
            other => {
                return Err(TlsSettingsError::new(
                    value.at.clone(),
                    format!("no mode is named {other:?}"),
                ));
            }
        };
    }
    let mode = Some(at(wanted, spot));
    if wanted == ServerMode::IstioMutual {
        return Ok(ServerTls { mode, ..ServerTls::empty(spot) });
    }
    let count = certificates.0.len();
    if !(1..=MOST_CERTIFICATES).contains(&count) {
        let why = format!("{count} certificates are named; expected one or {MOST_CERTIFICATES}");
        return Err(TlsSettingsError::certificate(spot.field("certificateRefs"), why));
    }
    let (mut names, mut wrong) = (Vec::new(), Vec::new());
    for (index, reference) in certificates.0.iter().enumerate() {
        match certificate(meta, reference, grants, world) {
            Ok(name) => names.push(name),
            // The roots for clients' certificates are the first one's: another one's may let in more.
            Err(first) if index == 0 && wanted != ServerMode::Simple => return Err(first),
            Err(one) => wrong.push(one),
        }
    }
    if names.is_empty() {
        return Err(wrong.swap_remove(0));
    }
    for one in wrong {
        one.refuse(meta, "the listener shows its other certificate", report);
    }
    Ok(ServerTls { mode, credential_names: names, ..ServerTls::empty(spot) })
}

/// The name of the credential that a certificate of a listener is.
fn certificate(
    meta: &Meta,
    reference: &SecretRef,
    grants: &Grants,
    world: &World<'_>,
) -> Result<Spanned<String>, TlsSettingsError> {
    let SecretRef { at: spot, group, kind, name, namespace } = reference;
    let is_secret = group.as_ref().is_none_or(|group| group.value.is_empty())
        && kind.as_ref().is_none_or(|kind| kind.value == "Secret");
    let Some(name) = name.as_ref().filter(|_| is_secret) else {
        return Err(TlsSettingsError::certificate(spot.clone(), "a certificate is a Secret"));
    };
    let own = &*meta.namespace.0;
    let namespace = namespace.as_ref().map_or(own, |namespace| namespace.value.as_str());
    let to = (namespace, "Secret", name.value.as_str());
    if namespace != own && !grants.allow(("Gateway", own), to) {
        let why = format!(
            "no ReferenceGrant of {namespace} lets a Gateway of {own} refer to its Secret {}",
            name.value
        );
        let reason = Some(StatusReason::RefNotPermitted);
        return Err(TlsSettingsError { at: spot.clone(), why, reason });
    }
    readable(namespace, world).map_err(|why| TlsSettingsError::certificate(spot.clone(), why))?;
    Ok(Spanned::clone(name))
}

/// Whether gateways can read Secrets of this namespace.
///
/// # Errors
/// With an API server they read those of their own namespace alone.
pub(super) fn readable(namespace: &str, world: &World<'_>) -> Result<(), String> {
    let services = world.mesh.gateways.iter().map(|group| group.service.to_string());
    let mut own = services.filter_map(|service| names::namespace_of(&service));
    let Some(first) = own.next().filter(|_| world.in_cluster) else { return Ok(()) };
    if *first.0 == *namespace || own.any(|other| *other.0 == *namespace) {
        return Ok(());
    }
    Err(format!("gateways read Secrets of their own namespace ({}), not of {namespace}", first.0))
}

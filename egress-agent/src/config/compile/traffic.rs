//! `trafficPolicy`: load balancing, limits, outliers, TLS.

use std::{path::PathBuf, sync::Arc};

use super::super::{
    decode::{Cx, Spanned},
    destination_rule::{
        ClientMode, ClientTlsSettings, ConnectionPoolSettings, OutlierSettings, PortPolicy,
        TrafficPolicy,
    },
    load_balancer::LoadBalancerSettings,
    names,
    problem::Severity,
};
use super::{
    balance::{Balancing, balancing_of},
    common_settings::{CommonSettings, Credential, beyond},
    pools::{connection_pool_of, outlier_detection_of},
    server_tls::is_name,
};
use crate::{
    policy::{
        ClientTls, ClientTlsMode, ConnectionPool, CredentialFiles, CredentialSource, HttpVersion,
        KeyGroups, OutlierDetection,
    },
    types::{Host, Port},
};

/// Settings, each absent where it isn't given, with those of single ports.
#[derive(Clone, Debug, Default)]
pub(super) struct Policy {
    pub(super) settings: Settings,
    pub(super) ports: Vec<(Port, Settings)>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) load_balancer: Option<Balancing>,
    /// And the version of HTTP that is asked for, where one is.
    pub(super) pool: Option<(ConnectionPool, Option<HttpVersion>)>,
    pub(super) outlier: Option<Option<OutlierDetection>>,
    /// Towards services of the registry.
    pub(super) tls: Option<TlsWish>,
    /// Towards gateways' services. `Some(None)` is `DISABLE`.
    pub(super) tunnel: Option<Option<Tunnel>>,
    /// What holds on every port.
    pub(super) beyond: CommonSettings,
}

/// What a rule says about TLS towards a service of the registry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum TlsWish {
    /// `DISABLE`: as the application sends it.
    Disable,
    /// The gateway starts TLS.
    Originate(ClientTls),
    /// TLS is asked for in a way that cannot be carried out.
    Unavailable(Arc<str>),
}

/// What the host of a rule is, which says what the rule means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kinds {
    /// A gateway's service, or more than that.
    pub(super) gateway: bool,
    /// A host of a service entry, or more than that.
    pub(super) registry: bool,
}

/// TLS towards a gateway's service: the tunnel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tunnel {
    pub(super) credential: CredentialSource,
    pub(super) subject_alt_names: Vec<String>,
}

impl Policy {
    /// What holds on a port. Settings of a port inherit nothing, as Istio documents.
    pub(super) fn on(&self, port: Port) -> Settings {
        let own = self.ports.iter().find(|(number, _)| *number == port);
        own.map_or_else(|| self.settings.clone(), |(_, settings)| settings.clone())
    }
}

impl Policy {
    /// Gives every tunnel this credential, or refuses it; `false` where there is none.
    pub(super) fn set_credential(&mut self, credential: &Credential) -> bool {
        let all =
            self.ports.iter_mut().map(|(_, own)| own).chain(std::iter::once(&mut self.settings));
        let mut found = false;
        for CommonSettings { connect, refused, .. } in all.map(|settings| &mut settings.beyond) {
            let Some(target) = connect else { continue };
            found = true;
            match &credential.refused {
                Some(why) => *refused = Some(Arc::clone(why)),
                None => target.credential = Some(Arc::clone(&credential.name.value)),
            }
        }
        found
    }
}

impl Settings {
    pub(super) fn or(self, base: Self) -> Self {
        Self {
            load_balancer: self.load_balancer.or(base.load_balancer),
            pool: self.pool.or(base.pool),
            outlier: self.outlier.or(base.outlier),
            tls: self.tls.or(base.tls),
            tunnel: self.tunnel.or(base.tunnel),
            beyond: self.beyond.or(base.beyond),
        }
    }
}

/// Reads a traffic policy of a rule for hosts of these kinds.
pub(super) fn policy(policy: &TrafficPolicy, kinds: Kinds, cx: &mut Cx<'_>) -> Policy {
    let TrafficPolicy {
        at: _,
        load_balancer,
        connection_pool,
        outlier_detection,
        tls,
        port_level_settings,
        retry_budget: _,
        tunnel: _,
        proxy_protocol: _,
    } = policy;
    let beyond = beyond(policy, cx);
    let one = |lb: &Option<LoadBalancerSettings>,
               pool: &Option<ConnectionPoolSettings>,
               outlier: &Option<OutlierSettings>,
               tls: &Option<ClientTlsSettings>,
               code: &'static str,
               cx: &mut Cx<'_>| Settings {
        load_balancer: lb.as_ref().map(|lb| balancing_of(lb, cx)),
        pool: pool.as_ref().map(|pool| connection_pool_of(pool, cx)),
        outlier: outlier.as_ref().map(|outlier| outlier_detection_of(outlier, cx)),
        tls: tls.as_ref().filter(|_| kinds.registry).map(|tls| client_tls(tls, code, cx)),
        tunnel: tls.as_ref().filter(|_| kinds.gateway).map(|tls| tunnel(tls, cx)),
        beyond: beyond.clone(),
    };
    let settings = one(load_balancer, connection_pool, outlier_detection, tls, "IST0128", cx);
    let mut ports: Vec<(Port, Settings)> = Vec::new();
    for entry in &port_level_settings.0 {
        let PortPolicy { at, port, load_balancer, connection_pool, outlier_detection, tls } = entry;
        let own = one(load_balancer, connection_pool, outlier_detection, tls, "IST0129", cx);
        let Some(number) = port.as_ref().and_then(|port| port.number.as_ref()) else { continue };
        if ports.iter().any(|(port, _)| *port == number.value) {
            cx.error(&number.at, format!("port {} is listed twice", number.value));
            continue;
        }
        let tunnelled = settings.tunnel.as_ref().is_some_and(Option::is_some);
        if tunnelled && own.tunnel.is_none() {
            cx.warn(at, format!("settings of a port inherit nothing: port {} has no tls, so the gateway takes it in clear, though the rule has it", number.value));
        }
        if settings.tls.as_ref().is_some_and(|tls| *tls != TlsWish::Disable) && own.tls.is_none() {
            cx.warn(at, format!("settings of a port inherit nothing: port {} has no tls, so it is reached without, though the rule has it", number.value));
        }
        ports.push((number.value, own));
    }
    Policy { settings, ports }
}

/// `tls` towards a service in the cluster. Only a gateway's has an effect.
fn tunnel(settings: &ClientTlsSettings, cx: &mut Cx<'_>) -> Option<Tunnel> {
    let ClientTlsSettings {
        at,
        mode,
        client_certificate,
        private_key,
        ca_certificates,
        ca_crl,
        credential_name,
        subject_alt_names,
        // What is asked for is an address: the tunnel has no use for a server's name.
        sni: _,
        insecure_skip_verify,
        // Only rules for services of the registry are translated.
        unavailable: _,
        config_map: _,
    } = settings;
    let mode_at = mode.as_ref().map_or(at, |mode| &mode.at);
    let files = [client_certificate, private_key, ca_certificates];
    let listed = [client_certificate, private_key, ca_certificates, ca_crl];
    if let Some(skip) = insecure_skip_verify.as_ref().filter(|skip| skip.value) {
        let message = "the tunnel is there to prove who is at its ends; it is always verified";
        cx.wrong(&skip.at, "true", "false, or the field left out", message);
    }
    if let Some(name) = credential_name {
        let message =
            "the tunnel takes the node's own certificate (ISTIO_MUTUAL) or files (MUTUAL)";
        cx.wrong(&name.at, format!("{:?}", name.value), "nothing", message);
        return None;
    }
    let credential = match mode.as_ref().map_or(ClientMode::Disable, |mode| mode.value) {
        ClientMode::Disable => return None,
        ClientMode::Simple => {
            let message = "towards a gateway both ends prove who they are; without a certificate \
                           of the node's nobody would know who asks";
            cx.wrong(mode_at, "SIMPLE", "ISTIO_MUTUAL, MUTUAL or DISABLE", message);
            return None;
        }
        ClientMode::IstioMutual => {
            if let Some(file) = listed.into_iter().flatten().next() {
                let message = "ISTIO_MUTUAL takes the node's own certificate (`--identity-dir`); \
                               use MUTUAL for files";
                cx.wrong(&file.at, format!("{:?}", file.value), "nothing", message);
                return None;
            }
            CredentialSource::Own
        }
        ClientMode::Mutual => {
            let path =
                |file: &Option<Spanned<String>>| file.as_ref().map(|f| PathBuf::from(&f.value));
            let names = ["clientCertificate", "privateKey", "caCertificates"];
            let missing = files.into_iter().zip(names).find(|(file, _)| file.is_none());
            if let Some((_, field)) = missing {
                let message = "mode MUTUAL towards a gateway needs clientCertificate, privateKey \
                               and caCertificates";
                cx.wrong(&at.field(field), "nothing", "a file", message);
            }
            CredentialSource::Files(CredentialFiles {
                certificate: path(client_certificate)?,
                private_key: path(private_key)?,
                ca_certificates: Some(path(ca_certificates)?),
                ca_crl: path(ca_crl),
            })
        }
    };
    let subject_alt_names = subject_alt_names.iter().map(|name| name.value.clone()).collect();
    Some(Tunnel { credential, subject_alt_names })
}

/// `tls` towards a service of the registry.
fn client_tls(settings: &ClientTlsSettings, code: &'static str, cx: &mut Cx<'_>) -> TlsWish {
    let ClientTlsSettings {
        at,
        mode,
        client_certificate,
        private_key,
        ca_certificates,
        ca_crl,
        credential_name,
        subject_alt_names,
        sni,
        insecure_skip_verify,
        unavailable,
        config_map,
    } = settings;
    if let Some(why) = unavailable {
        return TlsWish::Unavailable((&**why).into());
    }
    let path = |file: &Option<Spanned<String>>| file.as_ref().map(|f| PathBuf::from(&f.value));
    let mode_at = mode.as_ref().map_or(at, |mode| &mode.at);
    let mode = match mode.as_ref().map_or(ClientMode::Disable, |mode| mode.value) {
        ClientMode::Disable => {
            let texts =
                [client_certificate, private_key, ca_certificates, ca_crl, credential_name, sni];
            let texts = texts.into_iter().flatten().chain(subject_alt_names).map(|text| &text.at);
            let mut given = texts.chain(insecure_skip_verify.as_ref().map(|skip| &skip.at));
            if let Some(at) = given.next() {
                let message = "has no effect with mode DISABLE, which is the default: the gateway \
                               starts no TLS; say SIMPLE or MUTUAL for it";
                cx.warn(at, message);
            }
            return TlsWish::Disable;
        }
        ClientMode::IstioMutual => {
            let message = "the mesh's certificates are for the way to a gateway of the mesh, and \
                           the destination is a ServiceEntry's; requests that need this policy \
                           are refused";
            let problem = cx.note(Severity::Refusal, mode_at, message);
            problem.found = Some("ISTIO_MUTUAL".into());
            problem.expected = Some("SIMPLE or MUTUAL".into());
            return TlsWish::Unavailable(
                "asks for ISTIO_MUTUAL, which is for gateways of the mesh".into(),
            );
        }
        ClientMode::Simple | ClientMode::Mutual if credential_name.is_some() => {
            let files = [client_certificate, private_key, ca_certificates, ca_crl];
            if let Some(file) = files.into_iter().flatten().next() {
                let message = "credentialName stands for all files: give one or the other";
                cx.wrong(&file.at, format!("{:?}", file.value), "nothing", message);
            }
            let Some(name) = credential_name.as_ref().filter(|name| is_name(&name.value)) else {
                if let Some(name) = credential_name {
                    let expected = "the name of a directory below --credentials-dir: lower-case \
                                    letters, digits, hyphens and dots";
                    let found = format!("{:?}", name.value);
                    cx.wrong(&name.at, found, expected, "not a credential's name");
                }
                return TlsWish::Unavailable("asks for a credential without a valid name".into());
            };
            cx.names_credential(&name.value);
            let text: Arc<str> = name.value.as_str().into();
            match mode.as_ref().map(|mode| mode.value) {
                Some(ClientMode::Mutual) => ClientTlsMode::MutualNamed(text),
                _ => ClientTlsMode::SimpleNamed(text),
            }
        }
        ClientMode::Simple => {
            if let Some(file) = client_certificate.as_ref().or(private_key.as_ref()) {
                cx.warn(
                    &file.at,
                    "has no effect with mode SIMPLE; say MUTUAL to show a certificate",
                );
            }
            match config_map {
                Some(name) => {
                    cx.names_credential(name);
                    ClientTlsMode::SimpleNamed((&**name).into())
                }
                None => ClientTlsMode::Simple,
            }
        }
        ClientMode::Mutual => match (path(client_certificate), path(private_key)) {
            (Some(client_certificate), Some(private_key)) => {
                ClientTlsMode::Mutual { client_certificate, private_key }
            }
            (certificate, _) => {
                let missing =
                    if certificate.is_none() { "clientCertificate" } else { "privateKey" };
                cx.wrong(
                    &at.field(missing),
                    "nothing",
                    "a file",
                    "mode MUTUAL needs clientCertificate and privateKey",
                );
                return TlsWish::Unavailable("asks for MUTUAL without a certificate".into());
            }
        },
    };
    let insecure = insecure_skip_verify.as_ref().filter(|skip| skip.value);
    if let Some(skip) = insecure {
        let files = [ca_certificates, ca_crl].into_iter().flatten();
        let by_name =
            credential_name.as_ref().filter(|_| matches!(mode, ClientTlsMode::SimpleNamed(_)));
        let mut verified = files.chain(subject_alt_names).chain(by_name);
        if let Some(other) = verified.next() {
            let message =
                "insecureSkipVerify: true verifies nothing, and this says what to verify by";
            cx.wrong(&other.at, format!("{:?}", other.value), "one of the two", message);
            return TlsWish::Unavailable("says what to verify by, and to verify nothing".into());
        }
        cx.warn(&skip.at, "the upstream's certificate is not verified: anyone on the way can read and change what is sent").code = Some(code);
    }
    let sni = sni.as_ref().and_then(|sni| match names::host(sni, cx)? {
        name @ Host::Name(_) => Some(name),
        Host::Ip(_) => {
            cx.wrong(
                &sni.at,
                format!("{:?}", sni.value),
                "a DNS name",
                "a server name is no address (RFC 6066 §3)",
            );
            None
        }
    });
    TlsWish::Originate(ClientTls {
        mode,
        sni,
        subject_alt_names: subject_alt_names.iter().map(|name| name.value.clone()).collect(),
        ca_certificates: path(ca_certificates),
        ca_crl: path(ca_crl),
        // The mesh's, which are set where the cluster is made.
        key_groups: KeyGroups::default(),
        insecure_skip_verify: insecure.is_some(),
    })
}

//! What holds on every port of a rule: `retryBudget`, `tunnel`, `proxyProtocol`.

use std::sync::Arc;

use super::{
    super::{
        annotations::TUNNEL_CREDENTIAL,
        decode::{Cx, Spanned},
        destination_rule::{
            ProxyProtocolSettings, ProxyVersion, RetryBudget as RetryBudgetMirror, TrafficPolicy,
            TunnelProtocol, TunnelSettings,
        },
        names,
        problem::Severity,
        resource::Meta,
    },
    pools::retry_budget_of,
    server_tls::is_name,
};
use crate::{
    policy::{ConnectTarget, ProxyMethod, ProxyProtocol, RetryBudget},
    types::Namespace,
};

/// Settings that those of a port don't replace, as in Istio.
#[derive(Clone, Debug, Default)]
pub(super) struct CommonSettings {
    pub(super) retry_budget: Option<RetryBudget>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    pub(super) connect: Option<ConnectTarget>,
    /// Why nothing may be sent to that target.
    pub(super) refused: Option<Arc<str>>,
}

/// The credential that a rule names for its tunnels.
#[derive(Debug)]
pub(super) struct Credential {
    pub(super) name: Spanned<Arc<str>>,
    /// Why the rule may not name it.
    pub(super) refused: Option<Arc<str>>,
}

impl CommonSettings {
    pub(super) fn or(self, base: Self) -> Self {
        let (connect, refused) = match self.connect {
            Some(connect) => (Some(connect), self.refused),
            None => (base.connect, base.refused),
        };
        Self {
            retry_budget: self.retry_budget.or(base.retry_budget),
            proxy_protocol: self.proxy_protocol.or(base.proxy_protocol),
            connect,
            refused,
        }
    }
}

pub(super) fn beyond(policy: &TrafficPolicy, cx: &mut Cx<'_>) -> CommonSettings {
    let budget: Option<&RetryBudgetMirror> = policy.retry_budget.as_ref();
    if let (Some(_), Some(proxy)) = (&policy.tunnel, &policy.proxy_protocol) {
        let message = "tunnel and proxyProtocol can't be given together";
        cx.wrong(&proxy.at, "proxyProtocol", "nothing", message);
    }
    CommonSettings {
        retry_budget: budget.map(|budget| retry_budget_of(budget, cx)),
        proxy_protocol: policy.proxy_protocol.as_ref().map(version),
        connect: policy.tunnel.as_ref().and_then(|tunnel| target(tunnel, cx)),
        refused: None,
    }
}

fn version(ProxyProtocolSettings { at: _, version }: &ProxyProtocolSettings) -> ProxyProtocol {
    match version.as_ref().map_or(ProxyVersion::V1, |version| version.value) {
        ProxyVersion::V1 => ProxyProtocol::V1,
        ProxyVersion::V2 => ProxyProtocol::V2,
    }
}

fn target(tunnel: &TunnelSettings, cx: &mut Cx<'_>) -> Option<ConnectTarget> {
    let TunnelSettings { at: _, protocol, target_host, target_port } = tunnel;
    let method = match protocol.as_ref().map(|protocol| protocol.value) {
        Some(TunnelProtocol::Post) => ProxyMethod::Post,
        None | Some(TunnelProtocol::Connect) => ProxyMethod::Connect,
    };
    let host = names::host(target_host.as_ref()?, cx)?;
    let port = target_port.as_ref()?.value;
    Some(ConnectTarget { method, host, port, credential: None })
}

/// The credential that the annotation names. A gateway has those of all its users: a namespace may name its
/// own, the root namespace any.
pub(super) fn credential(meta: &Meta, root: &Namespace, cx: &mut Cx<'_>) -> Option<Credential> {
    let text = meta.annotations.get(TUNNEL_CREDENTIAL)?;
    if !is_name(&text.value) {
        let expected = "the name of a directory below --credentials-dir: lower-case letters, digits, \
                        hyphens and dots";
        cx.wrong(&text.at, format!("{:?}", text.value), expected, "not a credential's name");
        return None;
    }
    let own = format!("{}.", meta.namespace.0);
    let allowed = meta.namespace == *root || text.value.starts_with(&own);
    let refused = (!allowed).then(|| {
        let message = format!(
            "a rule may name the credentials of its own namespace alone; what needs this rule is \
             refused. Give the credential a name that begins with {own:?}, or name it in a rule of \
             the root namespace ({})",
            root.0
        );
        let problem = cx.note(Severity::Refusal, &text.at, message);
        problem.found = Some(format!("{:?}", text.value));
        problem.expected = Some(format!("a name that begins with {own:?}"));
        let detail = format!(
            "{} names the tunnel credential {:?}, which is not one of its namespace",
            meta.label, text.value
        );
        detail.into()
    });
    if allowed {
        cx.names_credential(&text.value);
    }
    let name = Spanned { value: text.value.as_str().into(), at: text.at.clone() };
    Some(Credential { name, refused })
}

//! Rules of an `AuthorizationPolicy` to conditions. What is wrong with a value is noted, and the
//! value is unknown: it allows nothing, and denies whatever else holds.

use super::super::{
    authorization_policy::{
        AuthorizationPolicy as Mirror, PolicyAction, PolicyCondition, PolicyFrom, PolicyOperation,
        PolicyRule, PolicySource, PolicyTo,
    },
    decode::{Cx, List, SourcePosition, Spanned},
    names,
};
use crate::{
    policy::{
        Attribute, AuthorizationAction, AuthorizationRule, Condition, TextMatch, TextPattern,
        ValuePattern, is_unseen,
    },
    types::{Namespace, Port, TrustDomain},
};

/// The trust domain that stands for the mesh's own, as in Istio.
const LOCAL: &str = "cluster.local";

/// What values are relative to.
struct Reader<'a, 'c> {
    namespace: &'a Namespace,
    trust_domain: &'a TrustDomain,
    cx: &'a mut Cx<'c>,
}

/// Action and rules of a policy in this namespace.
pub(super) fn policy(
    spec: &Mirror,
    namespace: &Namespace,
    trust_domain: &TrustDomain,
    cx: &mut Cx<'_>,
) -> (AuthorizationAction, Vec<AuthorizationRule>) {
    let Mirror { at: _, selector: _, action, rules } = spec;
    let action = match action.as_ref().map(|action| (action, action.value)) {
        None | Some((_, PolicyAction::Allow)) => AuthorizationAction::Allow,
        Some((_, PolicyAction::Deny)) => AuthorizationAction::Deny,
        Some((_, PolicyAction::Audit)) => AuthorizationAction::Audit,
        Some((at, PolicyAction::Custom)) => {
            let message = "external authorizers are not supported: what the rules match is denied";
            cx.wrong(&at.at, "CUSTOM", "ALLOW, DENY or AUDIT", message);
            AuthorizationAction::Deny
        }
    };
    let mut reader = Reader { namespace, trust_domain, cx };
    let compiled = rules.0.iter().map(|rule| {
        let compiled = reader.rule(rule);
        if action == AuthorizationAction::Deny && denies_connections(&compiled) {
            let message = "besides requests, this denies every connection that is not HTTP (TLS \
                           passthrough, TCP), as in Istio; add `ports` to say which it is for";
            reader.cx.warn(&rule.at, message);
        }
        compiled
    });
    let compiled = compiled.collect();
    (action, compiled)
}

/// Whether a rule asks for what only HTTP has, and not for a port.
fn denies_connections(rule: &AuthorizationRule) -> bool {
    let mut all = rule.to.iter().flatten().chain(&rule.when);
    let is_http = |attribute: &Attribute| {
        matches!(
            attribute,
            Attribute::Host | Attribute::Method | Attribute::Path | Attribute::Header(_)
        )
    };
    let port = |condition: &Condition| condition.attribute == Attribute::Port;
    all.clone().any(|condition| is_http(&condition.attribute)) && !all.any(port)
}

impl Reader<'_, '_> {
    fn rule(&mut self, rule: &PolicyRule) -> AuthorizationRule {
        let PolicyRule { at: _, from, to, when } = rule;
        AuthorizationRule {
            from: from.0.iter().map(|from| self.from(from)).collect(),
            to: to.0.iter().map(|to| self.to(to)).collect(),
            when: when.0.iter().flat_map(|when| self.when(when)).collect(),
        }
    }

    fn from(&mut self, from: &PolicyFrom) -> Vec<Condition> {
        let Some(source) = &from.source else { return vec![unknown()] };
        let PolicySource {
            at,
            principals,
            not_principals,
            request_principals,
            not_request_principals,
            namespaces,
            not_namespaces,
            service_accounts,
            not_service_accounts,
            ip_blocks,
            not_ip_blocks,
            remote_ip_blocks,
            not_remote_ip_blocks,
            trust_domains,
            not_trust_domains,
        } = source;
        let tokens = Attribute::Unsupported("requestPrincipals".into());
        for list in [request_principals, not_request_principals] {
            if let Some(first) = list.first() {
                let message = "tokens of requests are not verified here: a condition on them \
                               allows nothing, and denies whatever else holds";
                self.cx.wrong(&first.at, format!("{:?}", first.value), "nothing", message);
            }
        }
        let accounts = [service_accounts, not_service_accounts].into_iter().flatten().next();
        if let Some(account) = accounts
            && [principals, not_principals, namespaces, not_namespaces]
                .iter()
                .any(|l| !l.is_empty())
        {
            let message =
                "a current API server refuses serviceAccounts beside principals or namespaces";
            self.cx.warn(&account.at, message);
        }
        self.all(
            at,
            [
                (Attribute::Principal, principals, not_principals),
                (tokens, request_principals, not_request_principals),
                (Attribute::Namespace, namespaces, not_namespaces),
                (Attribute::ServiceAccount, service_accounts, not_service_accounts),
                (Attribute::Address, ip_blocks, not_ip_blocks),
                (Attribute::RemoteAddress, remote_ip_blocks, not_remote_ip_blocks),
                (Attribute::TrustDomain, trust_domains, not_trust_domains),
            ],
        )
    }

    fn to(&mut self, to: &PolicyTo) -> Vec<Condition> {
        let Some(operation) = &to.operation else { return vec![unknown()] };
        let PolicyOperation {
            at,
            hosts,
            not_hosts,
            ports,
            not_ports,
            methods,
            not_methods,
            paths,
            not_paths,
        } = operation;
        self.all(
            at,
            [
                (Attribute::Host, hosts, not_hosts),
                (Attribute::Port, ports, not_ports),
                (Attribute::Method, methods, not_methods),
                (Attribute::Path, paths, not_paths),
            ],
        )
    }

    fn when(&mut self, condition: &PolicyCondition) -> Vec<Condition> {
        let PolicyCondition { at, key, values, not_values } = condition;
        let Some(key) = key else { return vec![unknown()] };
        let attribute = self.attribute(key);
        self.all(at, [(attribute, values, not_values)])
    }

    fn attribute(&mut self, key: &Spanned<String>) -> Attribute {
        let header = key.value.strip_prefix("request.headers[").and_then(|h| h.strip_suffix(']'));
        if let Some(name) = header {
            let name = http::HeaderName::from_bytes(name.as_bytes()).ok();
            if let Some(name) = name.filter(|name| !is_unseen(name)) {
                return Attribute::Header(name);
            }
        }
        match key.value.as_str() {
            "source.ip" => Attribute::Address,
            "remote.ip" => Attribute::RemoteAddress,
            "source.namespace" => Attribute::Namespace,
            "source.principal" => Attribute::Principal,
            "source.serviceAccount" => Attribute::ServiceAccount,
            "source.trustDomain" => Attribute::TrustDomain,
            "destination.port" => Attribute::Port,
            "connection.sni" => Attribute::ServerName,
            other => {
                let message = "this attribute is not known here: a condition on it allows nothing, \
                               and denies whatever else holds";
                let expected = "source.ip, remote.ip, source.namespace, source.principal, \
                                source.serviceAccount, source.trustDomain, destination.port, \
                                connection.sni, or request.headers[NAME] of a header that reaches \
                                the upstream";
                self.cx.wrong(&key.at, format!("{other:?}"), expected, message);
                Attribute::Unsupported(other.into())
            }
        }
    }

    /// Conditions of attributes with values and those that must not be; at least one is needed.
    fn all<const N: usize>(
        &mut self,
        at: &SourcePosition,
        lists: [(Attribute, &List<String>, &List<String>); N],
    ) -> Vec<Condition> {
        let mut conditions = Vec::new();
        for (attribute, values, not_values) in lists {
            for (list, negated) in [(values, false), (not_values, true)] {
                if list.is_empty() {
                    continue;
                }
                let values = list.iter().flat_map(|text| self.values(&attribute, text)).collect();
                conditions.push(Condition { attribute: attribute.clone(), values, negated });
            }
        }
        if conditions.is_empty() {
            let message = "Istio refuses a condition without values: it allows nothing, and denies \
                           whatever else holds";
            self.cx.wrong(at, "nothing", "at least one list of values", message);
            conditions.push(unknown());
        }
        conditions
    }

    fn values(&mut self, attribute: &Attribute, text: &Spanned<String>) -> Vec<ValuePattern> {
        let value = match attribute {
            Attribute::Address | Attribute::RemoteAddress => {
                names::network(text, self.cx).map(ValuePattern::Net)
            }
            Attribute::Port => self.port(text),
            Attribute::ServiceAccount => self.service_account(text),
            Attribute::Path => self.path(text),
            Attribute::Unsupported(_) => None,
            Attribute::Host => self.text(text).map(lower).map(ValuePattern::Text),
            Attribute::Principal => {
                let rest = text.value.strip_prefix(LOCAL).filter(|rest| rest.starts_with('/'));
                return self.with_own(text, rest);
            }
            Attribute::TrustDomain => {
                return self.with_own(text, (text.value == LOCAL).then_some(""));
            }
            Attribute::Namespace
            | Attribute::Method
            | Attribute::Header(_)
            | Attribute::ServerName => self.text(text).map(ValuePattern::Text),
        };
        vec![value.unwrap_or(ValuePattern::Unknown)]
    }

    /// The value as it is given and, where it names the mesh by Istio's default, with the mesh's trust domain
    /// before this rest.
    fn with_own(&mut self, text: &Spanned<String>, rest: Option<&str>) -> Vec<ValuePattern> {
        let own = rest.and_then(|rest| TextPattern::parse(&format!("{}{rest}", self.trust_domain)));
        let given = self.text(text).map_or(ValuePattern::Unknown, ValuePattern::Text);
        own.map(ValuePattern::Text).into_iter().chain([given]).collect()
    }

    fn text(&mut self, text: &Spanned<String>) -> Option<TextPattern> {
        let parsed = TextPattern::parse(&text.value);
        if parsed.is_none() {
            self.cx.wrong(&text.at, "\"\"", "a text", "Istio refuses an empty value");
        }
        parsed
    }

    fn port(&mut self, text: &Spanned<String>) -> Option<ValuePattern> {
        let port = text.value.parse().ok().and_then(Port::new);
        if port.is_none() {
            self.cx.wrong(&text.at, format!("{:?}", text.value), "1 to 65535", "not a port");
        }
        port.map(ValuePattern::Port)
    }

    fn service_account(&mut self, text: &Spanned<String>) -> Option<ValuePattern> {
        let (namespace, name) = match text.value.split_once('/') {
            Some((namespace, name)) => (Namespace(namespace.into()), name),
            None => (self.namespace.clone(), text.value.as_str()),
        };
        if namespace.0.is_empty()
            || name.is_empty()
            || text.value.contains('*')
            || name.contains('/')
        {
            let expected = "namespace/name, or a name; no patterns";
            let found = format!("{:?}", text.value);
            self.cx.wrong(&text.at, found, expected, "not a service account");
            return None;
        }
        Some(ValuePattern::ServiceAccount(namespace, name.into()))
    }

    fn path(&mut self, text: &Spanned<String>) -> Option<ValuePattern> {
        if text.value.contains("{*}") || text.value.contains("{**}") {
            let found = format!("{:?}", text.value);
            let expected = "a path, or * at its beginning or end";
            self.cx.wrong(&text.at, found, expected, "path templates are not supported");
            return None;
        }
        Some(ValuePattern::Path(match self.text(text)? {
            TextPattern::Present => TextMatch::Present,
            TextPattern::Exact(exact) => TextMatch::Exact(exact),
            TextPattern::Prefix(prefix) => TextMatch::Prefix(prefix),
            TextPattern::Suffix(suffix) => {
                let pattern = format!(".*{}", regex::escape(&suffix));
                TextMatch::Regex(names::anchored(
                    &Spanned { value: pattern, at: text.at.clone() },
                    self.cx,
                )?)
            }
        }))
    }
}

fn unknown() -> Condition {
    let attribute = Attribute::Unsupported("nothing".into());
    Condition { attribute, values: vec![ValuePattern::Unknown], negated: false }
}

fn lower(pattern: TextPattern) -> TextPattern {
    let lower = |text: Box<str>| text.to_ascii_lowercase().into_boxed_str();
    match pattern {
        TextPattern::Present => TextPattern::Present,
        TextPattern::Exact(text) => TextPattern::Exact(lower(text)),
        TextPattern::Prefix(text) => TextPattern::Prefix(lower(text)),
        TextPattern::Suffix(text) => TextPattern::Suffix(lower(text)),
    }
}

//! Authorization policies at the gateway (`security.istio.io`): who may send which request or
//! connection, besides what the routes say.
//!
//! A condition holds, does not hold, or is unknown: a raw connection has no path, an address that no
//! workload is known for has no namespace, and some of Istio's attributes do not exist here. What is
//! unknown never allows and always denies: a rule of `ALLOW` matches if it holds, a rule of `DENY`
//! if it may hold. That is Istio's own treatment of HTTP fields on TCP connections.

mod condition;
mod subject;

use std::sync::Arc;

use egress_ebpf::reason::Reason;

pub use condition::{Attribute, Condition, TextPattern, Truth, ValuePattern};
pub use subject::{RequestFacts, Subject};

use super::{
    Denied, has_labels,
    trace::{self, Step},
};
use crate::types::{GatewayIdentity, Labels, Namespace, TrustDomain};

/// One `AuthorizationPolicy`, or another resource that restricts and cannot be honoured.
#[derive(Clone, Debug)]
pub struct AuthorizationPolicy {
    /// `AuthorizationPolicy istio-system/deny-admin`.
    pub label: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Namespace,
    /// Which gateways it is for.
    pub scope: AuthorizationScope,
    /// What happens to what a rule matches.
    pub action: AuthorizationAction,
    /// Alternatives. Without any, nothing matches.
    pub rules: Vec<AuthorizationRule>,
}

/// The gateways that a policy is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AuthorizationScope {
    /// Processes with these labels, in the policy's namespace or, for a policy of the root namespace,
    /// in any.
    Selected(Labels),
    /// Every gateway: the policy is about what a namespace's workloads may reach.
    EveryGateway,
}

/// What a policy does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AuthorizationAction {
    /// What matches is allowed; where such a policy is in force, everything else is denied.
    Allow,
    /// What matches is denied.
    Deny,
    /// What matches is marked in the access log.
    Audit,
    /// The policy cannot be honoured, so everything is denied.
    Unavailable(Arc<str>),
}

/// A rule: some source, some operation, and every condition.
#[derive(Clone, Debug, Default)]
pub struct AuthorizationRule {
    /// Alternatives, each with conditions that must all hold; empty is any source.
    pub from: Vec<Vec<Condition>>,
    /// Alternatives in the same way; empty is any operation.
    pub to: Vec<Vec<Condition>>,
    /// Conditions that must all hold.
    pub when: Vec<Condition>,
}

/// The policies that are in force at one gateway process.
#[derive(Clone, Debug, Default)]
pub struct Authorization {
    trust_domain: TrustDomain,
    unavailable: Vec<Arc<AuthorizationPolicy>>,
    deny: Vec<Arc<AuthorizationPolicy>>,
    allow: Vec<Arc<AuthorizationPolicy>>,
    audit: Vec<Arc<AuthorizationPolicy>>,
}

impl AuthorizationPolicy {
    /// Whether it is for a gateway in this namespace with these labels.
    #[must_use]
    pub fn selects(&self, namespace: &Namespace, labels: &Labels, root: &Namespace) -> bool {
        match &self.scope {
            AuthorizationScope::EveryGateway => true,
            AuthorizationScope::Selected(wanted) => {
                (self.namespace == *namespace || self.namespace == *root)
                    && has_labels(labels, wanted)
            }
        }
    }
}

impl AuthorizationRule {
    /// Whether the rule matches.
    #[must_use]
    pub fn holds(&self, subject: &Subject<'_>, trust_domain: &TrustDomain) -> Truth {
        let every = |conditions: &[Condition]| {
            Truth::all(conditions.iter().map(|condition| condition.holds(subject, trust_domain)))
        };
        let some = |alternatives: &[Vec<Condition>]| {
            if alternatives.is_empty() {
                return Truth::Yes;
            }
            Truth::any(alternatives.iter().map(|conditions| every(conditions)))
        };
        Truth::all([some(&self.from), some(&self.to), every(&self.when)].into_iter())
    }
}

impl Authorization {
    /// Those of `policies` that are for the process.
    #[must_use]
    pub fn new(
        policies: &[Arc<AuthorizationPolicy>],
        identity: &GatewayIdentity,
        root: &Namespace,
        trust_domain: &TrustDomain,
    ) -> Self {
        let mut all = Self { trust_domain: trust_domain.clone(), ..Self::default() };
        for policy in policies {
            if !policy.selects(&identity.namespace, &identity.labels, root) {
                continue;
            }
            let list = match policy.action {
                AuthorizationAction::Unavailable(_) => &mut all.unavailable,
                AuthorizationAction::Deny => &mut all.deny,
                AuthorizationAction::Allow => &mut all.allow,
                AuthorizationAction::Audit => &mut all.audit,
            };
            list.push(Arc::clone(policy));
        }
        all
    }

    /// Decides in Istio's order: what cannot be honoured, `DENY`, `ALLOW`. The value is the policy
    /// of `AUDIT` that marks it.
    ///
    /// # Errors
    /// [`Denied`], with the rule in Envoy's words.
    pub fn decide(&self, subject: &Subject<'_>) -> Result<Option<Arc<str>>, Denied> {
        let matched = |policy: &AuthorizationPolicy, least: Truth| {
            let mut rules = policy.rules.iter();
            rules.position(|rule| rule.holds(subject, &self.trust_domain) >= least)
        };
        if let Some(policy) = self.unavailable.first() {
            note(policy, None, true);
            let why = match &policy.action {
                AuthorizationAction::Unavailable(why) => why,
                AuthorizationAction::Allow
                | AuthorizationAction::Deny
                | AuthorizationAction::Audit => "it",
            };
            let detail =
                format!("{} cannot be honoured, so nothing is allowed: {why}", policy.label);
            return Err(denied(detail, matched_rule(policy, None)));
        }
        for policy in &self.deny {
            if let Some(rule) = matched(policy, Truth::Unknown) {
                note(policy, Some(rule), true);
                let detail = format!("{} denies it (rules[{rule}])", policy.label);
                return Err(denied(detail, matched_rule(policy, Some(rule))));
            }
        }
        let allows = |policy: &Arc<AuthorizationPolicy>| {
            let rule = matched(policy, Truth::Yes);
            note(policy, rule, rule.is_none());
            rule.is_some()
        };
        if !self.allow.is_empty() && !self.allow.iter().any(allows) {
            let names: Vec<_> = self.allow.iter().map(|policy| &*policy.label).collect();
            let detail = format!("no rule allows it of {}", names.join(", "));
            return Err(denied(detail, "rbac_access_denied_matched_policy[none]".into()));
        }
        let audited = self.audit.iter().find(|policy| matched(policy, Truth::Unknown).is_some());
        Ok(audited.map(|policy| format!("{}/{}", policy.namespace.0, policy.name).into()))
    }
}

/// Notes what a policy has to say.
fn note(policy: &AuthorizationPolicy, rule: Option<usize>, denies: bool) {
    let policy = || Arc::clone(&policy.label);
    trace::note(|| Step::Authorization { policy: policy(), rule, denies });
}

fn denied(detail: String, matched: Arc<str>) -> Denied {
    Denied { reason: Reason::AuthorizationPolicyDenied, detail, matched: Some(matched) }
}

/// The response code details that Envoy writes for Istio's policies.
fn matched_rule(policy: &AuthorizationPolicy, rule: Option<usize>) -> Arc<str> {
    let AuthorizationPolicy { name, namespace, .. } = policy;
    let rule = rule.map(|rule| rule.to_string()).unwrap_or_default();
    format!("rbac_access_denied_matched_policy[ns[{}]-policy[{name}]-rule[{rule}]]", namespace.0)
        .into()
}

//! `AuthorizationPolicy`, and what else restricts gateways, to policies of the gateway.

use std::{collections::HashMap, sync::Arc};

use super::{
    super::{
        decode::{Report, SourcePosition},
        guards::{Guard, GuardKind, Outbound},
        names,
        problem::{Problem, Severity},
    },
    Compiler, conditions,
};
use crate::policy::{
    Attribute, AuthorizationAction, AuthorizationPolicy, AuthorizationRule, AuthorizationScope,
    Condition, Direct, OutboundMode, TextPattern, ValuePattern, has_labels,
};

/// By the full name of a service entry: policies that restrict it by `targetRefs`, which is not
/// supported.
pub(super) type Targets<'r> = HashMap<String, Vec<&'r Guard>>;

/// The service entries that policies restrict.
pub(super) fn targets(guards: &[Guard]) -> Targets<'_> {
    let mut targets = Targets::new();
    for guard in guards {
        let names = guard.targets.iter().filter(|(kind, _)| kind == "ServiceEntry");
        for (_, name) in names {
            let own = targets.entry(format!("{}/{name}", guard.meta.namespace.0)).or_default();
            if !own.last().is_some_and(|last| std::ptr::eq(*last, guard)) {
                own.push(guard);
            }
        }
    }
    targets
}

impl Compiler<'_> {
    /// All of them, in the order of the resources.
    pub(super) fn guards(&mut self, guards: &[Guard]) -> Vec<Arc<AuthorizationPolicy>> {
        guards.iter().filter_map(|guard| self.guard_policy(guard)).map(Arc::new).collect()
    }

    /// Whether policies restrict the service entry of this full name. It is left out then, so that
    /// nothing is reached by it.
    pub(super) fn is_targeted(&mut self, targets: &Targets<'_>, entry: &str) -> bool {
        let guards = targets.get(entry).map_or(&[][..], Vec::as_slice);
        for guard in guards {
            let at = SourcePosition::root(guard.meta.line, "spec").field("targetRefs");
            let message = "a policy for a ServiceEntry is not supported, so the entry is left \
                           out and its hosts are refused; use a policy for the gateway";
            let severity = match self.mesh.outbound {
                OutboundMode::RegistryOnly => Severity::Refusal,
                // The gateway would serve a host that no entry names.
                OutboundMode::AllowAny => Severity::Error,
            };
            let mut cx = guard.meta.cx(self.report);
            cx.report.fatal |= severity == Severity::Error;
            cx.note(severity, &at, message);
        }
        !guards.is_empty()
    }

    /// Whether the policy is for a gateway of `mesh.yaml`; where that names none, it may be.
    fn selects_gateway(&self, guard: &Guard) -> bool {
        let namespace = &guard.meta.namespace;
        let root = *namespace == self.mesh.root_namespace;
        let mut gateways = self.mesh.gateways.iter();
        self.mesh.gateways.is_empty()
            || gateways.any(|gateway| {
                let own = gateway.service.as_name().and_then(names::namespace_of);
                (root || own.is_none_or(|own| own == *namespace))
                    && has_labels(&gateway.labels, &guard.labels)
            })
    }

    fn guard_policy(&mut self, guard: &Guard) -> Option<AuthorizationPolicy> {
        let selected = self.selects_gateway(guard);
        let at = SourcePosition::root(guard.meta.line, "spec");
        let kind = guard.meta.label.split(' ').next().unwrap_or_default();
        let policy = |action, rules| AuthorizationPolicy {
            label: guard.meta.label.as_str().into(),
            name: guard.meta.name.as_str().into(),
            namespace: guard.meta.namespace.clone(),
            scope: AuthorizationScope::Selected(guard.labels.clone()),
            action,
            rules,
        };
        let unavailable =
            |why: &str| policy(AuthorizationAction::Unavailable(why.into()), Vec::new());
        match &guard.what {
            GuardKind::Sidecar(outbound) => self.sidecar(guard, *outbound, &at),
            GuardKind::Envoy(what) => {
                let mut cx = guard.meta.cx(self.report);
                if selected {
                    let message = format!(
                        "{kind} is not supported: {what}, so the gateways that it is for refuse \
                         everything; delete it, or select other workloads"
                    );
                    cx.note(Severity::Refusal, &at, message);
                } else {
                    cx.warn(&at, format!("ignored: {kind} is for no gateway"));
                }
                Some(unavailable(&format!("{kind} is not supported")))
            }
            GuardKind::Unreadable => {
                self.report(guard.problems.clone(), Severity::Refusal, selected);
                Some(unavailable("it cannot be read"))
            }
            GuardKind::Policy(_) if guard.dry_run => {
                let mut cx = guard.meta.cx(self.report);
                cx.warn(&at, "not in force: the annotation istio.io/dry-run is true");
                None
            }
            GuardKind::Policy(_) if !guard.problems.is_empty() => {
                // A field that is not known may restrict.
                self.report(guard.problems.clone(), Severity::Refusal, selected);
                let first = guard.problems.first();
                let field = first.and_then(|problem| problem.field.clone()).unwrap_or_default();
                Some(unavailable(&format!("{field} is not supported or not valid")))
            }
            GuardKind::Policy(spec) => {
                if !selected {
                    let mut cx = guard.meta.cx(self.report);
                    cx.warn(&at, "ignored: it is for no gateway of mesh.yaml");
                }
                let mut report = Report::default();
                let mut cx = guard.meta.cx(&mut report);
                let (action, rules) = conditions::policy(
                    spec,
                    &guard.meta.namespace,
                    &self.mesh.trust_domain,
                    &mut cx,
                );
                self.report(report.problems, Severity::Warning, selected);
                Some(policy(action, rules))
            }
        }
    }

    /// Reports what is wrong with a policy. What it cannot say is answered by denying.
    fn report(&mut self, problems: Vec<Problem>, least: Severity, selected: bool) {
        for mut problem in problems {
            problem.severity = match problem.severity.max(least) {
                Severity::Refusal | Severity::Error if selected => Severity::Refusal,
                Severity::Warning | Severity::Refusal | Severity::Error => Severity::Warning,
            };
            self.report.problems.push(problem);
        }
    }

    /// A `Sidecar` that hides hosts from its workloads: they reach nothing.
    fn sidecar(
        &mut self,
        guard: &Guard,
        outbound: Outbound,
        at: &SourcePosition,
    ) -> Option<AuthorizationPolicy> {
        let Outbound { hides, registry_only } = outbound;
        let allows_any = self.mesh.outbound == OutboundMode::AllowAny;
        let direct = self.mesh.direct == Direct::Registry;
        let everywhere = guard.meta.namespace == self.mesh.root_namespace;
        let mut cx = guard.meta.cx(self.report);
        if !(hides || registry_only && allows_any) {
            cx.warn(at, "ignored: there are no sidecars here, and it hides no host");
            return None;
        }
        let message = "Sidecar is not supported: it restricts what its workloads reach, so they, and \
                       sources that are not known, are refused everything; use exportTo of the \
                       resources, or an AuthorizationPolicy of the gateway, and delete it";
        // Without a gateway on the way nobody refuses.
        let severity = if direct { Severity::Error } else { Severity::Refusal };
        cx.report.fatal |= direct;
        cx.note(severity, at, message);
        let condition = Condition {
            attribute: Attribute::Namespace,
            values: vec![ValuePattern::Text(TextPattern::Exact((*guard.meta.namespace.0).into()))],
            negated: false,
        };
        let from = if everywhere { Vec::new() } else { vec![vec![condition]] };
        Some(AuthorizationPolicy {
            label: guard.meta.label.as_str().into(),
            name: guard.meta.name.as_str().into(),
            namespace: guard.meta.namespace.clone(),
            scope: AuthorizationScope::EveryGateway,
            action: AuthorizationAction::Deny,
            rules: vec![AuthorizationRule { from, ..AuthorizationRule::default() }],
        })
    }
}

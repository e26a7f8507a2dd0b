//! `ReferenceGrant`: who may refer to resources of another namespace.

use std::collections::HashMap;

use super::super::{
    api_policies::{GrantFrom, GrantTo, ReferenceGrant},
    gateway_api::{GROUP, Read},
    problem::Severity,
};

/// All grants.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// By the kind and namespace that may refer.
    granted: HashMap<(String, String), Vec<GrantTarget>>,
}

/// What may be referred to.
#[derive(Debug)]
struct GrantTarget {
    namespace: String,
    kind: String,
    /// Without it, all of the kind.
    name: Option<String>,
}

impl Grants {
    /// One that could not be read grants nothing.
    pub(super) fn of(grants: &[Read<ReferenceGrant>]) -> Self {
        let mut all = Self::default();
        for Read { meta, spec, problems } in grants {
            let is_whole = problems.iter().all(|p| p.severity == Severity::Warning);
            let Some(ReferenceGrant { at: _, from, to }) = spec.as_ref().filter(|_| is_whole)
            else {
                continue;
            };
            for GrantFrom { at: _, group, kind, namespace } in &from.0 {
                let (Some(group), Some(kind), Some(own)) = (group, kind, namespace) else {
                    continue;
                };
                if group.value != GROUP {
                    continue;
                }
                let key = (kind.value.clone(), own.value.clone());
                let granted = all.granted.entry(key).or_default();
                for GrantTo { at: _, group, kind, name } in &to.0 {
                    let (Some(group), Some(kind)) = (group, kind) else { continue };
                    if group.value.is_empty() {
                        let name = name.as_ref().map(|name| name.value.clone());
                        let namespace = meta.namespace.0.to_string();
                        granted.push(GrantTarget { namespace, kind: kind.value.clone(), name });
                    }
                }
            }
        }
        all
    }

    /// Whether a resource of this kind and namespace may refer to one of the core group in another namespace.
    pub(super) fn allow(&self, from: (&str, &str), to: (&str, &str, &str)) -> bool {
        let (namespace, kind, name) = to;
        let granted = self.granted.get(&(from.0.to_owned(), from.1.to_owned()));
        granted.into_iter().flatten().any(|granted| {
            granted.namespace == namespace
                && granted.kind == kind
                && granted.name.as_ref().is_none_or(|granted| granted == name)
        })
    }
}

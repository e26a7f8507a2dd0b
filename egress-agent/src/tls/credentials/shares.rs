//! Which credentials are asked for at the API server, where a namespace names many: each costs two watches, whether
//! the gateway may read it or not.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::CredentialUse;

/// Credentials that the resources of one namespace may name.
const PER_NAMESPACE: usize = 128;

/// The credentials to ask for, and why not for the others.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Shared {
    pub(super) within: BTreeSet<String>,
    pub(super) beyond: BTreeMap<String, String>,
}

/// Gives each namespace its share. What is read already keeps its place: one that comes does not replace it. A
/// credential that several namespaces name counts for one of them that has room.
pub(super) fn share(
    names: BTreeSet<String>,
    uses: &[CredentialUse],
    is_read: impl Fn(&str) -> bool,
) -> Shared {
    let mut namers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for named in uses {
        namers.entry(&named.name).or_default().insert(named.namespace());
    }
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    let mut shared = Shared::default();
    let (first, rest): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| is_read(name));
    for name in first.into_iter().chain(rest) {
        let namers = namers.get(name.as_str()).cloned().unwrap_or_else(|| [""].into());
        let mut places = namers.iter().copied();
        let place =
            places.find(|namespace| used.get(namespace).is_none_or(|used| *used < PER_NAMESPACE));
        match place {
            Some(namespace) => {
                *used.entry(namespace).or_default() += 1;
                shared.within.insert(name);
            }
            None => {
                let namespaces = namers.into_iter().collect::<Vec<_>>().join(", ");
                let why = format!(
                    "the resources of namespace {namespaces} name more than {PER_NAMESPACE} credentials"
                );
                shared.beyond.insert(name, why);
            }
        }
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(namespace: &str, names: &[String]) -> Vec<CredentialUse> {
        let named = |name: &String| CredentialUse {
            name: name.as_str().into(),
            resource: format!("Gateway {namespace}/x").into(),
        };
        names.iter().map(named).collect()
    }

    #[test]
    fn one_namespace_takes_no_others_share() {
        let many: Vec<String> = (0..PER_NAMESPACE + 300).map(|n| format!("a-{n:04}")).collect();
        let few = ["web".to_owned(), "a-0427".to_owned()];
        let all = [uses("greedy", &many), uses("shop", &few)].concat();
        let names: BTreeSet<String> = many.iter().chain(&few).cloned().collect();
        let shared = share(names.clone(), &all, |_| false);
        assert!(few.iter().all(|name| shared.within.contains(name)), "{:?}", shared.beyond);
        assert_eq!(shared.within.len(), PER_NAMESPACE + few.len());
        assert_eq!(shared.within.len() + shared.beyond.len(), names.len());
        let why = &shared.beyond["a-0300"];
        assert!(why.contains("namespace greedy") && why.contains("128"), "{why}");
        // What is in use stays, whatever is named besides.
        let shared = share(names, &all, |name| name == "a-0426");
        assert!(shared.within.contains("a-0426"));
        assert_eq!(shared.within.len(), PER_NAMESPACE + few.len());
    }

    #[test]
    fn all_that_is_within_the_share_is_asked_for() {
        let names: Vec<String> = (0..PER_NAMESPACE).map(|n| n.to_string()).collect();
        let shared = share(names.iter().cloned().collect(), &uses("shop", &names), |_| false);
        assert_eq!((shared.within.len(), shared.beyond.len()), (PER_NAMESPACE, 0));
    }
}

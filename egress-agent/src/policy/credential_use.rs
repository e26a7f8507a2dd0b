//! Which resources name which credentials.

use std::{collections::BTreeMap, sync::Arc};

use crate::types::Namespace;

/// What the name of a credential begins with that is a ConfigMap. No Secret's name has such a beginning.
const CONFIG_MAP: &str = "ConfigMap:";

/// The name of the credential that a namespace's ConfigMap is.
#[must_use]
pub fn config_map_credential(namespace: &Namespace, name: &str) -> String {
    format!("{CONFIG_MAP}{}.{name}", namespace.0)
}

/// Namespace and name of the ConfigMap that a credential is, if it is one. A namespace's name has no dot.
#[must_use]
pub fn config_map_of(credential: &str) -> Option<(&str, &str)> {
    credential.strip_prefix(CONFIG_MAP)?.split_once('.')
}

/// A credential that a resource names by `credentialName`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CredentialUse {
    /// The credential's name.
    pub name: Arc<str>,
    /// The resource, as messages call it: `Gateway istio-system/egress`.
    pub resource: Arc<str>,
}

/// A credential that cannot be used as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadCredential {
    /// The `credentialName`.
    pub name: String,
    /// What is wrong with it, a sentence.
    pub fault: String,
    /// Whether an earlier one is in use meanwhile.
    pub in_use: bool,
}

/// What is wrong with the credentials that resources name, by what messages call the resources.
pub type CredentialFaults = BTreeMap<String, Vec<BadCredential>>;

impl CredentialUse {
    /// The namespace of the resource; nothing for one without.
    #[must_use]
    pub fn namespace(&self) -> &str {
        let name = self.resource.split_once(' ').map_or(&*self.resource, |(_, name)| name);
        name.split_once('/').map_or("", |(namespace, _)| namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_that_is_a_config_map_is_no_secret() {
        let name = config_map_credential(&Namespace("shop".into()), "roots.v1");
        assert_eq!(config_map_of(&name), Some(("shop", "roots.v1")));
        assert_eq!(config_map_of("shop.roots"), None);
    }

    #[test]
    fn a_namespace_is_part_of_what_a_resource_is_called() {
        for (resource, namespace) in
            [("Gateway shop/web", "shop"), ("DestinationRule a/b.c", "a"), ("Gateway web", "")]
        {
            let named = CredentialUse { name: "web".into(), resource: resource.into() };
            assert_eq!(named.namespace(), namespace);
        }
    }
}

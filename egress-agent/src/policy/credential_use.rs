//! Which resources name which credentials.

use std::sync::Arc;

/// A credential that a resource names by `credentialName`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CredentialUse {
    /// The credential's name.
    pub name: Arc<str>,
    /// The resource, as messages call it: `Gateway istio-system/egress`.
    pub resource: Arc<str>,
}

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
    fn a_namespace_is_part_of_what_a_resource_is_called() {
        for (resource, namespace) in
            [("Gateway shop/web", "shop"), ("DestinationRule a/b.c", "a"), ("Gateway web", "")]
        {
            let named = CredentialUse { name: "web".into(), resource: resource.into() };
            assert_eq!(named.namespace(), namespace);
        }
    }
}

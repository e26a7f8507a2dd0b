//! Which revisions of the product's own resources a configuration was made of.

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::digest::{Context, SHA256};

/// A state of an object of the API server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revision {
    /// `metadata.uid`: an object of the same name that is made again is another one.
    pub uid: Arc<str>,
    /// `metadata.generation`, which counts changes of the spec.
    pub generation: i64,
}

/// The revisions of all `EgressPolicy` and `ClusterEgressPolicy` objects in a configuration, by the names that
/// messages call them, and a digest that tells these from others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revisions {
    all: BTreeMap<String, Revision>,
    digest: Arc<str>,
}

impl Default for Revisions {
    fn default() -> Self {
        Self::new(BTreeMap::new())
    }
}

impl Revisions {
    /// Of these objects.
    #[must_use]
    pub fn new(all: BTreeMap<String, Revision>) -> Self {
        let mut context = Context::new(&SHA256);
        for (name, Revision { uid, generation }) in &all {
            for part in [name.as_str(), uid] {
                context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                context.update(part.as_bytes());
            }
            context.update(&generation.to_be_bytes());
        }
        let digest = context.finish();
        let digest = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}"));
        Self { all, digest: digest.collect::<String>().into() }
    }

    /// 32 hexadecimal digits, the same for the same revisions.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Whether this revision of an object is among them.
    #[must_use]
    pub fn has(&self, name: &str, uid: &str, generation: i64) -> bool {
        self.all.get(name).is_some_and(|one| &*one.uid == uid && one.generation == generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revisions(list: &[(&str, &str, i64)]) -> Revisions {
        let one = |(name, uid, generation): &(&str, &str, i64)| {
            ((*name).to_owned(), Revision { uid: (*uid).into(), generation: *generation })
        };
        Revisions::new(list.iter().map(one).collect())
    }

    #[test]
    fn a_digest_tells_revisions_apart() {
        let one = revisions(&[("EgressPolicy shop/a", "u1", 1), ("EgressPolicy shop/b", "u2", 7)]);
        assert_eq!(one.digest().len(), 32);
        for other in [
            revisions(&[("EgressPolicy shop/a", "u1", 2), ("EgressPolicy shop/b", "u2", 7)]),
            revisions(&[("EgressPolicy shop/a", "u9", 1), ("EgressPolicy shop/b", "u2", 7)]),
            revisions(&[("EgressPolicy shop/a", "u1", 1)]),
            Revisions::default(),
        ] {
            assert_ne!(one.digest(), other.digest());
        }
        assert!(one.has("EgressPolicy shop/a", "u1", 1));
        for (name, uid, generation) in
            [("EgressPolicy shop/a", "u1", 2), ("EgressPolicy shop/a", "u2", 1), ("x", "u1", 1)]
        {
            assert!(!one.has(name, uid, generation));
        }
    }
}

//! What a watch reports of a kind.

/// Namespace and name.
pub(super) type Key = (String, String);

/// What happened to objects of a kind.
#[derive(Clone, Debug)]
pub(super) enum Step<T> {
    /// These are all that there are.
    Replace(Vec<(Key, T)>),
    /// One came or changed.
    Put(Key, T),
    /// One is gone.
    Remove(Key),
}

impl<A, B> Step<(A, B)> {
    /// The same for each of the two.
    pub(super) fn split(self) -> (Step<A>, Step<B>) {
        match self {
            Self::Replace(all) => {
                let pairs = all.into_iter().map(|(key, (a, b))| ((key.clone(), a), (key, b)));
                let (left, right) = pairs.unzip();
                (Step::Replace(left), Step::Replace(right))
            }
            Self::Put(key, (a, b)) => (Step::Put(key.clone(), a), Step::Put(key, b)),
            Self::Remove(key) => (Step::Remove(key.clone()), Step::Remove(key)),
        }
    }
}

impl<T> Step<T> {
    /// Whether it is all of a kind.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self, Self::Replace(_))
    }
}

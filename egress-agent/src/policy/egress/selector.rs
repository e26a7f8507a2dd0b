//! Label selectors, as Kubernetes defines them.

use std::{collections::HashMap, fmt};

use crate::types::{Labels, Namespace};

/// The label that the API server gives each namespace: its name.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// A label selector. Without a requirement it selects everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LabelSelector {
    /// All must hold.
    pub requirements: Vec<LabelRequirement>,
}

/// A condition on one label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelRequirement {
    /// The label's key.
    pub key: Box<str>,
    /// What is asked of it.
    pub operator: LabelOperator,
}

/// What is asked of a label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LabelOperator {
    /// It has one of these values.
    In(Vec<Box<str>>),
    /// It has none of these values, or is absent.
    NotIn(Vec<Box<str>>),
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether it asks nothing.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether these labels are as wanted.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|wanted| {
            let value = labels.get(&*wanted.key).map(String::as_str);
            wanted.operator.holds(value)
        })
    }

    /// Whether a namespace is selected of which only the name is known. No condition on another label
    /// can be verified, so none holds: not even that the label is absent.
    fn matches_name(&self, namespace: &Namespace) -> bool {
        self.requirements.iter().all(|wanted| {
            &*wanted.key == NAMESPACE_NAME && wanted.operator.holds(Some(&namespace.0))
        })
    }
}

impl LabelOperator {
    fn holds(&self, value: Option<&str>) -> bool {
        let among = |values: &[Box<str>]| {
            value.is_some_and(|value| values.iter().any(|wanted| **wanted == *value))
        };
        match self {
            Self::In(values) => among(values),
            Self::NotIn(values) => !among(values),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for LabelSelector {
    /// As `kubectl --selector` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, LabelRequirement { key, operator }) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match operator {
                LabelOperator::In(values) => match values.as_slice() {
                    [only] => write!(f, "{key}={only}")?,
                    _ => write!(f, "{key} in ({})", values.join(","))?,
                },
                LabelOperator::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                LabelOperator::Exists => f.write_str(key)?,
                LabelOperator::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

/// The labels of the namespaces that are known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NamespaceLabels(HashMap<Namespace, Labels>);

impl NamespaceLabels {
    /// From each namespace's labels. Its name is a label of it, whether it is listed or not.
    #[must_use]
    pub fn new(known: impl Iterator<Item = (Namespace, Labels)>) -> Self {
        let named = known.map(|(namespace, mut labels)| {
            labels.insert(NAMESPACE_NAME.into(), namespace.0.to_string());
            (namespace, labels)
        });
        Self(named.collect())
    }

    /// Whether the selector is about this namespace.
    #[must_use]
    pub fn are_selected(&self, selector: &LabelSelector, namespace: &Namespace) -> bool {
        match self.0.get(namespace) {
            Some(labels) => selector.matches(labels),
            None => selector.matches_name(namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(requirements: &[(&str, LabelOperator)]) -> LabelSelector {
        let requirements = requirements.iter().map(|(key, operator)| LabelRequirement {
            key: (*key).into(),
            operator: operator.clone(),
        });
        LabelSelector { requirements: requirements.collect() }
    }

    fn values(texts: &[&str]) -> Vec<Box<str>> {
        texts.iter().map(|text| (*text).into()).collect()
    }

    #[test]
    fn operators_mean_what_they_mean_in_kubernetes() {
        let labels = Labels::from([("app".into(), "web".into())]);
        for (key, operator, matches) in [
            ("app", LabelOperator::In(values(&["db", "web"])), true),
            ("app", LabelOperator::In(values(&["db"])), false),
            ("tier", LabelOperator::In(values(&["front"])), false),
            ("app", LabelOperator::NotIn(values(&["db"])), true),
            ("app", LabelOperator::NotIn(values(&["web"])), false),
            ("tier", LabelOperator::NotIn(values(&["front"])), true),
            ("app", LabelOperator::Exists, true),
            ("tier", LabelOperator::Exists, false),
            ("app", LabelOperator::DoesNotExist, false),
            ("tier", LabelOperator::DoesNotExist, true),
        ] {
            let selector = selector(&[(key, operator)]);
            assert_eq!(selector.matches(&labels), matches, "{selector}");
        }
        assert!(LabelSelector::default().matches(&labels));
    }

    #[test]
    fn of_an_unknown_namespace_only_the_name_counts() {
        let shop = Namespace("shop".into());
        let known = NamespaceLabels::new(
            [(shop.clone(), Labels::from([("tier".into(), "front".into())]))].into_iter(),
        );
        let new = Namespace("new".into());
        for (key, operator, of_shop, of_new) in [
            (NAMESPACE_NAME, LabelOperator::In(values(&["shop"])), true, false),
            (NAMESPACE_NAME, LabelOperator::NotIn(values(&["shop"])), false, true),
            ("tier", LabelOperator::In(values(&["front"])), true, false),
            // The label may be there, and nobody knows yet.
            ("restricted", LabelOperator::DoesNotExist, true, false),
            ("tier", LabelOperator::NotIn(values(&["back"])), true, false),
        ] {
            let selector = selector(&[(key, operator)]);
            assert_eq!(known.are_selected(&selector, &shop), of_shop, "{selector}");
            assert_eq!(known.are_selected(&selector, &new), of_new, "{selector}");
        }
        assert!(known.are_selected(&LabelSelector::default(), &new));
    }
}

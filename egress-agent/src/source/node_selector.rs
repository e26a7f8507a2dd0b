//! Which nodes: a label selector.

use std::{collections::BTreeMap, fmt};

/// Conditions that all hold, as `kubectl get nodes -l` takes them, with `=` and `!=` alone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeSelector(Vec<Condition>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Condition {
    key: String,
    value: String,
    is: bool,
}

impl NodeSelector {
    /// `KEY=VALUE,KEY!=VALUE`.
    ///
    /// # Errors
    /// Something else is between the commas.
    pub fn parse(text: &str) -> Result<Self, String> {
        let condition = |part: &str| {
            let (key, value) = part.split_once('=')?;
            let (key, is) = key.strip_suffix('!').map_or((key, true), |key| (key, false));
            let good = !key.is_empty() && !value.contains('=');
            good.then(|| Condition { key: key.to_owned(), value: value.to_owned(), is })
        };
        let parts = text.split(',').filter(|_| !text.is_empty());
        let conditions: Option<_> = parts.map(condition).collect();
        let wrong =
            || format!("found `{text}`, expected KEY=VALUE or KEY!=VALUE, separated by commas");
        conditions.map(Self).ok_or_else(wrong)
    }

    /// Whether a node with these labels is meant. As in Kubernetes, `!=` holds where there is no such label.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<&str, &str>) -> bool {
        let has = |one: &Condition| labels.get(one.key.as_str()) == Some(&one.value.as_str());
        self.0.iter().all(|one| has(one) == one.is)
    }
}

impl fmt::Display for NodeSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Condition { key, value, is }) in self.0.iter().enumerate() {
            let (comma, sign) = (if index > 0 { "," } else { "" }, if *is { "=" } else { "!=" });
            write!(f, "{comma}{key}{sign}{value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_all_together() {
        let selector = NodeSelector::parse("os=linux,example.com/gateway!=true").unwrap();
        assert_eq!(selector.to_string(), "os=linux,example.com/gateway!=true");
        for (labels, selects) in [
            (&[("os", "linux")][..], true),
            (&[("os", "linux"), ("example.com/gateway", "false")], true),
            (&[("os", "linux"), ("example.com/gateway", "true")], false),
            (&[("os", "windows")], false),
            (&[], false),
        ] {
            assert_eq!(selector.selects(&labels.iter().copied().collect()), selects, "{labels:?}");
        }
        assert!(NodeSelector::parse("").unwrap().selects(&BTreeMap::new()));
        for wrong in ["os", "=x", "!=x", "a=b,", "a in (b)", "a==b"] {
            assert!(NodeSelector::parse(wrong).unwrap_err().contains("KEY=VALUE"), "{wrong}");
        }
    }
}

//! Where in the files the parts of the configuration are that decide.

use std::{collections::HashMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// A place in a resource.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(from = "ResourcePathJson", into = "ResourcePathJson")]
pub struct ResourcePath {
    /// `VirtualService default/name`.
    pub resource: Arc<str>,
    /// The field there, such as `spec.http[0]`; empty for the resource as a whole.
    pub field: Box<str>,
    /// The file.
    pub file: Arc<str>,
    /// The line in it, counted from 1.
    pub line: u64,
}

impl fmt::Display for ResourcePath {
    /// `VirtualService default/name, spec.http[0] (routes.yaml:12)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, field, file, line } = self;
        f.write_str(resource)?;
        if !field.is_empty() {
            write!(f, ", {field}")?;
        }
        if file.is_empty() { Ok(()) } else { write!(f, " ({file}:{line})") }
    }
}

/// A place as JSON has it.
#[derive(Serialize, Deserialize)]
struct ResourcePathJson {
    resource: String,
    field: String,
    file: String,
    line: u64,
}

impl From<ResourcePath> for ResourcePathJson {
    fn from(place: ResourcePath) -> Self {
        let ResourcePath { resource, field, file, line } = place;
        let (resource, file) = (resource.to_string(), file.to_string());
        Self { resource, field: field.into(), file, line }
    }
}

impl From<ResourcePathJson> for ResourcePath {
    fn from(written: ResourcePathJson) -> Self {
        let ResourcePathJson { resource, field, file, line } = written;
        Self { resource: resource.into(), field: field.into(), file: file.into(), line }
    }
}

/// Where each resource begins.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResourceStarts(HashMap<Arc<str>, ResourcePath>);

impl ResourceStarts {
    /// The place of the resource with this label; `None` where it was not read from a file.
    #[must_use]
    pub fn get(&self, label: &str) -> Option<&ResourcePath> {
        self.0.get(label)
    }
}

impl FromIterator<ResourcePath> for ResourceStarts {
    /// Of several with one label the first counts.
    fn from_iter<T: IntoIterator<Item = ResourcePath>>(all: T) -> Self {
        let mut places = HashMap::new();
        for place in all {
            places.entry(Arc::clone(&place.resource)).or_insert(place);
        }
        Self(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(resource: &str, field: &str, line: u64) -> ResourcePath {
        ResourcePath { resource: resource.into(), field: field.into(), file: "a.yaml".into(), line }
    }

    #[test]
    fn a_place_reads_like_a_reference() {
        let rule = place("VirtualService default/a", "spec.http[0]", 12);
        assert_eq!(rule.to_string(), "VirtualService default/a, spec.http[0] (a.yaml:12)");
        assert_eq!(place("Gateway default/a", "", 1).to_string(), "Gateway default/a (a.yaml:1)");
    }

    #[test]
    fn the_first_of_one_name_counts() {
        let all = [place("Gateway default/a", "", 1), place("Gateway default/a", "", 9)];
        let places: ResourceStarts = all.into_iter().collect();
        assert_eq!(places.get("Gateway default/a").map(|place| place.line), Some(1));
        assert_eq!(places.get("Gateway default/b"), None);
    }
}

//! A suggestion as one text, or as files: one for whatever a later suggestion replaces as a whole.

use std::fmt;

use super::{names::file_name, yaml::comment};

/// What is suggested.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suggestion {
    /// Comments on all of it.
    pub head: String,
    /// The resources.
    pub parts: Vec<Part>,
}

/// Resources that are replaced together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The name of a file for them, which no other part has.
    pub file: String,
    /// As YAML documents.
    pub text: String,
    /// The resource that it takes the place of.
    pub replaces: Option<InForce>,
}

/// A resource of an earlier suggestion that is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InForce {
    /// `VirtualService shop/suggested.api.example.com`.
    pub resource: String,
    /// `FILE:LINE`; empty where it is in no file.
    pub place: String,
}

impl Part {
    /// Resources of this name, which no others of the namespace have.
    pub(super) fn new(namespace: &str, name: &str, text: String) -> Self {
        Self { file: file_name(namespace, name), text, replaces: None }
    }
}

impl InForce {
    /// The file that it is in; empty where it is in none.
    #[must_use]
    pub fn file(&self) -> &str {
        self.place.rsplit_once(':').map_or("", |(file, _line)| file)
    }
}

impl fmt::Display for InForce {
    /// `VirtualService shop/suggested.a.example (istio.yaml:3)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if self.place.is_empty() { Ok(()) } else { write!(f, " ({})", self.place) }
    }
}

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.head)?;
        for part in &self.parts {
            if let Some(replaced) = &part.replaces {
                let text = format!("Takes the place of {replaced} and of what belongs to it.");
                f.write_str(&comment("", &text))?;
            }
        }
        self.parts.iter().try_for_each(|part| f.write_str(&part.text))
    }
}

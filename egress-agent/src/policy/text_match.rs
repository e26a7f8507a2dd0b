//! Conditions on a text, as rules and authorization policies have them.

use regex::Regex;

/// A condition on a text.
#[derive(Clone, Debug)]
pub enum TextMatch {
    /// It is there.
    Present,
    /// The whole text.
    Exact(Box<str>),
    /// Its beginning.
    Prefix(Box<str>),
    /// An anchored expression.
    Regex(Regex),
}

impl PartialEq for TextMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, Self::Present) => true,
            (Self::Exact(one), Self::Exact(other)) | (Self::Prefix(one), Self::Prefix(other)) => {
                one == other
            }
            (Self::Regex(one), Self::Regex(other)) => one.as_str() == other.as_str(),
            (Self::Present | Self::Exact(_) | Self::Prefix(_) | Self::Regex(_), _) => false,
        }
    }
}

impl Eq for TextMatch {}

impl TextMatch {
    /// Whether the text is as wanted.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(exact) => **exact == *text,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

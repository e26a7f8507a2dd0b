//! Mirror of a condition on a text.

use super::decode::{Spanned, record};

record! {
    /// A condition on a text. One of the three; none asks for presence.
    struct StringMatch {
        /// The whole text.
        "exact" exact: Option<Spanned<String>> = "none",
        /// Its beginning.
        "prefix" prefix: Option<Spanned<String>> = "none",
        /// A regular expression (RE2's syntax) for the whole text.
        "regex" regex: Option<Spanned<String>> = "none",
    }
}

//! Mirror of a condition on a text.

use super::decode::{At, record};

record! {
    /// A condition on a text. One of the three; none asks for presence.
    struct StringMatch {
        /// The whole text.
        "exact" exact: Option<At<String>> = "none",
        /// Its beginning.
        "prefix" prefix: Option<At<String>> = "none",
        /// A regular expression (RE2's syntax) for the whole text.
        "regex" regex: Option<At<String>> = "none",
    }
}

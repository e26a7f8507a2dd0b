//! Words of others in text for people.

use std::{borrow::Cow, fmt::Write as _};

/// Controls, line separators, invisible characters, and marks that turn the direction of writing.
#[must_use]
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The words with all escaped that could steer a terminal or end a line: hosts are a client's words,
/// and a workload names its cgroups.
#[must_use]
pub fn printable(words: &str) -> Cow<'_, str> {
    if !words.chars().any(is_unseen) {
        return Cow::Borrowed(words);
    }
    let mut text = String::with_capacity(words.len() + 8);
    for c in words.chars() {
        if is_unseen(c) {
            // Writing to a string can't fail.
            write!(text, "{}", c.escape_unicode()).ok();
        } else {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_steer_no_terminal() {
        assert_eq!(printable("/pods/wéb"), "/pods/wéb");
        assert_eq!(printable("/pods/\x1b[2Ja\nb\u{202e}"), "/pods/\\u{1b}[2Ja\\u{a}b\\u{202e}");
    }
}

//! Names of interfaces as options give them: exact, or a pattern.

/// The name of an interface, or a pattern of names: `*` stands for any characters, `?` for one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pattern(String);

impl Pattern {
    /// The name, if it stands for itself alone.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        (!self.0.contains(['*', '?'])).then_some(&self.0)
    }

    /// Whether an interface of this name is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut next) = (0, 0);
        // Where the last star was, and up to where of the name it stands for.
        let mut star = None;
        while next < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, next));
                    at += 1;
                }
                Some(byte) if *byte == b'?' || *byte == name[next] => {
                    (at, next) = (at + 1, next + 1)
                }
                _ => {
                    let Some((behind, until)) = star else { return false };
                    star = Some((behind, until + 1));
                    (at, next) = (behind + 1, until + 1);
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

impl<T: Into<String>> From<T> for Pattern {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match_as_in_a_shell() {
        for (pattern, name, matches) in [
            ("veth0", "veth0", true),
            ("veth0", "veth01", false),
            ("veth0", "veth", false),
            ("veth*", "veth", true),
            ("veth*", "veth1a2b", true),
            ("veth*", "eveth1", false),
            ("veth?", "veth1", true),
            ("veth?", "veth", false),
            ("veth?", "veth12", false),
            ("*", "anything", true),
            ("c*-*0", "cali-a-b0", true),
            ("c*-*0", "cali-a-b1", false),
            ("*a*b", "aab", true),
            ("*a*b", "aba", false),
            ("**x", "x", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(Pattern::from(pattern).matches(name), matches, "{pattern} {name}");
        }
        assert_eq!(Pattern::from("veth0").exact(), Some("veth0"));
        assert_eq!(Pattern::from("veth*").exact(), None);
        assert_eq!(Pattern::from("vet?").exact(), None);
    }
}

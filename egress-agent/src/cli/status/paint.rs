//! Colours, for a terminal.

/// Whether to use colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ColorChoice(pub(super) bool);

impl ColorChoice {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(super) fn odd(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.with("32", text)
    }
}

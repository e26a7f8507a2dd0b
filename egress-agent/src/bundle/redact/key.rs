//! A key in a text, and how far its value goes.

use super::names::{is_open, is_secret, is_statistic};

/// Quotes, and what stands before one in a text that is quoted itself.
const QUOTES: [char; 3] = ['\\', '"', '\''];

/// The first word of a value, without quotes.
pub(super) fn word(value: &str) -> &str {
    let value = value.trim_start_matches(QUOTES);
    value
        .split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '\\'))
        .next()
        .unwrap_or(value)
}

/// A key, and where it stands in a text.
pub(super) struct Key<'a> {
    pub(super) name: &'a str,
    pub(super) start: usize,
    /// Whether a quote stands behind the name.
    pub(super) quoted: bool,
    /// Where its value starts.
    pub(super) value: usize,
}

impl Key<'_> {
    /// Whether what follows is a number of a statistic, a port of a host, or a message of one of our
    /// modules (`egress_agent::tls::credentials: …`).
    pub(super) fn is_harmless(&self, text: &str) -> bool {
        let apart = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':'));
        let path = text[..self.start].rsplit(apart).next().unwrap_or_default();
        let rest = &text[self.value..];
        if (path.starts_with("egress_") && path.ends_with("::"))
            || (self.name.starts_with("egress_") && rest.starts_with(':'))
        {
            return true;
        }
        let line = rest.split('\n').next().unwrap_or_default();
        let word = word(rest);
        if is_open(self.name, word)
            && line
                .split_once(word)
                .is_some_and(|(_, after)| self.is_over(after.trim_start_matches(QUOTES)))
            && self.lines_end(text, self.value) == self.value + line.len()
        {
            return true;
        }
        let last = self.name.rsplit('.').next().unwrap_or(self.name);
        let host = last.len() < self.name.len() && last != "key" && !is_secret(last);
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let after = rest[digits..].chars().next().unwrap_or(' ');
        let ends = match after {
            '/' => digits <= 5 && text[..self.value].ends_with(':'),
            c => c.is_whitespace() || matches!(c, ',' | '"' | '\'' | '}' | ']' | ')'),
        };
        (1..=20).contains(&digits) && ends && (host || is_statistic(self.name))
    }

    /// Where its value ends, and whether a quote or a bracket says so.
    pub(super) fn end(&self, text: &str) -> (usize, bool) {
        let first = &text[self.value..];
        let closed = match first.chars().next() {
            Some('{' | '[') => balanced(first),
            Some('"' | '\'') => closing(first),
            Some('\\') if self.quoted && quote(first).is_some() => closing(first),
            Some(_) | None => return (self.lines_end(text, self.value), false),
        };
        let closed = closed.filter(|length| continued(&first[..*length]) == *length);
        let Some(length) = closed else { return (self.value + continued(first), false) };
        let end = self.value + length;
        // What follows on the line belongs to the value, unless it is a structure's.
        if self.is_over(&text[end..]) { (end, true) } else { (self.lines_end(text, end), false) }
    }

    /// Whether nothing but structure is left of a line.
    fn is_over(&self, rest: &str) -> bool {
        let rest = rest.trim_start_matches([' ', '\t']);
        rest.is_empty()
            || rest.starts_with(['\n', '\r', '}', ']', ')'])
            || (self.quoted && rest.starts_with(','))
    }

    /// The end of the line, and of those after it that are indented below the key.
    fn lines_end(&self, text: &str, from: usize) -> usize {
        let line_start = text[..self.start].rfind('\n').map_or(0, |at| at + 1);
        let before = &text[line_start..self.start];
        let marks = before.trim_start_matches([' ', '\t']);
        // The column of a key that stands first, else of its line.
        let column = if marks.chars().all(|c| matches!(c, ' ' | '-' | '?' | '"' | '\'' | '\\')) {
            before.trim_end_matches(QUOTES).len()
        } else {
            before.len() - marks.len()
        };
        let comment = marks.starts_with('#');
        let mut end = text[from..].find('\n').map_or(text.len(), |length| from + length);
        let empty = text[from..end].trim();
        let empty = empty.is_empty() || empty.starts_with(['#', '&', '!']);
        let mut at = end;
        while let Some(rest) = text[at..].strip_prefix('\n') {
            let line = rest.split('\n').next().unwrap_or_default();
            let inner = line.trim_start();
            let indent = line.len() - inner.len();
            at += 1 + line.len();
            // Empty lines belong to it if a line after them does.
            if inner.is_empty() {
                continue;
            }
            let listed = empty && indent == column && inner.starts_with(['-', '"', '\'', '{', '[']);
            if !(indent > column || listed || (comment && inner.starts_with('#'))) {
                break;
            }
            end = at;
        }
        end
    }
}

/// The first line, with lines that can't start anything new: indented ones, quotes and brackets.
fn continued(text: &str) -> usize {
    let starts = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '{' | '}' | '[' | ']');
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().map_or(0, str::len);
    first + lines.take_while(|line| line.starts_with(starts)).map(str::len).sum::<usize>()
}

/// How many backslashes stand before the quote that a text starts with, and the quote.
fn quote(text: &str) -> Option<(usize, char)> {
    let escapes = text.len() - text.trim_start_matches('\\').len();
    let quote = text[escapes..].chars().next().filter(|c| matches!(c, '"' | '\''))?;
    Some((escapes, quote))
}

/// Whether a quote ends what such a quote opened, each after so many backslashes.
fn closes((escapes, open): (usize, char), run: usize, quote: char) -> bool {
    quote == open && (run == escapes || (escapes == 0 && (run.is_multiple_of(2) || quote == '\'')))
}

/// The length of the quoted text that this starts with.
fn closing(text: &str) -> Option<usize> {
    let open = quote(text)?;
    let (inner, mut run) = (open.0 + 1, 0);
    for (at, c) in text[inner..].char_indices() {
        if closes(open, run, c) {
            return Some(inner + at + 1);
        }
        run = if c == '\\' { run + 1 } else { 0 };
    }
    None
}

/// The length of the bracket that this starts with.
fn balanced(text: &str) -> Option<usize> {
    let (mut depth, mut before, mut run) = (0_usize, ' ', 0);
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if closes(open, run, c) => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if matches!(before, '{' | '[' | ',' | ':') => quote = Some((run, c)),
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            (None, _) => {}
        }
        run = if c == '\\' { run + 1 } else { 0 };
        if !c.is_whitespace() && c != '\\' {
            before = c;
        }
    }
    None
}

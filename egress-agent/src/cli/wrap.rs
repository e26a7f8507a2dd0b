//! Text in lines that fit a terminal.

use std::{io::IsTerminal, os::fd::AsFd};

use rustix::termios::tcgetwinsize;

/// Columns that every terminal has.
pub(super) const WIDTH: usize = 80;

/// Breaks a paragraph into lines of at most `width` columns, between words. A word that is longer has a
/// line of its own. Each line ends with a line feed; the first begins with `first`, others with `next`.
pub(super) fn wrap(text: &str, first: &str, next: &str, width: usize) -> String {
    let mut lines = String::new();
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        let space = usize::from(!is_empty);
        if !is_empty && columns(&line) + space + columns(word) > width {
            lines.push_str(line.trim_end());
            lines.push('\n');
            next.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    lines.push_str(line.trim_end());
    lines.push('\n');
    lines
}

/// How wide a page may be: that of a terminal, or any for what a program reads.
pub(super) fn width(is_terminal: bool) -> usize {
    if is_terminal { WIDTH } else { usize::MAX }
}

/// How wide a line of a list that grows may be: as wide as the terminal, which is a page's width at least, or any for
/// what a program reads.
pub(super) fn line_width(out: &(impl IsTerminal + AsFd)) -> usize {
    if !out.is_terminal() {
        return usize::MAX;
    }
    tcgetwinsize(out).map_or(WIDTH, |size| usize::from(size.ws_col).max(WIDTH))
}

/// A page with every line broken between words that is wider than `width`; what is within a line stays as it is. What
/// goes on below a line is indented by four more columns than the line. A word that is longer has a line of its own.
pub(super) fn fitted(text: &str, width: usize) -> String {
    let mut all = String::new();
    for line in text.lines() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let mut rest = line.to_owned();
        while columns(&rest) > width {
            let begin = rest.len() - rest.trim_start().len();
            let mut spaces = rest.match_indices(' ').map(|(at, _)| at).filter(|at| *at > begin);
            let first = spaces.clone().next();
            let last = spaces.rfind(|at| columns(&rest[..*at]) <= width);
            let Some(at) = last.or(first) else { break };
            all.push_str(rest[..at].trim_end());
            all.push('\n');
            rest = format!("{indent}    {}", rest[at..].trim_start());
        }
        all.push_str(&rest);
        all.push('\n');
    }
    all
}

/// How many columns a line has; the codes of colours have none.
pub(super) fn columns(line: &str) -> usize {
    let mut in_code = false;
    let shown = line.chars().filter(|c| {
        let is_code = in_code || *c == '\x1b';
        in_code = is_code && *c != 'm';
        !is_code
    });
    shown.count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", "- ", "  ", 9), "- one two\n  three\n");
        assert_eq!(wrap("", "- ", "  ", 9), "-\n");
        assert_eq!(
            wrap("\x1b[1;31mone\x1b[0m two three", "", "  ", 9),
            "\x1b[1;31mone\x1b[0m two\n  three\n"
        );
        assert_eq!(
            fitted("one\n  two  three\n  a b c d e f\n", 12),
            "one\n  two  three\n  a b c d e\n      f\n"
        );
        assert_eq!(fitted("a  wide   line\n", width(false)), "a  wide   line\n");
        assert_eq!(wrap("longer-than-a-line x", "", " ", 9), "longer-than-a-line\n x\n");
    }

    proptest! {
        #[test]
        fn no_line_is_longer_and_no_word_is_lost(text in "([a-z]{1,9} ?){0,40}", width in 12..90_usize) {
            let wrapped = wrap(&text, "- ", "  ", width);
            prop_assert!(wrapped.lines().all(|line| line.chars().count() <= width.max(11 * 9)));
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let mut all = words(&wrapped);
            prop_assert_eq!(all.remove(0), "-");
            prop_assert_eq!(all, words(&text));
            let short = text.split_whitespace().all(|word| word.len() + 2 <= width);
            prop_assert!(!short || wrapped.lines().all(|line| line.len() <= width));
        }
    }
}

//! What sentences of a page have between back-ticks.

use std::sync::LazyLock;

use regex::Regex;

/// What is between back-ticks outside of blocks, with the line where it begins. It may go on in the next line.
pub(crate) fn spans(text: &str) -> Vec<(usize, String)> {
    static SPAN: LazyLock<Regex> = LazyLock::new(|| Regex::new("`([^`]+)`").expect("a pattern"));
    let mut found = Vec::new();
    for (start, paragraph) in paragraphs(text) {
        for span in SPAN.captures_iter(&paragraph).filter_map(|span| span.get(1)) {
            let line = start + paragraph[..span.start()].matches('\n').count();
            let words: Vec<&str> = span.as_str().split('\n').map(str::trim).collect();
            found.push((line, words.join(" ")));
        }
    }
    found
}

/// The lines outside of blocks that belong together, with the number of the first one. Each row of a table stands for
/// itself.
fn paragraphs(text: &str) -> Vec<(usize, String)> {
    let mut fence: Option<&str> = None;
    let (mut found, mut goes_on) = (Vec::<(usize, String)>::new(), false);
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let is_fence = trimmed.starts_with("```");
        if is_fence {
            let ticks = &trimmed[..trimmed.bytes().take_while(|b| *b == b'`').count()];
            fence = match fence {
                Some(open) if trimmed.trim_end() == open => None,
                Some(open) => Some(open),
                None => Some(ticks),
            };
        }
        if is_fence || fence.is_some() || trimmed.is_empty() {
            goes_on = false;
            continue;
        }
        let is_row = trimmed.starts_with('|');
        match found.last_mut().filter(|_| goes_on && !is_row) {
            Some((_, paragraph)) => {
                paragraph.push('\n');
                paragraph.push_str(line);
            }
            None => found.push((index + 1, line.to_owned())),
        }
        goes_on = !is_row;
    }
    found
}

#[test]
fn a_span_is_read_outside_of_blocks() {
    let text = "a `b c`, `d`\n\n```text\n`e`\n```\n````md\n```\n`f`\n````\n`g`\n";
    let of = |text| spans(text).into_iter().map(|(line, span)| format!("{line} {span}"));
    assert!(of(text).eq(["1 b c", "1 d", "10 g"]));
    let broken = "- a `b\n  c` `d\n  e`\n\n`f\n\ng` `h`\n| `i` |\n| ` | `j` |\n";
    let all: Vec<String> = of(broken).collect();
    assert_eq!(all, ["1 b c", "2 d e", "7 ", "8 i", "9 |"]);
}

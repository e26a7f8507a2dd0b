//! Each sentence of the README, and the tests that fail when it becomes untrue.
//!
//! `testdata/readme.txt` has every sentence and every row of the table, word for word, and below it the tests that show
//! it, or `-` and why there is nothing to test. A sentence that is new or changed has to be entered there, so whoever
//! writes it names a test.

use std::{collections::BTreeMap, fs};

use crate::{markdown::root, ways::tests};

const LIST: &str = "egress-agent/tests/docs/testdata/readme.txt";
/// What comes after it is a list of links, which have a test of their own.
const END: &str = "## Documentation";

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The sentences of a page without its blocks, and the rows of its tables without their heads.
fn sentences(page: &str) -> Vec<String> {
    let (mut found, mut paragraph, mut fenced) = (Vec::new(), String::new(), false);
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let is_fence = line.starts_with("```");
        fenced ^= is_fence;
        let is_head = lines.peek().is_some_and(|next| next.starts_with("|---"));
        let is_row = line.starts_with('|');
        let is_text = !(is_fence || fenced || line.is_empty() || line.starts_with('#') || is_row);
        let begins = line.starts_with("- ");
        if !is_text || begins {
            found.extend(split(&std::mem::take(&mut paragraph)));
        }
        if is_text {
            if !paragraph.is_empty() {
                paragraph.push(' ');
            }
            paragraph.push_str(line.trim_start_matches("- ").trim());
        } else if is_row && !is_head && !line.starts_with("|---") && !fenced {
            found.push(line.to_owned());
        }
    }
    found.extend(split(&paragraph));
    found
}

/// A sentence ends with a full stop or a colon before a word that begins one.
fn split(paragraph: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for word in paragraph.split(' ').filter(|word| !word.is_empty()) {
        let begins = word.starts_with(|c: char| c.is_ascii_uppercase() || c == '[' || c == '`');
        let last = found.last_mut().expect("one at least");
        if begins && last.ends_with(['.', ':']) {
            found.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// The list: each sentence with what is below it.
fn listed(list: &str) -> BTreeMap<&str, Vec<&str>> {
    let (mut found, mut sentence) = (BTreeMap::<&str, Vec<&str>>::new(), "");
    for line in list.lines() {
        match line.strip_prefix("    ") {
            Some(below) => found.entry(sentence).or_default().push(below),
            None => {
                sentence = line;
                found.entry(sentence).or_default();
            }
        }
    }
    found
}

/// What is wrong with `PATH::NAME`.
fn fault(entry: &str) -> Option<String> {
    if let Some(reason) = entry.strip_prefix("- ") {
        return (reason.len() < 10).then(|| "no reason is given".to_owned());
    }
    let Some((path, name)) = entry.split_once("::") else {
        return Some(format!("{entry} is no test"));
    };
    let is_there = root().join(path).is_file() && tests(&read(path)).contains(name);
    (!is_there).then(|| format!("{path} has no test {name}"))
}

fn faults(page: &str, list: &str) -> Vec<String> {
    let (sentences, mut listed) = (sentences(page), listed(list));
    let mut faults = Vec::new();
    for sentence in sentences {
        match listed.remove(&*sentence).as_deref() {
            None => faults.push(format!("no test is named for: {sentence}")),
            Some([]) => faults.push(format!("nothing is below: {sentence}")),
            Some(entries) => faults.extend(entries.iter().filter_map(|entry| fault(entry))),
        }
    }
    faults.extend(listed.into_keys().map(|old| format!("the page no longer says: {old}")));
    faults
}

#[test]
fn every_sentence_of_the_readme_has_a_test() {
    let page = read("README.md");
    let (claims, _) = page.split_once(END).expect("its list of documents");
    assert!(sentences(claims).len() > 50);
    let faults = faults(claims, &read(LIST));
    assert!(faults.is_empty(), "{LIST}:\n{}", faults.join("\n"));
}

/// The demo says before it builds what the README says.
#[test]
fn the_first_build_takes_what_the_demo_says() {
    let said = sentences(&read("README.md"));
    let said = said.iter().find(|line| line.contains("first run builds")).expect("the sentence");
    let numbers: Vec<&str> =
        said.split(' ').filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).collect();
    let [minutes, gigabytes] = numbers[..] else { panic!("{said}") };
    let printed = format!("about {minutes} minutes, and {gigabytes} GB");
    assert!(read("xtask/src/demo.rs").contains(&printed), "the demo does not print {printed:?}");
}

#[test]
fn a_sentence_that_is_not_listed_and_a_test_that_is_not_there_are_found() {
    let page = "# A\n\nIt is so: `b` is\nthere. Not c.\n\n```console\n# d\n```\n\n| what | how |\n|---|---|\n| e | f |\n- g.\n- h.\n";
    assert_eq!(sentences(page), ["It is so:", "`b` is there.", "Not c.", "| e | f |", "g.", "h."]);
    let this = "    egress-agent/tests/docs/readme.rs::every_sentence_of_the_readme_has_a_test\n";
    let list: String = sentences(page).iter().map(|line| format!("{line}\n{this}")).collect();
    assert_eq!(faults(page, &list), [""; 0]);
    for (wrong, fault) in [
        (list.replace("Not c.\n", "Not d.\n"), "no test is named for: Not c."),
        (list.replacen("_has_a_test", "_has_no_test", 1), "has no test every_sentence"),
        (list.replacen("readme.rs", "reads.rs", 1), "docs/reads.rs has no test"),
        (list.replacen(this, "    - no\n", 1), "no reason is given"),
        (list.replacen(this, "", 1), "nothing is below: It is so:"),
        (format!("{list}I.\n{this}"), "the page no longer says: I."),
    ] {
        let found = faults(page, &wrong);
        assert!(found.iter().any(|one| one.contains(fault)), "{fault}: {found:?}");
    }
}

//! The words of the glossary: those that it replaces are neither in the documentation nor in a help
//! text.

use std::fs;

use clap::{Command, CommandFactory as _};
use egress_agent::cli::Cli;

use crate::markdown::{documents, root};

const GLOSSARY: &str = "docs/glossary.md";
/// The head of the table of words that are replaced.
const REPLACED: &str = "| not | but |";

/// The words on the left of the table.
fn replaced(glossary: &str) -> Vec<String> {
    let (_, table) = glossary.split_once(REPLACED).expect(REPLACED);
    let rows = table.lines().skip(2).take_while(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.trim_start_matches('|').split('|').next());
    cells.flat_map(|cell| cell.split(',')).map(|word| word.trim().to_lowercase()).collect()
}

/// Those of these words that are in a text, as whole words, across line breaks too.
fn found<'a>(words: &'a [String], text: &str) -> Vec<&'a str> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let whole = |word: &str| {
        text.match_indices(word).any(|(at, _)| {
            !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
        })
    };
    words.iter().map(String::as_str).filter(|word| whole(word)).collect()
}

/// The long help of a command and of all below it, by name.
fn help_texts(command: &mut Command, texts: &mut Vec<(String, String)>) {
    texts.push((command.get_name().to_owned(), command.render_long_help().to_string()));
    for child in command.get_subcommands_mut() {
        help_texts(child, texts);
    }
}

#[test]
fn replaced_words_are_in_no_document_and_no_help_text() {
    let read = |path: &std::path::Path| fs::read_to_string(root().join(path)).expect("a document");
    let words = replaced(&read(GLOSSARY.as_ref()));
    assert!(words.len() > 20, "{words:?}");
    let mut texts = Vec::new();
    help_texts(&mut Cli::command(), &mut texts);
    assert!(texts.len() > 10, "every command has a help text");
    for document in documents() {
        let text = read(&document.path);
        let text = text.split(REPLACED).next().unwrap_or_default().to_owned();
        texts.push((document.path.display().to_string(), text));
    }
    let faults: Vec<String> = texts
        .iter()
        .flat_map(|(of, text)| {
            found(&words, text).into_iter().map(move |word| format!("{of}: `{word}`"))
        })
        .collect();
    assert!(faults.is_empty(), "{GLOSSARY} replaces these words:\n{}", faults.join("\n"));
}

#[test]
fn a_replaced_word_is_found_as_a_whole_word_only() {
    let glossary = "x\n| not | but |\n|---|---|\n| the wall, way out | y |\n\n| other | z |\n";
    let words = replaced(glossary);
    assert_eq!(words, ["the wall", "way out"]);
    assert_eq!(found(&words, "It is The\nwall."), ["the wall"]);
    assert_eq!(found(&words, "a way out, the wallet, the_wall, `the wall-clock`"), ["way out"]);
    assert!(found(&words, "the enforcement point").is_empty());
}

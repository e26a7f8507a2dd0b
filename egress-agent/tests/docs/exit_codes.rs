//! Exit codes: the table of `docs/commands.md`, and sentences that list codes of one command, say the same of each code
//! as `--help` does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::LazyLock,
};

use clap::{Command, CommandFactory as _};
use egress_agent::cli::Cli;
use regex::Regex;

use crate::markdown::{documents, root};

/// What each code means.
type Codes = BTreeMap<String, String>;

/// Text without marks and contractions, in small letters.
fn plain(text: &str) -> String {
    static LINK: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\[([^\]]*)\]\([^)]*\)").expect("a pattern"));
    let text = LINK.replace_all(text, "$1").replace('`', "").to_lowercase();
    let text = text.replace("can't", "cannot").replace("don't", "do not");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What the help of a command says of its codes.
fn codes(command: &Command) -> Codes {
    static CODE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?:^|[;,] )(\d) ").expect("a pattern"));
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let Some((_, told)) = help.split_once("Exit code") else { return Codes::new() };
    let told = told.split("\n\n").next().unwrap_or_default();
    let told = plain(told.split_once(": ").map_or("", |(_, told)| told).trim_end_matches('.'));
    let found: Vec<_> = CODE.captures_iter(&told).collect();
    let ends = found.iter().skip(1).map(|next| next.get_match().start()).chain([told.len()]);
    let all = found.iter().zip(ends);
    all.map(|(code, end)| (code[1].to_owned(), told[code.get_match().end()..end].to_owned()))
        .collect()
}

fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| word.len() > 3);
    words.map(str::to_owned).collect()
}

/// The help has more words in common with `text` at this code than at any other.
fn says_the_same(codes: &Codes, code: &str, text: &str) -> Result<(), String> {
    let text = plain(text);
    let common = |told: &String| words(told).intersection(&words(&text)).count();
    let Some(own) = codes.get(code).map(common) else {
        return Err(format!("its --help has no code {code}"));
    };
    let others = codes.iter().filter(|(other, _)| *other != code);
    match others.map(|(_, told)| common(told)).max() {
        _ if own == 0 => Err(format!("its --help says something else of {code} than {text:?}")),
        Some(other) if other >= own => {
            Err(format!("its --help says of another code than {code}: {text:?}"))
        }
        _ => Ok(()),
    }
}

/// The rows of the table: code and meaning.
fn rows(page: &str) -> Vec<(&str, &str)> {
    let table = page.split("## Exit codes").nth(1).expect("a table");
    let table = table.split("\n## ").next().unwrap_or_default();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let rows = rows.filter(|(code, _)| code.bytes().all(|b| b.is_ascii_digit()));
    rows.map(|(code, meaning)| (code, meaning.trim_end_matches(" |"))).collect()
}

/// What is wrong with the table: a row begins with what `--help` says of the code. What follows about one command is
/// what that command's help says.
fn table_faults(page: &str, checked: &mut usize) -> Vec<String> {
    static COMMANDS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(`[a-z-]+`(?:(?:, | and )`[a-z-]+`)*): (.+)$").expect("a pattern")
    });
    let (cli, rows) = (Cli::command(), rows(page));
    let general = codes(&cli);
    let mut faults = Vec::new();
    let given: Vec<&str> = rows.iter().map(|(code, _)| *code).collect();
    if given != general.keys().map(String::as_str).collect::<Vec<_>>() {
        faults.push(format!("the table has the codes {given:?}, --help has {general:?}"));
    }
    for (code, meaning) in rows {
        let told = general.get(code).map_or("nothing", String::as_str);
        if !plain(meaning).starts_with(told) {
            faults.push(format!("{code}: {meaning:?}, and --help says {told:?}"));
        }
        for clause in meaning.split(". ").flat_map(|sentence| sentence.split("; ")) {
            let Some(parts) = COMMANDS.captures(clause) else { continue };
            for name in parts[1].split('`').skip(1).step_by(2) {
                *checked += 1;
                let command = cli.find_subcommand(name);
                let own = command.map(codes).unwrap_or_default();
                let fault = says_the_same(&own, code, &parts[2]).err();
                faults.extend(fault.map(|fault| format!("{name}: {fault}")));
            }
        }
    }
    faults
}

/// What is wrong with sentences such as "the exit code is 0 where all is well, 1 with errors", after a command line.
fn sentence_faults(text: &str, checked: &mut usize) -> Vec<String> {
    static START: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?i)exit code (?:is )?\d ").expect("a pattern"));
    static CODE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?:^|, )(\d) ((?:if|where|with|without) )").expect("a pattern")
    });
    static COMMAND: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"egress-agent ([a-z-]+)").expect("a pattern"));
    let (cli, mut faults) = (Cli::command(), Vec::new());
    for start in START.find_iter(text) {
        let rest = &text[start.end() - 2..];
        let sentence = rest.split(".\n\n").next().unwrap_or_default();
        let sentence = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
        let sentence = sentence.split(". ").next().unwrap_or_default();
        let found: Vec<_> = CODE.captures_iter(sentence).collect();
        if found.len() < 2 {
            continue;
        }
        let before = COMMAND.captures_iter(&text[..start.start()]);
        let named = before.filter_map(|parts| cli.find_subcommand(&parts[1])).last();
        let Some(command) = named else {
            faults.push(format!("no command is named before {sentence:?}"));
            continue;
        };
        let ends = found.iter().skip(1).map(|next| next.get_match().start());
        for (parts, end) in found.iter().zip(ends.chain([sentence.len()])) {
            *checked += 1;
            let meaning = &sentence[parts.get_match().end()..end];
            let fault = says_the_same(&codes(command), &parts[1], meaning).err();
            faults.extend(fault.map(|fault| format!("{}: {fault}", command.get_name())));
        }
    }
    faults
}

fn page() -> String {
    fs::read_to_string(root().join("docs/commands.md")).expect("the page")
}

#[test]
fn the_table_says_what_help_says() {
    let mut checked = 0;
    let faults = table_faults(&page(), &mut checked);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(checked > 8, "{checked}");
}

#[test]
fn rows_that_are_swapped_are_found() {
    let page = page();
    let all = rows(&page);
    for (one, other) in all.iter().zip(&all[1..]) {
        let swapped = page
            .replace(&format!("| {} | {} |", one.0, one.1), "ONE")
            .replace(&format!("| {} | {} |", other.0, other.1), "OTHER")
            .replace("ONE", &format!("| {} | {} |", one.0, other.1))
            .replace("OTHER", &format!("| {} | {} |", other.0, one.1));
        assert_ne!(swapped, page);
        assert!(table_faults(&swapped, &mut 0).len() > 1, "{one:?} and {other:?}");
    }
    let clause = page.replace("`status`: nothing is attached", "`status`: something is wrong");
    assert_ne!(clause, page);
    assert_eq!(table_faults(&clause, &mut 0).len(), 1);
}

/// What `--help` of each command says of its exit codes is among what the table has.
#[test]
fn help_names_no_code_that_the_table_lacks() {
    let page = page();
    let known: BTreeSet<&str> = rows(&page).into_iter().map(|(code, _)| code).collect();
    assert_eq!(known.iter().copied().collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
    let mut told = 0;
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let Some((_, codes)) = help.split_once("Exit code") else { continue };
        told += 1;
        let codes = codes.split("\n\n").next().unwrap_or_default();
        for word in codes.split_whitespace() {
            let word = word.trim_matches([',', ';', ':', '.', '(', ')']);
            if !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) {
                assert!(known.contains(word), "{}: {word}", command.get_name());
            }
        }
    }
    assert!(told > 8, "{told}");
}

#[test]
fn sentences_say_what_help_says() {
    let (mut checked, mut faults) = (0, Vec::new());
    for document in documents() {
        let name = document.path.display().to_string();
        let is_made_from_help = name.starts_with("docs/reference");
        if is_made_from_help {
            continue;
        }
        let text = fs::read_to_string(root().join(&document.path)).expect("a document");
        let found = sentence_faults(&text, &mut checked);
        faults.extend(found.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(checked > 6, "{checked}");
    let of = |text: &str| sentence_faults(text, &mut 0);
    let good =
        "# egress-agent status\n\nExit code 1 if something is wrong, 3 if nothing is attached.\n";
    assert_eq!(of(good), [""; 0]);
    let swapped = good.replace("code 1", "code 9").replace("3 if", "1 if").replace("9", "3");
    assert_eq!(of(&swapped).len(), 2, "{swapped}");
}

//! The command lines of the documentation that call helm and kubectl: both know the options, the chart renders
//! with the values, and the objects that are named are those that are installed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::Value;

use crate::{
    helm::{NEWEST, chart, render, rendered, root, title, tools},
    markdown::{Document, documents},
    shell,
    spans::spans,
};

/// The values that the documentation asks to put into a file.
const VALUES: &str = "my-values.yaml";
const PREFIX: &str = "egress-enforcer.io/";

/// The command lines of these programs in the documentation: place, words, and the values that were shown last.
fn lines(program: &str) -> Vec<(String, Vec<String>, Option<String>)> {
    documents().iter().flat_map(|document| of(document, program)).collect()
}

fn of(document: &Document, program: &str) -> Vec<(String, Vec<String>, Option<String>)> {
    let (mut found, mut values) = (Vec::new(), None);
    for block in &document.blocks {
        if block.language == "yaml" && block.words.iter().any(|word| word == "helm") {
            values = Some(block.text.clone());
        }
        for (line, command) in shell::commands(block) {
            // `NAME=$(command)`.
            let inside = command.split_once("=$(").and_then(|(_, rest)| rest.strip_suffix(')'));
            for words in shell::simple_commands(inside.unwrap_or(&command)) {
                if words[0] == program {
                    let place = format!("{}:{line}", document.path.display());
                    found.push((place, words, values.clone()));
                }
            }
        }
    }
    found
}

/// What sentences of the documentation name of this program: its command, with the options and files that follow.
fn named(program: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(root().join(&document.path)).expect("a document");
        for (line, span) in spans(&text) {
            let words: Vec<String> = span.split_whitespace().map(str::to_owned).collect();
            if words.len() > 1 && words[0] == program {
                found.push((format!("{}:{line}", document.path.display()), words));
            }
        }
    }
    found
}

#[test]
fn helm_and_kubectl_have_what_sentences_name() {
    for (program, ours) in [("helm", String::new()), ("kubectl", said("kubectl", &["options"]))] {
        let all = named(program);
        assert!(all.len() > 3, "{program}: {all:?}");
        for (place, words) in all {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let help = said(program, &[words[1], "--help"]);
            let is_there = help.contains(&format!("{program} {} ", words[1]));
            assert!(is_there, "{place}: {program} has no {}: {help}", words[1]);
            assert_eq!(
                unknown_options(&words, &format!("{help}\n{ours}")),
                [""; 0],
                "{place}: {help}"
            );
            for word in words.iter().filter(|word| word.starts_with("deploy/")) {
                assert!(root().join(word).exists(), "{place}: there is no {word}");
            }
        }
    }
}

fn said(program: &str, args: &[&str]) -> String {
    let home = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(tools().join("bin").join(program));
    let done = command.env_clear().env("HOME", home.path()).args(args).output().expect(program);
    String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
}

/// Options that neither this command nor the program itself has.
fn unknown_options<'w>(words: &[&'w str], help: &str) -> Vec<&'w str> {
    let names: BTreeSet<&str> = help
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix('-').map(|_| line.trim_start()))
        .flat_map(|line| line.split(", ").take(2))
        .filter_map(|name| name.split(['=', ' ', ':']).next())
        .collect();
    let options = words.iter().filter(|word| word.len() > 1 && word.starts_with('-'));
    options
        .filter(|word| !names.contains(word.split('=').next().unwrap_or_default()))
        .copied()
        .collect()
}

#[test]
fn helm_takes_the_command_lines() {
    let mut seen = 0;
    for (place, words, values) in lines("helm") {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let help = said("helm", &[words[1], "--help"]);
        assert!(help.contains(&format!("helm {} ", words[1])), "{place}: helm has no {}", words[1]);
        assert_eq!(unknown_options(&words, &help), [""; 0], "{place}: {help}");
        assert!(words.contains(&"egress-enforcer"), "{place}: another release");
        if ["install", "upgrade"].contains(&words[1]) {
            renders(&place, &words, values.as_deref());
        }
        seen += 1;
    }
    assert!(seen > 6, "{seen}");
}

/// The chart that is named renders with the values of the command line.
fn renders(place: &str, words: &[&str], shown: Option<&str>) {
    let given = root().join(words[3]).canonicalize();
    assert_eq!(given.expect(place), chart().canonicalize().expect("the chart"), "{place}");
    let directory = tempfile::tempdir().expect("a directory");
    let mut args = Vec::new();
    for pair in words.windows(2) {
        match pair {
            ["--set", value] => args.extend(["--set".to_owned(), (*value).to_owned()]),
            ["--values", file] => {
                let mut path = root().join(file);
                if *file == VALUES {
                    path = directory.path().join(VALUES);
                    fs::write(&path, shown.unwrap_or_else(|| panic!("{place}: no values")))
                        .expect("a file");
                }
                args.extend(["--values".to_owned(), path.display().to_string()]);
            }
            _ => {}
        }
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert!(render(None, NEWEST, &args).is_ok(), "{place}: {:?}", render(None, NEWEST, &args));
}

#[test]
fn the_values_of_the_documentation_render() {
    let documents = documents();
    let blocks = documents.iter().flat_map(|document| &document.blocks);
    let blocks: Vec<_> =
        blocks.filter(|block| block.words.iter().any(|word| word == "helm")).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(VALUES);
        fs::write(&path, &block.text).expect("a file");
        let changed = render(Some(&path), NEWEST, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(changed, rendered(None), "they change nothing: {}", block.text);
    }
}

/// What is installed, as text, and the kinds of its objects in small letters.
fn installed() -> (String, BTreeMap<String, Vec<String>>) {
    let objects = rendered(None);
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for object in &objects {
        if let Some((kind, name)) = title(object).split_once(' ') {
            names.entry(kind.to_lowercase()).or_default().push(name.to_owned());
        }
    }
    (Value::from(objects).to_string(), names)
}

#[test]
fn kubectl_takes_the_command_lines() {
    let ours = said("kubectl", &["options"]);
    let (text, names) = installed();
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = 0;
    for (place, words, _) in lines("kubectl") {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        // What follows runs in a pod.
        let words = words.split(|word| *word == "--").next().unwrap_or_default();
        let rest: Vec<&str> = match words {
            ["kubectl", "--namespace", _, rest @ ..] | ["kubectl", rest @ ..] => rest.to_vec(),
            _ => panic!("{place}: {words:?}"),
        };
        let depth = match rest[..] {
            ["create", "secret", ..] => 3,
            ["create" | "rollout", ..] => 2,
            _ => 1,
        };
        let command = rest[..depth].join(" ");
        let help = helps
            .entry(command.clone())
            .or_insert_with(|| said("kubectl", &[&rest[..depth], &["--help"]].concat()));
        assert!(help.contains(&format!("kubectl {command}")), "{place}: no {command}: {help}");
        let unknown = unknown_options(words, &format!("{help}\n{ours}"));
        assert_eq!(unknown, [""; 0], "{place}: {help}");
        for word in &rest {
            if let Some((kind, name)) = word.split_once('/')
                && let Some(known) = names.get(kind)
            {
                assert!(known.iter().any(|known| known == name), "{place}: {word} isn't installed");
            }
            // Labels and taints of nodes, and labels of pods.
            let label = word.split(['=', ':']).next().unwrap_or_default().trim_end_matches('-');
            if label.starts_with(PREFIX) || label.starts_with("app.kubernetes.io/") {
                assert!(text.contains(&format!("\"{label}\"")), "{place}: nothing has {label}");
            }
        }
        for pair in rest.windows(2).filter(|pair| ["-f", "-k"].contains(&pair[0])) {
            assert!(root().join(pair[1]).exists(), "{place}: there is no {}", pair[1]);
        }
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn options_are_looked_up() {
    let help = "Options:\n    -f, --filename=[]:\n\tThe files.\n      --dry-run string[=\"client\"]   simulate\n  -k, --kustomize=''\n";
    let none: [&str; 0] = [];
    assert_eq!(unknown_options(&["x", "-f", "a", "--dry-run=client", "-k"], help), none);
    assert_eq!(unknown_options(&["--filenames", "-x", "--dry-run"], help), ["--filenames", "-x"]);
}

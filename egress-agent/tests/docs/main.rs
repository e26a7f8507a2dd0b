//! The documentation says what the program does: its examples compile, its command lines parse, its
//! links lead somewhere, and nothing that a user may meet is left unexplained. `claims` sees to it that each
//! fenced block has a test: a block with `file=PATH` shows lines of that file, one with `by=PATH` what that
//! source writes, and `helm` says that they are values of the chart.

mod claims;
mod commands;
mod comments;
mod exit_codes;
mod flows;
mod glossary;
mod lines;
mod log_keys;
mod markdown;
mod messages;
mod names;
mod places;
mod readme;
mod shell;
mod shown;
mod sources;
mod spans;
mod unwritten;
mod values;
mod ways;

use std::{collections::BTreeMap, fs, path::Path};

use clap::{CommandFactory, Parser};
use egress_agent::{
    cli::{Cli, uninstall},
    config::{self, RawFile},
    telemetry::ResponseFlag,
};
use egress_ebpf::reason::Reason;
use markdown::{Block, Document, documents, root};

const TROUBLESHOOTING: &str = "docs/troubleshooting.md";

fn troubleshooting() -> Document {
    let path = Path::new(TROUBLESHOOTING);
    documents().into_iter().find(|document| document.path == path).expect(TROUBLESHOOTING)
}

#[test]
fn every_reason_is_explained() {
    let document = troubleshooting();
    for reason in Reason::ALL {
        assert!(
            document.headings.iter().any(|heading| heading == reason.name()),
            "{TROUBLESHOOTING} has no heading `{}`",
            reason.name()
        );
    }
    // And no heading that looks like one stands for a reason that no longer exists.
    for heading in &document.headings {
        let like_a_reason = heading.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(
            !like_a_reason || Reason::ALL.iter().any(|reason| reason.name() == heading),
            "{TROUBLESHOOTING} explains `{heading}`, which is no reason"
        );
    }
}

#[test]
fn every_response_flag_is_explained() {
    let document = troubleshooting();
    for flag in ResponseFlag::ALL {
        let start = format!("{}: ", flag.code());
        assert!(
            document.headings.iter().any(|heading| heading.starts_with(&start)),
            "{TROUBLESHOOTING} has no heading that starts with `{start}`"
        );
    }
}

#[test]
fn links_lead_somewhere() {
    let (root, documents) = (root(), documents());
    let mut dead = Vec::new();
    for document in &documents {
        for (line, target) in &document.links {
            if target.starts_with("https://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => document.path.clone(),
                path => normal(&document.path.parent().expect("a file").join(path)),
            };
            let found = match documents.iter().find(|other| other.path == file) {
                Some(other) => anchor.is_empty() || other.anchors().contains(anchor),
                None => anchor.is_empty() && root.join(&file).exists(),
            };
            if !found {
                dead.push(format!("{}:{line}: {target}", document.path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> std::path::PathBuf {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                parts.pop();
            }
            part @ (std::path::Component::Prefix(_)
            | std::path::Component::RootDir
            | std::path::Component::Normal(_)) => parts.push(part),
        }
    }
    parts.iter().collect()
}

/// Blocks with `file=PATH` show that file of the repository, word for word; they are the files of one
/// directory, which grows (and is changed) from the top of a document to its end and is compiled
/// after each of them. A block without is compiled alone. A block with the word `bad` shows a
/// mistake: it must not compile, and the block after it shows what is said about it.
#[test]
fn configuration_examples_compile() {
    let mut count = 0;
    for document in documents() {
        let mut directory = BTreeMap::new();
        for (index, block) in document.blocks.iter().enumerate() {
            // Values of the chart are rendered by the tests of the deployment.
            if block.language != "yaml" || block.words.iter().any(|word| word == "helm") {
                continue;
            }
            count += 1;
            let mut files = directory.clone();
            let place = format!("{}:{}", document.path.display(), block.line);
            let bad = block.words.iter().any(|word| word == "bad").then(|| {
                let said = document.blocks.get(index + 1);
                &*said.unwrap_or_else(|| panic!("{place}: nothing is said about it")).text
            });
            if let Some(file) = block.value("file") {
                let text = fs::read_to_string(root().join(file)).expect(file);
                assert_eq!(block.text, text, "{place} is no longer what {file} holds");
                let name = file.rsplit('/').next().unwrap_or(file);
                files.insert(name.to_owned(), text);
            } else {
                let is_mesh = !block.text.contains("apiVersion:");
                let name = if is_mesh { "mesh.yaml" } else { "resources.yaml" };
                files = BTreeMap::from([(name.to_owned(), block.text.clone())]);
            }
            check_directory(&place, &files, bad);
            if block.value("file").is_some() {
                directory = files;
            }
        }
    }
    assert!(count > 3, "examples are found");
}

/// A block that begins with a path shows that file of a host.
#[test]
fn files_of_a_host_are_where_the_product_reads_them() {
    let mut count = 0;
    for document in documents() {
        for block in &document.blocks {
            let first = block.text.lines().next().unwrap_or_default();
            let Some(path) = first.strip_prefix("# /") else { continue };
            // A prompt of root's, not a comment.
            if block.language == "console" {
                continue;
            }
            count += 1;
            let place = format!("{}:{}", document.path.display(), block.line);
            for word in std::iter::once(&*format!("/{path}")).chain(block.text.split_whitespace()) {
                places::word(word).unwrap_or_else(|fault| panic!("{place}: {fault}"));
            }
        }
    }
    assert!(count > 3, "{count}");
}

fn check_directory(place: &str, files: &BTreeMap<String, String>, bad: Option<&str>) {
    let files: Vec<_> = files
        .iter()
        .map(|(path, text)| RawFile { path: path.clone(), text: text.clone() })
        .collect();
    match (config::compile(&files, None), bad) {
        (Err(problems), None) => panic!("{place} does not compile:\n{problems}"),
        (Ok(_), Some(_)) => panic!("{place} is marked `bad`, but it compiles"),
        (Ok(_), None) => {}
        (Err(problems), Some(said)) => assert_eq!(format!("{problems}\n"), said, "{place}"),
    }
}

/// The configuration under `deploy` is given to users to start from: it has no problems at all.
#[test]
fn shipped_configuration_compiles() {
    let directory = root().join("deploy/hosts/config");
    let files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|e| panic!("{}: {e}", directory.display()))
        .map(|entry| entry.expect("a readable directory").path())
        .map(|path| RawFile {
            text: fs::read_to_string(&path).expect("a readable file"),
            path: path.display().to_string(),
        })
        .collect();
    assert!(files.len() > 2, "the example is found");
    let compiled = config::compile(&files, None).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(compiled.warnings.is_empty(), "{:#?}", compiled.warnings);
}

/// Each step of the walkthrough is a directory that is whole, in either form, and each step's files
/// replace those of the step before.
#[test]
fn each_step_of_the_examples_is_a_configuration() {
    for (form, count) in [
        ("deploy/example", 4),
        ("deploy/example-gateway-api", 4),
        ("deploy/example-mtls", 4),
        ("deploy/example-policy", 3),
    ] {
        let root = root().join(form);
        let read = |path: &Path| RawFile {
            path: path.display().to_string(),
            text: fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
        };
        let mesh = read(&root.join("mesh.yaml"));
        let mut applied = BTreeMap::new();
        let mut steps = 0;
        let mut dirs: Vec<_> =
            fs::read_dir(&root).expect(form).map(|entry| entry.expect(form).path()).collect();
        dirs.sort();
        for dir in dirs.iter().filter(|path| path.is_dir()) {
            let files: Vec<_> = fs::read_dir(dir)
                .expect("a step")
                .map(|entry| read(&entry.expect("a file").path()))
                .collect();
            applied.extend(files.iter().map(|file| {
                let name = file.path.rsplit('/').next().unwrap_or_default().to_owned();
                (name, file.clone())
            }));
            for files in [files, applied.values().cloned().collect()] {
                if let Err(problems) = config::compile(&files, Some(&mesh)) {
                    panic!("{}: {problems}", dir.display());
                }
            }
            steps += 1;
        }
        assert_eq!(steps, count, "{form}");
    }
}

#[test]
fn command_lines_parse() {
    let (mut agent, mut xtask) = (0, 0);
    let subcommands = xtask_subcommands();
    for document in documents() {
        for block in &document.blocks {
            for (line, command) in shell::commands(block) {
                let place = format!("{}:{line}", document.path.display());
                for words in shell::simple_commands(&command) {
                    agent += usize::from(check_agent(&place, &words));
                    xtask += usize::from(check_xtask(&place, &words, &subcommands));
                }
            }
        }
    }
    assert!(agent > 5 && xtask > 2, "command lines are found: {agent} and {xtask}");
}

/// Whether the command runs `egress-agent`; if it does, its arguments have to parse.
fn check_agent(place: &str, words: &[String]) -> bool {
    let is_agent = |word: &String| {
        word == "egress-agent" || (word.starts_with('/') && word.ends_with("/egress-agent"))
    };
    // After `sudo`, `nsenter …` and the like; but `/sys/fs/bpf/egress-agent` as an argument of
    // something else is a directory.
    let wrappers = ["sudo", "nsenter", "ip", "setpriv", "systemd-run", "exec", "kubectl"];
    let Some(start) = words.iter().position(is_agent) else { return false };
    if start > 0 && !wrappers.contains(&words[0].as_str()) {
        return false;
    }
    check_arguments(place, &words[start..]);
    true
}

fn check_arguments(place: &str, words: &[String]) {
    if let Err(error) = Cli::try_parse_from(words) {
        use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
        assert!(matches!(error.kind(), DisplayHelp | DisplayVersion), "{place}:\n{error}");
    }
}

fn check_xtask(place: &str, words: &[String], subcommands: &[String]) -> bool {
    let Some(at) = words.windows(2).position(|pair| pair == ["cargo", "xtask"]) else {
        return false;
    };
    let subcommand = words.get(at + 2).unwrap_or_else(|| panic!("{place}: no subcommand"));
    assert!(subcommands.contains(subcommand), "{place}: cargo xtask {subcommand} is not there");
    true
}

/// The variants of xtask's `enum Command`, as clap names them.
fn xtask_subcommands() -> Vec<String> {
    let source = fs::read_to_string(root().join("xtask/src/main.rs")).expect("xtask's source");
    let body = source.split_once("enum Command {").expect("its commands").1;
    let body = body.split_once("\n}").expect("their end").0;
    let names: Vec<_> = body
        .lines()
        // One level deep: variants, neither their documentation nor their fields.
        .filter_map(|line| line.strip_prefix("    ").filter(|rest| !rest.starts_with(' ')))
        .map(|line| line.chars().take_while(char::is_ascii_alphanumeric).collect::<String>())
        .filter(|name| !name.is_empty())
        .map(|name| name.to_lowercase())
        .collect();
    assert!(names.contains(&"demo".to_owned()), "{names:?}");
    names
}

/// The command lines of the systemd units, with the variables of the environment files beside them.
#[test]
fn units_start_what_exists() {
    for unit in ["egress-node.service", "egress-gateway.service"] {
        let environment = unit.replace(".service", ".env");
        let path = root().join("deploy/systemd").join(environment);
        started(unit, &fs::read_to_string(path).expect(unit));
    }
}

/// A flood of lines of one workload's must cost no other workload its lines: journald's limit counts all of a unit's.
#[test]
fn journald_drops_no_lines_of_the_units() {
    for unit in ["egress-node.service", "egress-gateway.service"] {
        let text = fs::read_to_string(root().join("deploy/systemd").join(unit)).expect(unit);
        let (_, service) = text.split_once("[Service]").expect(unit);
        let service = service.split("\n[").next().unwrap_or_default();
        assert!(service.lines().any(|line| line == "LogRateLimitIntervalSec=0"), "{unit}");
    }
}

/// What a unit starts with this environment file is a command line of the agent's.
fn started(unit: &str, environment: &str) {
    let text = fs::read_to_string(root().join("deploy/systemd").join(unit)).expect(unit);
    let variables: BTreeMap<_, _> = environment
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .collect();
    let start = text
        .replace("\\\n", " ")
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=").map(str::to_owned))
        .unwrap_or_else(|| panic!("{unit} has no ExecStart"));
    let line = start
        .split_whitespace()
        .map(|word| match word.strip_prefix('$') {
            Some(name) => variables
                .get(name)
                .unwrap_or_else(|| panic!("{unit}: {name} isn't in its .env"))
                .trim_matches('"'),
            None => word,
        })
        .collect::<Vec<_>>()
        .join(" ");
    let words = &shell::simple_commands(&line)[0];
    assert!(check_agent(unit, words), "{unit}: {line}");
}

/// `uninstall` knows every unit that is shipped, and no other.
#[test]
fn what_is_installed_is_what_is_uninstalled() {
    fn below(dir: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.path().is_dir() {
                true => below(&entry.path(), &format!("{name}/"), found),
                false => found.push(name),
            }
        }
    }
    let mut shipped = Vec::new();
    below(&root().join("deploy/systemd"), "", &mut shipped);
    // They go into the configuration's directory.
    shipped.retain(|name| !name.ends_with(".env"));
    shipped.sort();
    let mut known = uninstall::UNITS.map(str::to_owned).to_vec();
    known.sort();
    assert_eq!(shipped, known);
}

/// After a reboot, workloads wait for enforcement: for the pins where the agent's unit makes them.
#[test]
fn workloads_start_after_enforcement() {
    let text = |name: &str| {
        fs::read_to_string(root().join("deploy/systemd").join(name)).expect("a unit's file")
    };
    let slice = text("workloads-.slice.d/egress.conf");
    let has = |line: &str| slice.lines().any(|other| other == line);
    assert!(has("After=egress-node.service"), "{slice}");
    let pins = Path::new("/sys/fs/bpf/egress-agent");
    // Not the maps' pins: a first start makes them before its programs are in force.
    let programs = pins.join("v*/links/cgroup_egress-cgroup-*");
    assert!(has(&format!("AssertPathExistsGlob={}", programs.display())), "{slice}");
    // Where they are by default, and by the unit.
    let unit = text("egress-node.service") + &text("egress-node.env");
    // The agent is started with the slice by its own [Install], so that `disable` undoes it.
    assert!(unit.contains("\nWantedBy=multi-user.target workloads.slice\n"), "{unit}");
    assert!(!unit.contains("--bpffs"), "{unit}");
    let command = Cli::command();
    let node = command.find_subcommand("node").expect("egress-agent node");
    let bpffs = node.get_arguments().find(|argument| argument.get_id() == "bpffs").expect("it");
    assert_eq!(bpffs.get_default_values(), [pins.as_os_str()]);
}

/// The fence's words are only those that the tests know.
#[test]
fn fences_say_nothing_else() {
    for document in documents() {
        for Block { line, language, words, .. } in &document.blocks {
            let known = |word: &String| {
                ["bad", "helm"].contains(&&**word)
                    || word.starts_with("file=")
                    || word.starts_with("by=")
            };
            let place = format!("{}:{line}", document.path.display());
            assert!(words.iter().all(known), "{place}: {words:?}");
            let languages = ["yaml", "console", "sh", "text", "ini", "json"];
            assert!(languages.contains(&language.as_str()), "{place}: {language:?}");
        }
    }
}

//! The command lines of a page, program by program: what they name is there. `command_lines_parse` has the
//! agent's own, a unit test of xtask has `cargo xtask`, and the deployment's tests have kubectl and helm.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
    sync::{LazyLock, Mutex, PoisonError},
};

use crate::{
    markdown::{Block, collect, root},
    places, shell, shown,
    sources::is_in_sources,
};

/// Read elsewhere, as the module's documentation says.
const ELSEWHERE: [&str; 3] = ["egress-agent", "kubectl", "helm"];
/// Programs of the system whose options are looked up in what they say about themselves.
const SYSTEM: [&str; 14] = [
    "chgrp",
    "chmod",
    "cp",
    "curl",
    "grep",
    "groupadd",
    "install",
    "journalctl",
    "openssl",
    "sed",
    "systemctl",
    "systemd-run",
    "usermod",
    "apt",
];
/// What copies an image to a registry. No test has one.
const NOT_RUN: &str = "skopeo";

/// What is wrong with a block of command lines.
pub(crate) fn faults(block: &Block) -> Vec<String> {
    let mut faults = Vec::new();
    let commands = shell::commands(block);
    if commands.is_empty() {
        faults.push("it has no command".to_owned());
    }
    for (_, line) in &commands {
        for words in shell::simple_commands(&substituted(line)) {
            faults.extend(
                command(&words).err().map(|fault| format!("`{}`: {fault}", words.join(" "))),
            );
        }
    }
    if block.language == "console" {
        faults.extend(printed(block));
    }
    faults
}

/// What is wrong with what the commands print: flows have their form, and other output of the agent's is what
/// the source `by=PATH` writes. What other programs print, the end-to-end tests of the walkthrough compare.
fn printed(block: &Block) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut continued, mut of_agent) = (false, false);
    for line in block.text.lines().filter(|line| !line.trim().is_empty()) {
        let prompted = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "));
        if continued || prompted.is_some() {
            of_agent |= line.contains("egress-agent ");
            of_agent &= continued || line.contains("egress-agent ");
            continued = line.ends_with('\\');
        } else if line.contains(" -> ") {
            faults.extend(shown::flow(line).err());
        } else if of_agent {
            faults.extend(match block.value("by") {
                Some(source) => shown::worded(source, line).err(),
                None => Some(format!("nothing says which source writes {line:?}")),
            });
        }
    }
    faults
}

/// `NAME=$(command)` as the command.
pub(crate) fn substituted(line: &str) -> String {
    let inside = line.split_once("=$(").and_then(|(name, rest)| {
        let is_name = name.bytes().all(|b| b.is_ascii_uppercase());
        rest.strip_suffix(')').filter(|_| is_name)
    });
    inside.unwrap_or(line).to_owned()
}

/// The variables before a command, and the command.
fn parted(words: &[String]) -> (Vec<&str>, &[String]) {
    let is_variable = |word: &String| {
        let name = word.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
    };
    let count = words.iter().take_while(|word| is_variable(word)).count();
    (words[..count].iter().map(String::as_str).collect(), &words[count..])
}

/// Whether this is a program of the system whose options are looked up.
pub(crate) fn is_known(program: &str) -> bool {
    SYSTEM.contains(&program)
}

/// What is wrong with a simple command.
pub(crate) fn command(words: &[String]) -> Result<(), String> {
    let (variables, words) = parted(words);
    for variable in variables {
        let name = variable.split('=').next().unwrap_or_default();
        if name.starts_with("EGRESS_") && !is_in_sources(name) {
            return Err(format!("nothing reads {name}"));
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((program, rest)) = words.split_first() else { return Ok(()) };
    files(rest)?;
    match *program {
        "cargo" if rest.first() == Some(&"xtask") => Ok(()),
        "cargo" => cargo(rest),
        NOT_RUN => Ok(()),
        program if ELSEWHERE.contains(&program) => Ok(()),
        program if SYSTEM.contains(&program) => {
            options(program, rest)?;
            match program {
                "systemctl" => {
                    verb(program, rest)?;
                    let named = rest.iter().skip_while(|word| word.starts_with('-')).skip(1);
                    units(&named.copied().collect::<Vec<_>>())
                }
                "journalctl" => units(&after(rest, "--unit")),
                "curl" => curl(rest),
                "grep" => searched(rest),
                "sed" => edited(rest),
                "apt" => {
                    verb(program, rest)?;
                    package(rest)
                }
                _ => Ok(()),
            }
        }
        _ => Err("no checker knows this program".into()),
    }
}

fn after<'w>(words: &[&'w str], option: &str) -> Vec<&'w str> {
    words.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1]).collect()
}

/// Files of the repository that are named are there.
fn files(words: &[&str]) -> Result<(), String> {
    for word in words.iter().filter(|word| word.starts_with("deploy/")) {
        let path = root().join(word);
        let is_there = match word.rsplit_once("/*.") {
            None => path.exists(),
            Some((directory, extension)) => {
                let mut found = Vec::new();
                let directory = root().join(directory);
                if directory.is_dir() {
                    collect(&directory, extension, &mut found);
                }
                !found.is_empty()
            }
        };
        if !is_there {
            return Err(format!("there is no {word}"));
        }
    }
    words.iter().try_for_each(|word| places::word(word))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `cargo build` and `cargo test`: packages, programs of tests, and the names that select tests.
fn cargo(words: &[&str]) -> Result<(), String> {
    let mine: Vec<&str> = words.iter().take_while(|word| **word != "--").copied().collect();
    let mut directory = None;
    for package in [after(&mine, "-p"), after(&mine, "--package")].concat() {
        let directories = ["egress-agent", "egress-ebpf", "tests", "xtask"];
        let manifest = |directory: &&str| {
            read(&format!("{directory}/Cargo.toml")).contains(&format!("name = \"{package}\"\n"))
        };
        let found = directories.into_iter().find(manifest);
        directory = Some(found.ok_or_else(|| format!("no package is named {package}"))?);
    }
    let directory = directory.ok_or("it names no package")?;
    let takes_value = ["-p", "--package", "--test"];
    let known = ["build", "test", "--release", "--lib", "-p", "--package", "--test"];
    let mut text = String::new();
    for test in after(&mine, "--test") {
        let places =
            [format!("{directory}/tests/{test}.rs"), format!("{directory}/tests/{test}/main.rs")];
        let place = places.into_iter().find(|place| root().join(place).is_file());
        text.push_str(&read(&place.ok_or_else(|| format!("{directory} has no test {test}"))?));
    }
    let mut value = false;
    for word in mine {
        if std::mem::replace(&mut value, takes_value.contains(&word)) || known.contains(&word) {
            continue;
        }
        let path = format!("{directory}/src/{}", word.replace("::", "/"));
        let is_module = root().join(format!("{path}.rs")).is_file() || root().join(path).is_dir();
        if word.starts_with('-') || !(is_module || text.contains(&format!("fn {word}"))) {
            return Err(format!("{word} selects nothing"));
        }
    }
    Ok(())
}

/// What a program says about itself.
fn help(program: &str, ask: &[&str]) -> String {
    static HELP: LazyLock<Mutex<BTreeMap<String, String>>> = LazyLock::new(Mutex::default);
    let mut helps = HELP.lock().unwrap_or_else(PoisonError::into_inner);
    let help = helps.entry([&[program], ask].concat().join(" ")).or_insert_with(|| {
        let done = Command::new(program).args(ask).env("LC_ALL", "C").output();
        let done = done.unwrap_or_else(|error| panic!("{program}: {error}"));
        String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
    });
    help.clone()
}

/// The options of a program are among those that it says it has. An option of one letter may have its value, or other
/// letters, behind it: the first letter counts.
fn options(program: &str, words: &[&str]) -> Result<(), String> {
    let ask: &[&str] = match program {
        "curl" => &["--help", "all"],
        "openssl" => &[words.first().copied().unwrap_or_default(), "-help"],
        _ => &["--help"],
    };
    let help = help(program, ask);
    let end = words.iter().position(|word| *word == "egress-agent").unwrap_or(words.len());
    // What systemd-run runs has options of its own.
    let end = match program {
        "systemd-run" => words.iter().position(|word| !word.starts_with('-')).unwrap_or(end),
        _ => end,
    };
    // A value may begin with a sign: `--since -5min`.
    let is_option = |word: &&&str| {
        word.starts_with("--")
            || word.strip_prefix('-').is_some_and(|rest| rest.starts_with(char::is_alphabetic))
    };
    for word in words[..end].iter().filter(is_option) {
        let is_long = program == "openssl" || word.starts_with("--");
        let option = if is_long { word.split('=').next().unwrap_or_default() } else { &word[..2] };
        let is_there = help.match_indices(option).any(|(at, _)| {
            let before = help[..at].chars().next_back();
            let rest = help[at + option.len()..].chars().next();
            let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '-';
            !before.is_some_and(goes_on) && !rest.is_some_and(goes_on)
        });
        if !is_there {
            return Err(format!("{program} has no option {option}"));
        }
    }
    Ok(())
}

/// The first word that is no option is a command of the program's.
fn verb(program: &str, words: &[&str]) -> Result<(), String> {
    let verb = words.iter().find(|word| !word.starts_with('-')).ok_or("it names no command")?;
    let help = help(program, &["--help"]);
    let is_there = help.lines().any(|line| line.split_whitespace().next() == Some(verb));
    if is_there { Ok(()) } else { Err(format!("{program} has no command {verb}")) }
}

fn units(words: &[&str]) -> Result<(), String> {
    let values = after(words, "--property");
    for word in words
        .iter()
        .filter(|word| !word.starts_with('-') && !values.contains(word) && **word != "NAME")
    {
        let file = format!(
            "deploy/systemd/{}",
            if word.contains('.') { (*word).into() } else { format!("{word}.service") }
        );
        if !root().join(&file).is_file() {
            return Err(format!("{word} is no unit of this product"));
        }
    }
    Ok(())
}

/// What the agents answer: the port, the page and its parameters.
pub(crate) fn curl(words: &[&str]) -> Result<(), String> {
    let url = words.iter().find(|word| word.contains("localhost"));
    let Some(url) = url else { return Ok(()) };
    let rest = url.trim_start_matches("http://").trim_start_matches("localhost");
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (port, page) = place.split_once('/').ok_or("it names no page")?;
    let source = match (port, words.contains(&"--unix-socket")) {
        ("", true) => "egress-agent/src/admin/control/server.rs",
        (":15000" | ":15021" | ":15090", false) => "egress-agent/src/admin/routes.rs",
        (":15020", false) => "egress-agent/src/admin/node_metrics.rs",
        _ => return Err(format!("nothing of ours answers at {port:?}")),
    };
    let source = read(source);
    if !source.contains(&format!("\"/{page}\"")) {
        return Err(format!("there is no page /{page}"));
    }
    let given = after(words, "--data-urlencode");
    for parameter in query.split('&').chain(given).filter(|text| !text.is_empty()) {
        let name = parameter.split('=').next().unwrap_or_default();
        if !is_in_sources(&format!("\"{name}\"")) && !source.contains(name) {
            return Err(format!("/{page} has no parameter {name}"));
        }
    }
    Ok(())
}

/// What is searched for in metrics and statistics is there.
fn searched(words: &[&str]) -> Result<(), String> {
    let Some(pattern) = words.iter().find(|word| !word.starts_with('-')) else {
        return Err("it searches for nothing".into());
    };
    let is_there = match pattern.split_once('=') {
        Some((label, _)) => {
            read("docs/telemetry.md").contains(&format!("{label}}}"))
                || read("docs/telemetry.md").contains(&format!("{label},"))
        }
        None => {
            let name = pattern.rsplit('.').next().unwrap_or(pattern);
            *pattern == "URI" || is_in_sources(&format!("\"{name}\""))
        }
    };
    if is_there { Ok(()) } else { Err(format!("nothing has {pattern}")) }
}

/// An environment file is changed as it says, and the unit's command line is still one of the agent's.
fn edited(words: &[&str]) -> Result<(), String> {
    let [.., expression, file] = words else { return Err("it names no file".into()) };
    let name = file.strip_prefix("/etc/egress/").ok_or("it edits a file that isn't ours")?;
    let shipped = root().join("deploy/systemd").join(name);
    let before = fs::read_to_string(&shipped).map_err(|error| format!("{name}: {error}"))?;
    let done = Command::new("sed").arg(expression).arg(&shipped).output();
    let done = done.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() || text == before {
        return Err(format!("it changes nothing in {name}"));
    }
    let unit = name.replace(".env", ".service");
    crate::started(&unit, &text);
    Ok(())
}

/// The package has the version of this program.
fn package(words: &[&str]) -> Result<(), String> {
    let version = format!("_{}_", env!("CARGO_PKG_VERSION"));
    let files: BTreeSet<&&str> = words.iter().filter(|word| word.ends_with(".deb")).collect();
    let wrong = files.into_iter().find(|file| !file.contains(&version));
    wrong.map_or(Ok(()), |file| Err(format!("{file} has another version than this program")))
}

//! Every fenced block of every document has a checker: what a page shows is run, parsed or looked up. A block
//! that no checker knows is a fault, so that nothing new stays unchecked.

use std::{collections::BTreeMap, fs};

use egress_agent::otlp::Settings;
use serde_json::Value;

use crate::{
    lines,
    markdown::{Block, Document, documents, root},
    shown,
};

/// Whose block it is.
enum Claim {
    /// Another test of this program, or one of the deployment's, reads every block of this kind.
    Elsewhere,
    /// What is wrong with it.
    Checked(Vec<String>),
}

type Checker = fn(&Document, &Block, usize) -> Option<Claim>;

/// One for each kind of block, and the tests that they stand for.
const CHECKERS: [Checker; 5] = [configuration, command_lines, unit_files, plugin, shown];

/// `configuration_examples_compile`; with the word `helm`, `the_values_of_the_documentation_render`.
fn configuration(_: &Document, block: &Block, _: usize) -> Option<Claim> {
    (block.language == "yaml").then_some(Claim::Elsewhere)
}

fn command_lines(_: &Document, block: &Block, _: usize) -> Option<Claim> {
    ["console", "sh"].contains(&&*block.language).then(|| Claim::Checked(lines::faults(block)))
}

/// A file of systemd's: its place in the first line, and nothing that systemd does not know. Or variables for a
/// collector, and nothing that the agent does not take.
fn unit_files(_: &Document, block: &Block, _: usize) -> Option<Claim> {
    let check = if block.text.starts_with("OTEL_") { environment } else { unit_file };
    (block.language == "ini")
        .then(|| Claim::Checked(check(&block.text).err().into_iter().collect()))
}

/// The agent's environment: what it reads there.
fn environment(text: &str) -> Result<(), String> {
    let given: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once('=')).collect();
    if given.len() != text.lines().count() {
        return Err("a line is no NAME=VALUE".into());
    }
    let get = |name: &str| given.get(name).map(|value| (*value).to_owned());
    Settings::read(&get, "egress", &[]).map(drop).map_err(|error| error.to_string())
}

fn unit_file(text: &str) -> Result<(), String> {
    let first = text.lines().next().unwrap_or_default();
    let place =
        first.strip_prefix("# /etc/systemd/system/").ok_or("its place isn't in its first line")?;
    let (unit, file) = place.split_once(".d/").ok_or_else(|| format!("{place} is no drop-in"))?;
    let example = unit == "billing.service";
    if !example && !root().join("deploy/systemd").join(unit).is_file() {
        return Err(format!("{unit} is no unit of this product"));
    }
    if !file.ends_with(".conf") {
        return Err(format!("{file} is not read: its name ends in another way than .conf"));
    }
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    // A unit of its own, so that systemd reads nothing else.
    let path = directory.path().join("shown.service");
    let text = text.replace("[Service]", "[Service]\nType=oneshot\nExecStart=/bin/true");
    fs::write(&path, text).map_err(|error| error.to_string())?;
    let mut verify = std::process::Command::new("systemd-analyze");
    let done = verify.arg("verify").arg(&path).output();
    let said =
        String::from_utf8_lossy(&done.map_err(|error| error.to_string())?.stderr).into_owned();
    let complaints: Vec<&str> =
        said.lines().filter(|line| line.contains("shown.service:")).collect();
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
}

/// An entry for the network plug-ins' list: the program's name, and the fields that it reads.
fn plugin(_: &Document, block: &Block, _: usize) -> Option<Claim> {
    if block.language != "json" {
        return None;
    }
    let entry: BTreeMap<String, Value> = match serde_json::from_str(&block.text) {
        Ok(entry) => entry,
        Err(error) => return Some(Claim::Checked(vec![error.to_string()])),
    };
    let path = root().join("egress-agent/src/cli/cni/request.rs");
    let source = fs::read_to_string(path).expect("the plug-in's source");
    let known = |field: &&String| *field == "type" || source.contains(&format!("[\"{field}\"]"));
    let mut faults: Vec<String> = entry
        .keys()
        .filter(|field| !known(field))
        .map(|field| format!("{field} is not read"))
        .collect();
    if entry.get("type").and_then(Value::as_str) != Some("egress-agent-cni") {
        faults.push("it is another plug-in's".into());
    }
    Some(Claim::Checked(faults))
}

fn shown(document: &Document, block: &Block, index: usize) -> Option<Claim> {
    if block.language != "text" {
        return None;
    }
    // `configuration_examples_compile` compares what is said about a mistake.
    let before = index.checked_sub(1).and_then(|index| document.blocks.get(index));
    if before.is_some_and(|before| before.words.iter().any(|word| word == "bad")) {
        return Some(Claim::Elsewhere);
    }
    // Made by the code; a unit test compares it.
    if document.path.starts_with("docs/reference") {
        return Some(Claim::Elsewhere);
    }
    shown::faults(block).map(Claim::Checked)
}

fn faults(document: &Document) -> Vec<String> {
    let mut faults = Vec::new();
    for (index, block) in document.blocks.iter().enumerate() {
        let place = format!("{}:{}", document.path.display(), block.line);
        let claims: Vec<Claim> =
            CHECKERS.iter().filter_map(|checker| checker(document, block, index)).collect();
        if claims.is_empty() {
            faults.push(format!("{place}: no checker claims this {} block", block.language));
        }
        for claim in claims {
            match claim {
                Claim::Elsewhere => {}
                Claim::Checked(wrong) => {
                    faults.extend(wrong.into_iter().map(|fault| format!("{place}: {fault}")));
                }
            }
        }
    }
    faults
}

#[test]
fn every_block_is_checked() {
    let documents = documents();
    let count: usize = documents.iter().map(|document| document.blocks.len()).sum();
    assert!(count > 200, "{count}");
    let faults: Vec<String> = documents.iter().flat_map(faults).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_block_that_nobody_checks_and_one_that_is_wrong_are_found() {
    let of = |text: &str| faults(&Document::parse("docs/a.md".into(), text));
    for good in [
        "```console\n# systemctl restart egress-node\n```\n",
        "```text\nNov 23 05:06:47.310: a/b 10.0.0.5 -> 203.0.113.9 ICMP DENIED (protocol) at pod, interface x\n```\n",
        "```json\n{\"type\": \"egress-agent-cni\", \"timeoutSeconds\": 30}\n```\n",
        "```ini\n# /etc/systemd/system/egress-node.service.d/x.conf\n[Service]\nSlice=a.slice\n```\n",
    ] {
        assert_eq!(of(good), [""; 0], "{good}");
    }
    for wrong in [
        "```text\nsomething that nobody wrote\n```\n",
        "```toml\na = 1\n```\n",
        "```console\n# systemctl restart egress-nodes\n```\n",
        "```console\n# curl -s localhost:15000/statistics\n```\n",
        "```console\n# no-such-program\n```\n",
        "```console\n# cp deploy/systemd/no-such.env /etc/egress/\n```\n",
        "```text\na/b 10.0.0.5 -> 203.0.113.9 ICMP DENIED (protocoll) at pod, interface x\n```\n",
        "```text\nsum(egress_no_such_total) > 1\n```\n",
        "```json\n{\"type\": \"egress-agent-cni\", \"timeout\": 30}\n```\n",
        "```ini\n# /etc/systemd/system/egress-node.service.d/x.conf\n[Service]\nSlise=a.slice\n```\n",
        "```ini\n# /etc/systemd/system/egress-nodes.service.d/x.conf\n[Service]\nSlice=a.slice\n```\n",
    ] {
        assert_eq!(of(wrong).len(), 1, "{wrong}: {:?}", of(wrong));
    }
}

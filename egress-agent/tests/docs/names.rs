//! What a page names in a sentence is there: options, commands, metrics, variables of the environment, units,
//! files, pages of the admin port, and operators of the access log.

use std::{collections::BTreeSet, fs, sync::LazyLock};

use clap::{Command, CommandFactory as _};
use egress_agent::{
    cli::Cli,
    config::{self, RawFile},
};
use egress_ebpf::reason::Reason;
use regex::Regex;

use crate::{
    lines,
    markdown::{documents, root},
    places::SLICES,
    shell,
    shown::{asked, metrics},
    sources::{is_a_name, is_in_sources},
    spans::spans,
};

/// Options of other programs: helm's, the kubelet's, systemd-nspawn's and podman's.
const OTHERS: [&str; 3] = ["--set", "--register-with-taints", "--cgroup-parent"];
/// Names of other programs', of the kernel's and of protocols.
const FOREIGN: [&str; 21] = [
    "AF_ALG",
    "AF_KEY",
    "AF_RDS",
    "AF_TIPC",
    "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS",
    "CiliumEgressGatewayPolicy",
    "CiliumNetworkPolicy",
    "IP_BIND_ADDRESS_NO_PORT",
    "NodePort",
    "access_denied",
    "bpf_get_attach_cookie",
    "bpf_jiffies64",
    "epoll_wait",
    "ipv4NativeRoutingCIDR",
    "natOutgoing",
    "nonMasqueradeCIDRs",
    "request_key",
    "sch_ingress",
    "toCIDR",
    "toFQDNs",
    "unrecognized_name",
];
/// Programs that pages name in sentences and whose options nothing looks up: the objects or commands of each.
const OBJECTS: [(&str, &[&str]); 14] = [
    ("bpftool", &["link", "map", "net", "prog"]),
    ("buildah", &["build"]),
    ("cilium", &["policy", "status"]),
    ("crictl", &["ps"]),
    ("docker", &["build", "ps"]),
    ("helm", &["install", "rollback", "test", "uninstall", "upgrade"]),
    ("hubble", &["observe"]),
    ("ip", &["address", "link", "neigh", "netns", "route", "rule"]),
    ("istioctl", &["analyze", "proxy-status", "x"]),
    ("kubectl", &["apply", "debug", "delete", "describe", "get", "logs", "port-forward"]),
    ("linkerd", &["check", "viz"]),
    ("perf", &["record", "report"]),
    ("promtool", &["check"]),
    ("tc", &["filter", "qdisc"]),
];
/// Those of them that do something with an object, and what.
const WITH_VERBS: [&str; 3] = ["bpftool", "ip", "tc"];
const VERBS: [&str; 6] = ["add", "del", "detach", "replace", "run", "show"];
/// Of the changes of earlier versions, which name what is no longer there.
const HISTORY: &str = "CHANGELOG.md";

/// The long options of a command and of all below it.
fn options(command: &Command, found: &mut BTreeSet<String>) {
    own_options(command, found);
    command.get_subcommands().for_each(|below| options(below, found));
}

/// Those of the command itself.
fn own_options(command: &Command, found: &mut BTreeSet<String>) {
    let own = command.get_arguments().filter_map(clap::Arg::get_long_and_visible_aliases);
    found.extend(own.flatten().map(|name| format!("--{name}")));
    found.extend(["--help", "--version"].map(str::to_owned));
}

/// Whether `cargo xtask` has it: clap names an option after its field.
fn of_xtask(option: &str) -> bool {
    static SOURCES: LazyLock<String> = LazyLock::new(|| {
        let mut paths = Vec::new();
        crate::markdown::collect(&root().join("xtask/src"), "rs", &mut paths);
        crate::markdown::collect(&root().join("tests/bench/src"), "rs", &mut paths);
        paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
    });
    let field = format!("{}: ", option.trim_start_matches('-').replace('-', "_"));
    SOURCES
        .lines()
        .any(|line| line.trim_start().trim_start_matches("pub(crate) ").starts_with(&field))
}

fn option(word: &str, known: &BTreeSet<String>) -> Result<(), String> {
    let name = word.split('=').next().unwrap_or_default().trim_matches(['[', ']']);
    let is_known = match name.strip_suffix('…') {
        Some(start) => known.iter().any(|option| option.starts_with(start)),
        None => known.contains(name) || OTHERS.contains(&name) || of_xtask(name),
    };
    if is_known { Ok(()) } else { Err(format!("no program of ours has the option {name}")) }
}

/// `egress-agent …`: the commands and their options, whatever stands for values.
fn agent(words: &[&str]) -> Result<(), String> {
    let cli = Cli::command();
    let mut command = &cli;
    let mut known = BTreeSet::new();
    for word in words {
        let below = command.find_subcommand(word);
        if let Some(below) = below {
            command = below;
        } else if command.has_subcommands()
            && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
            && !word.starts_with('-')
        {
            return Err(format!("egress-agent has no command {word}"));
        }
    }
    options(command, &mut known);
    own_options(&cli, &mut known);
    let unknown = words.iter().find(|word| word.starts_with("--") && !known.contains(**word));
    unknown.map_or(Ok(()), |word| Err(format!("egress-agent {} has no {word}", command.get_name())))
}

/// `gateway --capture …`: a command line without the name of the program.
fn unnamed(words: &[&str]) -> Option<Result<(), String>> {
    let [first, second, ..] = words else { return None };
    let cli = Cli::command();
    let command = cli.find_subcommand(first).filter(|_| second.starts_with('-'))?;
    let shorts: Vec<char> = command
        .get_arguments()
        .chain(cli.get_arguments())
        .filter_map(clap::Arg::get_short)
        .chain(['h'])
        .collect();
    let is_unknown = |word: &&&str| {
        let short = word.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
        short.and_then(|rest| rest.chars().next()).is_some_and(|short| !shorts.contains(&short))
    };
    let unknown = words.iter().find(is_unknown);
    Some(unknown.map_or_else(|| agent(words), |word| Err(format!("{first} has no {word}"))))
}

/// `ip route add …`: the object, and what is done with it.
fn object(words: &[&str]) -> Option<Result<(), String>> {
    let [program, object, rest @ ..] = words else { return None };
    let (_, objects) = OBJECTS.iter().find(|(name, _)| name == program)?;
    let verb = rest.first().filter(|_| WITH_VERBS.contains(program));
    Some(match verb {
        _ if !objects.contains(object) => Err(format!("{program} has no {object}")),
        Some(verb) if !VERBS.contains(verb) => Err(format!("{program} {object} has no {verb}")),
        _ => Ok(()),
    })
}

/// A metric exists. A reason may look like one.
fn metric(span: &str) -> Result<(), String> {
    let is_reason = |name: &String| Reason::ALL.iter().any(|reason| reason.name() == name);
    let starts = |name: &String| metrics().iter().any(|known| known.starts_with(&**name));
    let unknown = asked(span).into_iter().find(|name| {
        !(metrics().contains(name) || is_reason(name) || (span.contains('<') && starts(name)))
    });
    unknown.map_or(Ok(()), |name| Err(format!("there is no metric {name}")))
}

fn unit(span: &str) -> Result<(), String> {
    let is_shipped = root().join("deploy/systemd").join(span).is_file();
    if is_shipped || SLICES.contains(&span) {
        Ok(())
    } else {
        Err(format!("{span} is not shipped"))
    }
}

/// A path in the repository, or one that the product uses on a host.
fn path(span: &str) -> Result<(), String> {
    let is_there = match span.split('/').next().unwrap_or_default() {
        "" => is_in_sources(span) || shipped().contains(span),
        "target" => {
            is_in_sources(span.trim_start_matches("target/").split('/').next().unwrap_or_default())
        }
        _ => root().join(span).exists(),
    };
    if is_there { Ok(()) } else { Err(format!("there is no {span}")) }
}

/// Everything below `deploy`, as text.
pub(crate) fn shipped() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut paths = Vec::new();
        for extension in ["yaml", "tpl", "env", "service", "conf", "json"] {
            crate::markdown::collect(&root().join("deploy"), extension, &mut paths);
        }
        paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
    });
    &TEXT
}

/// An operator of the access log is taken.
fn operator(span: &str) -> Result<(), String> {
    // What stands for any format, and for any header.
    let format = span.replace('…', "%s");
    let header = if span.starts_with("%RESP(") { "(:STATUS)" } else { "(:AUTHORITY)" };
    let format =
        ["(A)", "(A?B)", "(HEADER)"].iter().fold(format, |format, any| format.replace(any, header));
    let mesh = RawFile { path: "mesh.yaml".into(), text: format!("accessLogFormat: '{format}'\n") };
    config::compile(&[], Some(&mesh)).map(drop).map_err(|problems| format!("{span}: {problems}"))
}

/// A page of the admin port, or of the control socket.
pub(crate) fn page(span: &str) -> Result<(), String> {
    let name = span.split('?').next().unwrap_or_default();
    let sources = ["admin/routes.rs", "admin/control/server.rs", "admin/node_metrics.rs"];
    let is_there = sources.iter().any(|source| {
        let text = fs::read_to_string(root().join("egress-agent/src").join(source)).expect("it");
        text.contains(&format!("\"{name}\""))
    });
    if is_there { Ok(()) } else { Err(format!("nothing answers {name}")) }
}

/// A name of the program's: of a reason, a field, a flag, a setting of a unit, a test. A word of a sentence has
/// neither a capital letter nor an underscore in it.
fn name(span: &str) -> Result<(), String> {
    let word = span.split('=').next().unwrap_or_default();
    let is_plain = word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let is_camel = word
        .as_bytes()
        .windows(2)
        .any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase());
    let is_name = is_plain && (is_camel || word.contains('_'));
    if !is_name || is_a_name(word) || FOREIGN.contains(&word) {
        Ok(())
    } else {
        Err(format!("nothing is named {word}"))
    }
}

/// A page of an agent's port, on whatever host.
fn url(span: &str) -> Option<String> {
    static URL: LazyLock<Regex> = LazyLock::new(|| {
        let form = r"^(?:curl )?(?:http://)?(?:localhost|ADDRESS|GATEWAY)(:150\d\d/\S+)$";
        Regex::new(form).expect("a pattern")
    });
    URL.captures(span).map(|parts| format!("localhost{}", &parts[1]))
}

fn check(document: &str, span: &str, known: &BTreeSet<String>) -> Result<(), String> {
    let words: Vec<&str> = span.split_whitespace().collect();
    let Some(first) = words.first() else { return Ok(()) };
    if let Some(name) = first.strip_prefix("EGRESS_") {
        let name = name.split('=').next().unwrap_or_default();
        let is_read = is_in_sources(&format!("EGRESS_{name}"));
        return if is_read { Ok(()) } else { Err(format!("nothing reads EGRESS_{name}")) };
    }
    if *first == "egress-agent" {
        return agent(&words[1..]);
    }
    if let Some(result) = unnamed(&words).or_else(|| object(&words)).filter(|_| document != HISTORY)
    {
        return result;
    }
    if let Some(url) = url(span) {
        return lines::curl(&[&url]);
    }
    if words.len() > 1 && lines::is_known(first) && document != HISTORY {
        let mut commands = shell::simple_commands(&lines::substituted(span)).into_iter();
        return commands.try_for_each(|words| lines::command(&words));
    }
    if span.starts_with("--") {
        let mut options = words.iter().filter(|word| word.starts_with("--"));
        return options.try_for_each(|word| option(word, known));
    }
    if document != HISTORY
        && !asked(first).is_empty()
        && asked(first)[0].len() + 1 >= first.split(['{', '<']).next().unwrap_or_default().len()
    {
        return metric(span);
    }
    let is_plain = span.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./@".contains(&b));
    if is_plain
        && (span.ends_with(".service") || span.ends_with(".slice"))
        && !span.contains('/')
        && !span.contains("NAME")
    {
        return unit(span);
    }
    let tops = ["deploy/", "docs/", "egress-agent/", "egress-ebpf/", "tests/", "xtask/", "target/"];
    let ours = [
        "/etc/egress/",
        "/run/egress-agent/",
        "/run/egress-gateway/",
        "/usr/local/bin/egress",
        "/sys/fs/bpf/egress",
    ];
    if is_plain && tops.iter().chain(&ours).any(|top| span.starts_with(top)) {
        return path(span);
    }
    if document == "docs/telemetry.md" && span.len() > 1 && span.starts_with('/') {
        let elsewhere = ["/dev/", "/run/", "/proc/", "/sys/", "/etc/"];
        return if elsewhere.iter().any(|top| span.starts_with(top)) { Ok(()) } else { page(span) };
    }
    let is_operator = span.len() > 2
        && span.starts_with('%')
        && span.contains('%')
        && first.as_bytes()[1].is_ascii_uppercase();
    if is_operator && document != HISTORY {
        return operator(span);
    }
    // Another test compares the reference of metrics with the program.
    let is_elsewhere = [HISTORY, "docs/reference/metrics.md"].contains(&document);
    if is_elsewhere { Ok(()) } else { name(span) }
}

#[test]
fn what_sentences_name_is_there() {
    let mut known = BTreeSet::new();
    options(&Cli::command(), &mut known);
    let (mut faults, mut count) = (Vec::new(), 0);
    for document in documents() {
        let name = document.path.display().to_string();
        let text = fs::read_to_string(root().join(&document.path)).expect("a document");
        for (line, span) in spans(&text) {
            count += 1;
            faults.extend(
                check(&name, &span, &known).err().map(|fault| format!("{name}:{line}: {fault}")),
            );
        }
    }
    assert!(count > 2000, "{count}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_is_not_there_is_found() {
    let mut known = BTreeSet::new();
    options(&Cli::command(), &mut known);
    for good in [
        "--verdict denied",
        "egress-agent flows --from-pod shop/web --to-port 443",
        "egress_ready",
        "egress_exposed{promise}",
        "EGRESS_TEST_PATIENCE=10",
        "egress-node.service",
        "deploy/systemd",
        "/run/egress-agent/node.sock",
        "/run/egress-gateway/gateway.sock",
        "systemctl restart egress-node",
        "curl localhost:15000/clusters",
        "http://GATEWAY:15021/healthz/ready",
        "StartLimitIntervalSec=0",
        "no_tunnel",
        "streamIdleTimeout",
        "/config_dump?resource=",
        "%REQ(USER-AGENT):40%",
        "gateway --capture bind:8080",
        "flows -o json",
        "flows of a pod",
        "bpftool net show",
        "ip route add unreachable 10.244.0.0/16",
        "tc",
        "kubectl apply",
    ] {
        assert_eq!(check("docs/telemetry.md", good, &known), Ok(()), "{good}");
    }
    for wrong in [
        "--verdicts denied",
        "egress-agent flow",
        "egress-agent status --follow",
        "egress_readiness",
        "EGRESS_NO_SUCH=10",
        "egress-nodes.service",
        "deploy/system",
        "/run/egress-agent/nodes.sock",
        "/run/egress-gateway/node.sock",
        "systemctl restrt egress-node",
        "systemctl restart egress-nodes",
        "systemctl -Z restart egress-node",
        "curl localhost:15000/cluster",
        "http://GATEWAY:15021/healthz/readyy",
        "StartLimitIntervalSecs=0",
        "no_tunel_there",
        "streamIdleTimeoutes",
        "/config_dumps",
        "%USER_AGENT%",
        "gateway --captur bind:8080",
        "flows --tracee",
        "flows -Z json",
        "status --follow",
        "bpftool nte show",
        "bpftool net shwo",
        "ip rout add unreachable 10.244.0.0/16",
        "tc filtre del",
        "kubectl aply",
    ] {
        assert!(check("docs/telemetry.md", wrong, &known).is_err(), "{wrong}");
    }
    for old in ["gateway --captur bind:8080", "tc filtre del"] {
        assert_eq!(check(HISTORY, old, &known), Ok(()), "{old}");
    }
}

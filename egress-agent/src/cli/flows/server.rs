//! `--server`: other hosts' agents.
//!
//! An agent listens on no network for this. A host is asked by a remote shell, whose authentication and
//! encryption count, and which runs this program there; a path is a control socket or a file with flows.

use std::{path::PathBuf, process::Stdio, str::FromStr};

use anyhow::{Context as _, bail};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, ChildStdout, Command},
};

use crate::admin::control::{AskError, Line, LineBuffer};

/// How another host is asked, unless an option says otherwise. A password is not asked for: several shells
/// would ask at a time.
pub(super) const REMOTE_SHELL: &str =
    "ssh -o BatchMode=yes -o ConnectTimeout=10 -- {} egress-agent";
/// Where the name of the host belongs.
const HOST: &str = "{}";

/// Whom to ask, and what it is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) place: FlowSource,
}

/// Where its flows are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum FlowSource {
    /// A control socket, or a file.
    Path(PathBuf),
    /// What the remote shell calls the host.
    Host(String),
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "found `{text}`, expected a host, as in node-1 or root@node-1, or the path of a control \
                 socket or of a file, as in node-1=/tmp/flows.json"
            )
        };
        let (name, place) = match text.split_once('=') {
            Some((name, place)) if !name.contains('/') => (Some(name), place),
            _ => (None, text),
        };
        let (named, place) = if place.contains('/') {
            (place.to_owned(), FlowSource::Path(place.into()))
        } else {
            if !is_host(place) {
                return Err(wrong());
            }
            let bare = place.rsplit_once('@').map_or(place, |(_, host)| host);
            (bare.to_owned(), FlowSource::Host(place.to_owned()))
        };
        if name.is_some_and(|name| !is_host(name)) {
            return Err(wrong());
        }
        Ok(Self { name: name.map_or(named, str::to_owned), place })
    }
}

/// The name of a host, with a user's or without: nothing that a remote shell takes for an option, or that a
/// shell on the other end would read in its own way.
fn is_host(text: &str) -> bool {
    let plain = |b: u8| {
        b.is_ascii_alphanumeric()
            || matches!(b, b'.' | b'-' | b'_' | b'@' | b':' | b'%' | b'[' | b']')
    };
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(plain)
}

/// The words of `--remote-shell`, for this host.
fn command_line(shell: &str, host: &str, follow: bool) -> Vec<String> {
    let mut words: Vec<String> =
        shell.split_ascii_whitespace().map(|word| word.replace(HOST, host)).collect();
    words.extend(["flows", "--output", "lines"].map(str::to_owned));
    if follow {
        words.push("--follow".into());
    }
    words
}

/// `--remote-shell`.
///
/// # Errors
/// It has no place for the host.
pub(super) fn remote_shell(text: &str) -> Result<String, String> {
    if text.split_ascii_whitespace().skip(1).any(|word| word.contains(HOST)) {
        Ok(text.to_owned())
    } else {
        Err(format!("found `{text}`, expected a command with {{}} in the place of the host"))
    }
}

/// This program on another host, and what it writes.
#[derive(Debug)]
pub(super) struct Remote {
    child: Child,
    output: ChildStdout,
    lines: LineBuffer,
}

impl Remote {
    /// Starts it. What it complains of goes to standard error.
    pub(super) fn start(shell: &str, host: &str, follow: bool) -> anyhow::Result<Self> {
        let words = command_line(shell, host, follow);
        let Some((program, arguments)) = words.split_first() else {
            bail!("--remote-shell is empty")
        };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("can't start {program}"))?;
        let output = child.stdout.take().context("no standard output")?;
        Ok(Self { child, output, lines: LineBuffer::default() })
    }

    /// The next line; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Line>, AskError> {
        loop {
            if let Some(line) = self.lines.next()? {
                return Ok(Some(line));
            }
            if self.output.read_buf(&mut self.lines.read).await.map_err(AskError::Io)? == 0 {
                let status = self.child.wait().await.map_err(AskError::Io)?;
                return if status.success() {
                    Ok(None)
                } else {
                    Err(AskError::Answer(format!("could not be asked ({status})")))
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Result<(String, FlowSource), String> {
        text.parse().map(|Server { name, place }| (name, place))
    }

    #[test]
    fn hosts_sockets_and_files_are_told_apart() {
        let host = |name: &str, host: &str| Ok((name.to_owned(), FlowSource::Host(host.into())));
        let path = |name: &str, path: &str| Ok((name.to_owned(), FlowSource::Path(path.into())));
        assert_eq!(server("node-1"), host("node-1", "node-1"));
        assert_eq!(server("root@node-1.example"), host("node-1.example", "root@node-1.example"));
        assert_eq!(server("a=root@192.0.2.1"), host("a", "root@192.0.2.1"));
        assert_eq!(server("/run/x.sock"), path("/run/x.sock", "/run/x.sock"));
        assert_eq!(server("b=./flows.json"), path("b", "./flows.json"));
        assert_eq!(server("/run/a=b.sock"), path("/run/a=b.sock", "/run/a=b.sock"));
        // Options of a remote shell, and words of a shell, are no hosts.
        for wrong in ["", "-oProxyCommand=x", "a;b", "a b", "$(a)", "=a", "a=", "-a=b", "a\n=/b"] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_remote_shell_has_a_place_for_the_host() {
        let words = command_line(REMOTE_SHELL, "root@node-1", true).join(" ");
        let expected = "ssh -o BatchMode=yes -o ConnectTimeout=10 -- root@node-1 egress-agent flows \
                        --output lines --follow";
        assert_eq!(words, expected);
        assert!(remote_shell(REMOTE_SHELL).is_ok());
        assert!(remote_shell("kubectl exec pod/{} -- /egress-agent").is_ok());
        for wrong in ["", "ssh", "{}", "{} egress-agent"] {
            assert!(remote_shell(wrong).is_err(), "{wrong}");
        }
    }
}

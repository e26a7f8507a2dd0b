//! `egress-agent cni`: a chained CNI plug-in (CNI specification 1.1) that holds the start of a pod until enforcement
//! stands for it. It makes nothing and changes nothing: the result of the plug-in before it is passed on as it is.

mod request;

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use self::request::{Command, Failure, Request, failure, versions};
use super::{exit::FAILURE, output::stdout};
use crate::{
    admin::control::{AskError, ask_standing, ask_status},
    sys::netns,
};

/// Between two questions to the agent.
const AGAIN: Duration = Duration::from_millis(25);
/// Of what a runtime writes to standard input.
const MOST: u64 = 1 << 20;

const HELP: &str = "\
A container runtime calls it: it takes CNI_COMMAND, CNI_NETNS and CNI_ARGS from
the environment and the configuration from standard input, and writes a result
or an error to standard output, as the CNI specification 1.1 has it. Called as
egress-agent-cni it needs no argument.

In the list of plug-ins, after the one that makes the interface:
  {\"type\": \"egress-agent-cni\", \"controlSocket\": \"/run/egress-agent/node.sock\",
   \"timeoutSeconds\": 30}

Exit code: 0 done; 1 an error, which is on standard output.";

/// Options of `cni`.
#[derive(clap::Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct CniArgs {
    /// Put the plug-in into this directory, as egress-agent-cni, and end.
    #[arg(long, value_name = "DIR")]
    install: Option<PathBuf>,
}

/// Copies the program, so that a plug-in that is called meanwhile is the old one or the new one.
fn install(program: &Path, directory: &Path) -> anyhow::Result<()> {
    let (beside, place) = (directory.join(format!(".{CALLED}")), directory.join(CALLED));
    let copied = fs::copy(program, &beside).map(drop);
    let placed = copied.and_then(|()| fs::rename(&beside, &place));
    placed.with_context(|| format!("can't put the plug-in at {}", place.display()))
}

/// Runs it, with what a container runtime gives in the environment and on standard input.
///
/// # Errors
/// Standard input and output.
pub(super) fn run(args: &CniArgs) -> anyhow::Result<ExitCode> {
    if let Some(directory) = &args.install {
        install(Path::new("/proc/self/exe"), directory)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    std::io::stdin().take(MOST).read_to_string(&mut text).context("standard input")?;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (answer, code) = match Request::read(&text, variable) {
        Ok(request) => match perform(&request) {
            Ok(answer) => (answer, ExitCode::SUCCESS),
            Err(error) => (failure(&request.version, &error), ExitCode::from(FAILURE)),
        },
        Err(error) => (failure(request::NEWEST, &error), ExitCode::from(FAILURE)),
    };
    stdout().write_all(answer.as_bytes())?;
    Ok(code)
}

fn perform(request: &Request) -> Result<String, Failure> {
    match &request.command {
        Command::Version => Ok(versions(&request.version)),
        // Enforcement ends with the pod's cgroup and its interface, by themselves.
        Command::Delete | Command::Collect => Ok(String::new()),
        Command::Status => status(request).map(|()| String::new()),
        Command::Check { pod, namespace } => {
            wait_until_enforcing(request, pod, namespace, Duration::ZERO).map(|()| String::new())
        }
        Command::Add { pod, namespace, previous } => {
            wait_until_enforcing(request, pod, namespace, request.patience)?;
            Ok(previous.clone())
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
    made.map_err(|error| Failure::new(request::IO, "no runtime", error))
}

fn status(request: &Request) -> Result<(), Failure> {
    let asked = runtime()?.block_on(ask_status(&request.socket));
    asked.map(drop).map_err(|error| Failure::new(request::UNAVAILABLE, "the node agent", error))
}

/// Waits until the agent says that the pod's policy is in force.
fn wait_until_enforcing(
    request: &Request,
    pod: &str,
    namespace: &str,
    patience: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + patience;
    let of = |error: std::io::Error| Failure::new(request::IO, namespace, error);
    let file = File::open(namespace).map_err(of)?;
    let inode = file.metadata().map_err(of)?.ino();
    // From here on this process shows the agent where the namespace is: it has no other process yet.
    netns::enter(&file).map_err(of)?;
    let runtime = runtime()?;
    loop {
        let why = match runtime.block_on(ask_standing(&request.socket, pod, inode)) {
            Ok(()) => return Ok(()),
            Err(AskError::Refused(why)) => why,
            Err(error) => format!("the node agent at {}: {error}", request.socket.display()),
        };
        if Instant::now() + AGAIN > deadline {
            let seconds = patience.as_secs();
            let message = format!("enforcement does not stand for the pod after {seconds} s");
            return Err(Failure::new(request::NOT_ENFORCED, &message, why));
        }
        sleep(AGAIN);
    }
}

/// The name under which container runtimes call the plug-in, without arguments: they name a file.
const CALLED: &str = "egress-agent-cni";

/// The command line; what is called by the plug-in's name is the plug-in.
pub(super) fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut given: Vec<OsString> = given.collect();
    let name = given.first().map(Path::new).and_then(Path::file_name);
    if name.is_some_and(|name| name == CALLED) && given.len() == 1 {
        given.push("cni".into());
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plug_in_is_put_where_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let program = Path::new("/bin/sh");
        install(program, dir.path()).unwrap();
        install(program, dir.path()).unwrap();
        let (own, placed) = (fs::metadata(program), fs::metadata(dir.path().join(CALLED)));
        let (own, placed) = (own.unwrap(), placed.unwrap());
        assert_eq!((placed.len(), placed.mode() & 0o111), (own.len(), own.mode() & 0o111));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(install(program, &dir.path().join("none")).is_err());
    }

    #[test]
    fn the_plug_ins_name_is_a_command() {
        let of = |words: &[&str]| arguments(words.iter().map(OsString::from)).len();
        assert_eq!(of(&["/opt/cni/bin/egress-agent-cni"]), 2);
        assert_eq!(of(&["/opt/cni/bin/egress-agent-cni", "version"]), 2);
        assert_eq!(of(&["/usr/bin/egress-agent"]), 1);
        assert_eq!(of(&[]), 0);
    }
}

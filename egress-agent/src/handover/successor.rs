//! Starting the process that is to replace this one, and handing the listeners over to it.

use std::{
    env,
    ffi::OsString,
    fs, io,
    os::{
        fd::AsFd as _,
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    path::{self, Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use thiserror::Error;
use tokio::time::{sleep, timeout};

use super::channel::{Channel, Message, VARIABLE};
use crate::{
    proxy::UsedRate,
    sys::{
        listening::Named,
        packet_pair::{self, DESCRIPTORS},
    },
};

/// How long the new process may take until it has a configuration in force: the kernel verifies the capture
/// program, and a large configuration takes seconds.
const READY: Duration = Duration::from_secs(120);
/// How long it may then take to accept connections.
const SERVING: Duration = Duration::from_secs(10);
/// Buckets of rate limits in one message: it must fit into a packet, however long their names are.
const RATES: usize = 64;
/// How long a process that has closed the channel may take to end.
const ENDING: Duration = Duration::from_secs(1);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// The program as it was started: what is at its path when the process is to be replaced is what runs then.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    args: Vec<OsString>,
}

impl Program {
    /// Of this process. To be asked at its start, while its file is there.
    ///
    /// # Errors
    /// The path can't be found out.
    pub(crate) fn this() -> io::Result<Self> {
        let own = env::current_exe()?;
        let mut args = env::args_os();
        let named = args.next().map(PathBuf::from);
        Ok(Self { path: named_or_own(named.as_deref(), own), args: args.collect() })
    }
}

/// The path that the program was started by, which may be a link that an upgrade turns elsewhere. A name
/// without a directory, or one of another file, says nothing.
fn named_or_own(named: Option<&Path>, own: PathBuf) -> PathBuf {
    let file = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let named = named.filter(|path| path.components().count() > 1);
    let named = named.and_then(|path| path::absolute(path).ok());
    match named {
        Some(named) if file(&named).is_some() && file(&named) == file(&own) => named,
        Some(_) | None => own,
    }
}

/// Why this process goes on as if nothing had happened.
#[derive(Debug, Error)]
pub(crate) enum UpgradeError {
    /// There is no such program, or it may not be run.
    #[error("can't start {}: {error}", path.display())]
    Start {
        /// Where it is.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It said why.
    #[error("the new process can't take over: {0}")]
    Failed(String),
    /// It ended without a word.
    #[error("the new process ended before it served ({0}); its log says why")]
    Ended(ExitStatus),
    /// It took too long.
    #[error("the new process was not {what} within {} s", limit.as_secs())]
    Late {
        /// What it was not.
        what: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// It closed the channel, and goes on.
    #[error("the new process broke off before it served; is it of a version that can take over?")]
    Silent,
    /// The channel failed.
    #[error("the channel to the new process failed: {0}")]
    Channel(io::Error),
    /// It does not know the order of messages.
    #[error("the new process said {0:?} out of turn")]
    Confused(Message),
}

impl From<io::Error> for UpgradeError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the standard library's enum, which may grow"
    )]
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Silent,
            _ => Self::Channel(error),
        }
    }
}

/// The process that accepts connections now.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(crate) pid: u32,
    pub(crate) version: String,
    channel: Channel,
    child: Child,
}

impl Successor {
    /// This process accepts no connections from here on, and workloads have used this much of their rate
    /// limits.
    pub(crate) async fn release(&self, used: Vec<UsedRate>) {
        let telling = async {
            for used in used.chunks(RATES) {
                self.channel.send(&Message::Rates { used: used.to_vec() }, &[]).await?;
            }
            io::Result::Ok(())
        };
        let late = |_| Err(io::ErrorKind::TimedOut.into());
        if let Err(error) = timeout(SERVING, telling).await.unwrap_or_else(late) {
            let pid = self.pid;
            tracing::warn!("can't tell process {pid} what is used of rate limits: {error}");
        }
        if let Err(error) = self.channel.send(&Message::Released {}, &[]).await {
            tracing::warn!("can't tell process {} that it has taken over: {error}", self.pid);
        }
    }

    /// Completes when it has ended.
    pub(crate) async fn ended(&mut self) -> String {
        while let Ok(Some(_)) = self.channel.receive().await {}
        match ended(&mut self.child).await {
            Some(status) => status.to_string(),
            None => "it closed its channel".into(),
        }
    }
}

/// A process that is killed when it is dropped, unless it has taken over.
struct Starting(Option<Child>);

impl Starting {
    async fn status(&mut self) -> Option<ExitStatus> {
        ended(self.0.as_mut()?).await
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended by itself; it is waited for in any case.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Starts the program, and returns once it accepts connections from these sockets. Dropped before that, it
/// ends the new process.
///
/// # Errors
/// [`UpgradeError`]; the new process has ended then.
pub(crate) async fn upgrade(
    program: &Program,
    sockets: &[Named],
    credentials: Vec<String>,
) -> Result<Successor, UpgradeError> {
    let (ours, theirs) = packet_pair::pair()?;
    let channel = Channel::new(ours)?;
    let child = Command::new(&program.path)
        .arg0(&program.path)
        .args(&program.args)
        .env(VARIABLE, std::process::id().to_string())
        .stdin(Stdio::from(theirs))
        .spawn()
        .map_err(|error| UpgradeError::Start { path: program.path.clone(), error })?;
    let pid = child.id();
    let mut starting = Starting(Some(child));
    tracing::info!("upgrade: started {} as process {pid}", program.path.display());
    let version = match converse(&channel, sockets, credentials).await {
        Err(UpgradeError::Silent) => {
            let status = starting.status().await;
            return Err(status.map_or(UpgradeError::Silent, UpgradeError::Ended));
        }
        version => version?,
    };
    let child = starting.0.take().ok_or(UpgradeError::Silent)?;
    Ok(Successor { pid, version, channel, child })
}

/// What is said until the new process serves. Its version.
async fn converse(
    channel: &Channel,
    sockets: &[Named],
    credentials: Vec<String>,
) -> Result<String, UpgradeError> {
    let ready = async {
        for part in sockets.chunks(DESCRIPTORS) {
            let names = part.iter().map(|(name, _)| name.clone()).collect();
            let descriptors: Vec<_> = part.iter().map(|(_, socket)| socket.as_fd()).collect();
            channel.send(&Message::Sockets { names }, &descriptors).await?;
        }
        channel.send(&Message::Complete { credentials }, &[]).await?;
        receive(channel).await
    };
    let late = |what, limit| UpgradeError::Late { what, limit };
    let ready = timeout(READY, ready).await.map_err(|_| late("ready", READY))??;
    let Message::Ready { version } = ready else { return Err(refused(ready)) };
    channel.send(&Message::Serve {}, &[]).await?;
    let serving =
        timeout(SERVING, receive(channel)).await.map_err(|_| late("serving", SERVING))??;
    let Message::Serving {} = serving else { return Err(refused(serving)) };
    Ok(version)
}

async fn receive(channel: &Channel) -> Result<Message, UpgradeError> {
    channel.receive().await?.ok_or(UpgradeError::Silent)
}

/// Of what is said in the place of what is waited for.
fn refused(message: Message) -> UpgradeError {
    if let Message::Failed { why } = message {
        UpgradeError::Failed(why)
    } else {
        UpgradeError::Confused(message)
    }
}

/// The status of a process that is about to end; `None` where it goes on.
async fn ended(child: &mut Child) -> Option<ExitStatus> {
    let look = async {
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                return status;
            }
            sleep(LOOK).await;
        }
    };
    timeout(ENDING, look).await.ok()
}

#[cfg(test)]
mod tests;

//! The server of the control socket.

use std::{
    convert::Infallible,
    fs,
    io::{self, ErrorKind, Write as _},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use futures_util::TryStreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};

use super::{
    ControlArgs, ControlPath,
    access::{self, Caller, ControlGroup},
    answers::{Body, body, enforcing, explain, full, text, upgrade},
    mesh::Mesh,
    serving::Serving,
    stream,
};
use crate::sys::listening::Sockets;

/// Connections of root and the agent's own user at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// Those among them that follow; more are refused. `status` must always get through.
const FOLLOWERS: usize = 16;
/// Connections of all others at a time, besides those; more are refused, so that they hold up nobody else.
const READERS: usize = 8;
/// Those among them that follow.
const READING_FOLLOWERS: usize = 4;
/// The answer to one of the others where there are too many.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 43\r\nConnection: close\r\n\r\ntoo many ask already; try again in a while\n";
/// Until a request's head is there.
const HEAD: Duration = Duration::from_secs(5);
/// A whole connection that doesn't follow.
const CONNECTION: Duration = Duration::from_secs(60);
/// Until whoever asked for an upgrade has read the answer, when the process ends.
const ANSWERED: Duration = Duration::from_secs(2);
/// How long to wait after the process ran out of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A socket that is listened on and not served yet: clients wait.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: UnixListener,
    path: PathBuf,
    group: Option<ControlGroup>,
}

/// Listens where the option says, or at the role's usual place. An explicit path or group that can't be
/// had is an error; the usual place isn't worth one, since nothing that enforces or forwards depends on
/// it.
pub(crate) fn listen(
    args: &ControlArgs,
    usual: &str,
    sockets: &mut Sockets,
) -> anyhow::Result<Option<Listening>> {
    let group = args.control_group.as_ref();
    match &args.control {
        Some(ControlPath::Off) => Ok(None),
        Some(ControlPath::Path(path)) => Listening::new(path, group, sockets).map(Some),
        None => match Listening::new(Path::new(usual), group, sockets) {
            Ok(listening) => Ok(Some(listening)),
            Err(error) if group.is_some() => Err(error),
            Err(error) => {
                tracing::warn!("`egress-agent status` and `flows` won't see this agent: {error:#}");
                Ok(None)
            }
        },
    }
}

impl Listening {
    fn new(
        path: &Path,
        group: Option<&ControlGroup>,
        sockets: &mut Sockets,
    ) -> anyhow::Result<Self> {
        let name = format!("control {}", path.display());
        let listener = sockets.open_one(&name, || bind(path, group)).with_context(|| {
            format!(
                "can't listen on the control socket {}; choose another --control, or off",
                path.display()
            )
        })?;
        Ok(Self { listener, path: path.to_owned(), group: group.cloned() })
    }

    /// Serves on a thread of its own.
    ///
    /// # Errors
    /// No thread, no runtime.
    pub(crate) fn serve(self, serving: Serving) -> io::Result<Control> {
        let Self { listener, path, group } = self;
        let inode = fs::symlink_metadata(&path).map(|metadata| metadata.ino()).ok();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::UnixListener::from_std(listener)?
        };
        let (phase, mut phases) = watch::channel(Phase::Serving);
        let thread = thread::Builder::new().name("control".into()).spawn(move || {
            runtime.block_on(async {
                let upgrades = semaphore(CONNECTIONS);
                // An error says that the handle is gone.
                tokio::select! {
                    () = accept(listener, group, Arc::new(serving), &upgrades) => {}
                    _ = phases.wait_for(|phase| *phase != Phase::Serving) => {}
                }
                phases.wait_for(|phase| *phase == Phase::Ended).await.ok();
                // A process that has nothing to drain ends as soon as another one has taken over.
                let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
                timeout(ANSWERED, upgrades.acquire_many(all)).await.ok();
            });
        })?;
        Ok(Control { path, inode, phase, thread: Some(thread) })
    }
}

/// How far a control socket is from its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Serving,
    /// Another process accepts from the same socket; clients that are connected are served on.
    Left,
    Ended,
}

/// A control socket that is served until this is dropped.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    /// Of the socket; `None` where it is another process's.
    inode: Option<u64>,
    phase: watch::Sender<Phase>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Control {
    /// Leaves the socket, and its place, to the process that took over.
    pub(crate) fn leave(&mut self) {
        self.inode = None;
        self.phase.send_replace(Phase::Left);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Unless another agent has taken the place.
        let now = fs::symlink_metadata(&self.path).map(|metadata| metadata.ino()).ok();
        if self.inode.is_some() && now == self.inode {
            fs::remove_file(&self.path).ok();
        }
        self.phase.send_replace(Phase::Ended);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control socket's thread panicked");
        }
    }
}

/// Binds beside the path and moves the socket there, so that it never stands there with other
/// permissions, and a stale one is replaced in one step.
fn bind(path: &Path, group: Option<&ControlGroup>) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        // Members of the group go through it, and list nothing.
        let mode = if group.is_some() { 0o711 } else { 0o700 };
        fs::DirBuilder::new().recursive(true).mode(mode).create(dir)?;
    }
    match fs::symlink_metadata(path) {
        Ok(metadata) => {
            use std::os::unix::fs::FileTypeExt as _;
            if !metadata.file_type().is_socket() {
                return Err(io::Error::new(
                    ErrorKind::AlreadyExists,
                    "there is a file that is no socket",
                ));
            }
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(ErrorKind::AddrInUse, "another agent listens there"));
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    remove_if_there(&beside)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&beside)?)?;
    // Nobody can connect before `listen`.
    let placed = access::place(&beside, group)
        .and_then(|()| socket.listen(128))
        .and_then(|()| socket.set_nonblocking(true))
        .and_then(|()| fs::rename(&beside, path));
    if placed.is_err() {
        fs::remove_file(&beside).ok();
    }
    placed.map(|()| socket.into())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn accept(
    listener: tokio::net::UnixListener,
    group: Option<ControlGroup>,
    serving: Arc<Serving>,
    upgrades: &Arc<Semaphore>,
) {
    let own = rustix::process::geteuid().as_raw();
    let (places, readers) = (semaphore(CONNECTIONS), semaphore(READERS));
    let (followers, reading) = (semaphore(FOLLOWERS), semaphore(READING_FOLLOWERS));
    // A place for the next owner, who is not known before the connection is accepted.
    let mut kept = None;
    loop {
        let place = match kept.take() {
            Some(place) => place,
            None => match Arc::clone(&places).acquire_owned().await {
                Ok(place) => place,
                Err(_) => return,
            },
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("the control socket can't accept a connection: {error}");
                kept = Some(place);
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // A peer that can't be told is nobody.
        let caller = stream
            .peer_cred()
            .map_or(Caller::Stranger, |peer| Caller::of(peer.uid(), own, group.as_ref()));
        let (place, followers) = match caller {
            Caller::Owner => (place, &followers),
            Caller::Reader | Caller::Stranger => {
                kept = Some(place);
                let Ok(place) = Arc::clone(&readers).try_acquire_owned() else {
                    refuse(stream);
                    continue;
                };
                (place, &reading)
            }
        };
        let (serving, followers) = (Arc::clone(&serving), Arc::clone(followers));
        tokio::spawn(converse(stream, caller, place, serving, followers, Arc::clone(upgrades)));
    }
}

fn semaphore(places: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(places))
}

/// Tells a client that there is no place for it, as far as that is possible without waiting.
fn refuse(stream: tokio::net::UnixStream) {
    let told = stream.into_std().and_then(|mut stream| stream.write_all(TOO_MANY));
    if let Err(error) = told {
        tracing::debug!("a connection to the control socket was refused without a word: {error}");
    }
}

/// One connection.
async fn converse(
    stream: tokio::net::UnixStream,
    caller: Caller,
    place: OwnedSemaphorePermit,
    serving: Arc<Serving>,
    followers: Arc<Semaphore>,
    upgrades: Arc<Semaphore>,
) {
    // Whether it may last.
    let follows = AtomicBool::new(false);
    // Held until the answer to an upgrade is read.
    let asks = OnceLock::new();
    let service = service_fn(|request: Request<Incoming>| {
        let (serving, followers, follows) = (&serving, &followers, &follows);
        let (upgrades, asks) = (&upgrades, &asks);
        async move {
            Ok::<_, Infallible>(match (request.method(), request.uri().path()) {
                (&Method::POST, "/upgrade") if caller.may(&Method::POST) => {
                    follows.store(true, Ordering::Relaxed);
                    asks.get_or_init(|| Arc::clone(upgrades).try_acquire_owned());
                    upgrade(serving).await
                }
                _ => respond(caller, &request, serving, followers, follows),
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = match timeout(CONNECTION, connection.as_mut()).await {
        // Who follows may stay.
        Err(_) if follows.load(Ordering::Relaxed) => connection.await,
        Err(_) => Ok(()),
        Ok(ended) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!("a connection to the control socket failed: {error}");
    }
    drop(place);
}

fn respond(
    caller: Caller,
    request: &Request<Incoming>,
    serving: &Arc<Serving>,
    followers: &Arc<Semaphore>,
    follows: &AtomicBool,
) -> Response<Body> {
    if !caller.may(request.method()) {
        return text(StatusCode::FORBIDDEN, "not allowed for this user\n");
    }
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or(""));
    if request.method() == Method::POST && path == "/standing" {
        return enforcing(query, serving);
    }
    if request.method() != Method::GET {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET is answered, and POST /standing and /upgrade\n",
        );
    }
    match (path, query) {
        ("/status", _) => {
            let report = serde_json::to_vec(&(serving.status)()).unwrap_or_default();
            body(StatusCode::OK, "application/json", full(report.into()))
        }
        ("/flows", "" | "follow=false") => {
            let lines = StreamBody::new(stream::answer(Arc::clone(serving), false));
            body(StatusCode::OK, "application/x-ndjson", lines.boxed_unsync())
        }
        ("/flows", "follow" | "follow=true") => {
            let Ok(place) = Arc::clone(followers).try_acquire_owned() else {
                return text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many follow already; end one of them\n",
                );
            };
            follows.store(true, Ordering::Relaxed);
            let lines = stream::answer(Arc::clone(serving), true)
                // The place is given back when the answer is dropped.
                .inspect_ok(move |_| {
                    let _held = &place;
                });
            body(StatusCode::OK, "application/x-ndjson", StreamBody::new(lines).boxed_unsync())
        }
        ("/flows", _) => text(StatusCode::BAD_REQUEST, "expected no query, or ?follow=true\n"),
        ("/explain", query) => explain(query, serving),
        ("/mesh", "") => {
            let mesh = (serving.snapshot)().map(|snapshot| Mesh::of(&snapshot));
            let mesh = serde_json::to_vec(&mesh.unwrap_or_default()).unwrap_or_default();
            body(StatusCode::OK, "application/json", full(mesh.into()))
        }
        _ => text(StatusCode::NOT_FOUND, "there are /status, /flows, /explain and /mesh\n"),
    }
}

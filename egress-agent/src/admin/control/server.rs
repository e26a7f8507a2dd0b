//! The server of the control socket.

use std::{
    convert::Infallible,
    fs,
    io::{self, ErrorKind},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    time::{sleep, timeout},
};

use super::{
    ControlPath, UpgradeRefusal, mesh::Mesh, serving::Serving, stream, upgrade::may_upgrade,
};
use crate::{explain::Ask, sys::listening::Sockets};

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// Those among them that follow; more are refused. `status` must always get through.
const FOLLOWERS: usize = 16;
/// Until a request's head is there.
const HEAD: Duration = Duration::from_secs(5);
/// A whole connection that doesn't follow.
const CONNECTION: Duration = Duration::from_secs(60);
/// How long to wait after the process ran out of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A socket that is listened on and not served yet: clients wait.
#[derive(Debug)]
pub(crate) struct Listening {
    listener: UnixListener,
    path: PathBuf,
}

/// Listens where the option says, or at the role's usual place. An explicit path that can't be had
/// is an error; the usual place isn't worth one, since nothing that enforces or forwards depends on
/// it.
pub(crate) fn listen(
    option: Option<&ControlPath>,
    usual: &str,
    sockets: &mut Sockets,
) -> anyhow::Result<Option<Listening>> {
    match option {
        Some(ControlPath::Off) => Ok(None),
        Some(ControlPath::Path(path)) => Listening::new(path, sockets).map(Some),
        None => match Listening::new(Path::new(usual), sockets) {
            Ok(listening) => Ok(Some(listening)),
            Err(error) => {
                tracing::warn!("`egress-agent status` and `flows` won't see this agent: {error:#}");
                Ok(None)
            }
        },
    }
}

impl Listening {
    fn new(path: &Path, sockets: &mut Sockets) -> anyhow::Result<Self> {
        let name = format!("control {}", path.display());
        let listener = sockets.open_one(&name, || bind(path)).with_context(|| {
            format!(
                "can't listen on the control socket {}; choose another --control, or off",
                path.display()
            )
        })?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves on a thread of its own.
    ///
    /// # Errors
    /// No thread, no runtime.
    pub(crate) fn serve(self, serving: Serving) -> io::Result<Control> {
        let Self { listener, path } = self;
        let inode = fs::symlink_metadata(&path).map(|metadata| metadata.ino()).ok();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::UnixListener::from_std(listener)?
        };
        let (phase, mut phases) = watch::channel(Phase::Serving);
        let thread = thread::Builder::new().name("control".into()).spawn(move || {
            runtime.block_on(async {
                // An error says that the handle is gone.
                tokio::select! {
                    () = accept(listener, Arc::new(serving)) => {}
                    _ = phases.wait_for(|phase| *phase != Phase::Serving) => {}
                }
                phases.wait_for(|phase| *phase == Phase::Ended).await.ok();
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
fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
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
    let placed = fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))
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

async fn accept(listener: tokio::net::UnixListener, serving: Arc<Serving>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let followers = Arc::new(Semaphore::new(FOLLOWERS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("the control socket can't accept a connection: {error}");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        tokio::spawn(converse(stream, place, Arc::clone(&serving), Arc::clone(&followers)));
    }
}

/// One connection.
async fn converse(
    stream: tokio::net::UnixStream,
    place: OwnedSemaphorePermit,
    serving: Arc<Serving>,
    followers: Arc<Semaphore>,
) {
    // Whether it may last.
    let follows = AtomicBool::new(false);
    let user = stream.peer_cred().map(|peer| peer.uid()).ok();
    let service = service_fn(|request: Request<Incoming>| {
        let (serving, followers, follows) = (&serving, &followers, &follows);
        async move {
            Ok::<_, Infallible>(match (request.method(), request.uri().path()) {
                (&Method::POST, "/upgrade") => {
                    follows.store(true, Ordering::Relaxed);
                    upgrade(user, serving).await
                }
                _ => respond(&request, serving, followers, follows),
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
    request: &Request<Incoming>,
    serving: &Arc<Serving>,
    followers: &Arc<Semaphore>,
    follows: &AtomicBool,
) -> Response<Body> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered, and POST /upgrade\n");
    }
    match (request.uri().path(), request.uri().query().unwrap_or("")) {
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
            let mesh = (serving.snapshot)().map(|snapshot| Mesh::of(&snapshot.mesh));
            let mesh = serde_json::to_vec(&mesh.unwrap_or_default()).unwrap_or_default();
            body(StatusCode::OK, "application/json", full(mesh.into()))
        }
        _ => text(StatusCode::NOT_FOUND, "there are /status, /flows, /explain and /mesh\n"),
    }
}

/// Has another process take over, and says what came of it.
async fn upgrade(user: Option<u32>, serving: &Serving) -> Response<Body> {
    let own = rustix::process::geteuid().as_raw();
    if !user.is_some_and(|user| may_upgrade(user, own)) {
        return text(StatusCode::FORBIDDEN, "only root may have the process replaced\n");
    }
    let Some(requests) = &serving.upgrade else {
        return text(StatusCode::NOT_FOUND, "only a gateway is replaced while it runs\n");
    };
    let (answer, answered) = oneshot::channel();
    let asked = requests.send(answer).await.is_ok();
    let refused = || UpgradeRefusal::Refused("the process is ending".into());
    let answer = match answered.await {
        Ok(answer) if asked => answer,
        Ok(_) | Err(_) => Err(refused()),
    };
    let plain = |status, why: String| {
        body(status, "text/plain; charset=utf-8", full(format!("{why}\n").into()))
    };
    match answer {
        Ok(report) => {
            let report = serde_json::to_vec(&report).unwrap_or_default();
            body(StatusCode::OK, "application/json", full(report.into()))
        }
        Err(UpgradeRefusal::Refused(why)) => plain(StatusCode::CONFLICT, why),
        Err(UpgradeRefusal::Failed(why)) => plain(StatusCode::INTERNAL_SERVER_ERROR, why),
    }
}

/// What a request comes to, by the configuration in force.
fn explain(query: &str, serving: &Serving) -> Response<Body> {
    let Some(snapshot) = (serving.snapshot)() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "no configuration has been accepted yet\n");
    };
    match Ask::from_query(query).and_then(|ask| ask.answer(&snapshot)) {
        Ok(explanation) => {
            let explanation = serde_json::to_vec(&explanation).unwrap_or_default();
            body(StatusCode::OK, "application/json", full(explanation.into()))
        }
        Err(why) => {
            let why = full(format!("{why}\n").into());
            body(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", why)
        }
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    body(status, "text/plain; charset=utf-8", full(Bytes::from_static(text.as_bytes())))
}

fn body(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

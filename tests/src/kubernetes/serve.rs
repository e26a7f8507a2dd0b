//! The double's HTTP.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, PoisonError, mpsc},
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, channel::Channel};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_rustls::TlsAcceptor;

use super::{
    answer::{Body, answer, head, not_found, starting, status, status_object, text},
    discovery::discovery,
    shared::{Mood, Shared},
    store::{Query, Refusal},
    target::{Asked, parse},
    write::{Refused, apply_status, create, create_event, delete, patch},
};

/// How long a watch lasts where the client doesn't say.
const WATCH: Duration = Duration::from_secs(300);
/// Between two bookmarks.
const BOOKMARK: Duration = Duration::from_secs(60);

/// The path of definitions of custom resources.
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/";

/// What the server shows.
pub(super) fn tls(certificate: &str, key: &str) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves for ever, at times not.
pub(super) async fn run(
    addr: SocketAddr,
    tls: TlsAcceptor,
    shared: Arc<Shared>,
    ready: mpsc::Sender<io::Result<()>>,
) {
    let mut first = Some(ready);
    loop {
        let bound = TcpListener::bind(addr).await;
        let listener = match bound {
            Ok(listener) => listener,
            Err(error) => {
                if let Some(ready) = first.take() {
                    ready.send(Err(error)).ok();
                }
                return;
            }
        };
        if let Some(ready) = first.take() {
            ready.send(Ok(())).ok();
        }
        let mut mood = shared.mood.subscribe();
        let gone = |mood: &Mood| *mood == Mood::Gone;
        let accept = async {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, shared) = (tls.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let mut mood = shared.mood.subscribe();
                    tokio::select! {
                        () = connection(stream, tls, Arc::clone(&shared)) => {}
                        _ = mood.wait_for(gone) => {}
                    }
                });
            }
        };
        tokio::select! {
            () = accept => {}
            _ = mood.wait_for(gone) => {}
        }
        drop(listener);
        if mood.wait_for(|mood| !gone(mood)).await.is_err() {
            return;
        }
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            let target = request.uri().path_and_query().map(ToString::to_string);
            let token = request.headers().get(header::AUTHORIZATION);
            let token = token.and_then(|value| value.to_str().ok().map(str::to_owned));
            let (method, target) = (request.method().clone(), target.unwrap_or_default());
            let kind = request.headers().get(header::CONTENT_TYPE).cloned();
            let body = request.into_body().collect().await.map(|body| body.to_bytes());
            let sent = Sent { method, kind, body: body.unwrap_or_default() };
            Ok::<_, Infallible>(respond(&target, token.as_deref(), sent, shared).await)
        }
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

/// How something is asked for, and what is sent along.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    pub(super) method: Method,
    pub(super) kind: Option<HeaderValue>,
    pub(super) body: Bytes,
}

/// Answers a request. `target` is the path with its query, `token` the header's value.
pub(super) async fn respond(
    target: &str,
    token: Option<&str>,
    sent: Sent,
    shared: Arc<Shared>,
) -> Response<Body> {
    let (path, parameters) = target.split_once('?').unwrap_or((target, ""));
    shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(target.to_owned());
    let mut moods = shared.mood.subscribe();
    let speaks = moods.wait_for(|mood| *mood != Mood::Silent).await.map(|mood| *mood);
    if token.and_then(|token| token.strip_prefix("Bearer ")) != Some(&shared.token) {
        return status(401, "Unauthorized", "Unauthorized", None);
    }
    if path == "/readyz" {
        let starts = matches!(speaks, Ok(Mood::Starts(_)));
        return if starts { text(500, "[-]informer-sync failed") } else { text(200, "ok") };
    }
    if let Ok(Mood::Starts(code)) = speaks {
        return starting(code, path);
    }
    if let Some(name) = path.strip_prefix(DEFINITIONS) {
        return definition(name, &shared);
    }
    if sent.method == Method::GET
        && let Some(said) = discovery(path, &shared.store())
    {
        return answer(200, &said);
    }
    let asked = parse(path, parameters);
    let Some(asked) = asked.filter(|asked| served(asked, &shared)) else {
        return not_found();
    };
    if sent.method != Method::GET {
        return write(&asked, &sent, &shared);
    }
    let Asked { query, name, parameters, .. } = asked;
    let parameter = |name: &str| parameters.get(name).map(String::as_str);
    if let Some(name) = name {
        return match shared.store().get(&query, &name) {
            Some(object) => answer(200, &object),
            None => {
                let details = json!({"name": name, "kind": query.plural});
                let message = format!("{} {name:?} not found", query.plural);
                status(404, "NotFound", &message, Some(details))
            }
        };
    }
    if matches!(parameter("watch"), Some("true" | "1")) {
        return watch(query, &parameters, shared);
    }
    let limit = parameter("limit").and_then(|limit| limit.parse().ok()).unwrap_or(0);
    // The cache answers where any version will do, and it doesn't cut lists.
    let limit = if parameter("resourceVersion") == Some("0") { 0 } else { limit };
    let listed = shared.store().list(&query, limit, parameter("continue"));
    match listed {
        Ok(list) => answer(200, &list),
        Err(Refusal::NoKind) => not_found(),
        Err(Refusal::Expired(..)) => {
            let message = "The provided continue parameter is too old.";
            status(410, "Expired", message, None)
        }
    }
}

/// Server-side apply to a status, a JSON Patch, a new object or Event, or a deletion.
fn write(asked: &Asked, sent: &Sent, shared: &Shared) -> Response<Body> {
    let kind = sent.kind.as_ref().and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let body = match &*sent.body {
        [] => Ok(Value::Null),
        body => serde_json::from_slice::<Value>(body),
    };
    let Ok(body) = body else {
        return status(400, "BadRequest", "the body of the request is no object", None);
    };
    let Asked { group: _, query, name, subresource, parameters } = asked;
    let done = match (&sent.method, name, subresource.as_deref(), &*query.plural, kind) {
        (&Method::PATCH, Some(name), Some("status"), _, "application/apply-patch+yaml") => {
            let manager = parameters.get("fieldManager").map(String::as_str);
            apply_status(&mut shared.store(), query, name, manager, &body).map(|done| (200, done))
        }
        (&Method::PATCH, Some(name), None, _, "application/json-patch+json") => {
            patch(&mut shared.store(), query, name, &body).map(|done| (200, done))
        }
        (&Method::POST, None, None, "events", "application/json") => {
            create_event(&mut shared.store(), query, body).map(|done| (201, done))
        }
        (&Method::POST, None, None, _, "application/json") => {
            create(&mut shared.store(), query, body).map(|done| (201, done))
        }
        (&Method::DELETE, Some(name), None, _, _) => {
            delete(&mut shared.store(), query, name).map(|done| (200, done))
        }
        _ => {
            let message = "the server does not allow this method on the requested resource";
            return status(405, "MethodNotAllowed", message, None);
        }
    };
    shared.changes.send_modify(|count| *count += 1);
    match done {
        Ok((code, object)) => answer(code, &object),
        Err(Refused { code, reason, message, details }) => status(code, reason, &message, details),
    }
}

/// The metadata of a custom resource's definition.
fn definition(name: &str, shared: &Shared) -> Response<Body> {
    if shared.store().definition(name).is_some() {
        let metadata = json!({"name": name});
        return answer(
            200,
            &json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}),
        );
    }
    let (group, kind) = ("apiextensions.k8s.io", "customresourcedefinitions");
    let details = json!({"name": name, "group": group, "kind": kind});
    let message = format!("{kind}.{group} {name:?} not found");
    status(404, "NotFound", &message, Some(details))
}

fn served(asked: &Asked, shared: &Shared) -> bool {
    let Query { plural, version, .. } = &asked.query;
    shared.store().kind(&asked.group, version, plural).is_some()
}

/// A stream of events, until its time is up, the kind goes, or the history is compacted.
fn watch(
    query: Query,
    parameters: &HashMap<String, String>,
    shared: Arc<Shared>,
) -> Response<Body> {
    let parameter = |name: &str| parameters.get(name).map(String::as_str);
    let seconds = parameter("timeoutSeconds").and_then(|text| text.parse().ok());
    let lasts = seconds.map_or(WATCH, Duration::from_secs);
    let bookmarks = parameter("allowWatchBookmarks") == Some("true");
    let initial = parameter("sendInitialEvents") == Some("true");
    let version = parameter("resourceVersion").and_then(|text| text.parse::<u64>().ok());
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(64);
    let mut changes = shared.changes.subscribe();
    let mut mood = shared.mood.subscribe();
    tokio::spawn(async move {
        let end = Instant::now() + lasts;
        let mut version = version.filter(|version| *version != 0 && !initial);
        let mut next_bookmark = Instant::now() + BOOKMARK;
        loop {
            let begins = version.is_none();
            let events = {
                let store = shared.store();
                let (events, up_to, last) = match version {
                    None => match store.initial(&query) {
                        Ok((mut events, up_to)) => {
                            if initial && bookmarks {
                                events.push(store.bookmark(&query, up_to, true));
                            }
                            (events, up_to, false)
                        }
                        Err(_) => return,
                    },
                    Some(from) => match store.after(&query, from) {
                        Ok((events, up_to)) => (events, up_to, false),
                        // All of its objects are deleted, then it ends.
                        Err(Refusal::NoKind) => (store.farewell(&query, from), from, true),
                        Err(Refusal::Expired(asked, oldest)) => {
                            let message = format!("too old resource version: {asked} ({oldest})");
                            let object = status_object(410, "Expired", &message, None);
                            (vec![json!({"type": "ERROR", "object": object})], from, true)
                        }
                    },
                };
                version = Some(up_to);
                (events, last)
            };
            for event in events.0 {
                if !begins && mood.wait_for(|mood| *mood != Mood::Silent).await.is_err() {
                    return;
                }
                let line = format!("{event}\n");
                if sender.send_data(line.into()).await.is_err() {
                    return;
                }
            }
            if events.1 {
                return;
            }
            tokio::select! {
                changed = timeout_at(end, changes.changed()) => {
                    let time_is_up = changed.is_err();
                    if mood.wait_for(|mood| *mood != Mood::Silent).await.is_err() || time_is_up {
                        return;
                    }
                }
                () = sleep_until(next_bookmark) => {
                    next_bookmark += BOOKMARK;
                    if mood.wait_for(|mood| *mood != Mood::Silent).await.is_err() {
                        return;
                    }
                    if let Some(version) = version.filter(|_| bookmarks) {
                        let line = format!("{}\n", shared.store().bookmark(&query, version, false));
                        if sender.send_data(line.into()).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    });
    let mut response = Response::new(body.boxed());
    head(&mut response, "application/json");
    response
}

//! A server of the SPIFFE Workload API, written from its specification alone: gRPC over HTTP/2 on a
//! Unix socket, messages by their field numbers.

use std::{fs, path::Path};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use rcgen::{IsCa, KeyPair, KeyUsagePurpose};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinHandle,
};

use super::Svid;
use crate::tls::testing::{Ca, params};

/// The identity of [`given`].
pub(crate) const ID: &str = "spiffe://cluster.local/ns/apps/sa/node";

/// A response with one identity of this authority, and what it should come to.
pub(crate) fn given(ca: &Ca, federated: &[(&str, &[u8])]) -> (Bytes, Svid) {
    given_to(ID, ca, federated)
}

/// The same with another identity.
pub(crate) fn given_to(id: &str, ca: &Ca, federated: &[(&str, &[u8])]) -> (Bytes, Svid) {
    let mut params = params(&[], &[id], 1);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    let chain = params.signed_by(&key, ca).unwrap().der().to_vec();
    let (key, root) = (key.serialize_der(), ca.der().to_vec());
    let entry = Entry { id, chain: &chain, key: &key, bundle: &root };
    let message = response(&[entry], federated);
    (message, Svid { chain: vec![chain], key, roots: vec![root] })
}

/// What every stream is told: an encoded `X509SVIDResponse`, or a gRPC status.
pub(crate) type Answer = Result<Bytes, (u8, &'static str)>;

/// A server; it goes away with its socket when dropped.
pub(crate) struct Server {
    answer: watch::Sender<Answer>,
    task: JoinHandle<()>,
    socket: std::path::PathBuf,
}

/// One `X509SVID`, as DER.
pub(crate) struct Entry<'a> {
    pub(crate) id: &'a str,
    /// Concatenated.
    pub(crate) chain: &'a [u8],
    pub(crate) key: &'a [u8],
    /// Concatenated.
    pub(crate) bundle: &'a [u8],
}

/// An `X509SVIDResponse` with these identities and federated bundles.
pub(crate) fn response(entries: &[Entry<'_>], federated: &[(&str, &[u8])]) -> Bytes {
    let mut message = BytesMut::new();
    for Entry { id, chain, key, bundle } in entries {
        let mut svid = BytesMut::new();
        for (number, value) in [(1, id.as_bytes()), (2, chain), (3, key), (4, bundle)] {
            field(&mut svid, number, value);
        }
        field(&mut message, 1, &svid);
    }
    for (domain, bundle) in federated {
        let mut entry = BytesMut::new();
        field(&mut entry, 1, domain.as_bytes());
        field(&mut entry, 2, bundle);
        field(&mut message, 3, &entry);
    }
    message.freeze()
}

/// A field with a length before it (Protocol Buffers, wire type 2).
fn field(out: &mut BytesMut, number: u8, value: &[u8]) {
    out.put_u8(number << 3 | 2);
    let mut len = value.len();
    while len > 0x7f {
        out.put_u8(u8::try_from(len & 0x7f).unwrap() | 0x80);
        len >>= 7;
    }
    out.put_u8(u8::try_from(len).unwrap());
    out.put_slice(value);
}

impl Server {
    /// Serves at this path.
    pub(crate) fn start(socket: &Path, answer: Answer) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let (sender, answers) = watch::channel(answer);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(connection(stream, answers.clone()));
            }
        });
        Self { answer: sender, task, socket: socket.to_owned() }
    }

    /// Tells every stream something else.
    pub(crate) fn send(&self, answer: Answer) {
        self.answer.send_replace(answer).ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        fs::remove_file(&self.socket).ok();
    }
}

async fn connection(stream: UnixStream, answers: watch::Receiver<Answer>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let mut streams = tokio::task::JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        assert_eq!(request.uri().path(), "/SpiffeWorkloadAPI/FetchX509SVID");
        // SPIFFE Workload Endpoint §4: without it the request is refused.
        assert_eq!(request.headers()["workload.spiffe.io"], "true");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        streams.spawn(stream_of(respond, answers.clone()));
    }
}

async fn stream_of(
    mut respond: h2::server::SendResponse<Bytes>,
    mut answers: watch::Receiver<Answer>,
) {
    let head = Response::builder()
        .status(StatusCode::OK)
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let mut send = respond.send_response(head, false).unwrap();
    loop {
        let answer = answers.borrow_and_update().clone();
        match answer {
            Ok(message) => {
                let mut frame = BytesMut::new();
                frame.put_u8(0);
                frame.put_u32(message.len().try_into().unwrap());
                frame.put_slice(&message);
                if send.send_data(frame.freeze(), false).is_err() {
                    return;
                }
            }
            Err((code, text)) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
                trailers.insert("grpc-message", HeaderValue::from_static(text));
                send.send_trailers(trailers).ok();
                return;
            }
        }
        if answers.changed().await.is_err() {
            return;
        }
    }
}

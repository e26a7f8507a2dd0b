//! A gateway that answers CONNECT as an Istio waypoint does, with `h2` and rustls alone. The port of
//! the authority says how it behaves.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server};
use http::{Method, Request, Response, StatusCode};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion, crypto::aws_lc_rs,
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep},
};
use tokio_rustls::TlsAcceptor;

use super::{port, wait::WAIT};
use crate::tls::testing::{self, Ca};

/// How it is set up.
#[derive(Clone, Debug)]
pub(super) struct Behaviour {
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    pub(super) alpn: Vec<Vec<u8>>,
    pub(super) max_streams: Option<u32>,
    /// Clients of another authority are refused.
    pub(super) clients: Option<&'static str>,
    pub(super) names: Vec<&'static str>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            versions: vec![&rustls::version::TLS13],
            alpn: vec![b"h2".to_vec()],
            max_streams: None,
            clients: None,
            names: vec!["127.0.0.1"],
        }
    }
}

/// What it saw of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) authority: String,
    pub(super) baggage: Option<String>,
    pub(super) forwarded: Option<String>,
    pub(super) received: Vec<u8>,
    pub(super) ended: bool,
    pub(super) reset: bool,
    pub(super) flooded: u64,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    handshakes: AtomicUsize,
    /// No connection is polled from now on.
    hung: AtomicBool,
    /// Connections from before are dropped when it changes.
    cuts: AtomicUsize,
}

/// It runs as long as the test's runtime.
pub(super) struct Waypoint {
    pub(super) addr: SocketAddr,
    pub(super) ca: Ca,
    shared: Arc<Shared>,
    goodbye: watch::Sender<u32>,
}

impl Waypoint {
    pub(super) async fn start(behaviour: Behaviour) -> Self {
        let ca = testing::ca("mesh");
        let config = config(&behaviour, &ca);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let goodbye = watch::Sender::new(0);
        let (of, bye, acceptor) =
            (Arc::clone(&shared), goodbye.clone(), TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serve(
                    acceptor.clone(),
                    behaviour.clone(),
                    Arc::clone(&of),
                    stream,
                    bye.subscribe(),
                );
                tokio::spawn(serving);
            }
        });
        Self { addr, ca, shared, goodbye }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(super) fn handshakes(&self) -> usize {
        self.shared.handshakes.load(Ordering::SeqCst)
    }

    /// GOAWAY on every connection; streams go on.
    pub(super) fn say_goodbye(&self) {
        self.goodbye.send_modify(|count| *count += 1);
    }

    /// Its connections end without a word.
    pub(super) fn cut(&self) {
        self.shared.cuts.fetch_add(1, Ordering::SeqCst);
    }

    /// It hangs from here on.
    pub(super) fn hang(&self) {
        self.shared.hung.store(true, Ordering::SeqCst);
    }

    pub(super) async fn until(&self, condition: impl Fn(&[Seen]) -> bool) {
        let end = Instant::now() + WAIT;
        while !condition(&self.shared.seen.lock().unwrap()) {
            assert!(Instant::now() < end, "the gateway never saw it");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

fn config(behaviour: &Behaviour, ca: &Ca) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    match behaviour.clients {
        Some(other) => roots.add(testing::ca(other).der().clone()).unwrap(),
        None => roots.add(ca.der().clone()).unwrap(),
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let uri = "spiffe://cluster.local/ns/istio-system/sa/gateway";
    let (chain, key) = testing::issue(ca, &testing::params(&behaviour.names, &[uri], 2));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&behaviour.versions)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = behaviour.alpn.clone();
    config
}

async fn serve(
    acceptor: TlsAcceptor,
    behaviour: Behaviour,
    shared: Arc<Shared>,
    stream: TcpStream,
    mut goodbye: watch::Receiver<u32>,
) {
    stream.set_nodelay(true).unwrap();
    let Ok(stream) = acceptor.accept(stream).await else { return };
    shared.handshakes.fetch_add(1, Ordering::SeqCst);
    let mut builder = server::Builder::new();
    builder.initial_window_size(1024 * 1024).initial_connection_window_size(16 * 1024 * 1024);
    if let Some(max) = behaviour.max_streams {
        builder.max_concurrent_streams(max);
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    goodbye.mark_unchanged();
    let cuts = shared.cuts.load(Ordering::SeqCst);
    loop {
        if shared.cuts.load(Ordering::SeqCst) != cuts {
            return;
        }
        if shared.hung.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                tokio::spawn(answer(Arc::clone(&shared), request, respond));
            }
            changed = goodbye.changed() => match changed {
                Ok(()) => connection.graceful_shutdown(),
                Err(_) => return,
            },
            // To see that it is to hang.
            () = sleep(Duration::from_millis(5)) => {}
        }
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<RecvStream>,
    mut respond: server::SendResponse<Bytes>,
) {
    assert_eq!(request.method(), Method::CONNECT);
    let authority: SocketAddr = request.uri().authority().unwrap().as_str().parse().unwrap();
    let header =
        |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let seen = Seen {
        authority: authority.to_string(),
        baggage: header("baggage"),
        forwarded: header("forwarded"),
        ..Seen::default()
    };
    let index = {
        let mut all = shared.seen.lock().unwrap();
        all.push(seen);
        all.len() - 1
    };
    let note = |change: &dyn Fn(&mut Seen)| change(&mut shared.seen.lock().unwrap()[index]);
    let status = match authority.port() {
        port::RESET => return respond.send_reset(Reason::INTERNAL_ERROR),
        port::SILENT => return std::future::pending().await,
        port::UNAUTHORIZED => StatusCode::UNAUTHORIZED,
        port::UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    let response = Response::builder().status(status).body(()).unwrap();
    let refused = status != StatusCode::OK;
    let mut send = respond.send_response(response, refused).unwrap();
    let mut recv = request.into_body();
    match authority.port() {
        _ if refused => {}
        port::STALL => {
            drop(send);
            std::future::pending::<()>().await;
        }
        port::FLOOD => {
            while give(&mut send, Bytes::from_static(&[42; 16 * 1024])).await {
                note(&|seen| seen.flooded += 16 * 1024);
            }
        }
        port::CRUMB => {
            for _ in 0..port::CRUMBS {
                if !give(&mut send, Bytes::from_static(&[42; 10])).await {
                    return;
                }
                note(&|seen| seen.flooded += 10);
            }
            recv.data().await;
        }
        port::RESET_LATER => {
            give(&mut send, Bytes::from_static(b"some")).await;
            // A reset takes back what isn't sent yet.
            recv.data().await;
            send.send_reset(Reason::CONNECT_ERROR);
        }
        port::GREETING => {
            send.send_data(Bytes::from_static(b"hello"), true).unwrap();
            while let Some(Ok(data)) = recv.data().await {
                note(&|seen| seen.received.extend_from_slice(&data));
            }
            note(&|seen| seen.ended = true);
        }
        _ => loop {
            match recv.data().await {
                Some(Ok(data)) => {
                    recv.flow_control().release_capacity(data.len()).unwrap();
                    if !give(&mut send, data).await {
                        return;
                    }
                }
                Some(Err(_)) => return note(&|seen| seen.reset = true),
                None => {
                    note(&|seen| seen.ended = true);
                    send.send_data(Bytes::new(), true).ok();
                    return;
                }
            }
        },
    }
}

/// Sends as the client's window allows.
async fn give(send: &mut SendStream<Bytes>, mut data: Bytes) -> bool {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        while send.capacity() == 0 {
            match std::future::poll_fn(|cx| send.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return false,
            }
        }
        let part = data.split_to(data.len().min(send.capacity()));
        if send.send_data(part, false).is_err() {
            return false;
        }
    }
    true
}

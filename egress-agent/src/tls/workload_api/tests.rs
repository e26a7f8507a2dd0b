use std::sync::Arc;

use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};

use super::{
    testing::{ID, Server, given, given_to},
    *,
};
use crate::{
    policy::{CredentialSource, TunnelTls},
    tls::{CredentialLocations, Credentials, testing::ca},
    types::{Namespace, TrustDomain},
};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn endpoints_are_read() {
    let socket = |text: &str| WorkloadApi::parse(text).map(|api| api.socket().to_owned());
    for text in ["unix:/run/a.sock", "unix:///run/a.sock", "/run/a.sock"] {
        assert_eq!(socket(text), Ok("/run/a.sock".into()), "{text}");
    }
    for text in ["", "unix:", "unix:run/a.sock", "unix://host/a.sock?x", "a.sock", "unix:/"] {
        assert!(socket(text).unwrap_err().contains("expected unix:PATH"), "{text}");
    }
    assert!(socket("tcp:127.0.0.1:8081").unwrap_err().contains("in clear"));
}

#[tokio::test]
async fn identities_come_as_they_change_and_the_sockets_end_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("agent.sock");
    let api = WorkloadApi::new(socket.clone());
    let (first, first_svid) = given(&ca("first"), &[]);
    let foreign = ca("foreign");
    let (second, second_svid) = given(&ca("second"), &[("spiffe://other.example", foreign.der())]);
    let (sender, mut told) = mpsc::unbounded_channel();
    let following = {
        let api = api.clone();
        tokio::spawn(async move { api.follow(|answer| drop(sender.send(answer))).await })
    };
    let mut next = async || timeout(SOON, told.recv()).await.unwrap().unwrap();
    // There is no socket yet.
    let why = next().await.unwrap_err();
    assert!(why.contains("No such file"), "{why}");
    let server = Server::start(&socket, Ok(first.clone()));
    let mut svid = None;
    while svid.is_none() {
        svid = next().await.ok();
    }
    assert_eq!(svid, Some(first_svid.clone()));
    // A federated trust domain's roots aren't ours.
    server.send(Ok(second));
    assert_eq!(next().await, Ok(second_svid));
    // Nonsense, then nobody.
    server.send(Ok(bytes::Bytes::from_static(b"\x0a\x00")));
    assert!(next().await.is_err());
    drop(server);
    let mut given = WorkloadMaterial::default();
    given.take(Ok(first_svid.clone()));
    given.take(next().await);
    assert_eq!(given.svid, Some(first_svid.clone()));
    assert!(given.trouble.is_some());
    // It comes back.
    let _server = Server::start(&socket, Ok(first));
    let mut svid = None;
    while svid.is_none() {
        svid = next().await.ok();
    }
    assert_eq!(svid, Some(first_svid));
    following.abort();
}

#[tokio::test]
async fn refusals_are_explained() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("agent.sock");
    let api = WorkloadApi::new(socket.clone());
    assert!(api.once().await.unwrap_err().contains("No such file"));
    let server = Server::start(&socket, Err((7, "no identity issued")));
    let why = api.once().await.unwrap_err();
    assert!(why.contains("register it"), "{why}");
    let (message, svid) = given(&ca("root"), &[]);
    server.send(Ok(message));
    assert_eq!(api.once().await, Ok(svid));
}

#[tokio::test]
async fn a_credential_follows_it_and_outlives_its_socket() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("agent.sock");
    let places = CredentialLocations {
        workload_api: Some(socket.clone()),
        ..CredentialLocations::default()
    };
    let credentials = Arc::new(Credentials::new(places));
    let tunnel = Arc::new(TunnelTls {
        credential: CredentialSource::Own,
        subject_alt_names: Vec::new(),
        key_groups: crate::policy::KeyGroups::default(),
        trust_domain: TrustDomain::default(),
        namespace: Namespace("istio-system".into()),
        principal: None,
    });
    let following = Arc::clone(&credentials);
    let following = tokio::spawn(async move { following.watch().await });
    credentials.configure([], [Arc::clone(&tunnel)]).await;
    let error = credentials.client(&tunnel).unwrap_err().to_string();
    assert!(error.contains("gave no identity: ") && error.contains("agent.sock"), "{error}");

    let (first_ca, second_ca) = (ca("first"), ca("second"));
    let server = Server::start(&socket, Ok(given(&first_ca, &[]).0));
    let mut changes = credentials.epoch();
    let wait = async |changes: &mut tokio::sync::watch::Receiver<u64>| {
        timeout(SOON, changes.changed()).await.unwrap().unwrap();
    };
    changes.mark_unchanged();
    if credentials.client(&tunnel).is_err() {
        wait(&mut changes).await;
    }
    let first = credentials.client(&tunnel).unwrap();
    let state = credentials.states().remove(0);
    assert_eq!(state.id.unwrap().to_string(), ID);
    assert!(state.current && state.problems.is_empty(), "{:?}", state.problems);

    // Rotation: another authority, and a federated one that counts for nothing.
    let foreign = ca("foreign");
    changes.mark_unchanged();
    server.send(Ok(given(&second_ca, &[("spiffe://other.example", foreign.der())]).0));
    wait(&mut changes).await;
    let second = credentials.client(&tunnel).unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    let gateway = |ca: &crate::tls::testing::Ca| {
        let id = "spiffe://cluster.local/ns/istio-system/sa/gateway";
        let key = rcgen::KeyPair::generate().unwrap();
        let params = crate::tls::testing::params(&[], &[id], 9);
        [params.signed_by(&key, ca).unwrap().der().clone()]
    };
    let host = crate::types::Host::Ip([192, 0, 2, 1].into());
    let good = |ca| credentials.gateway_still_good(&tunnel, &host, &gateway(ca)).is_ok();
    assert!(good(&second_ca) && !good(&first_ca) && !good(&foreign));

    // An identity of another mesh is none of ours: the last good one stays.
    let strange = "spiffe://other.example/ns/apps/sa/node";
    let problem = async |wanted: &str| {
        let found = async {
            while !credentials.states()[0].problems.join(" ").contains(wanted) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let found = timeout(SOON, found).await;
        assert!(found.is_ok(), "{wanted}: {:?}", credentials.states());
    };
    server.send(Ok(given_to(strange, &second_ca, &[]).0));
    problem("expected cluster.local").await;
    assert!(!credentials.states()[0].current);
    assert!(Arc::ptr_eq(&second, &credentials.client(&tunnel).unwrap()));
    // So it does when the socket is gone.
    drop(server);
    problem("tells no news").await;
    assert!(Arc::ptr_eq(&second, &credentials.client(&tunnel).unwrap()));
    // And a new agent on the same socket is taken up.
    changes.mark_unchanged();
    let _server = Server::start(&socket, Ok(given(&first_ca, &[]).0));
    wait(&mut changes).await;
    assert!(good(&first_ca) && !good(&second_ca));
    assert!(credentials.states()[0].problems.is_empty());
    following.abort();
}

use tokio::net::TcpListener;

use super::*;

fn refused() -> Outcome {
    Outcome::Refused("no".into())
}

fn is_down(transition: Option<Transition>) -> bool {
    matches!(transition, Some(Transition::Down { .. }))
}

#[test]
fn a_new_endpoint_is_healthy_once_it_says_so() {
    let now = Instant::now();
    let mut endpoint = Endpoint::new(false);
    assert!(!endpoint.healthy());
    assert_eq!(endpoint.observe(now, Outcome::Ready), Some(Transition::Up { after: None }));
    assert!(endpoint.healthy());
    assert_eq!(endpoint.observe(now, Outcome::Ready), None);
}

#[test]
fn a_refusal_counts_at_once_and_silence_twice() {
    let now = Instant::now();
    let mut endpoint = Endpoint::new(true);
    assert!(is_down(endpoint.observe(now, refused())));
    assert!(!endpoint.healthy());

    let mut endpoint = Endpoint::new(true);
    assert_eq!(endpoint.observe(now, Outcome::Silent), None);
    assert!(endpoint.healthy());
    assert!(is_down(endpoint.observe(now, Outcome::Silent)));
    assert!(!endpoint.healthy());

    // An answer in between starts the count again.
    let mut endpoint = Endpoint::new(true);
    for _ in 0..5 {
        assert_eq!(endpoint.observe(now, Outcome::Silent), None);
        assert_eq!(endpoint.observe(now, Outcome::Ready), None);
    }
    assert!(endpoint.healthy());
}

#[test]
fn one_success_brings_it_back_and_tells_how_long_it_was_gone() {
    let start = Instant::now();
    let mut endpoint = Endpoint::new(true);
    assert!(is_down(endpoint.observe(start, refused())));
    assert_eq!(endpoint.observe(start + Duration::from_secs(1), refused()), None);
    let later = start + Duration::from_secs(5);
    let back = Transition::Up { after: Some(Duration::from_secs(5)) };
    assert_eq!(endpoint.observe(later, Outcome::Ready), Some(back));
}

#[test]
fn one_that_never_answered_is_told_of_once() {
    let now = Instant::now();
    let mut endpoint = Endpoint::new(false);
    assert!(is_down(endpoint.observe(now, Outcome::Silent)));
    assert_eq!(endpoint.observe(now, Outcome::Silent), None);
    assert!(!endpoint.healthy());
}

#[test]
fn the_status_is_read_from_a_whole_line_only() {
    let answer = b"HTTP/1.1 200 OK\r\nserver: x\r\n\r\n";
    for end in 0..answer.len() {
        let expected = (end >= 17).then_some(200);
        assert_eq!(status(&answer[..end]), expected, "{end}");
    }
    for bad in [&b"SSH-2.0-x\r\n"[..], b"HTTP/2 200\r\n", b"HTTP/1.1 2\r\n", b"HTTP/1.1 abc\r\n"] {
        assert_eq!(status(bad), None);
    }
    assert_eq!(status(b"HTTP/1.0 503 \n"), Some(503));
}

/// A gateway's health endpoint that gives one answer to everybody.
async fn answering(answer: &'static str) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 256];
            let got = stream.read(&mut request).await.unwrap_or(0);
            assert!(request[..got].starts_with(b"GET /healthz/ready HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.ok();
        }
    });
    (addr, task)
}

#[tokio::test]
async fn probes_tell_ready_from_not_ready_from_gone() {
    let (ready, task) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(probe(ready, None).await, Outcome::Ready);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(probe(ready, None).await, Outcome::Refused("connection refused".into()));
    let (draining, _task) = answering("HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
    assert!(matches!(probe(draining, None).await, Outcome::Refused(why) if why.contains("503")));
    let (other, _task) = answering("220 smtp.example\r\n").await;
    assert!(
        matches!(probe(other, None).await, Outcome::Refused(why) if why.contains("isn't HTTP"))
    );
}

#[tokio::test]
async fn the_healthy_set_follows_the_endpoints() {
    let (addr, task) = answering("HTTP/1.1 200 OK\r\n\r\n").await;
    let probing = Probing {
        port: addr.port(),
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(500),
    };
    let local: HashSet<IpAddr> = [addr.ip()].into();
    let mut checker = Checker::spawn(probing, HashSet::new(), None);
    checker.endpoints.send_replace(local.clone());
    let long = Duration::from_secs(20);
    let healthy = &mut checker.healthy;
    timeout(long, healthy.wait_for(|set| *set == local)).await.unwrap().unwrap();
    // Killed: it leaves at the next probe.
    task.abort();
    timeout(long, healthy.wait_for(HashSet::is_empty)).await.unwrap().unwrap();
    // Back under the same address.
    let listener = TcpListener::bind(addr).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok();
        }
    });
    timeout(long, healthy.wait_for(|set| *set == local)).await.unwrap().unwrap();
    // No endpoint of any gateway any more.
    checker.endpoints.send_replace(HashSet::new());
    timeout(long, healthy.wait_for(HashSet::is_empty)).await.unwrap().unwrap();
}

#[test]
fn an_agent_says_which_node_it_is_and_what_is_in_force_there() {
    let (sender, revisions) = watch::channel(None);
    let words = ProbeIdentity::new("node-1.example", revisions.clone()).unwrap();
    let target = "10.0.0.11:15021".parse().unwrap();
    let said = || request(target, Some(&words));
    assert!(said().contains("\r\nx-egress-node: node-1.example\r\nx-egress-revisions: none\r\n"));
    let some = Arc::new(Revisions::default());
    sender.send_replace(Some(Arc::clone(&some)));
    assert!(said().contains(&format!("x-egress-revisions: {}\r\n", some.digest())));
    assert!(!request(target, None).contains("x-egress"));
    for wrong in ["", "a b", "a\r\nx: y"] {
        assert!(ProbeIdentity::new(wrong, revisions.clone()).is_none(), "{wrong:?}");
    }
}

#[test]
fn a_gateways_revisions_are_in_the_head_of_its_answer() {
    let ready = b"HTTP/1.1 200 OK\r\nX-Egress-Revisions: 0a1b\r\n\r\nLIVE\n";
    assert_eq!(revisions(ready).as_deref(), Some("0a1b"));
    for none in [
        &b"HTTP/1.1 503 Service Unavailable\r\nx-egress-revisions: 0a1b\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\n\r\nx-egress-revisions: 0a1b\r\n",
        b"HTTP/1.1 200 OK\r\n",
    ] {
        assert_eq!(revisions(none), None);
    }
}

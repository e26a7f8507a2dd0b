//! Rate limits: what is beyond them is answered 429, and nothing of it reaches the upstream.

use std::time::{Duration, Instant};

use super::harness::{Client, Setup, answering, local};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const COUNT: usize = 30;

/// How many of [`COUNT`] requests are answered 200; all others must be answered 429.
async fn allowed(client: &mut Client, host: &str) -> usize {
    let mut allowed = 0;
    for _ in 0..COUNT {
        client.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let answer = client.answer().await.unwrap();
        match answer.status {
            200 => allowed += 1,
            429 => assert!(answer.text().contains("(rate_limited)"), "{}", answer.text()),
            other => panic!("{other}"),
        }
    }
    allowed
}

#[test]
fn what_is_beyond_a_limit_is_answered_429() {
    local(async {
        let ((a, at_a), (b, at_b)) = (answering(OK).await, answering(OK).await);
        let mut setup = Setup::new().http("a.example", a).http("b.example", b);
        setup.annotate("a.example", "{requests: {perSecond: 1, burst: 2}}");
        let gateway = setup.start().await;
        let mut client = gateway.connect().await;
        let began = Instant::now();
        let of_a = allowed(&mut client, "a.example").await;
        // One more each second that it takes.
        let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
        assert!((2..COUNT.min(2 + seconds + 1)).contains(&of_a), "{of_a} in {seconds} s");
        assert_eq!(allowed(&mut client, "b.example").await, COUNT);
        assert_eq!((at_a.requests.borrow().len(), at_b.requests.borrow().len()), (of_a, COUNT));
        let log = gateway.log(2 * COUNT).await;
        let refused: Vec<_> = log.iter().filter(|line| line["response_code"] == 429).collect();
        assert_eq!(refused.len(), COUNT - of_a);
        for line in refused {
            assert_eq!(line["authority"], "a.example", "{line}");
            assert_eq!(line["response_flags"], "RL", "{line}");
            assert_eq!(line["response_code_details"], "local_rate_limited", "{line}");
            assert_eq!(line["reason"], "rate_limited", "{line}");
            assert_eq!(line["upstream_cluster"], "outbound|80||a.example", "{line}");
        }
    });
}

#[test]
fn bodies_that_wait_for_their_turn_arrive_whole() {
    local(async {
        let (a, at_a) = answering(OK).await;
        let mut setup = Setup::new().http("a.example", a);
        // Three bytes at once: the body of five, both ways, is moved in parts.
        setup.annotate("a.example", "{bytes: {perSecond: 50, burst: 3}}");
        let gateway = setup.start().await;
        let mut client = gateway.connect().await;
        let body = "0123456789";
        client
            .send(&format!(
                "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\n{body}"
            ))
            .await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "hello"));
        assert_eq!(at_a.requests.borrow()[0].1, body.as_bytes());
        assert_eq!(gateway.log(1).await[0]["bytes_received"], 10);
    });
}

#[test]
fn bytes_pass_no_faster_than_a_limit_allows() {
    const BODY: usize = 100;
    const BURST: usize = 5;
    const RATE: usize = 50;
    /// What is beyond the burst, both ways: 105 bytes less 5, at 50 a second.
    const LEAST: Duration = Duration::from_secs(2);
    local(async {
        let mut took = Vec::new();
        for is_limited in [true, false] {
            let (a, at_a) = answering(OK).await;
            let mut setup = Setup::new().http("a.example", a);
            if is_limited {
                let limit = format!("{{bytes: {{perSecond: {RATE}, burst: {BURST}}}}}");
                setup.annotate("a.example", &limit);
            }
            let gateway = setup.start().await;
            let mut client = gateway.connect().await;
            let began = Instant::now();
            let head = format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {BODY}");
            client.send(&format!("{head}\r\n\r\n{}", "x".repeat(BODY))).await;
            let answer = client.answer().await.unwrap();
            took.push(began.elapsed());
            assert_eq!((answer.status, answer.text()), (200, "hello"));
            assert_eq!(at_a.requests.borrow()[0].1.len(), BODY);
        }
        assert!(took[0] >= LEAST && took[1] < took[0], "{took:?}");
    });
}

#[test]
fn made_up_names_before_fixed_endpoints_share_one_limit() {
    local(async {
        const LIMIT: &str = "{requests: {perSecond: 1, burst: 2}}";
        let ((a, _), (b, _)) = (answering(OK).await, answering(OK).await);
        let resolved = ["1", "2", "3"].map(|name| format!("{name}.b.example"));
        let resolved = resolved.each_ref().map(|name| (name.as_str(), b));
        let mut setup = Setup::new().endpoints("a.example", "HTTP", &[(a, 1)], "");
        setup.annotate("a.example", LIMIT);
        setup.below("a.example");
        let mut setup = setup.wildcard("*.b.example", &resolved, "");
        setup.annotate("any.b.example", LIMIT);
        let gateway = setup.start().await;
        let mut client = gateway.connect().await;
        let (began, mut all) = (Instant::now(), 0);
        for name in ["1", "2", "3", "4", "5"] {
            all += allowed(&mut client, &format!("{name}.a.example")).await;
        }
        let since = usize::try_from(began.elapsed().as_secs()).unwrap();
        // Five buckets would have allowed ten at once.
        assert!((2..=3 + since).contains(&all), "{all} in {since} s");
        // A host that is resolved is one of its own.
        for (name, _) in resolved {
            assert!(allowed(&mut client, name).await >= 2, "{name}");
        }
    });
}

//! Copies of requests.

use super::{
    h2::{echo, post},
    harness::{Gateway, Seen, Setup, answering, local, until, upstream},
};

use crate::telemetry::Resource;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const COPIED: &str = "HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\ncopy";
const ROUTE: &str = "    route: [{destination: {host: a.example, port: {number: 80}}}]\n";

/// A gateway whose rule for `a.example` has `rule` besides; what its upstream saw, and that of `b.example`.
async fn gateway(rule: &str) -> (Gateway, Seen, Seen) {
    let (first, seen) = answering(OK).await;
    let (second, copies) = answering(COPIED).await;
    let setup = Setup::new().http("a.example", first).http("b.example", second);
    let gateway = setup.route("a.example", &format!("    {rule}\n{ROUTE}")).start().await;
    (gateway, seen, copies)
}

fn mirror(more: &str) -> String {
    format!("mirror: {{host: b.example, port: {{number: 80}}}}{more}")
}

#[test]
fn a_copy_goes_to_the_mirror_and_its_answer_to_nobody() {
    local(async {
        let (gateway, seen, copies) = gateway(&mirror("")).await;
        let answer = gateway.get("a.example").await;
        assert_eq!((answer.status, answer.text()), (200, "hello"));
        until(|| copies.requests.borrow().len() == 1).await;
        assert!(copies.heads()[0].starts_with("GET / HTTP/1.1\r\nhost: a.example-shadow\r\n"));
        let mut client = gateway.connect().await;
        let body = "POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\nbody";
        client.send(body).await;
        assert_eq!(client.answer().await.unwrap().text(), "hello");
        until(|| copies.requests.borrow().len() == 2).await;
        let sent = |seen: &Seen| seen.requests.borrow().last().unwrap().1.clone();
        assert_eq!((sent(&seen), sent(&copies)), (b"body".to_vec(), b"body".to_vec()));
        // What leaves is recorded, the copy as well.
        let log = gateway.log(4).await;
        let of = |host: &str| log.iter().filter(|line| line["authority"] == host).count();
        assert_eq!((of("a.example"), of("a.example-shadow")), (2, 2));
        let copy = log.iter().find(|line| line["authority"] == "a.example-shadow").unwrap();
        assert_eq!(copy["upstream_cluster"], "outbound|80||b.example");
        assert_eq!(copy["response_code"], 500);
    });
}

#[test]
fn nothing_is_copied_where_no_rule_says_so_or_the_share_is_zero() {
    local(async {
        for rule in [
            "name: plain",
            &mirror("\n    mirrorPercentage: {value: 0}"),
            &mirror("\n    mirrorPercent: 0"),
        ] {
            let (gateway, seen, copies) = gateway(rule).await;
            for _ in 0..5 {
                assert_eq!(gateway.get("a.example").await.status, 200);
            }
            // Each request has its one line, and no copy has one.
            gateway.log(5).await;
            assert_eq!((seen.requests.borrow().len(), copies.connections.get()), (5, 0), "{rule}");
        }
    });
}

#[test]
fn a_part_of_the_requests_is_copied_to_each_of_several_mirrors() {
    local(async {
        let all = "{destination: {host: b.example, port: {number: 80}}}";
        let half = "{destination: {host: b.example, port: {number: 80}}, percentage: {value: 50}}";
        let (gateway, _, copies) = gateway(&format!("mirrors: [{all}, {half}]")).await;
        for _ in 0..100 {
            assert_eq!(gateway.get("a.example").await.status, 200);
        }
        until(|| copies.requests.borrow().len() >= 100).await;
        let limits = gateway.worker.telemetry.stats.limits();
        until(|| limits.used(Resource::Requests) == 0).await;
        // Fewer than 15 or more than 85 of the second hundred: one in 10^13.
        let count = copies.requests.borrow().len();
        assert!((115..=185).contains(&count), "{count}");
    });
}

/// In the current form of the field and both old ones.
#[test]
fn a_part_of_the_requests_is_copied() {
    for share in ["mirrorPercentage: {value: 50}", "mirrorPercent: 50", "mirror_percent: 50"] {
        local(async {
            let (gateway, seen, copies) = gateway(&mirror(&format!("\n    {share}"))).await;
            let mut client = gateway.connect().await;
            for _ in 0..100 {
                client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
                assert_eq!(client.answer().await.unwrap().status, 200, "{share}");
            }
            let limits = gateway.worker.telemetry.stats.limits();
            until(|| limits.used(Resource::Requests) == 0).await;
            // Fewer than 15 or more than 85: one in 10^13.
            let count = copies.requests.borrow().len();
            assert!((15..=85).contains(&count), "{share}: {count}");
            assert_eq!(seen.requests.borrow().len(), 100, "{share}");
        });
    }
}

#[test]
fn a_long_body_is_not_copied_and_arrives_whole() {
    local(async {
        let (gateway, seen, copies) = gateway(&mirror("")).await;
        let mut client = gateway.connect().await;
        let length = 64 * 1024 + 1;
        client.send(&(head_of(length) + &"x".repeat(length))).await;
        assert_eq!(client.answer().await.unwrap().status, 200);
        assert_eq!(seen.requests.borrow()[0].1.len(), length);
        gateway.log(1).await;
        assert_eq!(copies.connections.get(), 0);
        // One byte less is.
        client.send(&(head_of(length - 1) + &"x".repeat(length - 1))).await;
        assert_eq!(client.answer().await.unwrap().status, 200);
        until(|| copies.requests.borrow().len() == 1).await;
        assert_eq!(copies.requests.borrow()[0].1.len(), length - 1);
    });
}

fn head_of(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n")
}

#[test]
fn a_mirror_that_fails_or_hangs_is_nobodys_failure() {
    local(async {
        let (first, _) = upstream(|io, _, seen| echo(io, seen)).await;
        let (second, copies) = upstream(|io, _, _| async move {
            let _open = io;
            std::future::pending::<()>().await;
        })
        .await;
        let setup = Setup::new()
            .service("a.example", "HTTP2", Some(first), "")
            .http("b.example", second)
            .service("c.example", "HTTP", None, "");
        let rule = "    mirrors:\n    - {destination: {host: b.example, port: {number: 80}}}\n    \
                    - {destination: {host: c.example, port: {number: 80}}}\n";
        let gateway = setup.route("a.example", &format!("{rule}{ROUTE}")).start().await;
        let client = gateway.connect_h2().await;
        for _ in 0..3 {
            let (status, body, _) = post(&client, "http://a.example/", b"body", None).await;
            assert_eq!((status.as_u16(), body.as_slice()), (200, &b"body"[..]));
        }
        until(|| copies.connections.get() == 3).await;
        // Three requests, and the copies that could not be sent.
        let log = gateway.log(6).await;
        assert_eq!(log.iter().filter(|line| line["response_flags"] == "UF").count(), 3);
    });
}

#[test]
fn the_bytes_of_a_copy_count_and_wait_for_their_turn() {
    local(async {
        let (first, _) = answering(OK).await;
        let (second, copies) = answering(COPIED).await;
        let mut setup = Setup::new().http("a.example", first).http("b.example", second);
        setup.annotate("b.example", "{bytes: {perSecond: 50, burst: 3}}");
        let rule = mirror("");
        let gateway = setup.route("a.example", &format!("    {rule}\n{ROUTE}")).start().await;
        let mut client = gateway.connect().await;
        client.send(&(head_of(10) + "0123456789")).await;
        assert_eq!(client.answer().await.unwrap().status, 200);
        until(|| copies.requests.borrow().len() == 1).await;
        assert_eq!(copies.requests.borrow()[0].1, b"0123456789");
        let log = gateway.log(2).await;
        let copy = log.iter().find(|line| line["authority"] == "a.example-shadow").unwrap();
        // Fourteen bytes both ways, three of them at once.
        assert!(copy["duration"].as_u64().unwrap() >= 100, "{copy}");
    });
}

//! Fields of Istio's resources whose effect is on traffic, each with the right answer and its twin.

use super::harness::{Setup, answering, local};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const OTHER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother";

/// The rules of another virtual service stand in the place of the one that names it, with the conditions of both.
#[test]
fn a_delegate_decides_about_requests() {
    local(async {
        let ((a, at_a), (b, at_b)) = (answering(OK).await, answering(OTHER).await);
        let setup = Setup::new().http("a.example", a).http("b.example", b);
        let delegating = "    delegate: {name: team}\n";
        let rules = "{http: [{match: [{uri: {prefix: /api/b}}], route: [{destination: {host: b.example, port: {number: 80}}}]}, {match: [{uri: {prefix: /api/a}}], directResponse: {status: 418}}]}";
        let setup = setup.route_on("a.example", ", uri: {prefix: /api}", delegating).resource(
            "VirtualService",
            "team",
            rules,
        );
        let gateway = setup.start().await;
        let mut client = gateway.connect().await;
        for (path, status, text) in [
            ("/api/b/x", 200, Some("other")),
            ("/api/a", 418, None),
            ("/api/c", 404, None),
            ("/b", 404, None),
        ] {
            client.send(&format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
            let answer = client.answer().await.unwrap();
            assert_eq!(answer.status, status, "{path}");
            assert!(text.is_none_or(|text| answer.text() == text), "{path}: {}", answer.text());
        }
        assert!(at_a.requests.borrow().is_empty());
        assert_eq!(at_b.requests.borrow().len(), 1);
    });
}

/// The bytes of a `directResponse` are those that the base64 stands for.
#[test]
fn a_direct_response_has_its_bytes() {
    local(async {
        let (a, at_a) = answering(OK).await;
        let rule = "    directResponse: {status: 203, body: {bytes: AAH/Cg==}}\n";
        let gateway = Setup::new().http("a.example", a).route("a.example", rule).start().await;
        let answer = gateway.get("a.example").await;
        assert_eq!((answer.status, &answer.body[..]), (203, &[0, 1, 255, 10][..]));
        assert!(at_a.requests.borrow().is_empty());
    });
}

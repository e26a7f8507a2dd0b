//! CORS: preflights are answered by the gateway, for allowed origins with a permission.

use super::harness::{Answer, Client, Seen, Setup, answering, local};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nAccess-Control-Allow-Origin: https://other.example\r\n\r\nhello";
const POLICY: &str = "
    route: [{destination: {host: a.example, port: {number: 80}}}]
    corsPolicy:
      allowOrigins: [{exact: https://page.example}, {prefix: https://dev.}]
      allowMethods: [GET, POST]
      allowHeaders: [x-token]
      exposeHeaders: [x-count]
      maxAge: 24h
      allowCredentials: true
";

async fn start(more: &str) -> (Client, Seen) {
    let (a, at_a) = answering(OK).await;
    let rule = format!("{POLICY}{more}");
    let gateway = Setup::new().http("a.example", a).route("a.example", &rule).start().await;
    (gateway.connect().await, at_a)
}

async fn ask(client: &mut Client, method: &str, headers: &str) -> Answer {
    client.send(&format!("{method} / HTTP/1.1\r\nHost: a.example\r\n{headers}\r\n")).await;
    client.answer().await.unwrap()
}

fn value<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let prefix = format!("access-control-{name}: ");
    answer.head.lines().find_map(|line| line.strip_prefix(&prefix))
}

const ASKS: &str = "Access-Control-Request-Method: POST\r\n";

#[test]
fn a_preflight_of_an_allowed_origin_is_answered() {
    local(async {
        let (mut client, at_a) = start("").await;
        for origin in ["https://page.example", "https://dev.example"] {
            let answer = ask(&mut client, "OPTIONS", &format!("Origin: {origin}\r\n{ASKS}")).await;
            assert_eq!(answer.status, 200);
            for (name, expected) in [
                ("allow-origin", origin),
                ("allow-methods", "GET,POST"),
                ("allow-headers", "x-token"),
                ("max-age", "86400"),
                ("allow-credentials", "true"),
            ] {
                assert_eq!(value(&answer, name), Some(expected), "{}", answer.head);
            }
        }
        assert!(at_a.requests.borrow().is_empty());
        // One of another origin is the destination's to answer, and so is OPTIONS that is no preflight.
        let stranger = format!("Origin: https://page.example.org\r\n{ASKS}");
        for headers in [&*stranger, "Origin: https://page.example\r\n", ASKS] {
            let answer = ask(&mut client, "OPTIONS", headers).await;
            assert_eq!(answer.text(), "hello");
            assert_eq!(value(&answer, "allow-methods"), None, "{}", answer.head);
        }
        assert_eq!(at_a.requests.borrow().len(), 3);
    });
}

#[test]
fn a_preflight_of_another_origin_gets_no_permission() {
    local(async {
        let (mut client, at_a) = start("      unmatchedPreflights: IGNORE\n").await;
        let stranger = format!("Origin: https://page.example.org\r\n{ASKS}");
        let answer = ask(&mut client, "OPTIONS", &stranger).await;
        assert_eq!((answer.status, value(&answer, "allow-origin")), (200, None), "{}", answer.head);
        assert!(at_a.requests.borrow().is_empty());
    });
}

#[test]
fn a_response_says_which_page_may_read_it() {
    local(async {
        let (mut client, at_a) = start("").await;
        let answer = ask(&mut client, "GET", "Origin: https://page.example\r\n").await;
        assert_eq!(value(&answer, "allow-origin"), Some("https://page.example"), "{}", answer.head);
        assert_eq!(value(&answer, "expose-headers"), Some("x-count"));
        assert_eq!(value(&answer, "allow-credentials"), Some("true"));
        // For any other it is what the destination says.
        for headers in ["Origin: https://page.example.org\r\n", ""] {
            let answer = ask(&mut client, "GET", headers).await;
            assert_eq!(value(&answer, "allow-origin"), Some("https://other.example"));
            assert_eq!(value(&answer, "expose-headers"), None);
        }
        assert_eq!(at_a.requests.borrow().len(), 3);
    });
}

#[test]
fn a_page_may_read_why_the_gateway_failed() {
    local(async {
        // Nothing listens there.
        let rule = POLICY.to_owned();
        let setup = Setup::new().service("a.example", "HTTP", None, "");
        let gateway = setup.route("a.example", &rule).start().await;
        let mut client = gateway.connect().await;
        for (origin, permitted) in
            [("https://page.example", true), ("https://page.example.org", false)]
        {
            let answer = ask(&mut client, "GET", &format!("Origin: {origin}\r\n")).await;
            assert_eq!(answer.status, 503);
            assert_eq!(value(&answer, "allow-origin"), permitted.then_some(origin));
            assert_eq!(value(&answer, "allow-credentials"), permitted.then_some("true"));
            assert_eq!(value(&answer, "expose-headers"), permitted.then_some("x-count"));
        }
        // Where no rule is met there is no permission either.
        client
            .send("GET / HTTP/1.1\r\nHost: b.example\r\nOrigin: https://page.example\r\n\r\n")
            .await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, value(&answer, "allow-origin")), (403, None));
    });
}

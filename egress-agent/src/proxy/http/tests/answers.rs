//! What the gateway answers by itself, and the faults that it injects, on real connections.

use std::time::{Duration, Instant};

use http::{Request, StatusCode};

use super::harness::{Gateway, Setup, answering, local};
use crate::telemetry::ClusterCounter;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const CLUSTER: &str = "outbound|80||a.example";
const DESTINATION: &str = "    route: [{destination: {host: a.example, port: {number: 80}}}]\n";

async fn gateway(rule: &str, answer: &'static str) -> Gateway {
    let (addr, _) = answering(answer).await;
    Setup::new().http("a.example", addr).route("a.example", rule).start().await
}

/// A request of gRPC: status, `grpc-status`, and whether a body came.
pub(super) async fn grpc(gateway: &Gateway) -> (StatusCode, Option<String>, bool) {
    let client = gateway.connect_h2().await;
    let mut client = client.ready().await.unwrap();
    let request = Request::post("http://a.example/service/Method");
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
    let response = response.await.unwrap();
    let code = response.headers().get("grpc-status").map(|code| code.to_str().unwrap().into());
    (response.status(), code, !response.body().is_end_stream())
}

#[test]
fn a_direct_response_may_be_bytes() {
    local(async {
        let body = "    directResponse: {status: 202, body: {bytes: AAEC/w==}}\n";
        let answer = gateway(body, OK).await.get("a.example").await;
        assert_eq!((answer.status, &*answer.body), (202, &[0, 1, 2, 0xff][..]));
        // Without the rule the upstream answers.
        let answer = gateway(DESTINATION, OK).await.get("a.example").await;
        assert_eq!((answer.status, answer.text()), (200, "hello"));
    });
}

#[test]
fn a_fault_of_grpc_is_an_answer_of_grpc() {
    local(async {
        let fault = |share: u8| {
            format!(
                "    fault: {{abort: {{grpcStatus: UNAVAILABLE, percentage: {{value: {share}}}}}}}\n{DESTINATION}"
            )
        };
        let faulty = gateway(&fault(100), OK).await;
        assert_eq!(grpc(&faulty).await, (StatusCode::OK, Some("14".into()), false));
        // As by Envoy, others get the text of the fault.
        let answer = faulty.get("a.example").await;
        assert_eq!((answer.status, answer.text()), (200, "fault filter abort"));
        for line in faulty.log(2).await {
            assert_eq!(
                (&line["response_flags"], &line["reason"]),
                (&"FI".into(), &"route_refused".into())
            );
        }
        assert_eq!(faulty.cluster(CLUSTER, ClusterCounter::RqTotal), 0);
        let sound = gateway(&fault(0), OK).await;
        assert_eq!(sound.get("a.example").await.text(), "hello");
    });
}

#[test]
fn an_exponential_delay_holds_requests_up() {
    local(async {
        let fault = |mean: &str| {
            format!(
                "    fault: {{delay: {{exponentialDelay: {mean}, percentage: {{value: 100}}}}}}\n{DESTINATION}"
            )
        };
        // Of twenty delays of 50 ms on average some are 25 ms longer than others, but for one time in a million. What
        // a busy machine adds to each of them changes nothing about that.
        let gateway_with = gateway(&fault("50ms"), OK).await;
        let mut delays = Vec::new();
        for _ in 0..20 {
            let start = Instant::now();
            assert_eq!(gateway_with.get("a.example").await.status, 200);
            delays.push(start.elapsed());
        }
        let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        assert!(*most > *least + Duration::from_millis(25), "{delays:?}");
        assert!(delays.iter().sum::<Duration>() > Duration::from_millis(100), "{delays:?}");
        for line in gateway_with.log(20).await {
            assert_eq!(line["response_flags"], "DI", "{line}");
        }
        // The route's time counts while a request is held up.
        let late = format!("    timeout: 50ms\n{}", fault("3h"));
        let answer = gateway(&late, OK).await.get("a.example").await;
        assert_eq!(answer.status, 504);
    });
}

#[test]
fn retries_wait_as_long_as_their_backoff_says() {
    local(async {
        let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
        let retries = |backoff: &str| {
            format!("    retries: {{attempts: 3, retryOn: 5xx, backoff: {backoff}}}\n{DESTINATION}")
        };
        // Parts of 200 ms, 400 ms and 800 ms: below 10 ms together is three in a million.
        let patient = gateway(&retries("200ms"), busy).await;
        let start = Instant::now();
        assert_eq!(patient.get("a.example").await.status, 503);
        assert!(start.elapsed() > Duration::from_millis(10), "{:?}", start.elapsed());
        assert_eq!(patient.cluster(CLUSTER, ClusterCounter::RqRetry), 3);
        // The route's timeout ends a pause that is longer.
        let long = format!("    timeout: 300ms\n{}", retries("3h"));
        let start = Instant::now();
        let answer = gateway(&long, busy).await.get("a.example").await;
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_eq!(answer.status, 504);
    });
}

#[test]
fn a_redirect_replaces_the_prefix_that_was_matched() {
    local(async {
        let (addr, seen) = answering(OK).await;
        let location = async |rule: &str| {
            let setup = Setup::new().http("a.example", addr);
            let setup = setup.route_on("a.example", ", uri: {prefix: /old}", rule);
            let gateway = setup.start().await;
            let mut client = gateway.connect().await;
            client.send("GET /old/a?q=1 HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
            let answer = client.answer().await.unwrap();
            assert_eq!(answer.status, 301);
            let found = answer.head.lines().find_map(|line| line.strip_prefix("location: "));
            found.unwrap().to_owned()
        };
        let with = "    redirect: {prefixRewrite: /new, scheme: https}\n";
        assert_eq!(location(with).await, "https://a.example/new/a?q=1");
        // The whole path, and none of it.
        let whole = "    redirect: {uri: /new, scheme: https}\n";
        assert_eq!(location(whole).await, "https://a.example/new");
        let kept = "    redirect: {scheme: https}\n";
        assert_eq!(location(kept).await, "https://a.example/old/a?q=1");
        assert!(seen.requests.borrow().is_empty());
    });
}

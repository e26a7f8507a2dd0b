//! What a HTTPRoute of the Gateway API changes, on traffic: each filter, beside a request that it is not for.

use std::cell::Cell;

use tokio::io::AsyncWriteExt as _;

use super::harness::{Answer, Gateway, Seen, Setup, answering, local, request, until, upstream};
use crate::config::Severity;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Gone: a\r\nX-Set: b\r\n\r\nhello";
const BACKEND: &str =
    "backendRefs: [{kind: Hostname, group: networking.istio.io, name: a.example, port: 80}]";

/// A route whose rule for paths below `/x` has this besides; that for the others has nothing.
fn routed(setup: Setup, rule: &str) -> Setup {
    setup.manifest(&format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: web}}
spec:
  gatewayClassName: istio
  listeners:
  - {{name: web, hostname: a.example, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: {{from: Same}}}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: to-the-gateway}}
spec:
  parentRefs: [{{kind: ServiceEntry, group: networking.istio.io, name: a-example}}]
  rules: [{{backendRefs: [{{name: web-istio, port: 80}}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: from-the-gateway}}
spec:
  parentRefs: [{{name: web}}]
  hostnames: [a.example]
  rules:
  - {{matches: [{{path: {{value: /x}}}}], {rule}}}
  - {{{BACKEND}}}
"
    ))
}

struct World {
    gateway: Gateway,
    seen: Seen,
    copies: Seen,
}

impl World {
    async fn new(rule: &str) -> Self {
        let ((a, seen), (b, copies)) = (answering(OK).await, answering(OK).await);
        let setup = routed(Setup::new().http("a.example", a).http("b.example", b), rule);
        let told = setup.told();
        assert!(told.is_empty(), "{rule}: {told:#?}");
        Self { gateway: setup.start().await, seen, copies }
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let mut client = self.gateway.connect().await;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a.example\r\n{headers}\r\n");
        client.send(&head).await;
        client.answer().await.unwrap()
    }

    /// The head of the last request that the upstream was sent.
    fn sent(&self) -> String {
        self.seen.heads().pop().unwrap().to_lowercase()
    }
}

fn filter(kind: &str, field: &str, settings: &str) -> String {
    format!("filters: [{{type: {kind}, {field}: {settings}}}], {BACKEND}")
}

#[test]
fn headers_of_requests_and_responses_are_changed() {
    local(async {
        let changes = "{set: [{name: x-set, value: '50%'}], add: [{name: x-more, value: c}], remove: [x-gone]}";
        let world =
            World::new(&filter("RequestHeaderModifier", "requestHeaderModifier", changes)).await;
        let own = "X-Gone: a\r\nX-Set: b\r\n";
        for (path, present, absent) in [
            ("/x/1", &["x-set: 50%\r\n", "x-more: c\r\n"][..], &["x-gone", "x-set: b"][..]),
            ("/y", &["x-gone: a\r\n", "x-set: b\r\n"], &["x-more"]),
        ] {
            let answer = world.ask("GET", path, own).await;
            assert_eq!((answer.status, answer.text()), (200, "hello"));
            let sent = world.sent();
            assert!(present.iter().all(|text| sent.contains(text)), "{path}: {sent}");
            assert!(!absent.iter().any(|text| sent.contains(text)), "{path}: {sent}");
            assert!(answer.head.contains("x-set: b\r\n"), "{}", answer.head);
        }
        let world =
            World::new(&filter("ResponseHeaderModifier", "responseHeaderModifier", changes)).await;
        for (path, present, absent) in [
            ("/x/1", &["x-set: 50%\r\n", "x-more: c\r\n"][..], &["x-gone", "x-set: b"][..]),
            ("/y", &["x-gone: a\r\n", "x-set: b\r\n"], &["x-more"]),
        ] {
            let head = world.ask("GET", path, own).await.head;
            assert!(present.iter().all(|text| head.contains(text)), "{path}: {head}");
            assert!(!absent.iter().any(|text| head.contains(text)), "{path}: {head}");
            assert!(world.sent().contains("x-set: b\r\n"));
        }
    });
}

#[test]
fn hosts_and_paths_are_rewritten() {
    local(async {
        for (path, expected) in [
            ("{type: ReplaceFullPath, replaceFullPath: /all}", "/all"),
            ("{type: ReplacePrefixMatch, replacePrefixMatch: /new}", "/new/1?q=2"),
        ] {
            let settings = format!("{{hostname: inner.example, path: {path}}}");
            let world = World::new(&filter("URLRewrite", "urlRewrite", &settings)).await;
            assert_eq!(world.ask("GET", "/x/1?q=2", "").await.status, 200);
            let sent = world.sent();
            assert!(sent.starts_with(&format!("get {expected}")), "{path}: {sent}");
            assert!(sent.contains("\r\nhost: inner.example\r\n"), "{sent}");
            assert_eq!(world.ask("GET", "/y/1?q=2", "").await.status, 200);
            let sent = world.sent();
            assert!(sent.starts_with("get /y/1?q=2 http/1.1\r\n"), "{sent}");
            assert!(sent.contains("\r\nhost: a.example\r\n"), "{sent}");
        }
    });
}

#[test]
fn a_redirect_is_answered_and_reaches_nobody() {
    local(async {
        let settings = "{scheme: https, hostname: r.example, port: 8443, statusCode: 301, \
                        path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}";
        let rule = format!("filters: [{{type: RequestRedirect, requestRedirect: {settings}}}]");
        let world = World::new(&rule).await;
        let answer = world.ask("GET", "/x/1", "").await;
        assert_eq!(answer.status, 301);
        let location = "location: https://r.example:8443/new/1\r\n";
        assert!(answer.head.contains(location), "{}", answer.head);
        assert!(world.seen.requests.borrow().is_empty());
        assert_eq!(world.ask("GET", "/y", "").await.status, 200);
        assert_eq!(world.seen.requests.borrow().len(), 1);
    });
}

#[test]
fn a_copy_goes_to_the_mirror() {
    local(async {
        let to =
            "{backendRef: {kind: Hostname, group: networking.istio.io, name: b.example, port: 80}}";
        let world = World::new(&filter("RequestMirror", "requestMirror", to)).await;
        assert_eq!(world.ask("GET", "/y", "").await.status, 200);
        assert_eq!(world.ask("GET", "/x/1", "").await.text(), "hello");
        until(|| world.copies.requests.borrow().len() == 1).await;
        // Each request and the copy have a line; no other copy is on its way.
        world.gateway.log(3).await;
        let copied = world.copies.heads();
        assert!(copied.len() == 1 && copied[0].starts_with("GET /x/1 "), "{copied:?}");
        assert_eq!(world.seen.requests.borrow().len(), 2);
    });
}

#[test]
fn browsers_are_answered() {
    local(async {
        let settings = "{allowOrigins: ['https://page.example'], allowMethods: [POST], \
                        allowHeaders: [x-token], exposeHeaders: [x-count], maxAge: 7}";
        let world = World::new(&filter("CORS", "cors", settings)).await;
        let asks = "Access-Control-Request-Method: POST\r\n";
        let own = format!("Origin: https://page.example\r\n{asks}");
        let head = world.ask("OPTIONS", "/x", &own).await.head;
        for (name, value) in [
            ("allow-origin", "https://page.example"),
            ("allow-methods", "POST"),
            ("allow-headers", "x-token"),
            ("max-age", "7"),
        ] {
            assert!(head.contains(&format!("access-control-{name}: {value}\r\n")), "{head}");
        }
        assert!(world.seen.requests.borrow().is_empty());
        let head = world.ask("GET", "/x", "Origin: https://page.example\r\n").await.head;
        assert!(head.contains("access-control-allow-origin: https://page.example\r\n"), "{head}");
        assert!(head.contains("access-control-expose-headers: x-count\r\n"), "{head}");
        // A page that is not named gets no permission, and where there is no filter nobody does.
        let stranger = format!("Origin: https://other.example\r\n{asks}");
        for (path, headers) in [("/x", &stranger), ("/y", &own)] {
            let head = world.ask("OPTIONS", path, headers).await.head;
            assert!(!head.contains("access-control-allow-origin"), "{path}: {head}");
        }
    });
}

#[test]
fn statuses_that_a_rule_names_are_tried_again() {
    local(async {
        // Every request for a path is answered with an error first.
        let answered = std::rc::Rc::<Cell<usize>>::default();
        let (addr, seen) = upstream(move |mut io, _, seen| {
            let answered = answered.clone();
            async move {
                let mut read = Vec::new();
                while let Ok(request) = request(&mut io, &mut read).await {
                    seen.requests.borrow_mut().push(request);
                    let is_first = answered.replace(answered.get() + 1) % 2 == 0;
                    let error = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
                    let answer = if is_first { error } else { OK };
                    if io.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        let rule = format!("retry: {{attempts: 1, codes: [503], backoff: 1ms}}, {BACKEND}");
        let setup = routed(Setup::new().http("a.example", addr), &rule);
        let world = World { gateway: setup.start().await, seen, copies: Seen::default() };
        assert_eq!(world.ask("GET", "/x", "").await.status, 200);
        assert_eq!(world.seen.requests.borrow().len(), 2);
        assert_eq!(world.ask("GET", "/y", "").await.status, 503);
        assert_eq!(world.seen.requests.borrow().len(), 3);
    });
}

/// What cannot be carried out is refused with what it is for.
#[test]
fn what_is_not_supported_is_refused_and_the_rest_is_served() {
    local(async {
        let (addr, seen) = answering(OK).await;
        for (kind, field, settings) in [
            ("ExtensionRef", "extensionRef", "{group: a, kind: B, name: c}"),
            ("ExternalAuth", "externalAuth", "{protocol: GRPC}"),
        ] {
            let setup =
                routed(Setup::new().http("a.example", addr), &filter(kind, field, settings));
            let problems = setup.told();
            let refused = problems
                .iter()
                .any(|told| told.severity == Severity::Refusal && told.to_string().contains(field));
            assert!(refused, "{kind}: {problems:#?}");
            let gateway = setup.start().await;
            let world = World { gateway, seen: seen.clone(), copies: Seen::default() };
            let before = seen.requests.borrow().len();
            let answer = world.ask("GET", "/x/1", "").await;
            assert_eq!(answer.status, 500, "{kind}: {}", answer.text());
            assert!(answer.text().contains("(invalid_route)"), "{kind}: {}", answer.text());
            assert_eq!(seen.requests.borrow().len(), before, "{kind}");
            assert_eq!(world.ask("GET", "/y", "").await.status, 200, "{kind}");
            assert_eq!(seen.requests.borrow().len(), before + 1, "{kind}");
        }
    });
}

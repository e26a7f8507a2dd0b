//! Consistent hashing: requests with one key go to one endpoint.

use std::{collections::HashSet, net::SocketAddr};

use super::harness::{Answer, Client, Gateway, Seen, Setup, answering, local};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
/// Endpoints, and keys: that many keys don't all lead to one of them.
const ENDPOINTS: usize = 3;
const KEYS: usize = 24;

struct Service {
    gateway: Gateway,
    client: Client,
    at: Vec<Seen>,
}

impl Service {
    async fn start(protocol: &str, hash: &str) -> Self {
        let mut upstreams: Vec<(SocketAddr, u32)> = Vec::new();
        let mut at = Vec::new();
        for _ in 0..ENDPOINTS {
            let (addr, seen) = answering(OK).await;
            upstreams.push((addr, 1));
            at.push(seen);
        }
        let policy = format!("{{loadBalancer: {{consistentHash: {hash}}}}}");
        let setup = Setup::new().endpoints("a.example", protocol, &upstreams, &policy);
        let gateway = setup.start().await;
        let client = gateway.connect().await;
        Self { gateway, client, at }
    }

    /// The answer, and the endpoint that gave it.
    async fn ask(&mut self, path: &str, header: &str) -> (Answer, usize) {
        let counts = |at: &[Seen]| -> Vec<usize> {
            at.iter().map(|seen| seen.requests.borrow().len()).collect()
        };
        let before = counts(&self.at);
        self.client.send(&format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n{header}\r\n")).await;
        let answer = self.client.answer().await.unwrap();
        assert_eq!(answer.status, 200);
        let after = counts(&self.at);
        let endpoint = (0..ENDPOINTS).find(|at| before[*at] != after[*at]).unwrap();
        (answer, endpoint)
    }

    /// Each key has one endpoint, and not all have the same.
    async fn keeps(&mut self, request: impl Fn(usize) -> (String, String)) {
        let mut all = HashSet::new();
        for key in 0..KEYS {
            let (path, header) = request(key);
            let (_, first) = self.ask(&path, &header).await;
            for _ in 0..3 {
                assert_eq!(self.ask(&path, &header).await.1, first, "key {key}");
            }
            all.insert(first);
        }
        assert!(all.len() > 1, "{all:?}");
    }

    /// What has no key goes anywhere.
    async fn spreads(&mut self, path: &str, header: &str) {
        let mut all = HashSet::new();
        for _ in 0..60 {
            all.insert(self.ask(path, header).await.1);
        }
        assert_eq!(all.len(), ENDPOINTS, "{all:?}");
    }
}

#[test]
fn a_header_leads_to_its_endpoint() {
    local(async {
        for table in ["", ", ringHash: {minimumRingSize: 64}", ", maglev: {tableSize: 257}"] {
            let hash = format!("{{httpHeaderName: X-User{table}}}");
            let mut service = Service::start("HTTP", &hash).await;
            service.keeps(|key| ("/".into(), format!("x-user: {key}\r\n"))).await;
            service.spreads("/", "").await;
        }
    });
}

/// Which of the three endpoints each key leads to, by the algorithms of Envoy: xxHash64 of the value, and of
/// `ADDRESS:PORT_n` for the n-th point of an endpoint, or the permutation of `ADDRESS:PORT`.
#[test]
fn the_table_that_a_rule_names_says_which_endpoint_it_is() {
    const GOLDEN: [(&str, [usize; KEYS]); 4] = [
        ("", RING_1024),
        (
            ", ringHash: {minimumRingSize: 64}",
            [2, 1, 2, 2, 2, 2, 2, 0, 0, 2, 2, 2, 1, 2, 0, 2, 0, 0, 2, 2, 2, 1, 1, 1],
        ),
        (", ringHash: {minimumRingSize: 1024}", RING_1024),
        (
            ", maglev: {tableSize: 257}",
            [2, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 1, 2, 0, 0, 2, 1, 1, 2, 1, 2, 0, 2, 0],
        ),
    ];
    const RING_1024: [usize; KEYS] =
        [1, 1, 2, 1, 0, 0, 1, 0, 1, 0, 2, 2, 0, 0, 1, 2, 1, 1, 2, 0, 0, 0, 0, 1];
    local(async {
        for (table, expected) in GOLDEN {
            let hash = format!("{{httpHeaderName: x-user{table}}}");
            let mut service = Service::start("HTTP", &hash).await;
            let mut seen = [0; KEYS];
            for (key, seen) in seen.iter_mut().enumerate() {
                *seen = service.ask("/", &format!("x-user: {key}\r\n")).await.1;
            }
            assert_eq!(seen, expected, "{table}");
        }
    });
}

#[test]
fn a_query_parameter_leads_to_its_endpoint() {
    local(async {
        let mut service = Service::start("HTTP", "{httpQueryParameterName: user}").await;
        service.keeps(|key| (format!("/p?x=1&user={key}"), String::new())).await;
        service.spreads("/p?xuser=1", "").await;
    });
}

#[test]
fn one_source_has_one_endpoint() {
    local(async {
        let mut service = Service::start("HTTP", "{useSourceIp: true}").await;
        let (_, first) = service.ask("/", "").await;
        for n in 0..20 {
            assert_eq!(service.ask(&format!("/{n}"), "").await.1, first);
        }
        // On another connection, too.
        service.client = service.gateway.connect().await;
        assert_eq!(service.ask("/", "").await.1, first);
        // Each of many sources has one, and not all have the same.
        let mut all = HashSet::new();
        for source in 1..=u8::try_from(KEYS).unwrap() {
            let mut of_source = HashSet::new();
            for _ in 0..3 {
                service.client = service.gateway.connect_from([127, 0, 1, source]).await;
                of_source.insert(service.ask("/", "").await.1);
            }
            assert_eq!(of_source.len(), 1, "source {source}: {of_source:?}");
            all.extend(of_source);
        }
        assert!(all.len() > 1, "{all:?}");
    });
}

#[test]
fn a_client_without_the_cookie_gets_one() {
    local(async {
        let hash = "{httpCookie: {name: user, path: /p, ttl: 90s, attributes: [{name: SameSite, value: Lax}]}}";
        let mut service = Service::start("HTTP", hash).await;
        service.keeps(|key| ("/".into(), format!("Cookie: a=b; user={key}\r\n"))).await;
        let mut endpoints = HashSet::new();
        for _ in 0..KEYS {
            let (answer, first) = service.ask("/", "Cookie: a=b\r\n").await;
            let line = answer.head.lines().find(|line| line.starts_with("set-cookie: ")).unwrap();
            let value = line.strip_prefix("set-cookie: user=\"").unwrap();
            let (value, rest) = value.split_once('"').unwrap();
            assert_eq!(rest, "; Max-Age=90; Path=/p; SameSite=Lax; HttpOnly");
            // With the cookie it stays where it was, and gets no other.
            let (answer, again) = service.ask("/", &format!("Cookie: user=\"{value}\"\r\n")).await;
            assert_eq!(again, first);
            assert!(!answer.head.contains("set-cookie"), "{}", answer.head);
            endpoints.insert(first);
        }
        assert!(endpoints.len() > 1, "{endpoints:?}");

        let mut session = Service::start("HTTP", "{httpCookie: {name: user, ttl: 0s}}").await;
        let (answer, _) = session.ask("/", "").await;
        assert!(answer.head.contains("set-cookie: user=\""), "{}", answer.head);
        assert!(!answer.head.contains("Max-Age"), "{}", answer.head);

        let mut never = Service::start("HTTP", "{httpCookie: {name: user}}").await;
        let (answer, _) = never.ask("/", "").await;
        assert!(!answer.head.contains("set-cookie"), "{}", answer.head);
        never.spreads("/", "Cookie: other=1\r\n").await;
    });
}

#[test]
fn a_key_has_another_endpoint_where_its_own_is_set_aside() {
    local(async {
        let error = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
        let ((bad, at_bad), (good, at_good)) = (answering(error).await, answering(OK).await);
        let policy = "{loadBalancer: {consistentHash: {httpHeaderName: x-user}}, outlierDetection: {consecutive5xxErrors: 2, maxEjectionPercent: 100, baseEjectionTime: 1h}}";
        let setup = Setup::new().endpoints("a.example", "HTTP", &[(bad, 1), (good, 1)], policy);
        let gateway = setup.start().await;
        let mut client = gateway.connect().await;
        for key in 0..KEYS {
            for _ in 0..3 {
                client
                    .send(&format!("GET / HTTP/1.1\r\nHost: a.example\r\nx-user: {key}\r\n\r\n"))
                    .await;
                client.answer().await.unwrap();
            }
        }
        assert_eq!(at_bad.requests.borrow().len(), 2);
        assert_eq!(at_good.requests.borrow().len(), 3 * KEYS - 2);
    });
}

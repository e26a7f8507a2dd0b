//! What is said of a configuration, and what requests then get, side by side. `check` shows the same problems and ends
//! with the code that follows from them.

use super::harness::{Setup, answering, in_force, local};
use crate::config::{Problem, Severity};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// The exit code of `check` for these problems.
fn code(problems: &[Problem]) -> u8 {
    let has = |severity| problems.iter().any(|problem| problem.severity == severity);
    match (has(Severity::Error), has(Severity::Refusal)) {
        (true, _) => 1,
        (false, true) => 3,
        (false, false) => 0,
    }
}

/// A status, and the reason of a refusal.
type Answer = (u16, &'static str);
const SERVED: Answer = (200, "");
const UNKNOWN: Answer = (403, "host_not_in_registry");

struct Row {
    /// More fields of the rule for `a.example`, with a line each.
    fields: &'static str,
    /// More conditions of its stage at the gateway.
    conditions: &'static str,
    /// More of the entry for `a.example`.
    entry: &'static str,
    /// Where it leads to.
    to: &'static str,
    /// Of its destination rule, where it has one.
    policy: &'static str,
    /// Whether there is an entry for `new.example` as well.
    adds: bool,
    code: u8,
    /// Part of something that is said; nothing is said where it is empty.
    says: &'static str,
    a: Answer,
    new: Answer,
}

const PLAIN: Row = Row {
    fields: "",
    conditions: "",
    entry: "",
    to: "{host: a.example, port: {number: 80}}",
    policy: "",
    adds: false,
    code: 0,
    says: "",
    a: SERVED,
    new: UNKNOWN,
};

/// In this order, because what is not taken leaves in force what was there before.
const ROWS: [Row; 22] = [
    PLAIN,
    Row {
        fields: "    timeout: 0s\n",
        says: "a current API server refuses durations below 1ms",
        ..PLAIN
    },
    Row {
        fields: "    timeuot: 1s\n",
        says: "unknown field \"timeuot\"; it has no effect. Did you mean \"timeout\"?",
        ..PLAIN
    },
    Row {
        fields: "    retries: {attempts: 1, retryRemoteLocalities: true}\n",
        says: "has no effect: a retry goes where the load balancer sends it",
        ..PLAIN
    },
    Row { policy: "{tls: {sni: a.example}}", says: "has no effect with mode DISABLE", ..PLAIN },
    // In force, and this part of it is refused.
    Row {
        to: "{host: nowhere.example}",
        code: 3,
        says: "no ServiceEntry has the host nowhere.example; what is routed there is refused",
        a: (403, "host_not_in_registry"),
        ..PLAIN
    },
    Row {
        to: "{host: a.example, port: {number: 81}}",
        code: 3,
        says: "81",
        a: (403, "host_not_in_registry"),
        ..PLAIN
    },
    Row {
        policy: "{tls: {mode: ISTIO_MUTUAL}}",
        code: 3,
        says: "requests that need this policy are refused",
        a: (403, "tls_policy_unavailable"),
        ..PLAIN
    },
    Row {
        policy: "{tunnel: {protocol: CONNECT, targetHost: t.example, targetPort: 443}}",
        code: 3,
        says: "has a tunnel, which is for TLS and TCP",
        a: (403, "wrong_protocol"),
        ..PLAIN
    },
    // What is added is served where nothing is wrong.
    Row { adds: true, new: SERVED, ..PLAIN },
    PLAIN,
    // Nothing of it is in force, and neither is what stands beside it.
    Row {
        to: "{host: a.example, port: {name: p}}",
        adds: true,
        code: 1,
        says: "not supported: the API has no names of ports here",
        ..PLAIN
    },
    Row {
        policy: "{connectionPool: {tcp: {maxConnections: many}}}",
        adds: true,
        code: 1,
        says: "wrong value",
        ..PLAIN
    },
    Row {
        fields: "    redirect: {}\n",
        adds: true,
        code: 1,
        says: "a rule does one thing",
        ..PLAIN
    },
    Row {
        fields: "    headers: {request: {set: {x-a: '50%'}}}\n",
        adds: true,
        code: 1,
        says: "expected %OPERATOR%, or %% for a percent sign",
        ..PLAIN
    },
    Row {
        fields: "    headers: {request: {set: {x-a: '%HOSTNAME%'}}}\n",
        adds: true,
        code: 1,
        says: "unknown operator %HOSTNAME%",
        ..PLAIN
    },
    Row {
        fields: "    retries: {attempts: 1, retryOn: '600'}\n",
        adds: true,
        code: 1,
        says: "unknown condition",
        ..PLAIN
    },
    Row {
        conditions: ", uri: {regex: ''}",
        adds: true,
        code: 1,
        says: "it would match everything",
        ..PLAIN
    },
    Row {
        conditions: ", uri: {prefix: ''}",
        adds: true,
        code: 1,
        says: "it would match everything",
        ..PLAIN
    },
    Row {
        policy: "{}, exportTo: ['~']",
        adds: true,
        code: 1,
        says: "it would be in force for nobody",
        ..PLAIN
    },
    Row { entry: "exportTo: ['.', '*']", adds: true, code: 1, says: "a contradiction", ..PLAIN },
    PLAIN,
];

#[test]
fn requests_get_what_is_said_of_the_configuration() {
    local(async {
        let (upstream, seen) = answering(OK).await;
        let setup = |row: &Row| {
            let rule = format!("{}    route: [{{destination: {}}}]\n", row.fields, row.to);
            let setup = Setup::new().http("a.example", upstream).http("b.example", upstream);
            let setup = setup.service("new.example", "HTTP", Some(upstream), "");
            let setup = setup.route_on("a.example", row.conditions, &rule);
            let setup = match row.entry {
                "" => setup,
                entry => {
                    let (hosts, ports) = ("\n  hosts: [a.example]\n", "  ports:");
                    let before = format!("{hosts}{ports}");
                    setup.edit(&before, &format!("{hosts}  {entry}\n{ports}"))
                }
            };
            let setup = match row.policy {
                "" => setup,
                policy => {
                    let spec = format!("{{host: a.example, trafficPolicy: {policy}}}");
                    setup.resource("DestinationRule", "a", &spec)
                }
            };
            // The same world outside in any case.
            if row.adds {
                setup
            } else {
                setup.edit("hosts: [new.example]", "hosts: [old.example]")
            }
        };
        let gateway = setup(&PLAIN).start().await;
        for row in &ROWS {
            let Row { fields, conditions, entry, to, policy, .. } = row;
            let text = format!("{fields}{conditions}{entry}{to}{policy}");
            let problems = match setup(row).compiled() {
                Ok(compiled) => {
                    let problems = compiled.warnings.clone();
                    gateway.worker.policy.store(Some(in_force(compiled)));
                    problems
                }
                Err(problems) => problems.0,
            };
            assert_eq!(code(&problems), row.code, "{text}: {problems:#?}");
            let said: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
            let is_said = said.iter().any(|said| said.contains(row.says));
            assert!(
                if row.says.is_empty() { said.is_empty() } else { is_said },
                "{text}: {said:#?}"
            );
            for (host, (status, reason)) in
                [("a.example", row.a), ("b.example", SERVED), ("new.example", row.new)]
            {
                let before = seen.requests.borrow().len();
                let answer = gateway.get(host).await;
                assert_eq!(answer.status, status, "{text}: {host}: {}", answer.text());
                let named = answer.text().contains(&format!("({reason})"));
                assert_eq!(named, !reason.is_empty(), "{text}: {host}: {}", answer.text());
                let reached = seen.requests.borrow().len() - before;
                assert_eq!(reached, usize::from(status == 200), "{text}: {host}");
            }
        }
    });
}

//! Export over OTLP: both roles get the variables that they read, and none unless a collector is named.

use egress_agent::otlp::Settings;
use serde_json::Value;

use crate::helm::{NEWEST, containers, render, rendered, sets};

fn env(container: &Value) -> Vec<(&str, &Value)> {
    let all = container["env"].as_array().into_iter().flatten();
    all.filter_map(|variable| Some((variable["name"].as_str()?, variable)))
        .filter(|(name, _)| name.starts_with("OTEL_"))
        .collect()
}

#[test]
fn both_roles_get_variables_that_they_can_use() {
    let set = sets().into_iter().find(|(name, _)| name == "opentelemetry").expect("the set").1;
    let objects = rendered(set.as_deref());
    let mut seen = Vec::new();
    for (whose, container) in containers(&objects) {
        let variables = env(container);
        let get = |name: &str| {
            let variable = variables.iter().find(|(own, _)| *own == name)?.1;
            let secret = &variable["valueFrom"]["secretKeyRef"];
            if secret.is_null() {
                return variable["value"].as_str().map(str::to_owned);
            }
            assert_eq!(
                (&secret["name"], &secret["key"]),
                (&"collector-token".into(), &"headers".into())
            );
            Some("authorization=Bearer%20token".to_owned())
        };
        let settings =
            Settings::read(&get, "egress", &[]).unwrap_or_else(|error| panic!("{error}"));
        let logs = settings.logs.unwrap_or_else(|| panic!("{whose} exports nothing"));
        assert_eq!(logs.headers.len(), 1);
        let roots = logs.roots.expect("the collector's authority");
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        let mount = mounts
            .filter_map(|mount| mount["mountPath"].as_str())
            .find(|path| roots.starts_with(path));
        assert!(mount.is_some_and(|path| path == "/etc/otlp"), "{whose}: {roots:?}");
        seen.push(logs.endpoint.host);
    }
    seen.sort();
    let service = "otel-collector.observability.svc.cluster.local";
    assert_eq!(
        seen,
        [service, "otel.example.com"],
        "a gateway, and a node by a name that it resolves"
    );
}

#[test]
fn without_a_collector_there_is_no_variable() {
    let headers = ["--set", "otlp.headersSecret.name=token"];
    for objects in [rendered(None), render(None, NEWEST, &headers).expect("the chart")] {
        for (whose, container) in containers(&objects) {
            assert!(env(container).is_empty(), "{whose}: {:?}", env(container));
        }
    }
}

#[test]
fn what_is_no_url_and_no_variable_of_opentelemetry_is_refused() {
    for given in ["otlp.endpoint=collector:4318", "otlp.environment.PATH=/tmp"] {
        assert!(render(None, NEWEST, &["--set", given]).is_err(), "{given}");
    }
}

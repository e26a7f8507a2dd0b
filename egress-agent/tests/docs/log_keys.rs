//! The keys of the access log's JSON that `docs/telemetry.md` lists are those of both forms, in their order.

use std::fs;

use egress_agent::{config::LogFormat, policy::AccessLogEncoding};

use crate::markdown::root;

fn keys(form: &str) -> Vec<String> {
    match LogFormat::compile(Some(form), AccessLogEncoding::Json) {
        Ok(LogFormat::Json(keys)) => keys.into_iter().map(|(key, _)| key).collect(),
        other => panic!("{form}: {other:?}"),
    }
}

/// The keys that a page lists, and those of them that Envoy's form has.
fn listed(page: &str) -> (Vec<String>, Vec<String>) {
    let (_, list) = page.split_once("`accessLogEncoding: JSON` the keys are:").expect("a list");
    let (list, rest) = list.split_once('.').expect("its end");
    let all: Vec<String> = list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let (_, rest) = rest.split_once("leaves out those from").expect("what Envoy's form lacks");
    let first = rest.split('`').nth(1).expect("a key");
    let envoy = all.iter().take_while(|key| *key != first).cloned().collect();
    (all, envoy)
}

#[test]
fn the_page_lists_the_keys_of_both_forms() {
    let page = fs::read_to_string(root().join("docs/telemetry.md")).expect("the page");
    assert_eq!(listed(&page), (keys("istio"), keys("envoy")));
    let other = page.replace("from\n`response_code_details` on", "from\n`route_name` on");
    assert_ne!(other, page);
    assert_ne!(listed(&other), (keys("istio"), keys("envoy")));
}

/// Without them a line of TLS does not say who went where.
#[test]
fn both_forms_have_client_server_name_and_cluster() {
    for form in ["istio", "envoy"] {
        let keys = keys(form);
        for key in ["downstream_remote_address", "requested_server_name", "upstream_cluster"] {
            assert!(keys.iter().any(|one| one == key), "{form} has no {key}: {keys:?}");
        }
    }
}

//! Credentials that are Secrets of the API server: of servers that terminate TLS and of TLS that the gateway
//! originates. What is there is served, its missing or broken twin is refused and reported, and a new one is in
//! use without a restart.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::fs;

use egress_tests::{
    ca::{Authority, issue_pem, issue_rsa_pem},
    kubernetes::{Resource, TestCluster, config_map, documents, secret},
    manifests::Walkthrough,
    plan::{GATEWAYS, HOST},
    process::Process,
    wait::{SOON, until, until_is},
};
use serde_json::{Value, json};

const SERVER: u16 = 20443;
/// The host in plain HTTP in the pod; the gateway originates TLS.
const PLAIN: &str = "http://edition.cnn.com/politics";

/// A server with the credential `web`, which sends requests on to the host's port 80.
fn server() -> Vec<Value> {
    let text = format!(
        "kind: ServiceEntry\nmetadata: {{name: outside, namespace: default}}\nspec:\n  hosts: [{HOST}]\n  \
         ports:\n  - {{number: 80, name: http, protocol: HTTP}}\n  resolution: DNS\n---\n\
         kind: Gateway\nmetadata: {{name: egress, namespace: default}}\nspec:\n  \
         selector: {{istio: egressgateway}}\n  servers:\n  \
         - port: {{number: {SERVER}, name: https, protocol: HTTPS}}\n    hosts: [{HOST}]\n    \
         tls: {{mode: SIMPLE, credentialName: web}}\n---\n\
         kind: VirtualService\nmetadata: {{name: inside, namespace: default}}\nspec:\n  hosts: [{HOST}]\n  \
         gateways: [egress]\n  http:\n  \
         - route: [{{destination: {{host: {HOST}, port: {{number: 80}}}}}}]\n"
    );
    documents(&text).unwrap()
}

fn of_server(authority: &Authority) -> [(String, String); 2] {
    keys(issue_pem(authority, HOST).unwrap())
}

fn keys((certificate, key): (String, String)) -> [(String, String); 2] {
    [("tls.crt".to_owned(), certificate), ("tls.key".to_owned(), key)]
}

/// The double has one kind of gateways: it becomes that of the Gateway API.
fn serve_gateway_api(cluster: &mut TestCluster) {
    for (plural, kind) in [
        ("gateways", "Gateway"),
        ("httproutes", "HTTPRoute"),
        ("backendtlspolicies", "BackendTLSPolicy"),
        ("referencegrants", "ReferenceGrant"),
    ] {
        cluster.api.add_crd(Resource::gateway_api(plural, kind));
    }
}

/// A file with the authority's certificate.
fn trust(cluster: &TestCluster, name: &str, authority: &Authority) -> String {
    let path = cluster.testbed.dir().join(name);
    fs::write(&path, authority.pem()).unwrap();
    path.display().to_string()
}

fn put(cluster: &TestCluster, name: &str, keys: &[(String, String)]) {
    let keys: Vec<(&str, &str)> = keys.iter().map(|(key, text)| (&**key, &**text)).collect();
    cluster.api.apply(secret("istio-system", name, &keys));
}

/// No part of a key is in what a process wrote.
fn shows_no_key(of: &Process, keys: &[String]) {
    let text = of.stderr() + &of.stdout();
    for key in keys {
        let lines = key.lines().filter(|line| line.len() > 32 && !line.starts_with("-----"));
        for line in lines {
            assert!(!text.contains(line), "a key is logged");
        }
    }
}

#[test]
fn a_server_has_the_secret_that_it_names_and_no_other() {
    let mut cluster = TestCluster::new().unwrap();
    let authority = Authority::new("First authority").unwrap();
    let second = Authority::new("Second authority").unwrap();
    let trusts_first = trust(&cluster, "one.pem", &authority);
    let trusts_second = trust(&cluster, "two.pem", &second);
    // There, and named by nobody; in another namespace, under the name.
    put(&cluster, "other", &of_server(&authority));
    cluster.api.apply(secret("shop", "web", &[("tls.crt", "x"), ("tls.key", "x")]));
    server().into_iter().for_each(|object| cluster.api.apply(object));
    let gateway = cluster.start_gateway(&[]).unwrap();
    let node = cluster.start_node(&[]).unwrap();
    cluster.run_pod().unwrap();
    let request = |trust: &str| {
        let (url, at) =
            (format!("https://{HOST}:{SERVER}/"), format!("{HOST}:{SERVER}:{}", GATEWAYS[0]));
        cluster.curl(&["--cacert", trust, "--resolve", &at, &url]).unwrap()
    };
    let is = |trust: &str, expected: &str| {
        let seen = until_is(SOON, expected, || request(trust), |seen| seen == expected);
        seen.unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.stderr()));
    };
    // Missing: the handshake is refused (curl 35), and that is reported.
    is(&trusts_first, "curl: (35)");
    let status = || cluster.status_of_gateway().unwrap();
    let missing = "found none of Secret istio-system/web/tls.crt";
    until_is(SOON, "the missing Secret in status", status, |text| text.contains(missing)).unwrap();
    let event = || cluster.api.events("egress").into_iter().next();
    let event = until(SOON, "an Event of the resource that names it", event).unwrap();
    assert_eq!(
        (&event["reason"], &event["type"]),
        (&json!("CredentialUnusable"), &json!("Warning"))
    );
    assert_eq!(event["regarding"]["kind"], "Gateway");
    let note = event["note"].as_str().unwrap();
    assert!(note.starts_with("credential web: ") && note.contains(missing), "{note}");
    // There.
    let first = of_server(&authority);
    put(&cluster, "web", &first);
    is(&trusts_first, "301");
    is(&trusts_second, "curl: (60)");
    until_is(SOON, "nothing in status", status, |text| !text.contains("Secret")).unwrap();
    // Renewed, in the running process.
    let next = of_server(&second);
    put(&cluster, "web", &next);
    is(&trusts_second, "301");
    is(&trusts_first, "curl: (60)");
    // Broken: the key of another certificate. The last good one stays, and the fault is reported.
    let stray = of_server(&second);
    put(&cluster, "web", &[next[0].clone(), stray[1].clone()]);
    let mismatch = "this key is not the one of the certificate in Secret istio-system/web/tls.crt";
    until_is(SOON, "the mismatch in status", status, |text| text.contains(mismatch)).unwrap();
    assert_eq!(request(&trusts_second), "301");
    let told = || {
        let events = cluster.api.events("egress");
        events.iter().any(|event| event["note"].as_str().unwrap().contains(mismatch)).then_some(())
    };
    until(SOON, "an Event about the mismatch", told).unwrap();

    // The gateway asked for the one Secret and its roots, by name in its own namespace; the node for none.
    let asked: Vec<String> = cluster
        .api
        .take_requests()
        .into_iter()
        .filter(|target| target.contains("/secrets"))
        .collect();
    assert!(!asked.is_empty());
    for target in &asked {
        let mut names = ["web", "web-cacert"]
            .into_iter()
            .map(|name| format!("fieldSelector=metadata.name%3D{name}"));
        let of_name = |selector: String| {
            target.ends_with(&selector) || target.contains(&format!("{selector}&"))
        };
        assert!(target.starts_with("/api/v1/namespaces/istio-system/secrets?"), "{target}");
        assert!(names.any(of_name), "{target}");
    }
    let keys = [&first, &next, &stray].map(|pair| pair[1].1.clone());
    shows_no_key(&gateway, &keys);
    shows_no_key(&node, &keys);
}

#[test]
fn tls_is_originated_with_the_secret_that_a_rule_names() {
    let mut cluster = TestCluster::new().unwrap();
    for (_, text) in &Walkthrough::example().unwrap().tls_origination.files {
        for mut object in documents(text).unwrap() {
            if object["metadata"]["name"] == "originate-tls-for-edition-cnn-com" {
                let settings = &mut object["spec"]["trafficPolicy"]["portLevelSettings"][0];
                settings["tls"] = json!({"mode": "SIMPLE", "credentialName": "cnn"});
                // Connections that are open stay so, whatever becomes of the Secret.
                settings["connectionPool"] = json!({"http": {"maxRequestsPerConnection": 1}});
            }
            cluster.api.apply(object);
        }
    }
    let gateway = cluster.start_gateway(&[]).unwrap();
    let _node = cluster.start_node(&[]).unwrap();
    cluster.run_pod().unwrap();
    let is = |expected: &str| {
        let seen = || cluster.curl(&[PLAIN]).unwrap();
        until_is(SOON, expected, seen, |seen| seen == expected)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.stderr()));
    };
    let status = || cluster.status_of_gateway().unwrap();
    // The roots of the system would do, but the rule names a credential that is not there.
    is("503");
    let missing = "Secret istio-system/cnn/ca.crt: there is no such Secret";
    until_is(SOON, "the missing Secret in status", status, |text| text.contains(missing)).unwrap();
    let rule = "originate-tls-for-edition-cnn-com";
    let told = || cluster.api.events(rule).into_iter().next();
    let event = until(SOON, "an Event of the rule that names it", told).unwrap();
    assert_eq!(event["regarding"]["kind"], "DestinationRule", "{event}");
    let roots = fs::read_to_string(cluster.testbed.dir().join("ca.pem")).unwrap();
    put(&cluster, "cnn", &[("ca.crt".into(), roots.clone())]);
    is("200");
    until_is(SOON, "nothing in status", status, |text| !text.contains("Secret")).unwrap();
    // Roots that did not sign the host's certificate.
    let stranger = Authority::new("An unknown authority").unwrap();
    put(&cluster, "cnn", &[("ca.crt".into(), stranger.pem())]);
    is("503");
    // Roots in a Secret of their own, as Istio has them.
    put(&cluster, "cnn", &[]);
    put(&cluster, "cnn-cacert", &[("cacert".into(), roots)]);
    is("200");
    assert!(cluster.api.delete("secrets", "istio-system", "cnn-cacert"));
    is("503");
}

/// In the Gateway API's words: the roots are a ConfigMap of the policy's namespace, and a route shows what became of it.
#[test]
fn roots_are_a_config_map_and_a_route_shows_what_became_of_it() {
    const ROUTE: &str = "forward-cnn-from-egress-gateway";
    let mut cluster = TestCluster::new().unwrap();
    serve_gateway_api(&mut cluster);
    let mut route = None;
    for (_, text) in &Walkthrough::example_gateway_api().unwrap().tls_origination.files {
        let text = text
            .replace("gatewayClassName: istio", "gatewayClassName: egress-enforcer")
            .replace("cnn-egress-gateway-istio", "cnn-egress-gateway-egress-enforcer");
        for mut object in documents(&text).unwrap() {
            if object["kind"] == "BackendTLSPolicy" {
                let roots = json!([{"group": "", "kind": "ConfigMap", "name": "roots"}]);
                object["spec"]["validation"] =
                    json!({"hostname": HOST, "caCertificateRefs": roots});
            }
            if object["metadata"]["name"] == ROUTE {
                route = Some(object.clone());
            }
            cluster.api.apply(object);
        }
    }
    let mut route = route.unwrap();
    // Connections that are open stay so, whatever becomes of the ConfigMap.
    cluster.api.apply(json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "once", "namespace": "default"},
        "spec": {"host": HOST, "trafficPolicy":
            {"connectionPool": {"http": {"maxRequestsPerConnection": 1}}}},
    }));
    let gateway = cluster.start_gateway(&[]).unwrap();
    let _node = cluster.start_node(&[]).unwrap();
    cluster.run_pod().unwrap();
    let is = |expected: &str| {
        let seen = || cluster.curl(&[PLAIN]).unwrap();
        until_is(SOON, expected, seen, |seen| seen == expected)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.stderr()));
    };
    let roots = fs::read_to_string(cluster.testbed.dir().join("ca.pem")).unwrap();
    // Absent, and there in another namespace: the system's roots would do, and are not taken.
    cluster.api.apply(config_map("istio-system", "roots", "ca.crt", &roots));
    is("503");
    let missing = "ConfigMap default/roots/ca.crt: there is no such ConfigMap";
    let log = || gateway.stderr();
    until_is(SOON, "the missing ConfigMap in the log", log, |text| text.contains(missing)).unwrap();
    cluster.api.apply(config_map("default", "roots", "ca.crt", &roots));
    is("200");
    let stranger = Authority::new("An unknown authority").unwrap();
    cluster.api.apply(config_map("default", "roots", "ca.crt", &stranger.pem()));
    is("503");
    cluster.api.apply(config_map("default", "roots", "ca.crt", &roots));
    is("200");
    let shown = |kind: &str| {
        let object = cluster.api.get("httproutes", "v1", "default", ROUTE)?;
        let parent = object["status"]["parents"].as_array()?.first()?.clone();
        assert_eq!(parent["controllerName"], "egress-enforcer.io/gateway");
        assert_eq!(parent["parentRef"]["name"], "cnn-egress-gateway");
        let mut all = parent["conditions"].as_array()?.iter();
        let found = all.find(|condition| condition["type"] == kind)?;
        let is_current = found["observedGeneration"] == object["metadata"]["generation"];
        is_current.then(|| (found["status"].clone(), found["reason"].clone()))
    };
    let becomes = |kind: &str, status: &str, reason: &str| {
        let wanted = Some((Value::from(status), Value::from(reason)));
        until_is(SOON, reason, || shown(kind), |seen| *seen == wanted)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.stderr()));
    };
    becomes("Accepted", "True", "Accepted");
    becomes("ResolvedRefs", "True", "ResolvedRefs");
    let good = route.clone();
    route["spec"]["rules"][0]["backendRefs"][0]["name"] = json!("unknown.example.com");
    cluster.api.apply(route);
    becomes("ResolvedRefs", "False", "BackendNotFound");
    let seen = || cluster.curl(&[PLAIN]).unwrap();
    until_is(SOON, "a refusal", seen, |seen| seen != "200").unwrap();
    cluster.api.apply(good);
    becomes("ResolvedRefs", "True", "ResolvedRefs");
    is("200");
}

/// The Gateway API's server of [`server`], with these certificates.
fn listener(certificates: &[&str]) -> Vec<Value> {
    let names: Vec<String> = certificates.iter().map(|name| format!("{{name: {name}}}")).collect();
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: outside, namespace: \
         default}}\nspec:\n  hosts: [{HOST}]\n  ports:\n  - {{number: 80, name: http, protocol: HTTP}}\n  \
         resolution: DNS\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: egress, \
         namespace: istio-system}}\nspec:\n  gatewayClassName: egress-enforcer\n  addresses:\n  - {{type: Hostname, \
         value: istio-egressgateway.istio-system.svc.cluster.local}}\n  listeners:\n  - name: https\n    hostname: \
         {HOST}\n    port: {SERVER}\n    protocol: HTTPS\n    tls: {{mode: Terminate, certificateRefs: [{}]}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: inside, namespace: \
         istio-system}}\nspec:\n  parentRefs: [{{name: egress}}]\n  hostnames: [{HOST}]\n  rules:\n  - backendRefs: \
         [{{group: networking.istio.io, kind: Hostname, name: {HOST}, port: 80}}]\n",
        names.join(", ")
    );
    documents(&text).unwrap()
}

/// In the Gateway API's words: each of two certificates is served and renewed, and the listener shows what is missing.
#[test]
fn a_listener_has_two_certificates_and_shows_what_became_of_it() {
    let mut cluster = TestCluster::new().unwrap();
    serve_gateway_api(&mut cluster);
    let of_ecdsa = Authority::new("Authority of ECDSA keys").unwrap();
    let of_rsa = Authority::new("Authority of RSA keys").unwrap();
    let trusts_ecdsa = trust(&cluster, "ecdsa.pem", &of_ecdsa);
    let trusts_rsa = trust(&cluster, "rsa.pem", &of_rsa);
    put(&cluster, "web", &of_server(&of_ecdsa));
    listener(&["web", "web-rsa"]).into_iter().for_each(|object| cluster.api.apply(object));
    let gateway = cluster.start_gateway(&[]).unwrap();
    let _node = cluster.start_node(&[]).unwrap();
    cluster.run_pod().unwrap();
    // Which certificate came follows from the authority that verifies it.
    let request = |kind: &str, trust: &str| {
        let suite = format!("ECDHE-{kind}-AES128-GCM-SHA256");
        let (url, at) =
            (format!("https://{HOST}:{SERVER}/"), format!("{HOST}:{SERVER}:{}", GATEWAYS[0]));
        let kind = ["--tls-max", "1.2", "--ciphers", &suite];
        cluster.curl(&[&kind[..], &["--cacert", trust, "--resolve", &at, &url]].concat()).unwrap()
    };
    let is = |kind: &str, trust: &str, expected: &str| {
        let seen = until_is(SOON, expected, || request(kind, trust), |seen| seen == expected);
        seen.unwrap_or_else(|error| panic!("{kind}: {error:#}\n{}", gateway.stderr()));
    };
    let shown = || {
        let object = cluster.api.get("gateways", "v1", "istio-system", "egress")?;
        let listeners = object["status"]["listeners"].as_array()?;
        assert_eq!(listeners.len(), 1);
        let listener = listeners.first()?.clone();
        let conditions = listener["conditions"].as_array()?;
        let is_current =
            |condition: &Value| condition["observedGeneration"] == object["metadata"]["generation"];
        conditions.iter().all(is_current).then_some(listener)
    };
    let becomes = |expected: [&str; 4], routes: u64| {
        let brief = || {
            let listener = shown()?;
            let conditions = listener["conditions"].as_array()?.iter();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let brief = conditions
                .map(|one| [&one["type"], &one["status"], &one["reason"]].map(text).join(" "));
            Some((brief.collect::<Vec<_>>(), listener["attachedRoutes"].as_u64()?))
        };
        let wanted = Some((expected.map(str::to_owned).to_vec(), routes));
        until_is(SOON, expected[1], brief, |seen| *seen == wanted)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.stderr()));
    };
    const ACCEPTED: &str = "Accepted True Accepted";
    const LOST: &str = "ResolvedRefs False InvalidCertificateRef";
    const RESOLVED: &str = "ResolvedRefs True ResolvedRefs";
    const SERVED: &str = "Programmed True Programmed";
    const ALONE: &str = "Conflicted False NoConflicts";
    // One is missing: the other one is served, and whom that does not fit is refused.
    is("ECDSA", &trusts_ecdsa, "301");
    assert_eq!(request("RSA", &trusts_rsa), "curl: (35)");
    becomes([ACCEPTED, LOST, SERVED, ALONE], 1);
    let kind = |kind: &str| json!({"group": "gateway.networking.k8s.io", "kind": kind});
    assert_eq!(shown().unwrap()["supportedKinds"], json!([kind("HTTPRoute"), kind("GRPCRoute")]));
    // Both are there.
    put(&cluster, "web-rsa", &keys(issue_rsa_pem(&of_rsa, HOST).unwrap()));
    is("RSA", &trusts_rsa, "301");
    assert_eq!(request("RSA", &trusts_ecdsa), "curl: (60)");
    assert_eq!(request("ECDSA", &trusts_ecdsa), "301");
    becomes([ACCEPTED, RESOLVED, SERVED, ALONE], 1);
    // One is renewed, in the running process.
    put(&cluster, "web-rsa", &keys(issue_rsa_pem(&of_ecdsa, HOST).unwrap()));
    is("RSA", &trusts_ecdsa, "301");
    assert_eq!(request("ECDSA", &trusts_ecdsa), "301");
    // No route.
    assert!(cluster.api.delete("httproutes", "istio-system", "inside"));
    becomes([ACCEPTED, RESOLVED, SERVED, ALONE], 0);
}

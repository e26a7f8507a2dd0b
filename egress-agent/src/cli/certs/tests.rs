use std::fs;

use clap::Parser;
use tempfile::TempDir;

use super::{super::testing::documented, *};
use crate::policy::CredentialSource;
use crate::tls::{
    testing::{ca, expired, issue, params, write},
    workload_api_testing::{self, Server, given},
};

const ID: &str = "spiffe://cluster.local/ns/istio-system/sa/istio-egressgateway-service-account";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: ShowArgs,
}

fn shown(args: &[&str]) -> (String, serde_json::Value, bool) {
    let line = Line::parse_from(["show"].iter().chain(args));
    let shown = show::show(&line.args).unwrap();
    let mut text = Vec::new();
    show::text(&shown, &mut text).unwrap();
    let json = serde_json::to_value(&shown).unwrap();
    documented("certs show -o json", &json);
    (String::from_utf8(text).unwrap(), json, shown.is_good())
}

#[test]
fn a_directory_is_shown_with_what_is_wrong() {
    let dir = TempDir::new().unwrap();
    let root = ca("root");
    let path = dir.path().to_str().unwrap();
    write(dir.path(), &issue(&root, &params(&["a.example"], &[ID], 0xab)), Some(&root));
    let (text, json, good) = shown(&[path]);
    assert!(good, "{text}");
    for part in [&format!("URI:{ID}"), "issued by CN=root", "names a.example", "nothing is wrong"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let leaf = &json["certificates"][0]["chain"][0];
    assert_eq!((&leaf["spiffe_id"], &leaf["serial"]), (&ID.into(), &"ab".into()));
    assert!(leaf["days_left"].as_i64().unwrap() > 0);
    // Another trust domain is expected.
    let (text, json, good) = shown(&[path, "--trust-domain", "other"]);
    assert!(!good && text.contains("error: ") && text.contains("expected other"), "{text}");
    assert_eq!(json["certificates"][0]["problems"][0]["severity"], "error");
    // An expired one is shown all the same.
    let old = expired(params(&["a.example"], &[ID], 1));
    write(dir.path(), &issue(&root, &old), None);
    let (text, json, good) = shown(&[path]);
    assert!(!good && text.contains("it has expired") && text.contains("renew it"), "{text}");
    assert!(json["certificates"][0]["chain"][0]["days_left"].as_i64().unwrap() < 0);
}

/// As a terminal shows it: nothing is lost, and what is wider goes on below.
#[test]
fn certificates_fit_a_terminal() {
    let dir = TempDir::new().unwrap();
    let root = ca("root");
    let names: Vec<String> = (0..9).map(|n| format!("name-{n}.example.com")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    write(dir.path(), &issue(&root, &params(&names, &[ID], 0xab)), Some(&root));
    let (text, _, good) = shown(&[dir.path().to_str().unwrap()]);
    assert!(good && text.lines().any(|line| line.chars().count() > 80), "{text}");
    let page = fitted(&text, width(true));
    // A word that is longer has a line of its own.
    let is_wide = |line: &&str| line.chars().count() > 80 && line.split_whitespace().count() > 1;
    let wide = page.lines().find(is_wide);
    assert_eq!(wide, None, "{page}");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&page), words(&text));
    assert!(page.lines().any(|line| line.starts_with("               name-")), "{page}");
}

#[test]
fn what_the_configuration_uses_is_shown() {
    let dir = TempDir::new().unwrap();
    let root = ca("root");
    let at = |name: &str| dir.path().join(name);
    for name in ["config", "credentials"] {
        fs::create_dir(at(name)).unwrap();
    }
    write(&at("credentials").join("web"), &issue(&root, &params(&["a.example"], &[], 1)), None);
    write(&at("credentials").join("idle"), &issue(&root, &params(&["b.example"], &[], 2)), None);
    fs::write(
        at("config").join("gateway.yaml"),
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: apps}\nspec:\n  selector: {a: b}\n  servers:\n  - port: {number: 443, name: h, protocol: HTTPS}\n    hosts: [a.example]\n    tls: {mode: MUTUAL, credentialName: web}\n",
    )
    .unwrap();
    let (config, credentials) = (at("config"), at("credentials"));
    let args =
        ["--config", config.to_str().unwrap(), "--credentials-dir", credentials.to_str().unwrap()];
    let (text, json, good) = shown(&args);
    // The server needs roots, which aren't there; no server uses the other one.
    assert!(!good && text.contains("the CA's certificates: found none of"), "{text}");
    assert!(text.contains("used by  Gateway apps/g port 443 (MUTUAL)"), "{text}");
    assert_eq!(json["certificates"][0]["name"], "web");
    assert_eq!(json["certificates"][1]["name"], "idle");
    assert_eq!(json["certificates"][1]["problems"], serde_json::json!([]));
    fs::write(credentials.join("web/ca.crt"), root.pem()).unwrap();
    assert!(shown(&args).2);
}

#[test]
fn what_the_workload_api_gives_is_shown() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("agent.sock");
    let option = format!("unix:{}", socket.display());
    let (text, _, good) = shown(&["--workload-api", &option]);
    assert!(!good && text.contains("gave no identity") && text.contains("No such file"), "{text}");
    let (message, _) = given(&ca("root"), &[]);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _server = Server::start(&socket, Ok(message));
            ready.send(()).unwrap();
            stopped.await.ok();
        });
    });
    is_ready.recv().unwrap();
    let (text, json, good) = shown(&["--workload-api", &option, "--trust-domain", "cluster.local"]);
    assert!(good, "{text}");
    assert!(text.contains(&format!("URI:{}", workload_api_testing::ID)), "{text}");
    assert_eq!(json["certificates"][0]["roots"].as_array().unwrap().len(), 1);
    let (text, _, good) = shown(&["--workload-api", &option, "--trust-domain", "other"]);
    assert!(!good && text.contains("expected other"), "{text}");
    drop(stop);
    serving.join().unwrap();
}

#[test]
fn the_own_identity_has_one_source() {
    let both = ["show", "--identity-dir", "/a", "--workload-api", "unix:/b"];
    assert!(Line::try_parse_from(both).is_err());
    let refused = Line::try_parse_from(["show", "--workload-api", "tcp:127.0.0.1:1"]);
    assert!(refused.is_err_and(|error| error.to_string().contains("in clear")));
    let line = Line::parse_from(["show", "--workload-api", "unix:/b", "--identity-crl", "/c"]);
    let places = line.args.certificates.places().unwrap();
    assert_eq!(places.workload_api, Some("/b".into()));
    let located = places.locate(&CredentialSource::Own).unwrap();
    assert_eq!((located.crl, located.crl_named), (vec!["/c".into()], true));
}

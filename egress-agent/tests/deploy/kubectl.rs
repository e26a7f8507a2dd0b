//! kubectl takes the plain manifests: they build, and each kind is one that a server has. What the fields may
//! be is another test's subject; without a real server kubectl does not look at them.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
    thread,
};

use serde_json::{Value, json};

use crate::helm::{rendered, root, title, tools};

/// What a server says that it has: version of a group, plural, kind, and whether it is in a namespace.
const SERVED: [(&str, &str, &str, bool); 12] = [
    ("apps/v1", "daemonsets", "DaemonSet", true),
    ("apps/v1", "deployments", "Deployment", true),
    ("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", true),
    ("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", true),
    ("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", true),
    ("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", false),
    ("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", false),
    ("rbac.authorization.k8s.io/v1", "roles", "Role", true),
    ("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding", true),
    ("v1", "configmaps", "ConfigMap", true),
    ("v1", "services", "Service", true),
    ("v1", "serviceaccounts", "ServiceAccount", true),
];

/// Answers discovery; nothing else is there.
fn answer(path: &str) -> Option<Value> {
    let version = match path {
        "/api" => return Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => {
            let group = |version: &str| {
                let (name, short) = version.split_once('/')?;
                let version = json!({"groupVersion": version, "version": short});
                Some(json!({"name": name, "versions": [version], "preferredVersion": version}))
            };
            let mut versions: Vec<_> = SERVED.iter().map(|served| served.0).collect();
            versions.dedup();
            let groups: Vec<_> = versions.into_iter().filter_map(group).collect();
            return Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}));
        }
        path => path.strip_prefix("/apis/").or_else(|| path.strip_prefix("/api/"))?,
    };
    let of = SERVED.iter().filter(|served| served.0 == version);
    let resources: Vec<_> = of
        .map(|(_, plural, kind, namespaced)| {
            let verbs = ["create", "get", "list", "patch"];
            json!({"name": plural, "singularName": "", "kind": kind, "namespaced": namespaced, "verbs": verbs})
        })
        .collect();
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources,
    });
    (!resources.is_empty()).then_some(list)
}

/// Answers one request.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    for line in reader.lines() {
        if line?.is_empty() {
            break;
        }
    }
    let target = first.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let missing = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
    });
    let (status, body) = answer(path).map_or(("404 Not Found", missing), |body| ("200 OK", body));
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A server that is there for as long as this program.
fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is none of the test's business.
            thread::spawn(|| serve(stream).ok());
        }
    });
    addr
}

fn kubectl(args: &[&str], path: &Path) -> Output {
    let home = tempfile::tempdir().expect("a directory");
    let mut kubectl = Command::new(tools().join("bin/kubectl"));
    // Without anything of the user's: neither a cluster nor a cache.
    kubectl.env_clear().env("HOME", home.path()).args(args).arg(path);
    kubectl.output().expect("kubectl runs")
}

/// What it would create, or what it says is wrong.
fn dry_run(option: &str, path: &Path) -> Result<String, String> {
    let server = format!("http://{}", start());
    let dry = ["--server", &server, "apply", "--dry-run=client", "--validate=false", option];
    let output = kubectl(&dry, path);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

#[test]
fn kubectl_takes_the_manifests() {
    for directory in ["deploy/kubernetes", "deploy/kubernetes/detach"] {
        let said = dry_run("-k", &root().join(directory)).unwrap_or_else(|error| panic!("{error}"));
        let created = said.lines().filter(|line| line.ends_with(" created (dry run)")).count();
        let built = kubectl(&["kustomize"], &root().join(directory));
        let text = String::from_utf8(built.stdout).expect("text");
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
        assert_eq!(created, objects.len(), "{directory}: {said}");
        assert!(created > 5, "{directory}: {said}");
    }
}

#[test]
fn kubectl_refuses_what_no_server_has() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("object.yaml");
    for (text, fits) in [
        ("apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: x}\n", true),
        ("apiVersion: extensions/v1beta1\nkind: DaemonSet\nmetadata: {name: x}\n", false),
        ("apiVersion: apps/v1\nkind: DeamonSet\nmetadata: {name: x}\n", false),
    ] {
        std::fs::write(&path, text).expect("a file");
        let said = dry_run("-f", &path);
        assert_eq!(said.is_ok(), fits, "{text}: {said:?}");
    }
}

/// With the chart's values the manifests are the chart's objects, whichever way they are built.
#[test]
fn the_manifests_are_the_charts_objects() {
    let text = std::fs::read_to_string(root().join("deploy/kubernetes/egress-enforcer.yaml"));
    let text = text.expect("the manifests");
    let mut manifests: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    let mut chart = rendered(None);
    for objects in [&mut manifests, &mut chart] {
        objects.sort_by_key(title);
    }
    assert_eq!(manifests, chart);
}

//! What the chart installs, started: the agents with the command lines of the manifests, as pods, against
//! the double of the API server; and what they ask of it, against the rights that they are given.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use egress_tests::{
    capture::Capture,
    cgroup,
    denied::Wall,
    kubernetes::{
        ApiServer, KubeletPod, Resource, documents, endpoint_slice, node, pod, service,
        service_cidr,
    },
    manifests::{Step, Walkthrough},
    plan,
    process::{Place, Process},
    testbed::Testbed,
    wait::{SOON, START, until, until_is},
};
use serde_json::{Value, json};

const URL: &str = "https://edition.cnn.com/politics";
const AGENT_UID: &str = "0f3f1c1e-7a5b-4c3d-9e8f-00000000a9e7";
const POD_UID: &str = "0f3f1c1e-7a5b-4c3d-9e8f-0123456789ab";

/// The chart's objects with these values.
fn rendered(values: &[String]) -> Vec<Value> {
    let own = env::current_exe().unwrap();
    let helm = own.ancestors().nth(3).unwrap().join("tools/bin/helm");
    assert!(helm.is_file(), "{} is not there: run `cargo xtask setup`", helm.display());
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart/egress-enforcer");
    let mut command = Command::new(helm);
    command.args(["template", "egress-enforcer", "--namespace", "istio-system"]).arg(chart);
    for value in values {
        command.args(["--set", value]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    documents(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(is).unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// A cluster whose agents come from the manifests.
struct Installed {
    api: ApiServer,
    objects: Vec<Value>,
    pod: KubeletPod,
    /// The cgroup of the node agent's pod.
    agent: PathBuf,
    testbed: Testbed,
}

impl Installed {
    fn new() -> Self {
        Self::with(&[])
    }

    /// With more values.
    fn with(more: &[&str]) -> Self {
        let testbed = Testbed::test(1).unwrap();
        let root = KubeletPod::root(&testbed).unwrap();
        // Where this machine is no node: the cgroup, the interface, and the gateway's name server.
        let mut values = vec![
            format!("node.cgroups={{{}}}", root.display()),
            "node.podInterfaces={pod*}".into(),
            // What reads the events here reads text.
            "node.events=text".into(),
            "gateway.workers=1".into(),
            format!("gateway.resolver={}", plan::OUTSIDE_DNS),
            "gateway.credentials={web}".into(),
        ];
        values.extend(more.iter().map(|value| (*value).to_owned()));
        let objects = rendered(&values);
        let addr = format!("{}:6443", plan::APP).parse().unwrap();
        let api = ApiServer::start(&testbed.app().ns, addr, &testbed.dir()).unwrap();
        let made = find(&objects, "Service", "istio-egressgateway");
        let selector = made["spec"]["selector"].clone();
        for object in [
            node("app", plan::APP, "10.244.1.0/24"),
            node("gateway", plan::GATEWAYS[0], "10.244.9.0/24"),
            service("istio-system", "istio-egressgateway", "10.96.0.20", selector),
            endpoint_slice("istio-system", "istio-egressgateway", &[plan::GATEWAYS[0]]),
            // The name server's address is one of a Service.
            service_cidr("kubernetes", &["10.96.0.0/12"]),
            find(&objects, "ConfigMap", "egress-enforcer").clone(),
            Self::web(),
            Self::agents_pod(),
        ] {
            api.apply(object);
        }
        let pod = KubeletPod::create(&testbed, POD_UID).unwrap();
        let agent = cgroup::create(&root.join(format!("burstable/pod{AGENT_UID}"))).unwrap();
        Self { api, objects, pod, agent, testbed }
    }

    fn web() -> Value {
        let mut web = pod("shop", "web-0", POD_UID, "app", json!({"app": "web"}));
        web["status"] =
            json!({"phase": "Running", "podIP": plan::POD, "podIPs": [{"ip": plan::POD}]});
        web
    }

    fn agents_pod() -> Value {
        let mut agent = pod("istio-system", "egress-node-x", AGENT_UID, "app", json!({}));
        agent["spec"]["hostNetwork"] = json!(true);
        agent
    }

    /// The command line of a container, and where this machine is no node: how the API server is reached, and
    /// where pins and sockets are.
    fn command(&self, kind: &str, name: &str, more: &[(&str, String)]) -> Vec<String> {
        let container =
            &find(&self.objects, kind, name)["spec"]["template"]["spec"]["containers"][0];
        let args = container["args"].as_array().unwrap().iter();
        // What kubelet fills in, and what a Secret would be mounted at.
        let identity =
            self.testbed.dir().join(if kind == "DaemonSet" { "node" } else { "gateway" });
        let args = args.map(|arg| {
            let arg = arg.as_str().unwrap();
            arg.replace("$(NODE_NAME)", "app")
                .replace("$(HOST_IP)", plan::APP)
                .replace("/etc/egress/identity", &identity.to_string_lossy())
        });
        let more = more.iter().map(|(option, value)| format!("{option}={value}"));
        args.chain(more).collect()
    }

    /// The probe of a container, as the kubelet asks.
    fn is_ready(&self, place: &Place, kind: &str, name: &str) -> bool {
        let container =
            &find(&self.objects, kind, name)["spec"]["template"]["spec"]["containers"][0];
        let get = &container["readinessProbe"]["httpGet"];
        let ports = container["ports"].as_array().unwrap();
        let port = ports.iter().find(|port| port["name"] == get["port"]);
        let port = port.map_or(&get["port"], |port| &port["containerPort"]);
        let host = get["host"].as_str().unwrap_or("127.0.0.1");
        let url = format!("http://{host}:{port}{}", get["path"].as_str().unwrap());
        place
            .run("curl", &["-sf", "-m", "2", "-o", "/dev/null", &url])
            .is_ok_and(|asked| asked.ok())
    }

    fn start_gateway(&self) -> Process {
        let control = self.testbed.gateway_control(0).to_string_lossy().into_owned();
        let more = [("--kubeconfig", self.api.kubeconfig()), ("--control", control)];
        let args = self.command("Deployment", "egress-gateway", &more);
        let place = self.testbed.gateway(0);
        let mut gateway = self.testbed.start_agent(place, "gateway1", &args).unwrap();
        until(START, "the gateway's probe to succeed", || {
            assert!(gateway.ended().is_none(), "{}", gateway.stderr());
            self.is_ready(place, "Deployment", "egress-gateway").then_some(())
        })
        .unwrap();
        gateway
    }

    /// A container of the agent's pod: on the node's network, below the pods' cgroup.
    fn container(&self, name: &str) -> Place {
        let cgroup = cgroup::create(&self.agent.join(name)).unwrap();
        Place { cgroup, ..self.testbed.app().clone() }
    }

    fn start_node(&self, container: &str) -> Process {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let more = [
            ("--kubeconfig", self.api.kubeconfig()),
            ("--control", text(self.testbed.node_control())),
            ("--bpffs", text(self.testbed.pins())),
        ];
        let args = self.command("DaemonSet", "egress-node", &more);
        let place = self.container(container);
        let mut node = self.testbed.start_agent(&place, container, &args).unwrap();
        until(START, "the node agent's probe to succeed", || {
            assert!(node.ended().is_none(), "{}", node.stderr());
            self.is_ready(self.testbed.app(), "DaemonSet", "egress-node").then_some(())
        })
        .unwrap();
        node
    }

    fn healthy_gateways(&self) -> Option<u64> {
        let metrics = self.testbed.node_metrics().ok()?;
        let line = metrics.lines().find(|line| line.starts_with("egress_gateway_healthy{"))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

fn curl(place: &Place, url: &str) -> String {
    let args = ["-s", "-o", "/dev/null", "-m", "5", "-w", "%{http_code}", url];
    let done = place.run("curl", &args).unwrap();
    if done.ok() { done.stdout } else { format!("curl: ({})", done.code) }
}

fn sees(place: &Place, url: &str, expected: &str) {
    let what = format!("{url} to be {expected}");
    until_is(SOON, &what, || curl(place, url), |seen| seen == expected).unwrap();
}

/// A bypass that is denied with this node agent.
fn bypass_is_denied(installed: &Installed, node: &Process, capture: &Capture) {
    let wall = Wall { testbed: &installed.testbed, node, capture };
    let url = format!("http://{}:22/", plan::ATTACKER);
    let denied = || installed.pod.place.run("curl", &["-s", "-m", "3", &url]);
    wall.stops("a connection past the gateway", &["no_route"], denied).unwrap();
}

/// The agent is a pod like the ones that it enforces on. Itself it reaches the gateway's health port, which
/// no pod does, and its neighbours in the same pod are under enforcement.
#[test]
fn the_manifests_run_and_only_the_agent_is_exempt() {
    let mut installed = Installed::new();
    for (_, text) in &Walkthrough::example().unwrap().passthrough.files {
        installed.api.apply_yaml(text).unwrap();
    }
    let _gateway = installed.start_gateway();
    let mut node = installed.start_node("first");
    let capture = installed.testbed.capture().unwrap();
    installed.pod.run(&installed.testbed).unwrap();
    until_is(
        SOON,
        "the gateway to be healthy",
        || installed.healthy_gateways(),
        |healthy| *healthy == Some(1),
    )
    .unwrap();
    sees(&installed.pod.place, URL, "200");
    bypass_is_denied(&installed, &node, &capture);

    let health = format!("http://{}:15021/healthz/ready", plan::GATEWAYS[0]);
    let outside = format!("http://{}/", plan::WEB);
    assert_eq!(curl(&installed.container("first"), &health), "200");
    let neighbour = installed.container("neighbour");
    assert!(curl(&neighbour, &health).starts_with("curl: "), "a neighbour asks for health");
    assert!(curl(&neighbour, &outside).starts_with("curl: "), "a neighbour gets out");

    // The next one is another container: it is exempt, and the earlier one's cgroup no longer is.
    node.kill();
    let next = installed.start_node("second");
    until_is(
        SOON,
        "the gateway to be healthy again",
        || installed.healthy_gateways(),
        |healthy| *healthy == Some(1),
    )
    .unwrap();
    assert_eq!(curl(&installed.container("second"), &health), "200");
    let earlier = installed.container("first");
    let refused = |seen: &String| seen.starts_with("curl: ");
    until_is(SOON, "the earlier one to be under enforcement", || curl(&earlier, &health), refused)
        .unwrap();
    sees(&installed.pod.place, URL, "200");
    capture.take();
    bypass_is_denied(&installed, &next, &capture);
}

/// kubectl on the app node, with what it says.
fn kubectl(installed: &Installed, args: &[&str]) -> String {
    let own = env::current_exe().unwrap();
    let kubectl = own.ancestors().nth(3).unwrap().join("tools/bin/kubectl");
    let cache = installed.testbed.dir().join("kubectl").to_string_lossy().into_owned();
    let kubeconfig = installed.api.kubeconfig();
    let mut all = vec!["--kubeconfig", &kubeconfig, "--cache-dir", &cache, "--request-timeout=20s"];
    all.extend(args);
    let done = installed.testbed.app().run(&kubectl.to_string_lossy(), &all).unwrap();
    assert!(done.ok(), "kubectl {args:?}: {}", done.stderr);
    done.stdout
}

/// The walkthrough's steps by kubectl: applied, tried with curl from a pod, and deleted again.
fn walkthrough_by_kubectl(installed: &mut Installed, walkthrough: &Walkthrough) {
    installed.api.apply(json!({"kind": "Namespace", "metadata": {"name": "default"}}));
    let gateway = installed.start_gateway();
    let node = installed.start_node("agent");
    let capture = installed.testbed.capture().unwrap();
    installed.pod.run(&installed.testbed).unwrap();
    let place = installed.pod.place.clone();
    let plain = "http://edition.cnn.com/politics";
    let directory = installed.testbed.dir().join("applied");
    let steps = [
        ("http", &walkthrough.http, plain, "301", URL),
        ("origination", &walkthrough.tls_origination, plain, "200", URL),
        ("passthrough", &walkthrough.passthrough, URL, "200", plain),
    ];
    let refused =
        |seen: &String| seen.starts_with("curl: ") || ["403", "404"].contains(&seen.as_str());
    for (name, step, url, expected, other) in steps {
        let files = directory.join(name);
        fs::create_dir_all(&files).unwrap();
        for (number, (_, text)) in step.files.iter().enumerate() {
            fs::write(files.join(format!("{number}.yaml")), text).unwrap();
        }
        let files = files.to_string_lossy().into_owned();
        // What a client sees wrong already without a server.
        kubectl(installed, &["apply", "--dry-run=client", "--validate=false", "-f", &files]);
        assert!(refused(&curl(&place, url)), "{name}: nothing is applied yet");
        let said = kubectl(installed, &["apply", "--validate=false", "-f", &files]);
        assert!(said.contains("virtualservice") && said.contains("created"), "{said}");
        until_is(SOON, &format!("{name}: {url}"), || curl(&place, url), |seen| seen == expected)
            .unwrap_or_else(|error| {
                panic!("{error:#}\n{}\n{}\n{}", node.stderr(), gateway.stderr(), gateway.stdout())
            });
        until_is(SOON, &format!("{name}: {other}"), || curl(&place, other), refused).unwrap();
        capture.take();
        bypass_is_denied(installed, &node, &capture);
        let said = kubectl(installed, &["delete", "-f", &files]);
        assert!(said.contains("deleted"), "{said}");
        until_is(SOON, &format!("{name} to end"), || curl(&place, url), refused).unwrap();
    }
}

#[test]
fn the_walkthrough_runs_through_kubectl() {
    let mut installed = Installed::new();
    walkthrough_by_kubectl(&mut installed, &Walkthrough::example().unwrap());
}

#[test]
fn the_walkthrough_with_mutual_tls_runs_through_kubectl() {
    let mut installed = Installed::with(&[
        "node.tunnel.enabled=true",
        "node.identity.source=secret",
        "node.identity.secretName=egress-node-identity",
        "gateway.identity.source=secret",
        "gateway.identity.secretName=egress-gateway-identity",
    ]);
    installed.testbed.prepare_mtls(1).unwrap();
    let certificates = installed.testbed.dir().join("gateway");
    let example = Walkthrough::example_mtls().unwrap();
    let with = |step: &Step| step.clone().with_certificates(&certificates);
    let walkthrough = Walkthrough {
        service_entry: with(&example.service_entry),
        http: with(&example.http),
        tls_origination: with(&example.tls_origination),
        passthrough: with(&example.passthrough),
    };
    walkthrough_by_kubectl(&mut installed, &walkthrough);
}

/// What a request asks for, in the words of a rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Asked {
    group: String,
    resource: String,
    namespace: Option<String>,
    /// Of one object alone; in a list, by a field selector.
    name: Option<String>,
    verb: &'static str,
}

/// A request's path with its query. The double notes no methods, but each path that the agents use has one.
fn asked(target: &str) -> Asked {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, rest) = match &parts[..] {
        ["api", "v1", rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => panic!("no resource: {target}"),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
            (Some((*namespace).to_owned()), rest)
        }
        rest => (None, rest),
    };
    let parameter = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|pair| pair.0 == name).map(|pair| pair.1.replace("%3D", "="))
    };
    let (resource, name, verb) = match rest {
        ["events"] => ("events".to_owned(), None, "create"),
        [resource] => {
            let watch = parameter("watch").is_some_and(|value| value == "true" || value == "1");
            let name = parameter("fieldSelector")
                .and_then(|selector| Some(selector.strip_prefix("metadata.name=")?.to_owned()));
            ((*resource).to_owned(), name, if watch { "watch" } else { "list" })
        }
        [resource, name] => ((*resource).to_owned(), Some((*name).to_owned()), "get"),
        [resource, name, "status"] => {
            (format!("{resource}/status"), Some((*name).to_owned()), "patch")
        }
        _ => panic!("an unknown kind of request: {target}"),
    };
    Asked { group: group.into(), resource, namespace, name, verb }
}

/// A rule and where it holds.
#[derive(Clone, Debug)]
struct Rule {
    namespace: Option<String>,
    rule: Value,
}

/// The rules that a service account is bound to.
fn rules(objects: &[Value], account: &str) -> Vec<Rule> {
    let mut found = Vec::new();
    for binding in objects {
        let of = binding["subjects"].as_array().into_iter().flatten();
        if !of.clone().any(|subject| subject["name"] == account) {
            continue;
        }
        let kind = binding["roleRef"]["kind"].as_str().unwrap();
        let role = find(objects, kind, binding["roleRef"]["name"].as_str().unwrap());
        let namespace = binding["metadata"]["namespace"].as_str().map(str::to_owned);
        let rules = role["rules"].as_array().unwrap().iter();
        found.extend(rules.map(|rule| Rule { namespace: namespace.clone(), rule: rule.clone() }));
    }
    found
}

impl Rule {
    /// As the API server's authorizer decides: a rule that names objects allows a list only where one of
    /// them is selected by its name.
    fn allows(&self, asked: &Asked) -> bool {
        let holds = |field: &str, value: &str| {
            self.rule[field].as_array().is_some_and(|list| list.iter().any(|item| item == value))
        };
        holds("apiGroups", &asked.group)
            && holds("resources", &asked.resource)
            && holds("verbs", asked.verb)
            && (self.namespace.is_none() || self.namespace == asked.namespace)
            && (self.rule["resourceNames"].is_null()
                || asked.name.as_ref().is_some_and(|name| holds("resourceNames", name)))
    }

    /// Rules of one resource each.
    fn parts(&self) -> Vec<Self> {
        let resources = self.rule["resources"].as_array().unwrap().iter();
        let one = |resource: &Value| {
            let mut rule = self.rule.clone();
            rule["resources"] = json!([resource]);
            Self { namespace: self.namespace.clone(), rule }
        };
        resources.map(one).collect()
    }
}

/// All that is asked is allowed, and nothing is allowed that is not asked for.
fn are_exact(account: &str, rules: &[Rule], requests: &BTreeSet<Asked>) {
    for asked in requests {
        assert!(rules.iter().any(|rule| rule.allows(asked)), "{account} may not: {asked:?}");
    }
    for rule in rules {
        let verbs: Vec<_> = rule.rule["verbs"].as_array().unwrap().iter().collect();
        let known = [&["list", "watch"][..], &["get"], &["patch"], &["create"]];
        assert!(known.iter().any(|known| verbs == *known), "{account}: {rule:?}");
        for part in rule.parts() {
            let used = requests.iter().any(|asked| part.allows(asked));
            assert!(used, "{account} does not need {part:?}");
        }
    }
}

/// The rights are those of the requests: one less, and something is refused.
#[test]
fn rights_are_what_the_agents_ask_for() {
    let installed = Installed::new();
    drop(installed.api.take_requests());
    // One that names a credential.
    installed.api.apply(json!({
        "kind": "Gateway", "metadata": {"name": "terminating", "namespace": "istio-system"},
        "spec": {
            "selector": {"istio": "egressgateway"},
            "servers": [{
                "port": {"number": 8443, "name": "https", "protocol": "HTTPS"}, "hosts": ["a.example"],
                "tls": {"mode": "SIMPLE", "credentialName": "web"},
            }],
        },
    }));
    let gateway = installed.start_gateway();
    let take = || -> BTreeSet<Asked> {
        installed.api.take_requests().iter().map(|target| asked(target)).collect()
    };
    let mut of_gateway = take();
    // Both verbs of every kind that the double serves; watches come after lists.
    let watched = |requests: &BTreeSet<Asked>| {
        ["pods", "nodes", "configmaps", "services", "endpointslices", "virtualservices"]
            .iter()
            .all(|name| requests.iter().any(|one| one.resource == *name && one.verb == "watch"))
    };
    let of_secrets = |requests: &BTreeSet<Asked>| {
        requests.iter().filter(|one| one.resource == "secrets" && one.verb == "watch").count()
    };
    until(SOON, "the gateway's watches", || {
        of_gateway.extend(take());
        (watched(&of_gateway) && of_secrets(&of_gateway) == 2).then_some(())
    })
    .unwrap();
    // A gateway reports on policies, and on what does not compile.
    let policies =
        [("egresspolicies", "EgressPolicy"), ("clusteregresspolicies", "ClusterEgressPolicy")];
    for (plural, kind) in policies {
        installed.api.add_crd(Resource::egress(plural, kind));
        let mut policy = json!({
            "kind": kind, "metadata": {"name": "news"}, "spec": {"namespaceSelector": {}, "rules": []},
        });
        if kind == "EgressPolicy" {
            policy["metadata"]["namespace"] = json!("shop");
            policy["spec"] = json!({"rules": []});
        }
        installed.api.apply(policy);
    }
    installed.api.apply(json!({
        "kind": "VirtualService", "metadata": {"name": "broken", "namespace": "istio-system"},
        "spec": {"hosts": [], "tls": [{"match": [{"port": 70000}]}]},
    }));
    let reported = ["egresspolicies/status", "clusteregresspolicies/status", "events"];
    until(SOON, "the gateway's reports", || {
        of_gateway.extend(take());
        let all = reported.iter().all(|what| of_gateway.iter().any(|one| one.resource == *what));
        all.then_some(())
    })
    .unwrap();
    assert!(installed.api.delete("virtualservices", "istio-system", "broken"));
    // And on the Gateway API's objects, whose Gateways take the place of Istio's in the double.
    assert!(installed.api.delete("gateways", "istio-system", "terminating"));
    let kinds = [
        ("gateways", "Gateway"),
        ("grpcroutes", "GRPCRoute"),
        ("httproutes", "HTTPRoute"),
        ("tcproutes", "TCPRoute"),
        ("tlsroutes", "TLSRoute"),
    ];
    for (plural, kind) in kinds {
        installed.api.add_crd(Resource::gateway_api(plural, kind));
        let spec = if kind == "Gateway" {
            let listener = json!({"name": "http", "port": 80, "protocol": "HTTP"});
            json!({"gatewayClassName": "egress-enforcer", "listeners": [listener]})
        } else {
            json!({"parentRefs": [{"name": "own"}], "rules": []})
        };
        installed.api.apply(json!({
            "kind": kind, "metadata": {"name": "own", "namespace": "istio-system"}, "spec": spec,
        }));
    }
    until(SOON, "the gateway's reports on the Gateway API's objects", || {
        of_gateway.extend(take());
        let is_there = |plural: &str| {
            let status = format!("{plural}/status");
            of_gateway.iter().any(|one| one.resource == status)
        };
        kinds.iter().all(|(plural, _)| is_there(plural)).then_some(())
    })
    .unwrap();
    drop(gateway);
    // What it asked at its end is recorded a moment later.
    until(SOON, "the gateway's last request", || take().is_empty().then_some(())).unwrap();
    let _node = installed.start_node("agent");
    let mut of_node = take();
    until(SOON, "the node agent's watches", || {
        of_node.extend(take());
        watched(&of_node).then_some(())
    })
    .unwrap();
    for (account, requests) in [("egress-gateway", of_gateway), ("egress-node", of_node)] {
        let rules = rules(&installed.objects, account);
        are_exact(account, &rules, &requests);
        let parts: Vec<Rule> = rules.iter().flat_map(Rule::parts).collect();
        for missing in 0..parts.len() {
            let mut fewer = parts.clone();
            drop(fewer.remove(missing));
            let refused = requests.iter().any(|asked| !fewer.iter().any(|rule| rule.allows(asked)));
            assert!(refused, "{account}: {:?}", parts[missing]);
        }
        // Neither role may read all Secrets or another one, or another ConfigMap; the node agent may read none.
        let all_secrets = asked("/api/v1/namespaces/istio-system/secrets");
        let secret = |name: &str, namespace: &str| {
            asked(&format!(
                "/api/v1/namespaces/{namespace}/secrets?fieldSelector=metadata.name%3D{name}"
            ))
        };
        let own = rules.iter().any(|rule| rule.allows(&secret("web", "istio-system")));
        assert_eq!(own, account == "egress-gateway", "{account}");
        let (other_secret, elsewhere) = (secret("other", "istio-system"), secret("web", "shop"));
        let other =
            asked("/api/v1/namespaces/istio-system/configmaps?fieldSelector=metadata.name%3Dother");
        let all = asked("/api/v1/namespaces/istio-system/configmaps");
        let definition =
            asked("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/other.example");
        for denied in [all_secrets, other_secret, elsewhere, other, all, definition] {
            assert!(!rules.iter().any(|rule| rule.allows(&denied)), "{account}: {denied:?}");
        }
    }
}

//! The command lines in the manifests are those of the agent, and so are ports, probes and settings.

use clap::Parser;
use egress_agent::{
    cli::Cli,
    config::{self, RawFile},
};
use serde_json::{Value, json};

use crate::helm::{containers, find, rendered, sets};

/// The command line as the kubelet starts it.
fn command(container: &Value) -> Vec<String> {
    let args = container["args"].as_array().into_iter().flatten();
    let args = args.map(|arg| arg.as_str().expect("text"));
    let expanded = args
        .map(|arg| arg.replace("$(NODE_NAME)", "node-1").replace("$(HOST_IP)", "10.0.0.7"))
        .inspect(|arg| assert!(!arg.contains("$("), "{arg}"));
    ["egress-agent".to_owned()].into_iter().chain(expanded).collect()
}

#[test]
fn every_command_line_is_one_of_the_agents() {
    let mut seen = 0;
    for (name, values) in sets() {
        for (object, container) in containers(&rendered(values.as_deref())) {
            let words = command(container);
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{name}, {object}: {words:?}\n{error}");
            }
            // Each option counts: with a letter more none is one of the agent's.
            for index in 2..words.len() {
                let mut wrong = words.clone();
                wrong[index] = match wrong[index].split_once('=') {
                    Some((option, value)) => format!("{option}x={value}"),
                    None => format!("{}x", wrong[index]),
                };
                assert!(Cli::try_parse_from(&wrong).is_err(), "{name}, {object}: {wrong:?}");
            }
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen}");
}

/// So is that of the pod of `helm test`, which has the labels that policies select.
#[test]
fn the_test_pod_verifies_the_releases_namespace() {
    let set = sets().into_iter().find(|(name, _)| name == "verify").expect("its values");
    let objects = rendered(set.1.as_deref());
    let pod = find(&objects, "Pod egress-verify").expect("the pod");
    let words = command(&pod["spec"]["containers"][0]);
    assert!(Cli::try_parse_from(&words).is_ok(), "{words:?}");
    assert!(words.contains(&"--namespace=istio-system".to_owned()), "{words:?}");
    assert_eq!(pod["metadata"]["labels"]["app"], "web");
    assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
    // Its account may read, and nothing else, and of pods its own namespace's.
    let cluster = find(&objects, "ClusterRole egress-verify").expect("its rights");
    for rule in cluster["rules"].as_array().expect("rules") {
        let verbs = &rule["verbs"];
        assert!(*verbs == json!(["list", "watch"]) || *verbs == json!(["get"]), "{rule}");
        let resources = rule["resources"].as_array().expect("resources");
        assert!(!resources.contains(&json!("pods")) && !resources.contains(&json!("secrets")));
    }
    assert!(find(&rendered(None), "Pod egress-verify").is_none(), "only on request");
}

#[test]
fn extra_options_reach_the_agent() {
    let args = ["--set", "node.extraArgs={--resolver=10.0.0.10}"];
    let objects = crate::helm::render(None, crate::helm::NEWEST, &args).expect("it renders");
    let all = containers(&objects);
    let (_, node) = all.iter().find(|(object, _)| object.contains("node")).expect("the agent");
    let words = command(node);
    assert_eq!(words.last().map(String::as_str), Some("--resolver=10.0.0.10"));
    assert!(Cli::try_parse_from(&words).is_ok());
}

/// A probe asks where the agent answers.
#[test]
fn probes_ask_where_readiness_is() {
    for (name, values) in sets() {
        for (object, container) in containers(&rendered(values.as_deref())) {
            let probe = &container["readinessProbe"]["httpGet"];
            let words = command(container);
            if words[1] == "detach" || words[1] == "cni" {
                assert_eq!(*probe, Value::Null, "{name}");
                continue;
            }
            assert_eq!(probe["path"], "/healthz/ready", "{name}, {object}");
            assert_eq!(container["livenessProbe"], Value::Null, "{name}, {object}");
            if object.contains("node") {
                let at = words.iter().find_map(|word| word.strip_prefix("--metrics-addr="));
                let (host, port) = at.and_then(|at| at.rsplit_once(':')).expect("an address");
                assert_eq!(probe["port"].to_string(), port, "{name}");
                // The kubelet asks the pod's own address where none is named.
                let asked = probe["host"].as_str().unwrap_or("10.0.0.7");
                assert_eq!(asked, host, "{name}");
            } else {
                assert_eq!(probe["port"], "health", "{name}");
                let ports = container["ports"].as_array().expect("ports");
                let health = ports.iter().find(|port| port["name"] == "health").expect("health");
                assert_eq!(health["containerPort"], 15021, "{name}");
            }
        }
    }
}

/// `Gateway` resources select a gateway by what it is told of its labels, and node agents by its Service's
/// selector: they have to be the same.
#[test]
fn a_gateway_has_the_labels_of_its_service() {
    for (name, values) in sets() {
        let objects = rendered(values.as_deref());
        let service = find(&objects, "Service istio-egressgateway").expect("a Service");
        let selector = service["spec"]["selector"].as_object().expect("a selector");
        let expected: Vec<_> = selector
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().expect("text")))
            .collect();
        let all = containers(&objects);
        let (_, gateway) = all.iter().find(|(object, _)| object.contains("gateway")).expect("it");
        let words = command(gateway);
        let given = words.iter().find_map(|word| word.strip_prefix("--labels=")).expect("labels");
        let mut given: Vec<_> = given.split(',').map(str::to_owned).collect();
        given.sort();
        assert_eq!(given, expected, "{name}");
        assert_eq!(selector["istio"], "egressgateway", "{name}");
    }
}

/// The settings compile as they are, with what the API server adds to them.
#[test]
fn the_settings_compile() {
    for (name, values) in sets() {
        let objects = rendered(values.as_deref());
        let map = find(&objects, "ConfigMap egress-enforcer").expect("settings");
        let text = map["data"]["mesh.yaml"].as_str().expect("mesh.yaml");
        let compile = |change: &dyn Fn(&mut Value)| {
            let mut mesh: Value = serde_saphyr::from_str(text).expect("YAML");
            mesh["gateways"][0]["labels"] = json!({"istio": "egressgateway"});
            mesh["gateways"][0]["endpoints"] = json!(["10.244.9.7"]);
            change(&mut mesh);
            let file = RawFile { path: "mesh.yaml".into(), text: mesh.to_string() };
            config::compile(&[], Some(&file)).map_err(|problems| problems.to_string())
        };
        let compiled = compile(&|_| {}).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        // Audit mode is warned of, as it should be.
        let audit = serde_saphyr::from_str::<Value>(text).expect("YAML")["enforcement"] == "audit";
        let warned: Vec<_> =
            compiled.warnings.iter().filter_map(|warning| warning.field.as_deref()).collect();
        // And so is an exemption from everything.
        let expected: &[&str] = match name.as_str() {
            "exemptions" => &["exemptions[1]"],
            _ if audit => &["enforcement"],
            _ => &[],
        };
        assert_eq!(warned, expected, "{name}: {:#?}", compiled.warnings);
        assert_eq!(warned.len(), compiled.warnings.len(), "{name}: {:#?}", compiled.warnings);
        let service = "istio-egressgateway.istio-system.svc.cluster.local";
        assert_eq!(compiled.snapshot.mesh.gateways[0].service.to_string(), service, "{name}");
        let problems = compile(&|mesh| mesh["clusterCidrs"] = json!(["10.96.0.0/40"])).err();
        assert!(problems.is_some_and(|text| text.contains("10.96.0.0/40")), "{name}");
    }
}

/// The ConfigMap that is made is the one that is read, and the Service is where it is looked for.
#[test]
fn the_agents_read_what_is_installed() {
    let args = ["--set", "mesh.configMap=other"];
    let objects = crate::helm::render(None, crate::helm::NEWEST, &args).expect("it renders");
    assert!(find(&objects, "ConfigMap other").is_some());
    for (object, container) in containers(&objects) {
        let words = command(container);
        assert!(words.contains(&"--mesh-config-map=istio-system/other".to_owned()), "{object}");
        assert!(words.contains(&"--gateway-namespace=istio-system".to_owned()), "{object}");
    }
    for role in ["Role egress-node", "Role egress-gateway"] {
        let rules = &find(&objects, role).expect(role)["rules"];
        assert_eq!(rules[0]["resourceNames"], json!(["other"]), "{role}");
    }
}

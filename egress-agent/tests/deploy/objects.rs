//! The objects: valid in every version, consistent with each other, and no more privileged than needed.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};

use crate::{
    helm::{NAMESPACE, containers, find, helm, render, rendered, root, sets, title},
    schema::{MINORS, Schema},
};

#[test]
fn lint_is_clean() {
    for (name, values) in sets() {
        let output = helm(&["lint", "--strict", "--quiet"], values.as_deref(), &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {text}");
        assert!(!text.contains("WARNING") && !text.contains("ERROR"), "{name}: {text}");
    }
}

#[test]
fn every_version_takes_every_object() {
    for minor in MINORS {
        let schema = Schema::of(minor);
        for (name, values) in sets() {
            let objects = render(values.as_deref(), minor, &[]).expect("it renders");
            assert!(objects.len() > 4 || name == "detach", "{name}: {}", objects.len());
            for object in &objects {
                let problems = schema.problems(object);
                assert!(problems.is_empty(), "{minor}, {name}, {}: {problems:#?}", title(object));
            }
        }
    }
}

/// The definitions of the product's own kinds, which helm installs with the chart.
#[test]
fn every_version_takes_the_definitions() {
    let directory = fs::read_dir(root().join("deploy/crds")).expect("definitions");
    let texts = directory.flatten().map(|file| fs::read_to_string(file.path()).expect("a file"));
    let definitions: Vec<Value> =
        texts.map(|text| serde_saphyr::from_str(&text).expect("YAML")).collect();
    assert_eq!(definitions.len(), 2);
    for minor in MINORS {
        let schema = Schema::of(minor);
        for definition in &definitions {
            let problems = schema.problems(definition);
            assert!(problems.is_empty(), "{minor}, {}: {problems:#?}", title(definition));
        }
    }
    let with = render(None, "1.36", &["--include-crds"]).expect("it renders");
    let is_definition = |object: &&Value| object["kind"] == "CustomResourceDefinition";
    assert_eq!(with.iter().filter(is_definition).count(), definitions.len());
}

#[test]
fn a_version_that_is_too_old_is_refused() {
    let error = render(None, "1.28", &[]).expect_err("1.28 is not supported");
    assert!(error.contains("1.29"), "{error}");
}

/// The schemas find what a user could do wrong; otherwise the test above would show nothing.
#[test]
fn mistakes_in_an_object_are_found() {
    let objects = rendered(None);
    let schema = Schema::of("1.36");
    let of = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut object = find(&objects, name).expect(name).clone();
        change(&mut object);
        schema.problems(&object).join("\n")
    };
    let node = "DaemonSet egress-node";
    assert_eq!(of(node, &|_| {}), "");
    let spec = |object: &mut Value, field: &str, value: Value| {
        object["spec"]["template"]["spec"][field] = value;
    };
    let typo = of(node, &|object| spec(object, "hostNetWork", json!(true)));
    assert!(typo.contains("no field hostNetWork"), "{typo}");
    let kind = of(node, &|object| spec(object, "hostPID", json!("true")));
    assert!(kind.contains("expected bool"), "{kind}");
    let deep = of(node, &|object| {
        object["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privilege"] =
            json!(true);
    });
    assert!(deep.contains("containers[0].securityContext: no field privilege"), "{deep}");
    let missing = of(node, &|object| {
        object["spec"].as_object_mut().expect("a spec").remove("selector");
    });
    assert!(missing.contains("selector is missing"), "{missing}");
    let labels = of(node, &|object| object["metadata"]["labels"]["x"] = json!(1));
    assert!(labels.contains("labels.x"), "{labels}");
    let group = of(node, &|object| object["apiVersion"] = json!("extensions/v1beta1"));
    assert!(group.contains("no kind DaemonSet"), "{group}");
    // A field that came with 1.30.
    let daemon_set = find(&objects, node).expect(node);
    let old = Schema::of("1.29").problems(daemon_set).join("\n");
    assert!(old.contains("no field appArmorProfile"), "{old}");
}

#[test]
fn everything_is_in_the_releases_namespace() {
    for (set, values) in sets() {
        for object in rendered(values.as_deref()) {
            let cluster_wide = ["Cluster", "ValidatingAdmission"]
                .iter()
                .any(|kind| object["kind"].as_str().expect("a kind").starts_with(kind));
            let namespace = object["metadata"]["namespace"].as_str();
            // Rights to one object each, which are where the object is.
            let name = object["metadata"]["name"].as_str().expect("a name");
            let kind = object["kind"].as_str().expect("a kind");
            let elsewhere = [("-kubernetes", "default"), ("-kubeadm-config", "kube-system")];
            let place = elsewhere.iter().find(|(suffix, _)| name.ends_with(suffix));
            if let Some((_, place)) = place.filter(|_| kind.starts_with("Role")) {
                assert_eq!(namespace, Some(*place), "{set}, {}", title(&object));
                continue;
            }
            let expected = (!cluster_wide).then_some(NAMESPACE);
            assert_eq!(namespace, expected, "{set}, {}", title(&object));
        }
    }
}

/// Each selector finds the pods that it means, and only those.
#[test]
fn selectors_find_their_pods() {
    let holds = |labels: &Value, selector: &Value| {
        let selector = selector.as_object().expect("a selector");
        !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value)
    };
    for (name, values) in sets() {
        let objects = rendered(values.as_deref());
        let pods = |name: &str| {
            find(&objects, name).map(|object| &object["spec"]["template"]["metadata"]["labels"])
        };
        let (node, gateway) = (pods("DaemonSet egress-node"), pods("Deployment egress-gateway"));
        let mut seen = 0;
        for object in &objects {
            let spec = &object["spec"];
            let selector = match object["kind"].as_str() {
                Some("Service") => &spec["selector"],
                Some("NetworkPolicy") => &spec["podSelector"]["matchLabels"],
                Some("DaemonSet" | "Deployment" | "PodDisruptionBudget") => {
                    &spec["selector"]["matchLabels"]
                }
                _ => continue,
            };
            let own = if title(object).contains("node") { node } else { gateway };
            let other = if title(object).contains("node") { gateway } else { node };
            assert!(holds(own.expect("pods"), selector), "{name}, {}", title(object));
            assert!(
                other.is_none_or(|labels| !holds(labels, selector)),
                "{name}, {}",
                title(object)
            );
            seen += 1;
        }
        assert!(seen > 2, "{name}");
    }
}

/// The capabilities are those of the systemd units, which say what each is for.
#[test]
fn capabilities_are_those_of_the_units() {
    let unit = |name: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(root().join("deploy/systemd").join(name)).expect(name);
        let line = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
        let names = line.expect("capabilities").split(' ');
        names.map(|name| name.trim_start_matches("CAP_").to_owned()).collect()
    };
    let objects = rendered(None);
    for (object, container) in containers(&objects) {
        let context = &container["securityContext"];
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{object}");
        assert_eq!(context["privileged"], Value::Null, "{object}");
        assert_eq!(context["allowPrivilegeEscalation"], json!(false), "{object}");
        assert_eq!(context["readOnlyRootFilesystem"], json!(true), "{object}");
        let added: BTreeSet<String> = context["capabilities"]["add"]
            .as_array()
            .expect("capabilities")
            .iter()
            .map(|name| name.as_str().expect("a name").to_owned())
            .collect();
        let file =
            if object.contains("node") { "egress-node.service" } else { "egress-gateway.service" };
        assert_eq!(added, unit(file), "{object}");
    }
}

/// A gateway that listens on ports needs neither root nor a capability; one that captures needs both.
#[test]
fn an_unprivileged_gateway_has_no_privilege() {
    let set = |name: &str| sets().into_iter().find(|set| set.0 == name).expect(name).1;
    let context = |values: Option<std::path::PathBuf>| {
        let objects = rendered(values.as_deref());
        let gateway = find(&objects, "Deployment egress-gateway").expect("a gateway");
        gateway["spec"]["template"]["spec"]["containers"][0]["securityContext"].clone()
    };
    let unprivileged = context(set("unprivileged-gateway"));
    assert_eq!(unprivileged["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(unprivileged["runAsNonRoot"], json!(true));
    let usual = context(None);
    assert_eq!(usual["capabilities"]["add"], json!(["BPF", "PERFMON", "NET_ADMIN"]));
    assert_eq!(usual["runAsNonRoot"], Value::Null);
}

/// No agent on gateway nodes, no gateway elsewhere: by the same label.
#[test]
fn gateways_and_agents_are_on_different_nodes() {
    let objects = rendered(None);
    let pod = |name: &str| &find(&objects, name).expect(name)["spec"]["template"]["spec"];
    let label = "egress-enforcer.io/gateway";
    assert_eq!(pod("Deployment egress-gateway")["nodeSelector"][label], "true");
    let affinity = &pod("DaemonSet egress-node")["affinity"]["nodeAffinity"];
    let terms = &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let expected = json!([{"matchExpressions": [
        {"key": label, "operator": "NotIn", "values": ["true"]},
    ]}]);
    assert_eq!(*terms, expected);
}

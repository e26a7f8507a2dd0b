//! Services of type ExternalName, which Istio's registry holds: names in the cluster for external hosts. Each is
//! read as the `ServiceEntry` that says the same.

use serde_json::{Value, json};

use super::objects::Object;
use crate::config::RawFile;

/// The type of such Services.
const TYPE: &str = "ExternalName";
/// Who may use a Service, as Istio reads it.
const EXPORT_TO: &str = "networking.istio.io/exportTo";
/// Those that Istio tells apart by the name of a port.
const PROTOCOLS: [&str; 8] = ["http", "http2", "grpc", "grpc-web", "https", "tls", "tcp", "udp"];

/// The service entry of a Service; `None` where it has another type, or no name to lead to.
pub(super) fn service_entry(object: &Object) -> Option<RawFile> {
    let metadata = &object.metadata;
    let (namespace, name) = (metadata.namespace.as_deref()?, metadata.name.as_deref()?);
    let spec = object.spec.as_ref()?;
    if spec["type"] != TYPE {
        return None;
    }
    let external = spec["externalName"].as_str()?.trim_end_matches('.');
    let ports: Vec<Value> = spec["ports"].as_array()?.iter().filter_map(port).collect();
    if external.is_empty() || ports.is_empty() {
        return None;
    }
    let annotations = metadata.annotations.as_ref();
    let export_to = annotations.and_then(|all| all.get(EXPORT_TO));
    let export_to: Vec<&str> =
        export_to.map(|list| list.split(',').map(str::trim).collect()).unwrap_or_default();
    let created = metadata.creation_timestamp.as_ref().map(|time| json!(time));
    let document = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
        "spec": {
            "hosts": [format!("{name}.{namespace}.svc.cluster.local")],
            "location": "MESH_EXTERNAL",
            "ports": ports,
            "resolution": "DNS",
            "endpoints": [{"address": external}],
            "exportTo": export_to,
        },
    });
    Some(RawFile { path: format!("Service {namespace}/{name}"), text: document.to_string() })
}

/// A port with its protocol, by `appProtocol` or by the name's beginning, as in Istio; without either it is TCP.
/// UDP reaches nothing through a gateway.
fn port(port: &Value) -> Option<Value> {
    let number = port["port"].as_u64()?;
    let name = port["name"].as_str().map_or_else(|| format!("port-{number}"), str::to_owned);
    let app = port["appProtocol"].as_str().map(|text| text.rsplit('/').next().unwrap_or(text));
    let known = |text: &str| PROTOCOLS.into_iter().find(|known| text.eq_ignore_ascii_case(known));
    let by_name = || {
        let starts = |known: &&str| {
            name.strip_prefix(*known).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        PROTOCOLS.into_iter().filter(starts).max_by_key(|known| known.len())
    };
    let protocol = app.and_then(known).or_else(by_name).unwrap_or("tcp").to_ascii_uppercase();
    if protocol == "UDP" || port["protocol"] == "UDP" {
        return None;
    }
    Some(json!({"number": number, "name": name, "protocol": protocol}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Object {
        let metadata = json!({"name": "httpbin", "namespace": "shop"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn entry(spec: Value) -> Value {
        serde_json::from_str(&service_entry(&service(spec)).unwrap().text).unwrap()
    }

    #[test]
    fn a_service_is_the_entry_that_says_the_same() {
        let read = entry(json!({
            "type": "ExternalName", "externalName": "edition.cnn.com.",
            "ports": [
                {"port": 80, "name": "http"}, {"port": 8080, "name": "http2-api"},
                {"port": 443, "name": "x", "appProtocol": "kubernetes.io/https"},
                {"port": 5432}, {"port": 53, "protocol": "UDP", "name": "dns"},
            ],
        }));
        assert_eq!(read["spec"]["hosts"], json!(["httpbin.shop.svc.cluster.local"]));
        assert_eq!(read["spec"]["endpoints"], json!([{"address": "edition.cnn.com"}]));
        let protocols: Vec<_> = read["spec"]["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| &port["protocol"])
            .collect();
        assert_eq!(protocols, ["HTTP", "HTTP2", "HTTPS", "TCP"]);
    }

    #[test]
    fn it_compiles_and_other_services_are_none() {
        let file = service_entry(&service(json!({
            "type": "ExternalName", "externalName": "edition.cnn.com", "ports": [{"port": 80, "name": "http"}],
        })));
        let file = file.unwrap();
        assert_eq!(file.path, "Service shop/httpbin");
        let compiled = crate::config::compile(&[file], None).unwrap();
        assert!(compiled.warnings.is_empty(), "{:?}", compiled.warnings);
        for other in [
            json!({"type": "ClusterIP", "externalName": "x.example", "ports": [{"port": 80}]}),
            json!({"type": "ExternalName", "ports": [{"port": 80}]}),
            json!({"type": "ExternalName", "externalName": "x.example"}),
            json!({"type": "ExternalName", "externalName": "", "ports": [{"port": 80}]}),
            json!({"selector": {"app": "x"}, "ports": [{"port": 80}]}),
        ] {
            assert_eq!(service_entry(&service(other)), None);
        }
    }
}

//! What a container runtime asks for, and what it is answered, without I/O.

use std::{fmt::Display, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::admin::control::NODE_SOCKET;

/// The versions of the specification whose results can be passed on as they are.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
pub(super) const NEWEST: &str = "1.1.0";

/// Error codes of the specification, and one of our own.
const INCOMPATIBLE: u32 = 1;
const ENVIRONMENT: u32 = 4;
pub(super) const IO: u32 = 5;
const DECODE: u32 = 6;
const CONFIGURATION: u32 = 7;
pub(super) const UNAVAILABLE: u32 = 50;
pub(super) const NOT_ENFORCED: u32 = 100;

/// How long a pod waits where the configuration does not say.
const PATIENCE: u64 = 30;
/// The longest that may be said: kubelet gives up on a sandbox after 4 minutes.
const MOST_PATIENCE: u64 = 200;

/// What is wrong, as it is reported to the runtime.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    code: u32,
    message: String,
    details: String,
}

impl Failure {
    pub(super) fn new(code: u32, message: &str, details: impl Display) -> Self {
        Self { code, message: message.into(), details: details.to_string() }
    }
}

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) version: String,
    pub(super) command: Command,
    /// The node agent's control socket.
    pub(super) socket: PathBuf,
    /// How long a pod waits.
    pub(super) patience: Duration,
}

/// `CNI_COMMAND`, with what it needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Command {
    /// `ADD`: `previous` is the result of the plug-in before, as it is passed on.
    Add { pod: String, namespace: String, previous: String },
    /// `CHECK`.
    Check { pod: String, namespace: String },
    /// `DEL`.
    Delete,
    /// `GC`.
    Collect,
    /// `STATUS`.
    Status,
    /// `VERSION`.
    Version,
}

impl Request {
    /// Reads the configuration on standard input, and the variables of the environment.
    pub(super) fn read(
        text: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Failure> {
        let config: Value = serde_json::from_str(text)
            .map_err(|error| Failure::new(DECODE, "the configuration is not JSON", error))?;
        let wrong = |field: &str, expected: &str| {
            Failure::new(
                CONFIGURATION,
                &format!("{field}: wrong value"),
                format!("expected {expected}"),
            )
        };
        let version = config["cniVersion"].as_str().unwrap_or(NEWEST).to_owned();
        let needs = |name: &str| {
            let absent =
                || Failure::new(ENVIRONMENT, &format!("{name} is not set"), "expected a value");
            variable(name).ok_or_else(absent)
        };
        let command = needs("CNI_COMMAND")?;
        if command != "VERSION" && !VERSIONS.contains(&version.as_str()) {
            let details = format!("found {version}, expected one of {}", VERSIONS.join(", "));
            return Err(Failure::new(INCOMPATIBLE, "incompatible CNI version", details));
        }
        let pod = || {
            let args = needs("CNI_ARGS")?;
            let mut pairs = args.split(';').filter_map(|pair| pair.split_once('='));
            let uid = pairs.find(|(key, _)| *key == "K8S_POD_UID");
            let absent = || Failure::new(ENVIRONMENT, "CNI_ARGS has no K8S_POD_UID", args.clone());
            uid.map(|(_, uid)| uid.to_owned()).ok_or_else(absent)
        };
        let command = match command.as_str() {
            "ADD" => {
                let previous = &config["prevResult"];
                if !previous.is_object() {
                    return Err(wrong(
                        "prevResult",
                        "a result: it is a chained plug-in, and comes last",
                    ));
                }
                Command::Add {
                    pod: pod()?,
                    namespace: needs("CNI_NETNS")?,
                    previous: previous.to_string(),
                }
            }
            "CHECK" => Command::Check { pod: pod()?, namespace: needs("CNI_NETNS")? },
            "DEL" => Command::Delete,
            "GC" => Command::Collect,
            "STATUS" => Command::Status,
            "VERSION" => Command::Version,
            other => {
                let details = "expected ADD, DEL, CHECK, GC, STATUS or VERSION";
                return Err(Failure::new(ENVIRONMENT, &format!("CNI_COMMAND is {other}"), details));
            }
        };
        let socket = match &config["controlSocket"] {
            Value::Null => NODE_SOCKET.into(),
            Value::String(path) if path.starts_with('/') => path.into(),
            Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                return Err(wrong("controlSocket", "an absolute path"));
            }
        };
        let given = &config["timeoutSeconds"];
        let patience = if given.is_null() { Some(PATIENCE) } else { given.as_u64() };
        let patience = patience.filter(|seconds| (1..=MOST_PATIENCE).contains(seconds));
        let patience = patience.ok_or_else(|| wrong("timeoutSeconds", "1 to 200"))?;
        Ok(Self { version, command, socket, patience: Duration::from_secs(patience) })
    }
}

/// The answer to `VERSION`.
pub(super) fn versions(version: &str) -> String {
    json!({"cniVersion": version, "supportedVersions": VERSIONS}).to_string()
}

/// The answer that says what is wrong.
pub(super) fn failure(version: &str, failure: &Failure) -> String {
    let Failure { code, message, details } = failure;
    let message = format!("egress-agent: {message}");
    json!({"cniVersion": version, "code": code, "msg": message, "details": details}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f3f1c1e-7a5b-4c3d-9e8f-0123456789ab";

    fn read(command: &str, config: &Value) -> Result<Request, Failure> {
        let variable = |name: &str| match name {
            "CNI_COMMAND" => Some(command.to_owned()),
            "CNI_NETNS" => Some("/run/netns/cni-1".to_owned()),
            "CNI_ARGS" => Some(format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_UID={UID}")),
            _ => None,
        };
        Request::read(&config.to_string(), variable)
    }

    fn config() -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "egress-agent-cni",
            "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.244.1.10/24"}], "x": [1, {"y": null}]},
        })
    }

    #[test]
    fn the_result_before_is_passed_on_as_it_is() {
        let request = read("ADD", &config()).unwrap();
        let Command::Add { pod, namespace, previous } = &request.command else {
            panic!("{request:?}")
        };
        assert_eq!((pod.as_str(), namespace.as_str()), (UID, "/run/netns/cni-1"));
        assert_eq!(serde_json::from_str::<Value>(previous).unwrap(), config()["prevResult"]);
        assert_eq!(request.socket, PathBuf::from(NODE_SOCKET));
        assert_eq!(request.patience, Duration::from_secs(30));
        let mut other = config();
        other["controlSocket"] = json!("/run/other.sock");
        other["timeoutSeconds"] = json!(5);
        let request = read("CHECK", &other).unwrap();
        assert_eq!(
            (request.socket, request.patience),
            ("/run/other.sock".into(), Duration::from_secs(5))
        );
    }

    #[test]
    fn each_command_is_known_and_others_are_errors_of_the_specification() {
        for (command, read_as) in [
            ("DEL", Command::Delete),
            ("GC", Command::Collect),
            ("STATUS", Command::Status),
            ("VERSION", Command::Version),
        ] {
            assert_eq!(read(command, &config()).unwrap().command, read_as);
        }
        let code = |command: &str, change: &dyn Fn(&mut Value)| {
            let mut config = config();
            change(&mut config);
            read(command, &config).unwrap_err().code
        };
        assert_eq!(code("UPDATE", &|_| {}), ENVIRONMENT);
        assert_eq!(code("ADD", &|config| config["cniVersion"] = json!("0.1.0")), INCOMPATIBLE);
        assert_eq!(code("ADD", &|config| config["prevResult"] = json!(null)), CONFIGURATION);
        assert_eq!(code("ADD", &|config| config["controlSocket"] = json!("x.sock")), CONFIGURATION);
        for wrong in [json!(0), json!(201), json!("5"), json!(1.5)] {
            assert_eq!(
                code("ADD", &|config| config["timeoutSeconds"] = wrong.clone()),
                CONFIGURATION
            );
        }
        let nothing = |_: &str| None;
        assert_eq!(Request::read("{}", nothing).unwrap_err().code, ENVIRONMENT);
        assert_eq!(Request::read("{", nothing).unwrap_err().code, DECODE);
        let no_uid =
            |name: &str| Some(if name == "CNI_COMMAND" { "ADD" } else { "x=y" }.to_owned());
        assert_eq!(Request::read(&config().to_string(), no_uid).unwrap_err().code, ENVIRONMENT);
        // Any version may be asked for the versions.
        assert!(read("VERSION", &json!({"cniVersion": "9.9.9"})).is_ok());
    }

    #[test]
    fn answers_have_the_forms_of_the_specification() {
        let answer: Value = serde_json::from_str(&versions("1.0.0")).unwrap();
        assert_eq!(answer["cniVersion"], "1.0.0");
        assert!(answer["supportedVersions"].as_array().unwrap().contains(&json!("1.1.0")));
        let wrong = Failure::new(NOT_ENFORCED, "enforcement does not stand", "why");
        let answer: Value = serde_json::from_str(&failure("1.1.0", &wrong)).unwrap();
        assert_eq!(
            answer,
            json!({"cniVersion": "1.1.0", "code": 100, "msg": "egress-agent: enforcement does not stand", "details": "why"})
        );
    }
}

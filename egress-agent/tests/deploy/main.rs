//! What is installed in a cluster: the chart renders to what every supported version of Kubernetes takes, and
//! its command lines, metrics and settings are those of the agent.
//!
//! helm, kubectl and the schemas come from the set-up; no cluster is needed, and no root.

mod commands;
mod helm;
mod kubectl;
mod lines;
#[path = "../docs/markdown.rs"]
mod markdown;
mod monitoring;
mod objects;
mod otlp;
mod schema;
#[path = "../docs/shell.rs"]
mod shell;
#[path = "../docs/spans.rs"]
mod spans;
mod values;

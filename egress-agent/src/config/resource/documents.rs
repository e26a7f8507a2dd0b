//! From a file to its documents.

use super::super::{
    RawFile,
    decode::Report,
    problem::{Problem, Severity},
    yaml::{self, Key, MAX_FILE_BYTES, Node, Value},
};

/// How deep an object may be nested: an API server takes more than documents that people write have.
const MAX_DEPTH: usize = 100;

/// The documents of a file that could be read; the others are noted.
pub(in crate::config) fn documents(file: &RawFile, report: &mut Report) -> Vec<Node> {
    if file.text.len() > MAX_FILE_BYTES {
        report.fatal = true;
        let problem = Problem::new(Severity::Error, &file.path, "the file is too large")
            .found(format!("{} bytes", file.text.len()), format!("at most {MAX_FILE_BYTES}"));
        report.problems.push(problem);
        return Vec::new();
    }
    // An object of a cluster: JSON may hold characters, and be nested, as no YAML may.
    if file.text.starts_with('{')
        && !file.text.contains('\n')
        && let Ok(object) = serde_json::from_str(&file.text)
    {
        return vec![node(object, MAX_DEPTH)];
    }
    let documents = yaml::documents(&file.text).into_iter();
    documents
        .filter_map(|document| match document {
            Ok(node) => Some(node),
            Err(error) => {
                report.fatal = true;
                let message = format!("this isn't valid YAML: {}", error.message);
                let problem = Problem::new(Severity::Error, &file.path, message).line(error.line);
                report.problems.push(problem);
                None
            }
        })
        .collect()
}

/// A JSON value; what is nested deeper than `depth` is nothing.
fn node(value: serde_json::Value, depth: usize) -> Node {
    use serde_json::Value as Json;
    let value = match value {
        Json::Array(_) | Json::Object(_) if depth == 0 => Value::Null,
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(values) => {
            Value::List(values.into_iter().map(|value| node(value, depth - 1)).collect())
        }
        Json::Object(fields) => Value::Map(
            fields
                .into_iter()
                .map(|(text, value)| (Key { text, line: 1 }, node(value, depth - 1)))
                .collect(),
        ),
    };
    Node { value, line: 1 }
}

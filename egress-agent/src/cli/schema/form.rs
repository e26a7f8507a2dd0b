//! What a schema is, and how an output is compared with it.

use serde_json::Value;

/// The JSON of a command.
#[derive(Debug)]
pub struct Schema {
    /// As it is called: `check -o json`.
    pub command: &'static str,
    /// What one JSON text of its output is.
    pub what: &'static str,
    /// Every field, in the order of the reference.
    pub fields: &'static [Field],
}

/// A field.
#[derive(Debug)]
pub struct Field {
    /// Where it is: `problems[].file`. `[]` is an element of a list, `*` any name.
    pub path: &'static str,
    /// Its type; one that ends in `?` may be `null` or left out.
    pub kind: &'static str,
    /// What it means.
    pub text: &'static str,
}

impl Schema {
    /// What in an output is not as the schema says: nothing, where it is.
    #[must_use]
    pub fn faults(&self, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.compare("", "object", value, &mut faults);
        faults
    }

    fn compare(&self, path: &str, kind: &str, value: &Value, faults: &mut Vec<String>) {
        let (kind, optional) = match kind.strip_suffix('?') {
            Some(kind) => (kind, true),
            None => (kind, false),
        };
        match (kind, value) {
            (_, Value::Null) if optional => {}
            ("string", Value::String(_))
            | ("number", Value::Number(_))
            | ("boolean", Value::Bool(_)) => {}
            ("list", Value::Array(items)) => {
                let path = format!("{path}[]");
                match self.field(&path) {
                    Some(field) => {
                        items.iter().for_each(|item| self.compare(&path, field.kind, item, faults));
                    }
                    None => faults.push(format!("{path} is not in the reference")),
                }
            }
            ("object", Value::Object(entries)) => {
                for (key, value) in entries {
                    let exact = below(path, key);
                    let any = below(path, "*");
                    match self.field(&exact).or_else(|| self.field(&any)) {
                        Some(field) => self.compare(field.path, field.kind, value, faults),
                        None => faults.push(format!("{exact} is not in the reference")),
                    }
                }
                for field in self.children(path) {
                    let name = field.path.rsplit('.').next().unwrap_or(field.path);
                    if name != "*" && !field.kind.ends_with('?') && !entries.contains_key(name) {
                        faults.push(format!("{} is missing", field.path));
                    }
                }
            }
            (kind, found) => faults.push(format!("{path} is {found}, expected {kind}")),
        }
    }

    /// The field at a path.
    pub(super) fn field(&self, path: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.path == path)
    }

    fn children(&self, path: &str) -> impl Iterator<Item = &'static Field> {
        let start = if path.is_empty() { String::new() } else { format!("{path}.") };
        self.fields.iter().filter(move |field| {
            field.path.strip_prefix(&*start).is_some_and(|rest| !rest.contains(['.', '[']))
        })
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// For tables.
pub(super) const fn field(path: &'static str, kind: &'static str, text: &'static str) -> Field {
    Field { path, kind, text }
}

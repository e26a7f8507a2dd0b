//! What the JSON of each command holds: the reference's tables, and the tests' measure of the outputs.
//!
//! Names are `snake_case` in all of them. Resources keep the names that Kubernetes gives their fields.

mod form;
mod status;
mod tables;

pub use self::{
    form::{Field, Schema},
    tables::SCHEMAS,
};

/// The schema of a command.
#[must_use]
pub fn schema_of(command: &str) -> Option<&'static Schema> {
    SCHEMAS.iter().find(|schema| schema.command == command)
}

#[cfg(test)]
const HEAD: &str = "\
# JSON reference

<!-- Generated: `cargo xtask references`. -->

What the commands write with `-o json`. Names are in `snake_case`; a type that ends in `?` may be `null` or left out.
Fields may be added in later versions; those that are here keep their meaning. Times are RFC 3339, in UTC.

Agents use the same names where they answer in JSON: on the [control socket](../telemetry.md#control-socket) `/flows`
sends what `flows -o json` writes as `{\"flow\":{…}}`, and `/explain` what `explain -o json` writes; `/status` is
`node.agent` or `gateway` of `status -o json` with its `role`. The [admin endpoints](../telemetry.md#admin-endpoints)
follow Envoy's names, and `/config_dump` those of the resources (`camelCase`).
";

/// The reference.
#[cfg(test)]
fn reference() -> String {
    let mut out = String::from(HEAD);
    for Schema { command, what, fields } in SCHEMAS {
        let head = "| field | type | meaning |\n|---|---|---|\n";
        out.push_str(&format!("\n## {command}\n\n{what}\n\n{head}"));
        for Field { path, kind, text } in *fields {
            out.push_str(&format!("| `{path}` | {kind} | {text} |\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::testing::page;

    #[test]
    fn the_page_says_what_the_tables_say() {
        page("json.md", &reference());
    }

    #[test]
    fn names_are_in_one_convention() {
        for schema in SCHEMAS {
            for field in schema.fields {
                let plain =
                    |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.[]*".contains(c);
                assert!(field.path.chars().all(plain), "{}: {}", schema.command, field.path);
                assert!(field.text.ends_with('.'), "{}: {}", schema.command, field.path);
                let kind = field.kind.trim_end_matches('?');
                let kinds = ["string", "number", "boolean", "object", "list"];
                assert!(kinds.contains(&kind), "{}: {}", schema.command, field.path);
                let of_list = format!("{}[]", field.path);
                let has_elements = schema.field(&of_list).is_some();
                assert_eq!(kind == "list", has_elements, "{}: {}", schema.command, field.path);
            }
        }
    }

    #[test]
    fn what_is_not_as_documented_is_found() {
        const SCHEMA: Schema = Schema {
            command: "x",
            what: "x",
            fields: &[
                Field { path: "name", kind: "string", text: "." },
                Field { path: "all", kind: "list", text: "." },
                Field { path: "all[]", kind: "object", text: "." },
                Field { path: "all[].count", kind: "number", text: "." },
                Field { path: "all[].why", kind: "string?", text: "." },
                Field { path: "map", kind: "object?", text: "." },
                Field { path: "map.*", kind: "boolean", text: "." },
            ],
        };
        let good = json!({"name": "x", "all": [{"count": 1, "why": null}], "map": {"any": true}});
        assert_eq!(SCHEMA.faults(&good), Vec::<String>::new());
        for (bad, fault) in [
            (json!([]), " is [], expected object"),
            (json!({"all": []}), "name is missing"),
            (json!({"name": 1, "all": []}), "name is 1, expected string"),
            (json!({"name": "", "all": [], "nameToo": ""}), "nameToo is not in the reference"),
            (json!({"name": "", "all": [{}]}), "all[].count is missing"),
            (json!({"name": "", "all": [{"count": null}]}), "all[].count is null, expected number"),
            (json!({"name": "", "all": [], "map": {"x": 1}}), "map.* is 1, expected boolean"),
        ] {
            assert_eq!(SCHEMA.faults(&bad), [fault], "{bad}");
        }
    }
}

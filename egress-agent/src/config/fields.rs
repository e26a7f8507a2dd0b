//! `docs/reference/istio-fields.md`: what becomes of each field of Istio's resources, from the decoders.

use super::{
    authorization_policy::AuthorizationPolicy,
    decode::{FieldDoc, RecordDoc},
    destination_rule::DestinationRule,
    gateway::Gateway,
    problem::Severity,
    service_entry::ServiceEntry,
    virtual_service::VirtualService,
};

const HEAD: &str = "\
# Fields of Istio's resources

<!-- Generated: `cargo xtask references`. -->

What becomes of each field of the resources of Istio that the agents read. A test compares the list with Istio's own \
definitions.

- **works**: it has the effect that Istio documents, or once did, where the row says so. [Configuration](../configuration.md) has its meaning and default, \
and says which values are refused.
- **refused**: ignoring it would allow more or protect less. A resource that has it is an error, or what it is for is \
refused, with this sentence.
- **ignored**: ignoring it allows nothing more and protects nothing less. `check` and the log warn of it.

A field that is not in the list is not known: it draws a warning with the nearest known name, and in an \
`AuthorizationPolicy` denies. `[]` is an element of a list, `*` any key.
";

/// What has its effect here and not, or no longer, in Istio: the end of the path, and why.
const OLDER: [(&str, &str); 3] = [
    (
        ".outlierDetection.consecutiveErrors",
        "Istio ignores it; used with a warning where `consecutive5xxErrors` is absent",
    ),
    (
        ".fault.abort.percent",
        "not in Istio's current definitions: an API server drops it; in force with a warning",
    ),
    (
        ".websocketUpgrade",
        "not in Istio's current definitions: an API server refuses it; in force with a warning",
    ),
];

/// What becomes of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FieldSupport {
    Works,
    Refused,
    Ignored,
}

impl FieldSupport {
    const fn name(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Refused => "refused",
            Self::Ignored => "ignored",
        }
    }
}

/// A field with what becomes of it.
#[derive(Clone, Debug)]
struct FieldRow {
    path: String,
    fate: FieldSupport,
    why: &'static str,
}

/// Every field of one kind.
fn rows(root: &RecordDoc) -> Vec<FieldRow> {
    let mut rows = Vec::new();
    descend("spec", root, &mut rows);
    rows
}

fn descend(path: &str, record: &RecordDoc, rows: &mut Vec<FieldRow>) {
    for FieldDoc { key, type_name, nested, .. } in (record.fields)() {
        let many = if type_name.starts_with("list") { "[]" } else { "" };
        let path = format!("{path}.{key}{many}");
        let older = OLDER.iter().find(|(end, _)| path.ends_with(end));
        let why = older.map_or("", |(_, why)| *why);
        rows.push(FieldRow { path: path.clone(), fate: FieldSupport::Works, why });
        if let Some(nested) = nested {
            let any = if type_name.starts_with("mapping of text") { ".*" } else { "" };
            descend(&format!("{path}{any}"), &nested, rows);
        }
    }
    for bad in record.unsupported {
        let fate = match bad.severity {
            Severity::Error | Severity::Refusal => FieldSupport::Refused,
            Severity::Warning => FieldSupport::Ignored,
        };
        let path = format!("{path}.{}", bad.key);
        rows.push(FieldRow { path, fate, why: bad.why });
    }
}

fn kinds() -> [(&'static str, RecordDoc); 5] {
    [
        ("ServiceEntry", ServiceEntry::doc()),
        ("Gateway", Gateway::doc()),
        ("DestinationRule", DestinationRule::doc()),
        ("VirtualService", VirtualService::doc()),
        ("AuthorizationPolicy", AuthorizationPolicy::doc()),
    ]
}

/// How many fields of each kind work, are refused and are ignored, as a table for `docs/configuration.md`.
pub(super) fn counts() -> String {
    let mut out = String::from("| kind | works | refused | ignored |\n|---|---|---|---|\n");
    for (kind, root) in kinds() {
        let rows = rows(&root);
        let of = |fate| rows.iter().filter(|row| row.fate == fate).count();
        let [works, refused, ignored] =
            [FieldSupport::Works, FieldSupport::Refused, FieldSupport::Ignored].map(of);
        let anchor = kind.to_lowercase();
        out.push_str(&format!(
            "| [{kind}](reference/istio-fields.md#{anchor}) | {works} | {refused} | {ignored} |\n"
        ));
    }
    out
}

/// What becomes of each field of Istio's resources, in Markdown.
#[must_use]
pub fn istio_fields() -> String {
    let mut out = String::from(HEAD);
    for (kind, root) in kinds() {
        out.push_str(&format!("\n## {kind}\n\n| field | | why |\n|---|---|---|\n"));
        for FieldRow { path, fate, why } in rows(&root) {
            out.push_str(&format!("| `{path}` | {} | {why} |\n", fate.name()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::types::testing::page;

    /// Istio's definitions.
    const ISTIO: &str = include_str!("testdata/istio-fields.txt");

    #[test]
    fn the_page_says_what_the_decoders_say() {
        page("istio-fields.md", &istio_fields());
    }

    #[test]
    fn what_is_older_than_the_current_definitions_is_among_the_fields() {
        let all: Vec<_> = kinds().iter().flat_map(|(_, root)| rows(root)).collect();
        for (end, why) in OLDER {
            let of = all.iter().filter(|row| row.path.ends_with(end));
            assert!(of.clone().count() > 0 && of.clone().all(|row| row.why == why), "{end}");
        }
        assert_eq!(all.iter().filter(|row| row.path.ends_with(".delay.percent")).count(), 1);
    }

    /// Every row is counted once.
    #[test]
    fn the_counts_are_those_of_the_list() {
        let (page, counts) = (istio_fields(), counts());
        for (section, (kind, _)) in page.split("\n## ").skip(1).zip(kinds()) {
            let of = |fate: &str| section.matches(&format!("` | {fate} | ")).count();
            let [works, refused, ignored] = ["works", "refused", "ignored"].map(of);
            let expected = format!(") | {works} | {refused} | {ignored} |");
            let line = counts.lines().find(|line| line.contains(&format!("[{kind}]"))).unwrap();
            assert!(line.ends_with(&expected), "{line}: {expected}");
            assert_eq!(section.lines().count() - 5 + 1, works + refused + ignored, "{kind}");
        }
    }

    #[test]
    fn every_field_of_istio_is_in_the_list() {
        let known: BTreeMap<_, _> =
            kinds().iter().map(|(kind, root)| (*kind, rows(root))).collect();
        let mut missing = Vec::new();
        let mut count = 0;
        for line in ISTIO.lines().filter(|line| !line.starts_with('#')) {
            let (kind, path) = line.split_once(' ').unwrap();
            count += 1;
            let plain = |path: &str| path.replace("[]", "");
            let find = |path: &str| known[kind].iter().find(|row| plain(&row.path) == plain(path));
            // What is below a field that is not supported shares its fate, and what is below a value that is
            // read as a whole (a match of strings, a duration) is part of that value.
            let is_whole = |above: &FieldRow| {
                let below = [".", ".*."].map(|dot| format!("{}{dot}", above.path));
                !known[kind].iter().any(|row| below.iter().any(|end| row.path.starts_with(end)))
            };
            let mut above = path.match_indices('.').filter_map(|(at, _)| find(&path[..at]));
            if find(path).is_none() && !above.any(is_whole) {
                missing.push(line);
            }
        }
        assert!(count > 500, "{count}");
        assert!(missing.is_empty(), "not in the list:\n{}", missing.join("\n"));
    }
}

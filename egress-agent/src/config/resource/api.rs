//! Resources of the Gateway API.

use super::{
    super::{
        decode::{Cx, Report, SourcePosition, nearest},
        gateway_api::{self, GROUP, OTHER_KINDS},
        yaml::{Node, Value, shorten},
    },
    Resources, Scope,
};

impl Resources {
    /// Reads a resource of the group.
    pub(super) fn gateway_api(&mut self, version: &str, kind: &str, node: &Node, cx: &mut Cx<'_>) {
        let root = SourcePosition::root(node.line, "");
        let known = gateway_api::kinds().find(|(_, name, _)| *name == kind);
        let Some((.., versions)) = known else {
            let names = || gateway_api::kinds().map(|(_, name, _)| name);
            let list = names().collect::<Vec<_>>().join(", ");
            let hint = nearest(kind, names()).map(|near| format!(". Did you mean {near}?"));
            let hint = hint.filter(|_| !OTHER_KINDS.contains(&kind)).unwrap_or_default();
            let kind = shorten(kind);
            let message = format!("ignored: {kind} is not supported; supported are {list}{hint}");
            // A class says who serves its Gateways, and those of ours are known.
            if kind != "GatewayClass" {
                cx.warn(&root.field("kind"), message);
            }
            return;
        };
        if !versions.contains(&version) {
            let known: Vec<_> = versions.iter().map(|known| format!("{GROUP}/{known}")).collect();
            let found = format!("{:?}", format!("{GROUP}/{version}"));
            cx.wrong(&root.field("apiVersion"), found, known.join(", "), "unknown version");
            return;
        }
        if !self.counted(&root, cx) {
            return;
        }
        // Istio has a kind of that name too.
        let title = if kind == "Gateway" { gateway_api::GATEWAY } else { kind };
        let mut report = Report::default();
        let mut own = Cx { report: &mut report, file: cx.file, resource: None };
        match self.meta(title, node, Scope::Namespace, &mut own) {
            Some(meta) => {
                if kind == "TLSRoute" && version != "v1alpha2" {
                    without_hostnames(version, node, &mut meta.cx(&mut report));
                }
                self.api.add(kind, meta, node, report.into_parts().0);
            }
            None => {
                cx.report.fatal |= report.fatal;
                cx.report.problems.append(&mut report.problems);
            }
        }
    }
}

/// A route without names is for every name of its parents. Only the oldest version may say so.
fn without_hostnames(version: &str, route: &Node, cx: &mut Cx<'_>) {
    let Some(spec) = route.get("spec") else { return };
    let is_empty = |names: &Node| {
        names.value == Value::Null || matches!(&names.value, Value::List(all) if all.is_empty())
    };
    if spec.get("hostnames").is_none_or(is_empty) {
        let at = SourcePosition::root(spec.line, "spec").field("hostnames");
        let message = format!(
            "an API server refuses a TLSRoute of {version} without hostnames; here it is for every name of its \
             parents"
        );
        cx.warn(&at, message);
    }
}

//! Egress policies, and the namespaces that they select.

use super::{
    super::{
        decode::{Cx, SourcePosition, nearest},
        policies::{self, Policy},
        yaml::{Node, shorten},
    },
    Resources, Scope,
};

impl Resources {
    /// Reads an egress policy or a namespace; `false` where it is neither.
    pub(super) fn policy(
        &mut self,
        group: &str,
        version: &str,
        kind: &str,
        node: &Node,
        cx: &mut Cx<'_>,
    ) -> bool {
        let root = SourcePosition::root(node.line, "");
        let cluster = kind == policies::CLUSTER;
        let own = cluster || kind == policies::NAMESPACED;
        let namespace = kind == "Namespace" && group.is_empty() && version == "v1";
        if group == policies::GROUP && !own {
            let kinds = [policies::NAMESPACED, policies::CLUSTER];
            let hint = nearest(kind, kinds.into_iter());
            let hint = hint.map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
            let (found, expected) = (format!("{:?}", shorten(kind)), kinds.join(" or "));
            cx.wrong(&root.field("kind"), found, expected, format!("unknown kind{hint}"));
            return true;
        }
        if own && (group != policies::GROUP || !policies::VERSIONS.contains(&version)) {
            let at = root.field("apiVersion");
            let found = node.get("apiVersion").map_or("nothing".into(), |v| v.value.describe());
            let expected = format!("{}/{}", policies::GROUP, policies::VERSIONS.join(", "));
            cx.wrong(&at, found, expected, "wrong apiVersion for this kind");
            return true;
        }
        if !own && !namespace {
            return false;
        }
        let scope = if own && !cluster { Scope::Namespace } else { Scope::Cluster };
        if self.counted(&root, cx)
            && let Some(meta) = self.meta(kind, node, scope, cx)
        {
            if own {
                self.policies.push(Policy::read(meta, node, cluster));
            } else {
                self.namespaces.push(policies::namespace(&meta, node));
            }
        }
        true
    }
}

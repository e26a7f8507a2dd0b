//! Annotations of Istio's resources: what their fields have no place for.

use super::{
    decode::{Cx, Record, SourcePosition, Spanned, nearest},
    yaml::{self, Node, Value},
};

/// The prefix of all annotations that have a meaning here.
pub const PREFIX: &str = "egress-enforcer.io/";
/// A rate limit, as `rateLimit` of an egress policy.
pub(super) const RATE_LIMIT: &str = "egress-enforcer.io/rate-limit";
/// Where the gateway dials from.
pub(super) const EGRESS_ADDRESS: &str = "egress-enforcer.io/egress-address";
/// The credential for the proxy of a tunnel.
pub(super) const TUNNEL_CREDENTIAL: &str = "egress-enforcer.io/tunnel-credential";
/// Every annotation, with the kinds that may have it.
const ALL: &[(&str, &[&str])] = &[
    (RATE_LIMIT, &["ServiceEntry"]),
    (
        EGRESS_ADDRESS,
        &["VirtualService", "Gateway", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"],
    ),
    (TUNNEL_CREDENTIAL, &["DestinationRule"]),
];

/// The annotations of a resource that have a meaning here.
#[derive(Clone, Debug, Default)]
pub(super) struct Annotations(Vec<(&'static str, Spanned<String>)>);

impl Annotations {
    /// Reads those of a resource of this kind. One that is not known is an error: it may be a limit.
    pub(super) fn read(kind: &str, node: &Node, cx: &mut Cx<'_>) -> Self {
        let annotations = node.get("metadata").and_then(|metadata| metadata.get("annotations"));
        let Some(Value::Map(entries)) = annotations.map(|all| &all.value) else {
            return Self::default();
        };
        let mut read = Vec::new();
        for (key, value) in entries.iter().filter(|(key, _)| key.text.starts_with(PREFIX)) {
            let at = SourcePosition::root(key.line, "metadata").field("annotations").key(&key.text);
            let Some((known, kinds)) = ALL.iter().find(|(name, _)| *name == key.text) else {
                let known = ALL.iter().map(|(name, _)| *name);
                let hint = nearest(&key.text, known.clone());
                let hint = hint.map(|near| format!(". Did you mean {near}?")).unwrap_or_default();
                let known: Vec<_> = known.collect();
                let message = format!("unknown annotation{hint}");
                cx.wrong(&at, format!("{:?}", key.text), known.join(" or "), message);
                continue;
            };
            if !kinds.contains(&kind) {
                let message = format!("a {kind} can't have this annotation");
                cx.wrong(&at, kind, kinds.join(" or "), message);
                continue;
            }
            if let Value::Text(text) = &value.value {
                read.push((*known, Spanned { value: text.clone(), at }));
            } else {
                cx.wrong(&at, value.value.describe(), "text", "wrong type");
            }
        }
        Self(read)
    }

    /// The value of an annotation.
    pub(super) fn get(&self, name: &str) -> Option<&Spanned<String>> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// The value of an annotation that is a mapping, as YAML or JSON.
    pub(super) fn record<T: Record>(&self, name: &str, cx: &mut Cx<'_>) -> Option<T> {
        let text = self.get(name)?;
        let mut documents = yaml::documents(&text.value).into_iter();
        match (documents.next(), documents.next()) {
            (Some(Ok(mut node)), None) => {
                // Lines are those of the file.
                node.move_to(text.at.line);
                T::decode_record(&node, &text.at, cx)
            }
            (Some(Err(error)), _) => {
                let found = format!("{:?}", yaml::shorten(&text.value));
                cx.wrong(&text.at, found, "a mapping, as YAML or JSON", error.message);
                None
            }
            (None, _) | (Some(_), Some(_)) => {
                let found = format!("{:?}", yaml::shorten(&text.value));
                cx.wrong(&text.at, found, "a mapping, as YAML or JSON", "wrong value");
                None
            }
        }
    }
}

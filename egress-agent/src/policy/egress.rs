//! `EgressPolicy` and `ClusterEgressPolicy`: which pods may reach what, in one resource.
//!
//! A pod may do what any of the policies allows that select it: rules only add. A policy never decides
//! about a pod that it does not select, so the policies of two namespaces never meet, although a gateway
//! serves both.

mod selector;
mod table;

use std::sync::Arc;

pub use selector::{
    LabelOperator, LabelRequirement, LabelSelector, NAMESPACE_NAME, NamespaceLabels,
};
pub use table::{EgressTable, Grant, MatchedRule, NotGranted, TcpTarget};

use super::{
    Destination, Hop, HostPattern, RateLimit, TextMatch,
    path::{self, AmbiguousPath},
};
use crate::types::{GatewayPort, Namespace, OriginalPort, Source};

/// One policy of either kind.
#[derive(Clone, Debug)]
pub struct EgressPolicy {
    /// `EgressPolicy shop/payments`.
    pub label: Arc<str>,
    /// In which namespaces its pods are.
    pub scope: EgressScope,
    /// Which pods there.
    pub pods: LabelSelector,
    /// Whether what no policy allows is refused, or passes the gateway and is marked.
    pub mode: EgressMode,
    /// What it allows. A policy that is not valid allows nothing, and still selects its pods.
    pub rules: Vec<Arc<EgressRule>>,
}

/// What happens to what no policy allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EgressMode {
    /// It is refused.
    Enforce,
    /// It passes the gateway and is marked.
    Audit,
}

impl EgressMode {
    /// As a policy has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "Enforce",
            Self::Audit => "Audit",
        }
    }
}

/// The namespaces that a policy is for.
#[derive(Clone, Debug)]
pub enum EgressScope {
    /// Its own.
    Namespace(Namespace),
    /// Those that the selector of a `ClusterEgressPolicy` selects.
    Cluster(LabelSelector, Arc<NamespaceLabels>),
}

/// A host and port that a rule allows.
#[derive(Clone, Debug)]
pub struct EgressRule {
    /// The host, or all below one.
    pub host: HostPattern,
    /// The port that applications dial.
    pub port: OriginalPort,
    /// What may be spoken, and within which limits.
    pub access: EgressAccess,
    /// Index of the gateway in [`super::MeshConfig::gateways`].
    pub group: usize,
    /// How it has to come there.
    pub hop: Hop,
    /// How it is reached from there.
    pub destination: Arc<Destination>,
    /// What each of the pods may ask of each host.
    pub rate: Option<Arc<RateLimit>>,
}

/// What may be spoken on a port.
#[derive(Clone, Debug)]
pub enum EgressAccess {
    /// HTTP in clear.
    Http {
        /// Which requests.
        limits: HttpLimits,
        /// Whether the gateway starts TLS to the host.
        originates: bool,
    },
    /// TLS, by server name.
    Tls,
    /// Any bytes.
    Tcp {
        /// The port at the gateway, which tells raw TCP apart where the hop is plain.
        at: GatewayPort,
    },
}

/// Which requests a rule allows.
#[derive(Clone, Debug, Default)]
pub struct HttpLimits {
    /// These methods; empty is any.
    pub methods: Vec<http::Method>,
    /// These paths; empty is any.
    pub paths: Vec<PathBelow>,
}

/// A path and what is below it, by whole segments: `/v1` is `/v1` and `/v1/x`, `/v1/` is `/v1/x` alone.
#[derive(Clone, Debug)]
pub struct PathBelow {
    /// As written.
    pub text: Arc<str>,
    exact: Option<TextMatch>,
    below: TextMatch,
}

impl PathBelow {
    /// From a path that begins with a slash.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let (exact, below) = if text.ends_with('/') {
            (None, text.to_owned())
        } else {
            (Some(TextMatch::Exact(text.into())), format!("{text}/"))
        };
        Self { text: text.into(), exact, below: TextMatch::Prefix(below.into()) }
    }

    fn matches(&self, path: &str) -> Result<bool, AmbiguousPath> {
        let exact = match &self.exact {
            Some(exact) => path::matches(exact, path, false)?,
            None => false,
        };
        Ok(exact || path::matches(&self.below, path, false)?)
    }
}

impl HttpLimits {
    /// Whether a request with this method and path is within the limits.
    pub(super) fn allow(
        &self,
        method: &http::Method,
        path_and_query: &str,
    ) -> Result<bool, AmbiguousPath> {
        if !self.methods.is_empty() && !self.methods.contains(method) {
            return Ok(false);
        }
        if self.paths.is_empty() {
            return Ok(true);
        }
        let (path, _) = path::split_query(path_and_query);
        for wanted in &self.paths {
            if wanted.matches(path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl std::fmt::Display for HttpLimits {
    /// `GET, HEAD on /v1/`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let methods: Vec<_> = self.methods.iter().map(http::Method::as_str).collect();
        f.write_str(if methods.is_empty() { "every method" } else { "" })?;
        f.write_str(&methods.join(", "))?;
        let paths: Vec<_> = self.paths.iter().map(|path| &*path.text).collect();
        if paths.is_empty() { Ok(()) } else { write!(f, " on {}", paths.join(", ")) }
    }
}

impl EgressScope {
    /// Whether pods of this namespace may be meant.
    #[must_use]
    pub fn includes(&self, namespace: &Namespace) -> bool {
        match self {
            Self::Namespace(own) => own == namespace,
            Self::Cluster(selector, known) => known.are_selected(selector, namespace),
        }
    }
}

impl EgressPolicy {
    /// Whether it is about this source. Of a source without a known workload only the namespace can be
    /// proven, so a policy that asks for labels is not about it.
    #[must_use]
    pub fn selects(&self, source: &Source) -> bool {
        let labelled = || {
            self.pods.is_everything()
                || source.workload.as_ref().is_some_and(|pod| self.pods.matches(&pod.labels))
        };
        source.namespace().is_some_and(|namespace| self.scope.includes(namespace)) && labelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_by_whole_segments() {
        let limits = |methods: &[&str], paths: &[&str]| HttpLimits {
            methods: methods.iter().map(|method| method.parse().unwrap()).collect(),
            paths: paths.iter().map(|path| PathBelow::new(path)).collect(),
        };
        let all = limits(&[], &[]);
        let some = limits(&["GET", "HEAD"], &["/v1", "/files/"]);
        for (method, path, allowed) in [
            ("GET", "/v1", true),
            ("HEAD", "/v1?page=2", true),
            ("GET", "/v1/users", true),
            ("GET", "/v10", false),
            ("GET", "/v1x/users", false),
            ("GET", "/V1", false),
            ("GET", "/files/a", true),
            ("GET", "/files/", true),
            ("GET", "/files", false),
            ("GET", "/", false),
            ("POST", "/v1", false),
            ("get", "/v1", false),
        ] {
            let method = method.parse().unwrap();
            assert_eq!(some.allow(&method, path), Ok(allowed), "{method} {path}");
            assert_eq!(all.allow(&method, path), Ok(true), "{method} {path}");
        }
        // Servers read these in two ways, one of them outside of the limits.
        for path in ["/v1/%2e%2e/admin", "/v1/..%2fadmin", "/v1;/../admin"] {
            assert_ne!(some.allow(&http::Method::GET, path), Ok(true), "{path}");
        }
    }

    #[test]
    fn limits_read_like_a_sentence() {
        let limits = HttpLimits {
            methods: vec![http::Method::GET, http::Method::HEAD],
            paths: vec![PathBelow::new("/v1/")],
        };
        assert_eq!(limits.to_string(), "GET, HEAD on /v1/");
        assert_eq!(HttpLimits::default().to_string(), "every method");
    }
}

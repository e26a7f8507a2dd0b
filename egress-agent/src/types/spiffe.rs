//! SPIFFE IDs, in the form that Istio gives to workloads.

use std::{fmt, str::FromStr, sync::Arc};

use thiserror::Error;

use super::Namespace;

/// Longest SPIFFE ID, in bytes (SPIFFE-ID §2.3).
const LONGEST_ID: usize = 2048;
/// Longest trust domain, in bytes (SPIFFE-ID §2.1).
const LONGEST_TRUST_DOMAIN: usize = 255;

/// Who vouches for identities: the host part of a SPIFFE ID.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses a trust domain: lower-case letters, digits, dots, hyphens and underscores.
    ///
    /// # Errors
    /// [`SpiffeError::Empty`], [`SpiffeError::TooLong`] or [`SpiffeError::TrustDomain`].
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        if text.is_empty() {
            return Err(SpiffeError::Empty("trust domain"));
        }
        if text.len() > LONGEST_TRUST_DOMAIN {
            return Err(SpiffeError::TooLong {
                what: "trust domain",
                found: text.len(),
                most: LONGEST_TRUST_DOMAIN,
            });
        }
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
        match text.chars().find(|c| !allowed(*c)) {
            Some(found) => Err(SpiffeError::TrustDomain(found)),
            None => Ok(Self(text.into())),
        }
    }
}

impl Default for TrustDomain {
    /// Istio's.
    fn default() -> Self {
        Self("cluster.local".into())
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A workload's identity: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SpiffeId {
    /// Who vouches for it.
    pub trust_domain: TrustDomain,
    /// The workload's namespace.
    pub namespace: Namespace,
    /// Its service account.
    pub service_account: Arc<str>,
}

/// Why a text isn't a [`SpiffeId`].
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SpiffeError {
    /// Nothing there.
    #[error("the {0} is empty")]
    Empty(&'static str),
    /// Over the standard's limit.
    #[error("the {what} has {found} bytes, expected at most {most}")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its bytes.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// Another scheme, or none.
    #[error("it doesn't begin with spiffe://")]
    Scheme,
    /// A character that no trust domain has; a port, user information and upper case are among
    /// them.
    #[error(
        "found {0:?} in the trust domain, expected lower-case letters, digits, dots, hyphens and underscores"
    )]
    TrustDomain(char),
    /// A character that no path has; queries, fragments and percent-encoding are among them.
    #[error(
        "found {0:?} in the path, expected letters, digits, dots, hyphens and underscores between slashes"
    )]
    Path(char),
    /// An empty segment, `.` or `..`.
    #[error("found the path segment {0:?}, which two parsers could read differently")]
    Segment(String),
    /// A SPIFFE ID, but not of a workload as Istio names it.
    #[error("found the path {0:?}, expected /ns/<namespace>/sa/<service account>")]
    Form(String),
}

impl SpiffeId {
    /// Parses a SPIFFE ID strictly: what two parsers could read differently is refused.
    ///
    /// # Errors
    /// [`SpiffeError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        if text.is_empty() {
            return Err(SpiffeError::Empty("SPIFFE ID"));
        }
        if text.len() > LONGEST_ID {
            return Err(SpiffeError::TooLong {
                what: "SPIFFE ID",
                found: text.len(),
                most: LONGEST_ID,
            });
        }
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeError::Scheme)?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let trust_domain = TrustDomain::parse(domain)?;
        let form = || SpiffeError::Form(path.to_owned());
        let segments = path.strip_prefix('/').ok_or_else(form)?;
        let segments: Vec<&str> =
            segments.split('/').map(segment).collect::<Result<_, SpiffeError>>()?;
        match segments[..] {
            ["ns", namespace, "sa", service_account] => Ok(Self {
                trust_domain,
                namespace: Namespace(namespace.into()),
                service_account: service_account.into(),
            }),
            _ => Err(form()),
        }
    }
}

/// A path segment (SPIFFE-ID §2.2).
fn segment(text: &str) -> Result<&str, SpiffeError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if let Some(found) = text.chars().find(|c| !allowed(*c)) {
        return Err(SpiffeError::Path(found));
    }
    match text {
        "" | "." | ".." => Err(SpiffeError::Segment(text.to_owned())),
        text => Ok(text),
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        Self::parse(text)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, namespace, service_account } = self;
        write!(f, "spiffe://{trust_domain}/ns/{}/sa/{service_account}", namespace.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GATEWAY: &str =
        "spiffe://cluster.local/ns/istio-system/sa/istio-egressgateway-service-account";

    #[test]
    fn parts_are_told_apart() {
        let id = SpiffeId::parse(GATEWAY).unwrap();
        assert_eq!(id.trust_domain, TrustDomain::default());
        assert_eq!(&*id.namespace.0, "istio-system");
        assert_eq!(&*id.service_account, "istio-egressgateway-service-account");
        assert_eq!(id.to_string(), GATEWAY);
        assert_ne!(id.trust_domain, TrustDomain::parse("other.local").unwrap());
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for text in [
            "",
            "spiffe:",
            "spiffe://",
            "spiffe:///ns/a/sa/b",
            "SPIFFE://td/ns/a/sa/b",
            "https://td/ns/a/sa/b",
            "spiffe:/td/ns/a/sa/b",
            " spiffe://td/ns/a/sa/b",
            "spiffe://td/ns/a/sa/b ",
            "spiffe://td/ns/a/sa/b\n",
            "spiffe://td/ns/a/sa/b\0",
            "spiffe://TD/ns/a/sa/b",
            "spiffe://td:8443/ns/a/sa/b",
            "spiffe://user@td/ns/a/sa/b",
            "spiffe://t%64/ns/a/sa/b",
            "spiffe://tü/ns/a/sa/b",
            "spiffe://[::1]/ns/a/sa/b",
            "spiffe://td",
            "spiffe://td/",
            "spiffe://td?x=/ns/a/sa/b",
            "spiffe://td#/ns/a/sa/b",
            "spiffe://td/ns/a/sa/b?x",
            "spiffe://td/ns/a/sa/b#x",
            "spiffe://td/ns/a/sa/b/",
            "spiffe://td//ns/a/sa/b",
            "spiffe://td/ns//sa/b",
            "spiffe://td/ns/./sa/b",
            "spiffe://td/ns/../sa/b",
            "spiffe://td/ns/a/sa/..",
            "spiffe://td/ns/a%2fb/sa/c",
            "spiffe://td/ns/ä/sa/b",
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/NS/a/sa/b",
            "spiffe://td/sa/b/ns/a",
        ] {
            assert!(SpiffeId::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lengths_are_those_of_the_standard() {
        let domain = "a".repeat(255);
        assert!(TrustDomain::parse(&domain).is_ok());
        assert!(TrustDomain::parse(&format!("{domain}a")).is_err());
        let prefix = "spiffe://td/ns/a/sa/";
        let longest = format!("{prefix}{}", "b".repeat(2048 - prefix.len()));
        assert!(SpiffeId::parse(&longest).is_ok());
        assert_eq!(
            SpiffeId::parse(&format!("{longest}b")),
            Err(SpiffeError::TooLong { what: "SPIFFE ID", found: 2049, most: 2048 })
        );
    }

    #[test]
    fn errors_say_what_was_found() {
        let error = |text: &str| SpiffeId::parse(text).unwrap_err().to_string();
        assert!(error("spiffe://Td/ns/a/sa/b").contains("found 'T' in the trust domain"));
        assert!(error("spiffe://td/ns/a/sa/b?c").contains("found '?' in the path"));
        assert!(error("spiffe://td/workload").contains("found the path \"/workload\""));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            domain in "[a-z0-9._-]{1,255}",
            namespace in "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,62}",
            account in "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,252}",
        ) {
            let id = SpiffeId {
                trust_domain: TrustDomain::parse(&domain).unwrap(),
                namespace: Namespace(namespace.as_str().into()),
                service_account: account.as_str().into(),
            };
            prop_assert_eq!(SpiffeId::parse(&id.to_string()), Ok(id));
        }

        #[test]
        fn there_is_one_spelling(text in "(spiffe://)?[a-zA-Z0-9%?#@:./_-]{0,60}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn no_input_panics(text in "\\PC{0,80}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn a_foreign_byte_anywhere_is_refused(at in 0..GATEWAY.len(), byte in "[ %?#@:\\\\A]") {
            // Upper case is allowed in the path alone.
            let in_path = at > "spiffe://cluster.local".len() && byte == "A";
            let mut text = GATEWAY.to_owned();
            text.insert_str(at, &byte);
            prop_assume!(!in_path);
            prop_assert!(SpiffeId::parse(&text).is_err(), "{}", text);
        }
    }
}

//! What is wrong with a configuration, said so that a person can put it right.

use std::{cmp::Ordering, fmt};

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It has an effect that is probably not wanted.
    Warning,
    /// It can't be carried out and is refused or passed over; everything else is in force.
    #[serde(rename = "refused")]
    Refusal,
    /// It can't be carried out, and nothing of the configuration is put in force.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Refusal => "refused",
            Self::Error => "error",
        })
    }
}

/// Why a route of the Gateway API is not taken at a parent, why a listener is not served, or why a reference of one is
/// not resolved: the reason that the conditions show.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum StatusReason {
    /// There is no such parent, or no such listener of it.
    NoMatchingParent,
    /// The parent serves none of the route's hosts.
    NoMatchingListenerHostname,
    /// The parent takes no routes of this kind or namespace.
    NotAllowedByListeners,
    /// A backend or a certificate lies in another namespace, which permits no reference.
    RefNotPermitted,
    /// A backend is of a kind that cannot be one.
    InvalidKind,
    /// A backend does not exist or cannot be reached.
    BackendNotFound,
    /// A listener's certificate is missing, or cannot be one.
    InvalidCertificateRef,
    /// A listener is to take routes of a kind that its protocol cannot have.
    InvalidRouteKinds,
    /// A listener's protocol is not served.
    UnsupportedProtocol,
    /// Another listener has the same port, protocol and host.
    HostnameConflict,
    /// Another listener has the same port and host, and another protocol.
    ProtocolConflict,
}

impl StatusReason {
    /// The Gateway API's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoMatchingParent => "NoMatchingParent",
            Self::NoMatchingListenerHostname => "NoMatchingListenerHostname",
            Self::NotAllowedByListeners => "NotAllowedByListeners",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::InvalidKind => "InvalidKind",
            Self::BackendNotFound => "BackendNotFound",
            Self::InvalidCertificateRef => "InvalidCertificateRef",
            Self::InvalidRouteKinds => "InvalidRouteKinds",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
            Self::HostnameConflict => "HostnameConflict",
            Self::ProtocolConflict => "ProtocolConflict",
        }
    }
}

/// One problem: where, what was found, what was expected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The code of Istio's analyzer message that says the same, `IST0101` and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// The file.
    pub file: String,
    /// The line in it, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// `VirtualService default/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// `spec.http[0].route[1].destination.port.number`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What should be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// A sentence: what is wrong, and what to do.
    pub message: String,
    /// What a route or a listener of the Gateway API shows for it, where the place alone does not say so.
    #[serde(skip)]
    pub status_reason: Option<StatusReason>,
}

impl Problem {
    /// A problem of a file as a whole.
    pub fn new(severity: Severity, file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity,
            code: None,
            file: file.into(),
            line: None,
            resource: None,
            field: None,
            found: None,
            expected: None,
            message: message.into(),
            status_reason: None,
        }
    }

    /// Adds what was found and what was expected.
    #[must_use]
    pub fn found(mut self, found: impl Into<String>, expected: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self.expected = Some(expected.into());
        self
    }

    /// Adds the line, counted from 1.
    #[must_use]
    pub fn line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    /// Adds the analyzer's code.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Order of a listing: by file and line; where those are equal, errors first.
    #[must_use]
    pub fn by_place(&self, other: &Self) -> Ordering {
        (&self.file, self.line, other.severity, &self.field, &self.message).cmp(&(
            &other.file,
            other.line,
            self.severity,
            &other.field,
            &other.message,
        ))
    }
}

impl fmt::Display for Problem {
    /// `file:line: error[IST0101]: message`, and below it, indented, where and what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.severity)?;
        if let Some(code) = self.code {
            write!(f, "[{code}]")?;
        }
        write!(f, ": {}", self.message)?;
        match (&self.resource, &self.field) {
            (Some(resource), Some(field)) => write!(f, "\n    at {resource}, {field}")?,
            (Some(place), None) | (None, Some(place)) => write!(f, "\n    at {place}")?,
            (None, None) => {}
        }
        if let Some(found) = &self.found {
            write!(f, "\n    found {found}")?;
        }
        if let Some(expected) = &self.expected {
            write!(f, "\n    expected {expected}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong; at least one of them is an error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// How many errors, how many of anything less.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let errors = self.0.iter().filter(|p| p.severity == Severity::Error).count();
        (errors, self.0.len() - errors)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

//! From trees to typed mirrors: every problem is noted and decoding goes on, so that all of them
//! are found at once.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    rc::Rc,
    sync::Arc,
};

mod record;
mod scalar;
mod shapes;

pub(super) use record::{Entries, Record, choice, nearest, record};
pub(super) use scalar::Scalar;
pub(super) use shapes::{Dict, List, RecordDict, Records};

use super::{
    problem::{Problem, Severity},
    yaml::{Node, shorten},
};
use crate::policy::CredentialUse;

/// Where a value stands.
#[derive(Clone, Debug)]
pub(super) struct SourcePosition {
    /// Line, counted from 1.
    pub(super) line: u64,
    /// The way from the resource's root.
    pub(super) path: Rc<Path>,
}

/// A field's path, from the leaf up.
#[derive(Debug)]
pub(super) struct Path {
    parent: Option<Rc<Path>>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Field(&'static str),
    Key(String),
    Index(usize),
}

impl SourcePosition {
    /// The root of a resource, or the field `name` there.
    pub(super) fn root(line: u64, name: &'static str) -> Self {
        Self { line, path: Rc::new(Path { parent: None, step: Step::Field(name) }) }
    }

    fn step(&self, line: u64, step: Step) -> Self {
        Self { line, path: Rc::new(Path { parent: Some(Rc::clone(&self.path)), step }) }
    }

    /// An entry of a mapping, on the same line.
    pub(super) fn key(&self, key: &str) -> Self {
        self.step(self.line, Step::Key(key.into()))
    }

    /// A field below, on the same line: for what is missing.
    pub(super) fn field(&self, name: &'static str) -> Self {
        self.step(self.line, Step::Field(name))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = &self.parent {
            parent.fmt(f)?;
        }
        let dot = self.parent.as_ref().is_some_and(|p| !matches!(p.step, Step::Field("")));
        match &self.step {
            Step::Field(name) if dot => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Key(key) => write!(f, "[{:?}]", shorten(key)),
            Step::Index(i) => write!(f, "[{i}]"),
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Spanned<T> {
    /// The value.
    pub(super) value: T,
    /// Where it stands.
    pub(super) at: SourcePosition,
}

/// What is found where something is missing.
pub(super) const NOTHING: &str = "nothing";

/// What decoding and compiling write their problems to.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// So far.
    pub(super) problems: Vec<Problem>,
    /// Whether any of them forbids a snapshot. A missing reference doesn't.
    pub(super) fatal: bool,
    /// By resource, or nothing for `mesh.yaml`: the fields that something was noted about.
    fields: HashMap<String, Vec<String>>,
    /// The credentials that resources name.
    credentials: BTreeSet<CredentialUse>,
    /// Where a field that isn't supported was refused, by file, resource and the mapping that it is in.
    unsupported: HashMap<(String, Option<String>, String), Severity>,
}

impl Report {
    /// A report that begins with problems that were found before.
    pub(super) fn with(problems: Vec<Problem>) -> Self {
        let mut report = Self::default();
        problems.into_iter().for_each(|problem| report.push(problem));
        report
    }

    fn push(&mut self, problem: Problem) {
        if let Some(field) = &problem.field {
            let resource = problem.resource.as_deref().unwrap_or_default();
            match self.fields.get_mut(resource) {
                Some(fields) => fields.push(field.clone()),
                None => {
                    self.fields.insert(resource.to_owned(), vec![field.clone()]);
                }
            }
        }
        self.problems.push(problem);
    }

    /// The credentials that resources name, once each.
    pub(super) fn take_credentials(&mut self) -> Arc<[CredentialUse]> {
        std::mem::take(&mut self.credentials).into_iter().collect()
    }

    /// The problems, and whether any of them forbids a snapshot.
    pub(super) fn into_parts(mut self) -> (Vec<Problem>, bool) {
        if !self.unsupported.is_empty() {
            let mut problems = std::mem::take(&mut self.problems);
            problems.retain(|problem| !self.follows(problem));
            self.problems = problems;
        }
        (self.problems, self.fatal)
    }

    /// Whether a problem is what a field that isn't supported would have prevented: something is missing from
    /// the mapping that the field is in. The field's own message says enough, and is as severe.
    fn follows(&self, problem: &Problem) -> bool {
        let Some(field) = &problem.field else { return false };
        let refused_in = |mapping: &str| {
            let place = (problem.file.clone(), problem.resource.clone(), mapping.to_owned());
            self.unsupported.get(&place).is_some_and(|severity| *severity >= problem.severity)
        };
        let is_missing = problem.found.as_deref() == Some(NOTHING);
        refused_in(field)
            || (is_missing
                && field.rsplit_once('.').is_some_and(|(mapping, _)| refused_in(mapping)))
    }
}

/// A report on one resource.
#[derive(Debug)]
pub(super) struct Cx<'a> {
    /// Where to write.
    pub(super) report: &'a mut Report,
    /// The file.
    pub(super) file: &'a str,
    /// `VirtualService default/name`.
    pub(super) resource: Option<&'a str>,
}

impl Cx<'_> {
    /// Notes that the resource names a credential.
    pub(super) fn names_credential(&mut self, name: &str) {
        let Some(resource) = self.resource else { return };
        let named = CredentialUse { name: name.into(), resource: resource.into() };
        self.report.credentials.insert(named);
    }

    /// Notes a problem at a spot, and returns it for more detail.
    pub(super) fn note(
        &mut self,
        severity: Severity,
        at: &SourcePosition,
        message: impl Into<String>,
    ) -> &mut Problem {
        let mut problem = Problem::new(severity, self.file, message).line(at.line);
        problem.resource = self.resource.map(Into::into);
        let field = at.path.to_string();
        problem.field = (!field.is_empty()).then_some(field);
        self.report.push(problem);
        let last = self.report.problems.len() - 1;
        &mut self.report.problems[last]
    }

    /// Refuses a field of the mapping at `within` that isn't supported.
    pub(super) fn unsupported(
        &mut self,
        bad: &Unsupported,
        within: &SourcePosition,
        at: &SourcePosition,
    ) {
        let message = format!("not supported: {}", bad.why);
        self.report.fatal |= bad.severity == Severity::Error;
        self.note(bad.severity, at, message);
        let place = (self.file.to_owned(), self.resource.map(Into::into), within.path.to_string());
        let severity = self.report.unsupported.entry(place).or_insert(bad.severity);
        *severity = bad.severity.max(*severity);
    }

    /// An error that forbids a snapshot.
    pub(super) fn error(
        &mut self,
        at: &SourcePosition,
        message: impl Into<String>,
    ) -> &mut Problem {
        self.report.fatal = true;
        self.note(Severity::Error, at, message)
    }

    /// An error that the snapshot answers with a refusal: a reference to what doesn't exist.
    pub(super) fn dangling(
        &mut self,
        at: &SourcePosition,
        message: impl Into<String>,
    ) -> &mut Problem {
        let problem = self.note(Severity::Refusal, at, message);
        problem.code = Some("IST0101");
        problem
    }

    /// A warning.
    pub(super) fn warn(&mut self, at: &SourcePosition, message: impl Into<String>) -> &mut Problem {
        self.note(Severity::Warning, at, message)
    }

    /// Whether something was noted about this field of the resource, or a field in it.
    pub(super) fn has_told(&self, field: &str) -> bool {
        let told = self.report.fields.get(self.resource.unwrap_or_default());
        told.into_iter().flatten().any(|at| at.starts_with(field))
    }

    /// An error about a value of the wrong type or form.
    pub(super) fn wrong(
        &mut self,
        at: &SourcePosition,
        found: impl Into<String>,
        expected: impl Into<String>,
        message: impl Into<String>,
    ) {
        let problem = self.error(at, message);
        problem.found = Some(found.into());
        problem.expected = Some(expected.into());
    }
}

/// A type that a field can have.
pub(super) trait Field: Sized {
    /// What it is called in the reference.
    fn type_name() -> String;
    /// Its own fields, if it has any.
    fn nested() -> Option<RecordDoc> {
        None
    }
    /// The value where the field is absent or null.
    fn absent() -> Self;
    /// Decodes what is there; `None` after noting why it can't.
    fn decode(node: &Node, at: &SourcePosition, cx: &mut Cx<'_>) -> Option<Self>;
}

/// The documentation of a record, for the reference.
#[derive(Clone, Debug)]
pub(super) struct RecordDoc {
    /// The struct's name; records are listed once.
    pub(super) name: &'static str,
    /// Its fields.
    pub(super) fields: fn() -> Vec<FieldDoc>,
    /// Fields of Istio's that aren't supported, and what happens to them.
    pub(super) unsupported: &'static [Unsupported],
}

/// The documentation of a field.
#[derive(Clone, Debug)]
pub(super) struct FieldDoc {
    pub(super) key: &'static str,
    pub(super) type_name: String,
    pub(super) default: &'static str,
    pub(super) doc: &'static str,
    pub(super) nested: Option<RecordDoc>,
}

/// A field of Istio's that isn't supported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsupported {
    pub(super) key: &'static str,
    /// An error, or a warning that it has no effect.
    pub(super) severity: Severity,
    pub(super) why: &'static str,
}

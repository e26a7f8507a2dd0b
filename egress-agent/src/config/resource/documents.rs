//! From a file to its documents.

use super::super::{
    RawFile,
    decode::Report,
    problem::{Problem, Severity},
    yaml::{self, MAX_FILE_BYTES, Node},
};

/// The documents of a file that could be read; the others are noted.
pub(in crate::config) fn documents(file: &RawFile, report: &mut Report) -> Vec<Node> {
    if file.text.len() > MAX_FILE_BYTES {
        report.fatal = true;
        let problem = Problem::new(Severity::Error, &file.path, "the file is too large")
            .found(format!("{} bytes", file.text.len()), format!("at most {MAX_FILE_BYTES}"));
        report.problems.push(problem);
        return Vec::new();
    }
    let documents = yaml::documents(&file.text).into_iter();
    documents
        .filter_map(|document| match document {
            Ok(node) => Some(node),
            Err(error) => {
                report.fatal = true;
                let message = format!("this isn't valid YAML: {}", error.message);
                let problem = Problem::new(Severity::Error, &file.path, message).line(error.line);
                report.problems.push(problem);
                None
            }
        })
        .collect()
}

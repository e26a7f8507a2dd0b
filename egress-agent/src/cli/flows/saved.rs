//! Flows in a file: what `flows -o json` has written.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use serde::{Deserialize, de::DeserializeOwned};

use crate::telemetry::FlowRecord;

/// What such a file holds.
const EXPECTED: &str = "expected a line that `egress-agent flows -o json` has written";

/// The line that stands for flows that nobody has seen.
#[derive(Deserialize)]
struct SavedLost {
    lost: u64,
}

/// The flows of a file, or of standard input for `-`, and how many it says were lost.
///
/// # Errors
/// It can't be read, or a line is no flow: which file, which line, and what is wrong with it.
pub(in crate::cli) fn read(path: &Path) -> Result<(Vec<FlowRecord>, u64), String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().read_to_string(&mut text).map(|_| ())
    } else {
        fs::read_to_string(path).map(|read| text = read)
    };
    read.map_err(|error| {
        if error.kind() == io::ErrorKind::InvalidData {
            format!("found what is no text in {}, {EXPECTED}", path.display())
        } else {
            format!("can't read {}: {error}", path.display())
        }
    })?;
    let (mut flows, mut lost) = (Vec::new(), 0);
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        if line.starts_with("{\"lost\"") {
            let SavedLost { lost: more } = parsed(path, number, line)?;
            lost += more;
        } else {
            flows.push(parsed(path, number, line)?);
        }
    }
    Ok((flows, lost))
}

fn parsed<T: DeserializeOwned>(path: &Path, number: usize, line: &str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| {
        let found = if error.is_data() {
            // Where in the line is of no use: it is named already.
            let why = error.to_string();
            let why = why.split(" at line ").next().unwrap_or_default();
            format!("an object that is no flow ({why})")
        } else {
            "no JSON object".to_owned()
        };
        format!("{}:{}: found {found}, {EXPECTED}", path.display(), number + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::flow_tests::{dropped, redirected};

    #[test]
    fn what_was_written_is_read_again_and_a_wrong_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flows.json");
        let json = |flow: &FlowRecord| serde_json::to_string(flow).unwrap();
        let text = format!("{{\"lost\":3}}\n{}\n\n{}\n", json(&dropped()), json(&redirected()));
        fs::write(&path, text).unwrap();
        assert_eq!(read(&path), Ok((vec![dropped(), redirected()], 3)));
        fs::write(&path, format!("{}\n{{\"time\":1}}\n", json(&dropped()))).unwrap();
        let error = read(&path).unwrap_err();
        let expected = "expected a line that `egress-agent flows -o json` has written";
        assert!(error.contains("flows.json:2: found an object that is no flow ("), "{error}");
        assert!(error.ends_with(expected) && !error.contains("column"), "{error}");
        for no_json in ["{\"time\":\n", "Nov 23 05:06:45.123: shop/web\n"] {
            fs::write(&path, no_json).unwrap();
            let error = read(&path).unwrap_err();
            assert!(
                error.ends_with(&format!("flows.json:1: found no JSON object, {expected}")),
                "{error}"
            );
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.ends_with(&format!("flows.json, {expected}")), "{error}");
        assert!(read(&dir.path().join("none")).unwrap_err().starts_with("can't read "));
    }
}

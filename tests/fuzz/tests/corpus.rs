//! The fuzz targets as plain tests: over the committed corpora, to which finds are added, and over
//! some bytes of every run.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use egress_fuzz::TARGETS;
use proptest::prelude::*;

/// The files of a target's corpus.
fn committed(name: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 10, "{} holds {} cases", dir.display(), files.len());
    files
}

/// A change of a few bytes: where, how many go, and what comes in their place.
fn damage() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<u8>)> {
    let odd = b"\r\n\t :;,=0159afx\0\x7f\xff".to_vec();
    let byte = prop_oneof![prop::sample::select(odd), any::<u8>()];
    (any::<prop::sample::Index>(), 0_usize..4, prop::collection::vec(byte, 0..4))
}

/// A file's name is printed before it runs, so a failure says which it was.
#[test]
fn every_committed_case_holds() {
    for (name, target) in TARGETS {
        for file in committed(name) {
            println!("{}", file.display());
            target(&fs::read(&file).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_hold(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for (_, target) in TARGETS {
            target(&bytes);
        }
    }

    /// Committed cases with small damages: what random bytes never come to.
    #[test]
    fn damaged_cases_hold(
        file in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        for (name, target) in TARGETS {
            let mut bytes = fs::read(file.get(&committed(name))).unwrap();
            for (at, gone, new) in &damages {
                let at = at.index(bytes.len() + 1);
                let end = (at + gone).min(bytes.len());
                drop(bytes.splice(at..end, new.iter().copied()));
            }
            target(&bytes);
        }
    }
}

//! How many instructions the verifier goes through, against what `cargo xtask verifier` wrote down.

use std::collections::BTreeMap;

use egress_agent::bpf::{Kernel, VerifierReport, object};

const FILE: &str = include_str!("verifier.txt");
const RENEW: &str = "`cargo xtask verifier` renews egress-agent/tests/programs/verifier.txt";
/// The verifier gives up at a million (BPF_COMPLEXITY_LIMIT_INSNS). What comes nearer than this may be too
/// much for the next kernel, or when another compiler has built it.
const BUDGET: u32 = 300_000;

type Counts = BTreeMap<String, u32>;

/// The counts by kernel and build.
fn recorded() -> BTreeMap<(String, String), Counts> {
    let mut recorded = BTreeMap::<_, Counts>::new();
    for line in FILE.lines().filter(|line| !line.starts_with('#')) {
        let [kernel, build, program, count] = line.split_whitespace().collect::<Vec<_>>()[..]
        else {
            panic!("{line:?} isn't kernel, build, program, instructions");
        };
        let counts = recorded.entry((kernel.to_owned(), build.to_owned())).or_default();
        counts.insert(program.to_owned(), count.parse().unwrap());
    }
    recorded
}

#[test]
fn every_count_on_record_is_of_a_program_and_well_within_the_limit() {
    let trial = VerifierReport::run().unwrap();
    let recorded = recorded();
    for kernel in ["6.1", "6.12"] {
        for build in ["debug", "release"] {
            let key = (kernel.to_owned(), build.to_owned());
            assert!(recorded.contains_key(&key), "{key:?} is missing: {RENEW} with --kernels");
        }
    }
    for (key, counts) in &recorded {
        // What was counted on another kernel may be older than a program, and says nothing of it.
        for program in counts.keys() {
            // Not every kernel takes these.
            let optional = matches!(program.as_str(), "socket_create" | "netlink_send");
            assert!(
                optional || trial.programs.contains_key(program),
                "{key:?}: {program} is no longer a program: {RENEW} with --kernels"
            );
        }
        for (program, count) in counts {
            assert!(*count < BUDGET, "{key:?}: {program}: {count} instructions verified");
        }
    }
}

/// A tenth more or less is a change that the file's history should show.
#[test]
fn the_counts_on_record_are_this_kernels() {
    let trial = VerifierReport::run().unwrap();
    let Some(counts) = trial
        .programs
        .iter()
        .map(|(program, count)| Some((program.clone(), (*count)?)))
        .collect::<Option<Counts>>()
    else {
        return println!("not applicable: Linux {} doesn't count (5.16)", trial.release);
    };
    for (program, count) in &counts {
        println!("{program}: {count} instructions verified");
        assert!(*count < BUDGET, "{program}: {count} instructions verified");
    }
    let compiler = FILE.lines().find_map(|line| line.strip_prefix("# Compiler: "));
    if compiler != Some(object::TOOLCHAIN) {
        return println!("not applicable: the counts on record are of {compiler:?}");
    }
    let kernel = Kernel::parse(&trial.release).unwrap();
    let key = (format!("{}.{}", kernel.0, kernel.1), VerifierReport::build().to_owned());
    let recorded = recorded();
    let Some(recorded) = recorded.get(&key) else {
        return println!("not applicable: nothing is on record for {key:?}; {RENEW}");
    };
    for (program, count) in &counts {
        let before = recorded.get(program).copied();
        let before = before.unwrap_or_else(|| panic!("{program} isn't on record: {RENEW}"));
        assert!(
            count.abs_diff(before) * 10 <= before,
            "{key:?}: {program}: {count} instructions verified, on record are {before}: {RENEW}"
        );
    }
}

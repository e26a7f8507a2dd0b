//! The real programs in the real kernel, needing root: the verifier accepts each; packets run
//! through them (`BPF_PROG_TEST_RUN`) and system calls of a process in a cgroup meet the verdict
//! that the maps call for. Each test loads its own copy, and nothing is pinned.
#![expect(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]

mod cache;
mod inbound;
mod kernel;
mod notes;
mod packets;
mod sockets;
mod tunnel;
mod verifier;

use std::fmt::Write as _;

use aya::{
    Btf,
    programs::{Program, ProgramError},
};

use crate::kernel::Kernel;

/// All of them, on kernels with and without `bpf_set_retval`.
#[test]
fn the_verifier_accepts_every_program() {
    let btf = Btf::from_sys_fs().unwrap();
    for set_retval in [0, 1] {
        let mut kernel = Kernel::load(set_retval);
        let mut names = Vec::new();
        let mut failed = String::new();
        for (name, program) in kernel.ebpf.programs_mut() {
            names.push(name.to_owned());
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "another crate's enum, which may grow"
            )]
            let loaded = match program {
                Program::CgroupSockAddr(program) => program.load(),
                Program::CgroupSkb(program) => program.load(),
                Program::SchedClassifier(program) => program.load(),
                Program::SkLookup(program) => program.load(),
                Program::SockOps(program) => program.load(),
                Program::Lsm(program) => program.load(name, &btf),
                other => panic!("{name} is of an unexpected type: {:?}", other.prog_type()),
            };
            match loaded {
                Ok(()) => {}
                // Some virtual machines' kernels refuse what is attached by trampolines, whatever it
                // is; there the agent tells the gap. Others verify it.
                Err(ProgramError::LoadError { verifier_log, io_error })
                    if matches!(name, "socket_create" | "netlink_send")
                        && io_error.kind() == std::io::ErrorKind::PermissionDenied
                        && verifier_log.to_string().is_empty() =>
                {
                    println!("{name}: not applicable, this kernel takes no LSM programs");
                }
                Err(ProgramError::LoadError { verifier_log, io_error }) => {
                    let log = verifier_log.to_string();
                    let last = log.lines().count().saturating_sub(40);
                    let log: Vec<_> = log.lines().skip(last).collect();
                    writeln!(failed, "{name}: {io_error}\n{}", log.join("\n")).unwrap();
                }
                Err(error) => writeln!(failed, "{name}: {error}").unwrap(),
            }
        }
        assert!(failed.is_empty(), "{failed}");
        names.sort();
        assert_eq!(
            names,
            [
                "bridge_ingress",
                "capture",
                "cgroup_egress",
                "cgroup_ingress",
                "connect4",
                "connect6",
                "getpeername4",
                "getpeername6",
                "netlink_send",
                "node_lookup",
                "pod_egress",
                "pod_ingress",
                "recvmsg4",
                "recvmsg6",
                "sendmsg4",
                "sendmsg6",
                "sock_ops",
                "socket_create",
                "uplink_egress",
                "uplink_ingress",
            ]
        );
    }
}

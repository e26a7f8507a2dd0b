//! What this kernel has and what its verifier says of the programs. Nothing is attached or pinned.

use std::collections::BTreeMap;

use super::{Error, Kernel, OLDEST_TESTED_KERNEL, TcMode, host, load, object, socket_lsm};

/// The program that kernels before 5.17 refuse.
const NODE_LOOKUP: &str = "node_lookup";

/// What a kernel answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifierReport {
    /// `uname -r`.
    pub release: String,
    /// How programs are attached to interfaces.
    pub tc: TcMode,
    /// Whether a refused `connect()` gets an error number of its own (Linux 5.18).
    pub set_retval: bool,
    /// Instructions that the verifier went through for each program; unknown before Linux 5.16.
    pub programs: BTreeMap<String, Option<u32>>,
    /// Why the kernel takes no program of the security modules, if it takes none. It may take one
    /// and never ask it, which only attaching tells.
    pub no_lsm: Option<String>,
}

impl VerifierReport {
    /// Loads every program and lets go of it. Needs the same privileges as enforcing.
    ///
    /// # Errors
    /// The kernel is too old or refuses a program, or a privilege is missing.
    pub fn run() -> Result<Self, Error> {
        host::check()?;
        let mut ebpf = load::unpinned()?;
        let mut names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
        names.retain(|name| name != NODE_LOOKUP || host::has_lookup_interface());
        let (mut programs, mut no_lsm) = (BTreeMap::new(), None);
        for name in names {
            let program = match load::program(&mut ebpf, &name) {
                Ok(program) => program,
                Err(Error::Verify { program, error })
                    if socket_lsm::PROGRAMS.contains(&program.as_str()) =>
                {
                    no_lsm = socket_lsm::missing(&error);
                    if no_lsm.is_none() {
                        return Err(Error::Verify { program, error });
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let info =
                program.info().map_err(|error| Error::Verify { program: name.clone(), error })?;
            programs.insert(name, info.verified_instruction_count());
        }
        Ok(Self {
            release: host::release(),
            tc: TcMode::detect(),
            set_retval: load::has_set_retval(),
            programs,
            no_lsm,
        })
    }

    /// Whether the end-to-end tests run on kernels as old as this one; `None` for a release that
    /// can't be read.
    #[must_use]
    pub fn is_tested(&self) -> Option<bool> {
        Kernel::parse(&self.release).map(|kernel| kernel >= OLDEST_TESTED_KERNEL)
    }

    /// Which build of the programs it was: `release`, or `debug` with its log lines.
    #[must_use]
    pub fn build() -> &'static str {
        object::BUILD
    }
}

//! `egress-agent`: see `--help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    egress_agent::cli::main()
}

//! `egress-agent`: see `--help`.

fn main() {}

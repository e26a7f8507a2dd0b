//! `egress-peer`: an ordinary program inside the testbed's cluster. It serves HTTP and echoes TCP
//! and UDP, or asks another one for an echo.

mod ask;
mod serve;

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Serves until it is killed.
    Serve {
        /// Where: HTTP on `plan::PEER_HTTP`, echoes on `plan::PEER_ECHO`.
        #[arg(required = true)]
        addresses: Vec<IpAddr>,
    },
    /// Sends bytes and wants them back. Exit code: 0 they came, 1 refused, 2 no answer.
    Ask {
        /// How.
        protocol: Protocol,
        /// Whom.
        to: SocketAddr,
        /// How many bytes.
        #[arg(long, default_value_t = 100)]
        bytes: usize,
        /// From which address.
        #[arg(long)]
        from: Option<IpAddr>,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
}

fn main() -> ExitCode {
    match Cli::parse().role {
        Role::Serve { addresses } => match serve::serve(&addresses) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("egress-peer: {error}");
                ExitCode::FAILURE
            }
        },
        Role::Ask { protocol, to, bytes, from } => {
            let answer = match protocol {
                Protocol::Tcp => ask::tcp(to, from, bytes),
                Protocol::Udp => ask::udp(to, from, bytes),
            };
            ask::tell(answer)
        }
    }
}

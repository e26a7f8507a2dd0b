//! Whole exchanges on loopback.

mod bad;
mod balance;
mod h1;
mod h2;
mod harness;
mod retries;
mod scopes;
mod upstream;

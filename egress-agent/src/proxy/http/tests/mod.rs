//! Whole exchanges on loopback.

mod bad;
mod h1;
mod h2;
mod harness;
mod retries;
mod upstream;

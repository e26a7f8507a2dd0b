//! Whole exchanges on loopback.

mod bad;
mod balance;
mod gone;
mod h1;
mod h2;
mod harness;
mod resend;
mod retries;
mod scopes;
mod upstream;

//! Whole exchanges on loopback.

mod affinity;
mod ages;
mod allocations;
mod answers;
mod bad;
mod balance;
mod cors;
mod ends;
mod floods;
mod gone;
mod h1;
mod h2;
mod harness;
mod heads;
mod locality;
mod mirrors;
mod places;
mod proxied;
mod rates;
mod resend;
mod responses;
mod retries;
mod scopes;
mod shared;
mod silence;
mod upstream;

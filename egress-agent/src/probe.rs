//! Every known bypass technique, tried for real, and the canary that reports what arrived.
//!
//! An attempt is a function from a [`Settings`] to an [`Outcome`]; what is sent carries a token, so
//! that the canary knows it in any wrapping. The table of attempts is [`ATTEMPTS`].

mod attempt;
pub mod canary;
mod ip_family;
mod network;
mod outcome;
mod packet;
mod packet_socket;
mod row;
mod settings;
mod sockets;
mod table;
mod techniques;
mod token;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use attempt::RunningAttempt;
pub use attempt::{Attempt, Needs};
pub use ip_family::{Families, Family};
pub use network::Network;
pub use outcome::{Call, Errno, Layer, Outcome};
pub use row::Row;
pub use settings::Settings;
pub use sockets::Sockets;
pub use table::ATTEMPTS;
pub use token::{ProbeId, Token};

/// An attempt in one family, with the port that it goes to.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What is done.
    pub attempt: &'static Attempt,
    /// In which family.
    pub family: Family,
    /// To which port; some attempts have one of their own.
    pub port: u16,
}

impl Case {
    /// The attempt's name with its family.
    #[must_use]
    pub fn name(&self) -> String {
        self.attempt.full_name(self.family)
    }
}

/// What became of a case.
#[derive(Clone, Debug)]
pub struct Report {
    /// The case.
    pub case: Case,
    /// What became of it.
    pub outcome: Outcome,
    /// How long it took.
    pub time: Duration,
}

/// Every case that there could be, with the ports in turn.
#[must_use]
pub fn cases(ports: &[u16]) -> Vec<Case> {
    let all = ATTEMPTS
        .iter()
        .flat_map(|attempt| attempt.families.all().iter().map(move |family| (attempt, *family)));
    let ports = ports.iter().copied().cycle();
    all.zip(ports).map(|((attempt, family), port)| Case { attempt, family, port }).collect()
}

/// Makes the attempts, `jobs` at a time; `seen` hears of each as it ends. The reports are in the
/// order of the cases.
pub fn run(
    cases: &[Case],
    settings: &Settings,
    jobs: usize,
    seen: impl Fn(&Report) + Sync,
) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, cases.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { return };
                    let report = make(case, settings);
                    seen(&report);
                    let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
                    reports.push((number, report));
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.sort_by_key(|(number, _)| *number);
    reports.into_iter().map(|(_, report)| report).collect()
}

fn make(case: &Case, settings: &Settings) -> Report {
    let start = Instant::now();
    let outcome = outcome(case, settings, start);
    Report { case: *case, outcome, time: start.elapsed() }
}

fn outcome(case: &Case, settings: &Settings, start: Instant) -> Outcome {
    let v6 = case.family == Family::V6;
    let Some(target) = settings.targets.iter().copied().find(|target| target.is_ipv6() == v6)
    else {
        return Outcome::NotApplicable(format!("no {} address was given", case.family.name()));
    };
    let needs = case.attempt.needs;
    if !needs.met(settings) {
        return Outcome::NotApplicable(format!("needs {}", needs.name()));
    }
    let token = Token { id: settings.id, name: case.name() };
    let deadline = start + settings.timeout;
    let this = RunningAttempt { settings, needs, token, target, port: case.port, deadline };
    match (case.attempt.make)(&this) {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

#[cfg(test)]
mod tests;

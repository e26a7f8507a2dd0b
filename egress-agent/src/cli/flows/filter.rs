//! Which flows are shown.

mod options;
mod values;

use std::time::SystemTime;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::ErrorKind};

use self::options::Options;
use crate::telemetry::FlowRecord;

/// Where `--not` is.
const NOT: &str = "not";

/// Options that choose flows. Those of one option are alternatives; of different ones, all have to
/// match. What comes after `--not` must not match.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Filter {
    only: Options,
    not: Options,
}

impl Filter {
    /// Whether nothing is asked for, so that everything is shown.
    pub(in crate::cli) fn is_empty(&self) -> bool {
        self.only.is_empty() && self.not.is_empty()
    }

    /// Whether it leaves out all that happens from now on.
    pub(in crate::cli) fn is_of_the_past(&self, now: SystemTime) -> bool {
        self.only.end(now).is_some_and(|end| end <= now)
            || self.not.begin(now).is_some_and(|begin| begin <= now)
    }

    /// Whether the flow is shown, at this time.
    pub(in crate::cli) fn matches(&self, flow: &FlowRecord, now: SystemTime) -> bool {
        self.only.all_match(flow, now) && !self.not.one_matches(flow, now)
    }
}

impl Args for Filter {
    fn augment_args(command: Command) -> Command {
        Options::augment_args(command).arg(
            Arg::new(NOT)
                .long("not")
                .num_args(0)
                .default_missing_value("true")
                .action(ArgAction::Append)
                .help("Leave out what the next option names: --not --port 53"),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Filter {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let nots: Vec<usize> = matches.indices_of(NOT).into_iter().flatten().collect();
        if nots.iter().any(|not| !is_used(matches, *not)) {
            let text = "found `--not` without an option after it that chooses flows, expected one, as in `--not \
                        --port 53`";
            return Err(clap::Error::raw(ErrorKind::ValueValidation, text));
        }
        let all = Options::from_arg_matches(matches)?;
        let (only, not) = all.split(|id| negated(matches, id, &nots));
        let now = SystemTime::now();
        if only.begin(now).zip(only.end(now)).is_some_and(|(begin, end)| begin > end) {
            let text = "found a `--since` that is later than `--until`, so that nothing is between them, expected \
                        it to be earlier, as in `--since 1h --until 5m`";
            return Err(clap::Error::raw(ErrorKind::ValueValidation, text));
        }
        Ok(Self { only, not })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Whether an option follows the `--not` at this index. Every flag, option and value has an index of its own, so the
/// first value comes two after the flag.
fn is_used(matches: &ArgMatches, not: usize) -> bool {
    let mut values = Options::NAMES.iter().flat_map(|id| matches.indices_of(id)).flatten();
    values.any(|index| index == not + 2)
}

/// For each value of an option, in order, whether it follows a `--not`, as in [`is_used`]; the values of one
/// list follow each other.
fn negated(matches: &ArgMatches, id: &str, nots: &[usize]) -> Vec<bool> {
    let mut before: Option<(usize, bool)> = None;
    let indices = matches.indices_of(id).into_iter().flatten();
    let each = indices.map(|index| {
        let negated = match before {
            Some((last, negated)) if last + 1 == index => negated,
            _ => index.checked_sub(2).is_some_and(|flag| nots.contains(&flag)),
        };
        before = Some((index, negated));
        negated
    });
    each.collect()
}

#[cfg(test)]
mod tests;

//! How many names the gateway looks up.

use clap::builder::RangedU64ValueParser;

use crate::net::LookupLimits;

/// A count from `least` to `most`.
fn count(least: u64, most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..=most)
}

/// Options of `gateway` that bound name look-ups. They are of the process, for all workers together.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LookupArgs {
    /// Name look-ups under way. Each takes up to two descriptors, of those that its request has.
    #[arg(long, value_name = "N", default_value_t = LookupLimits::default().active, value_parser = count(8, 4096))]
    max_lookups: usize,
    /// Name look-ups that wait for their turn.
    #[arg(long, value_name = "N", default_value_t = LookupLimits::default().waiting, value_parser = count(8, 1 << 20))]
    max_pending_lookups: usize,
    /// One source alone gets one part in N of the look-ups, under way and waiting.
    #[arg(long, value_name = "N", default_value_t = LookupLimits::default().shares, value_parser = count(2, 1024))]
    lookup_shares: usize,
    /// Names whose addresses are remembered.
    #[arg(long, value_name = "N", default_value_t = LookupLimits::default().names, value_parser = count(64, 1 << 22))]
    max_cached_names: usize,
    /// Names of one source of which it is remembered, for a second or two, that they have no address.
    #[arg(long, value_name = "N", default_value_t = LookupLimits::default().failed_names_per_source, value_parser = count(1, 1 << 16))]
    max_failed_names_per_source: usize,
}

impl LookupArgs {
    /// What they say.
    ///
    /// # Errors
    /// A share that rounds to nothing: no source could look anything up.
    pub(crate) fn limits(&self) -> anyhow::Result<LookupLimits> {
        let least = self.max_lookups.min(self.max_pending_lookups);
        anyhow::ensure!(
            self.lookup_shares <= least,
            "--lookup-shares is {}: a source would have less than one of {least} look-ups; lower it, or raise --max-lookups and --max-pending-lookups",
            self.lookup_shares
        );
        Ok(LookupLimits {
            active: self.max_lookups,
            waiting: self.max_pending_lookups,
            shares: self.lookup_shares,
            names: self.max_cached_names,
            failed_names_per_source: self.max_failed_names_per_source,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        lookups: LookupArgs,
    }

    fn limits(options: &str) -> Result<LookupLimits, String> {
        let words = std::iter::once("x").chain(options.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.lookups.limits().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_set_counts_and_the_rest_has_defaults() {
        assert_eq!(limits(""), Ok(LookupLimits::default()));
        let all = "--max-lookups 32 --max-pending-lookups 64 --lookup-shares 4 \
                   --max-cached-names 100 --max-failed-names-per-source 2";
        let expected = LookupLimits {
            active: 32,
            waiting: 64,
            shares: 4,
            names: 100,
            failed_names_per_source: 2,
        };
        assert_eq!(limits(all), Ok(expected));
    }

    #[test]
    fn what_would_serve_nobody_is_refused_by_name() {
        for (options, what) in [
            ("--max-lookups 0", "--max-lookups"),
            ("--max-pending-lookups 7", "--max-pending-lookups"),
            ("--lookup-shares 1", "--lookup-shares"),
            ("--lookup-shares 16 --max-lookups 8", "--lookup-shares is 16"),
            ("--max-cached-names many", "--max-cached-names"),
            ("--max-failed-names-per-source 0", "--max-failed-names-per-source"),
        ] {
            let error = limits(options).unwrap_err();
            assert!(error.contains(what), "{options}: {error}");
        }
    }
}

//! Which configuration the maps hold: it is written with their contents, so it outlives the agent.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use egress_ebpf::abi::Globals;
use jiff::{Timestamp, tz::TimeZone};

/// A configuration, by its files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConfigurationStamp {
    /// The first bytes of the SHA-256 of its files' names and texts.
    pub digest: [u8; 16],
    /// When an agent accepted it, in seconds since 1970.
    pub accepted_at: u64,
    /// Which one it was of those that this agent accepted since its start.
    pub generation: u64,
}

impl ConfigurationStamp {
    /// What these globals were written with; `None` before the first configuration.
    #[must_use]
    pub fn of(globals: &Globals) -> Option<Self> {
        let Globals { generation, digest, accepted_at, .. } = *globals;
        (generation != 0).then_some(Self { digest, accepted_at, generation })
    }

    /// As text: what `sha256sum` would begin with.
    #[must_use]
    pub fn digest_text(&self) -> String {
        self.digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// When an agent accepted it.
    #[must_use]
    pub fn accepted(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.accepted_at)
    }
}

/// `configuration 3 (digest 0a1b2c3d4e5f, accepted 2026-11-28 05:06:07 UTC)`.
impl fmt::Display for ConfigurationStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Timestamp::try_from(self.accepted()).unwrap_or_default().to_zoned(TimeZone::UTC);
        write!(
            f,
            "configuration {} (digest {}, accepted {})",
            self.generation,
            self.digest_text(),
            time.strftime("%Y-%m-%d %H:%M:%S UTC")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        assert_eq!(ConfigurationStamp::of(&Globals::NONE), None);
        let held =
            ConfigurationStamp { digest: [0xab; 16], accepted_at: 1_700_000_000, generation: 3 };
        let globals = Globals {
            generation: held.generation,
            digest: held.digest,
            accepted_at: held.accepted_at,
            ..Globals::NONE
        };
        assert_eq!(ConfigurationStamp::of(&globals), Some(held));
        assert_eq!(
            held.to_string(),
            "configuration 3 (digest abababababab, accepted 2023-11-14 22:13:20 UTC)"
        );
    }
}

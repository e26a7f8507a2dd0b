//! Details of the access log that connections and requests have alike.

/// Why a connection was ended, in the access log: its client's certificates are no longer valid.
pub(super) const NO_LONGER_VALID: &str = "client_certificate_no_longer_valid";

/// Why a connection was refused or ended, in the access log: another source needed the room.
pub(super) const OVERFLOW: &str = "source_overflow";
/// The same as a sentence.
pub(super) const OVERFLOW_SENTENCE: &str =
    "the gateway is at a limit, and this source has its share of it";

/// Why something was refused, in the access log: a rate limit. Envoy's word.
pub(super) const RATE_LIMITED: &str = "local_rate_limited";

//! Whose message it is.

/// Who sends the message. What two parsers could read differently is refused of both; what has one
/// meaning, though it breaks the standard, is put right where an upstream says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Sender {
    Client,
    Upstream,
}

//! When a request's body is kept, and when it starts again.

use super::{
    body::Relay,
    framing::Framing,
    replay::{MOST, Replay},
};
use crate::proxy::ConnectionOwner;

/// Keeps the beginning of a request's body, for an upstream that may say that it did not process the
/// request. Without room for it the request is sent once.
pub(super) fn keep(framing: Framing, holder: &ConnectionOwner, relay: &mut Relay) {
    let short = match framing {
        Framing::None | Framing::Length(0) => false,
        Framing::Length(length) => length <= MOST as u64,
        Framing::Chunked | Framing::UntilClose => true,
    };
    if short
        && !relay.is_kept()
        && relay.bytes == 0
        && let Some(place) = holder.spare(MOST)
    {
        relay.keep(Replay::new(place));
    }
}

/// Makes a request's body start again, if all of it that was taken is still there.
pub(super) fn rewind(framing: Framing, relay: &mut Relay) -> bool {
    if matches!(framing, Framing::None | Framing::Length(0)) {
        *relay = Relay::new();
        return true;
    }
    relay.rewind()
}

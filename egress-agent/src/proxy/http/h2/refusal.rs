//! What the library refuses by itself, as the access log has it.

use bytes::Bytes;
use h2::Reason;

use super::{
    super::{bad::BadMessage, failure::Failure},
    ClientBounds,
};

/// What the library did with a request that it never handed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) enum LibraryRefusal {
    /// Answered it: the only answer of its own is that the head is too large.
    Answered,
    /// Reset its stream.
    Reset(Reason),
    /// Ended the connection. The words say more than the code.
    Ended(Reason, Bytes),
}

impl LibraryRefusal {
    /// Why, on a connection with these bounds.
    pub(in super::super) fn failure(&self, bounds: &ClientBounds) -> Failure {
        let limit = usize::try_from(bounds.header_list).unwrap_or(usize::MAX);
        let bad = match self {
            Self::Answered => BadMessage::HeadTooLarge { limit },
            Self::Reset(Reason::REFUSED_STREAM) => {
                return Failure::StreamOverflow { limit: bounds.streams };
            }
            Self::Reset(_) => BadMessage::Http2Malformed,
            Self::Ended(code, words) => match &**words {
                b"header_list_way_too_large" => BadMessage::Http2HugeHead { limit },
                b"too_many_continuations" => BadMessage::Http2Continuations,
                _ if *code == Reason::ENHANCE_YOUR_CALM => BadMessage::Http2Flood,
                _ => BadMessage::Http2Connection(*code),
            },
        };
        Failure::Bad(bad)
    }
}

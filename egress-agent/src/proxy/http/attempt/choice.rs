//! Which connection a try takes.

/// Which connection a try takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// One that waits, or a new one.
    Any,
    /// A new one; where there is no room for it, one that waits.
    PreferNew,
    /// A new one that no other request waits for, so that this one is its first; where there is no room
    /// for it, one that waits.
    PreferOwn,
    /// A new one.
    New,
}

impl Choice {
    /// For a request that the upstream did not process, sent again for the `resends`th time. A server
    /// that takes so many requests a connection leaves out what others are ahead of, however often:
    /// the first request of a connection is taken.
    pub(super) fn after_unprocessed(self, refused: bool, resends: u32) -> Self {
        match (self, resends) {
            (Self::New, _) => Self::New,
            (Self::PreferOwn, _) | (_, 3..) => Self::PreferOwn,
            // Who refused a stream would get it again on the same connection.
            (Self::Any, _) if refused => Self::PreferNew,
            (Self::Any | Self::PreferNew, _) => self,
        }
    }
}

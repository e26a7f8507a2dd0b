//! Where a format stands.

/// Where a format stands: what of a message can be shown there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::config) enum Place {
    /// The access log, for which few headers are kept.
    Log,
    /// The value of a request's header.
    Request,
    /// The value of a response's header.
    Response,
}

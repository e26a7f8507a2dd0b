//! What comes of deciding about a connection.

use futures_util::future::LocalBoxFuture;

use super::forward::Forward;

/// What is left to do once everything is known.
pub(super) enum NextStep {
    Nothing,
    Http(LocalBoxFuture<'static, ()>),
    Forward(Box<Forward>),
}

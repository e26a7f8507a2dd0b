//! What must hold for any bytes and any policy.
//!
//! Each target is a function of bytes that panics where a promise is broken. libFuzzer runs them
//! (`cargo xtask fuzz`); the tests of this crate run them over the committed corpus, so a find that
//! was added there stays found.

mod frame;
mod hbone;
mod hello;
mod identity;
mod intent;
mod maps;
mod packets;
mod random;
mod request;
mod response;
mod snapshots;
mod trace_context;
mod world;

pub use hbone::hbone;
pub use hello::client_hello;
pub use identity::identity;
pub use packets::packet;
pub use request::request;
pub use response::response;
pub use snapshots::snapshots;
pub use trace_context::trace_context;

/// A fuzz target: its name, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. The names are those of the corpora and of libFuzzer's binaries.
pub const TARGETS: [Target; 8] = [
    ("packet", packet),
    ("client_hello", client_hello),
    ("snapshots", snapshots),
    ("identity", identity),
    ("request", request),
    ("response", response),
    ("hbone", hbone),
    ("trace_context", trace_context),
];

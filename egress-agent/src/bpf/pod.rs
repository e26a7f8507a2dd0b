//! The bridge between the map ABI and aya, and the only `unsafe` of this module.

use aya::Pod;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A value of the map ABI as aya wants it.
///
/// aya's `Pod` can't be derived for a type of another crate; this wrapper carries the proof that
/// zerocopy's derives made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub(super) struct Raw<T>(pub(super) T);

#[expect(
    unsafe_code,
    reason = "aya's maps take `Pod` values, and the trait is unsafe to implement"
)]
// SAFETY: `Pod` asks that a value can be read as bytes and made of any bytes. `Raw` is
// `repr(transparent)`, so its bytes are `T`'s. `IntoBytes` is proof that all of `T`'s bytes are
// initialised (no padding), `FromBytes` that every pattern of bytes is a valid `T`, and
// `Immutable` that there is no interior mutability that would make reading them a race.
unsafe impl<T: IntoBytes + FromBytes + Immutable + Copy + 'static> Pod for Raw<T> {}

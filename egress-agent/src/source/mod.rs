//! Where raw resources come from.

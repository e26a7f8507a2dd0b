//! Resolving, connecting, copying bytes, draining.

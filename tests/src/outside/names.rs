//! Hosts that move.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

/// Addresses that a test gives to names, in place of [`crate::plan::ZONE`]'s.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Mutex<HashMap<&'static str, Ipv4Addr>>>);

impl Names {
    /// From now on `name` is at this address.
    pub fn point(&self, name: &'static str, address: Ipv4Addr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, address);
    }

    pub(super) fn find(&self, name: &str) -> Option<Ipv4Addr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }
}

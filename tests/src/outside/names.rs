//! Hosts that move.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

/// Addresses that a test gives to names, in place of [`crate::plan::ZONE`]'s.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Mutex<HashMap<&'static str, Vec<Ipv4Addr>>>>);

impl Names {
    /// From now on `name` is at these addresses.
    pub fn point(&self, name: &'static str, addresses: Vec<Ipv4Addr>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, addresses);
    }

    pub(super) fn find(&self, name: &str) -> Option<Vec<Ipv4Addr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

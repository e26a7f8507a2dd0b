//! Descriptors kept for the moment when the process has none left.

use std::{fs::File, os::fd::OwnedFd};

/// Open descriptors without a use: closing one makes room for another file.
#[derive(Debug)]
pub struct SpareDescriptors {
    held: Vec<OwnedFd>,
    wanted: usize,
}

impl SpareDescriptors {
    /// As many as can be had, `wanted` at most.
    #[must_use]
    pub fn new(wanted: usize) -> Self {
        let mut spare = Self { held: Vec::with_capacity(wanted), wanted };
        spare.refill();
        spare
    }

    /// Closes one. `false` if none is left.
    pub fn release(&mut self) -> bool {
        self.held.pop().is_some()
    }

    /// Opens those that were closed again, as far as the process has descriptors.
    pub fn refill(&mut self) {
        while self.held.len() < self.wanted {
            let Ok(file) = File::open("/dev/null") else { return };
            self.held.push(file.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_released_comes_back() {
        let mut spare = SpareDescriptors::new(2);
        assert!(spare.release() && spare.release());
        assert!(!spare.release());
        spare.refill();
        assert!(spare.release());
    }
}

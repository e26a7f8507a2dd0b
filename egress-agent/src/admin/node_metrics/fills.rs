//! How full the kernel's maps are, counted now and then.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::bpf::{MapFill, map_fills};

/// How old a count may be. Counting goes through every entry, and workloads can make many.
const AGE: Duration = Duration::from_secs(30);

/// The last count. It is made anew by a thread of its own, so that no scrape waits for one.
#[derive(Debug)]
pub(crate) struct MapFillCounter {
    bpffs: PathBuf,
    counted: Arc<Mutex<MapCount>>,
}

#[derive(Debug, Default)]
struct MapCount {
    fills: Vec<MapFill>,
    at: Option<Instant>,
}

impl MapFillCounter {
    /// Of the maps that are pinned there, counted once to begin with.
    pub(crate) fn new(bpffs: PathBuf) -> Self {
        let counted = MapCount { fills: map_fills(&bpffs), at: Some(Instant::now()) };
        Self { bpffs, counted: Arc::new(Mutex::new(counted)) }
    }

    /// The last count; where it is old, another one is begun.
    pub(super) fn get(&self) -> Vec<MapFill> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.at.is_none_or(|at| at.elapsed() >= AGE) {
            counted.at = Some(Instant::now());
            let (bpffs, shared) = (self.bpffs.clone(), Arc::clone(&self.counted));
            tokio::task::spawn_blocking(move || {
                let fills = map_fills(&bpffs);
                shared.lock().unwrap_or_else(PoisonError::into_inner).fills = fills;
            });
        }
        counted.fills.clone()
    }
}

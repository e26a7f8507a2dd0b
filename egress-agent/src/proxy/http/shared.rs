//! What HTTP keeps for a worker.

use std::{cell::RefCell, fmt, rc::Rc, sync::Arc};

use super::pool::Pool;
use crate::{net::Dialer, proxy::PolicyCell};

/// The buffer that all connections of a worker read into, in bytes.
const SCRATCH: usize = 64 * 1024;

/// What HTTP keeps for all connections of one worker.
pub struct Shared {
    pub(super) pool: Rc<Pool>,
    /// Borrowed only while something is polled, never across a wait.
    pub(super) scratch: RefCell<Box<[u8]>>,
}

impl Shared {
    /// With so many connections to upstreams, at most, that wait for a request; for the policy in force,
    /// and the connections of this dialer.
    #[must_use]
    pub fn new(idle_upstreams: usize, policy: &PolicyCell, dialer: &Dialer) -> Self {
        let (policy, states) = (Arc::clone(policy), dialer.states());
        Self {
            pool: Rc::new(Pool::new(idle_upstreams, policy, states)),
            scratch: RefCell::new(vec![0; SCRATCH].into()),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("pool", &self.pool).finish_non_exhaustive()
    }
}

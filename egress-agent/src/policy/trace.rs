//! What a decision goes by, for whoever asks how it comes about.
//!
//! The functions that decide note each step as they take it, so an explanation cannot differ from the
//! decision: there is one implementation of both. Where nobody asks, a note costs one look at a flag of
//! the thread.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use egress_ebpf::reason::Reason;

use super::ResourcePath;
use crate::types::{GatewayPort, OriginalPort};

/// One step of a decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The registry declares the host and port.
    Service {
        /// `ServiceEntry default/cnn`.
        entry: String,
        /// The host that it declares.
        host: String,
        /// The port.
        port: OriginalPort,
        /// What is spoken there.
        protocol: &'static str,
    },
    /// A rule of a virtual service matches.
    Rule(ResourcePath),
    /// One of several destinations is taken, by weight.
    Share {
        /// Its weight.
        weight: u64,
        /// All weights.
        total: u64,
    },
    /// A server of the gateway is for the host.
    Server {
        /// The port.
        port: GatewayPort,
        /// What it does.
        protocol: String,
        /// Where it is.
        place: ResourcePath,
    },
    /// A destination is looked up.
    Destination {
        /// The service entry, or the egress policy, that declares it.
        entry: Arc<str>,
        /// The destination rules that count for the client.
        rules: Arc<[Arc<str>]>,
        /// The cluster's name.
        cluster: Arc<str>,
    },
    /// A rule of an egress policy allows it.
    Granted(Arc<str>),
    /// Egress policies are why it is refused.
    EgressDenied {
        /// `EgressPolicy shop/payments`.
        policies: Vec<Arc<str>>,
        /// What they have to do with it.
        why: String,
    },
    /// No rule allows it, and an egress policy in audit mode lets it pass.
    Audited {
        /// `EgressPolicy shop/payments`.
        policy: Arc<str>,
        /// Why it would be refused.
        reason: Reason,
        /// The sentence that a refusal would have.
        detail: String,
    },
    /// An authorization policy decides about it.
    Authorization {
        /// `AuthorizationPolicy istio-system/deny-admin`.
        policy: Arc<str>,
        /// Its rule.
        rule: Option<usize>,
        /// Whether the policy refuses it.
        denies: bool,
    },
    /// No rule matches; this one is the nearest.
    Nearest {
        /// Where it is.
        place: ResourcePath,
        /// The conditions that do not hold.
        unmet: Vec<String>,
    },
}

thread_local! {
    static ASKED: Cell<bool> = const { Cell::new(false) };
    static STEPS: RefCell<Vec<Step>> = const { RefCell::new(Vec::new()) };
}

/// Notes a step, if anybody asks.
pub(super) fn note(step: impl FnOnce() -> Step) {
    if ASKED.get() {
        let step = step();
        STEPS.with_borrow_mut(|steps| steps.push(step));
    }
}

/// Whether anybody asks. Where chance decides, the likeliest is shown to them.
pub(super) fn is_asked() -> bool {
    ASKED.get()
}

/// Ends the notes, also where a decision panics.
struct TraceGuard;

impl Drop for TraceGuard {
    fn drop(&mut self) {
        ASKED.set(false);
    }
}

/// Makes a decision, and returns what it went by.
pub fn traced<T>(decide: impl FnOnce() -> T) -> (T, Vec<Step>) {
    STEPS.with_borrow_mut(Vec::clear);
    ASKED.set(true);
    let asking = TraceGuard;
    let decided = decide();
    drop(asking);
    (decided, STEPS.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted() -> Step {
        Step::Granted("EgressPolicy shop/a".into())
    }

    #[test]
    fn steps_are_noted_while_somebody_asks() {
        note(|| unreachable!("nobody asks"));
        let (decided, steps) = traced(|| {
            note(granted);
            7
        });
        assert_eq!((decided, steps), (7, vec![granted()]));
        assert_eq!(traced(|| ()).1, []);
        note(|| unreachable!("nobody asks any longer"));
    }

    #[test]
    fn a_panic_ends_the_notes() {
        let failed =
            std::panic::catch_unwind(|| traced(|| std::panic::resume_unwind(Box::new(()))));
        assert!(failed.is_err());
        assert!(!is_asked());
    }
}

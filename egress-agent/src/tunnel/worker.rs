//! The state of one thread.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use arc_swap::ArcSwap;
use bytes::BytesMut;

use super::{
    Credentials, Drain, Limits, Origins, Settings, Stats, TunnelConfig, refusal_log::RefusalLog,
};
use crate::telemetry::FlowLog;

/// What the connections of one thread share.
pub(super) struct Worker {
    pub(super) settings: Arc<ArcSwap<Settings>>,
    pub(super) origins: Arc<dyn Origins>,
    pub(super) credentials: Arc<dyn Credentials>,
    pub(super) stats: Arc<Stats>,
    pub(super) flows: Arc<FlowLog>,
    pub(super) limits: Limits,
    pub(super) drain: Drain,
    /// Bytes that wait for pods, of all tunnels.
    pub(super) held: Cell<usize>,
    /// What all relays read into.
    pub(super) scratch: RefCell<BytesMut>,
    pub(super) refusal_log: RefusalLog,
    turn: Cell<usize>,
}

impl Worker {
    pub(super) fn new(config: TunnelConfig) -> Self {
        let TunnelConfig { settings, origins, credentials, stats, flows, limits, drain } = config;
        Self {
            settings,
            origins,
            credentials,
            stats,
            flows,
            limits,
            drain,
            held: Cell::new(0),
            scratch: RefCell::new(BytesMut::new()),
            refusal_log: RefusalLog::default(),
            turn: Cell::new(0),
        }
    }

    /// The next connection's turn in the round robin over gateways.
    pub(super) fn turn(&self) -> usize {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn
    }
}

//! The connection that a try takes: one that waits, one that has room, or a new one.

use tokio::time::Instant;

use super::{
    super::{
        clock::Clock,
        connect::connect,
        failure::Failure,
        h2::expected,
        inbound::Inbound,
        outbound::Outbound,
        pool::{Sharing, pending::WithoutConnection},
        watch::watch,
    },
    Attempt,
    choice::Choice,
};
use crate::{
    net::{DialError, Plan, WaitPolicy},
    types::{ShareOwner, UpstreamAddr},
};

impl Attempt<'_> {
    /// A connection that waits or has room, or a new one.
    pub(super) async fn connection_for<D: Inbound>(
        &self,
        down: &mut D,
        clock: &mut Clock<'_>,
        plan: &Plan,
        choice: Choice,
        reused: &mut bool,
    ) -> Result<Outbound, Failure> {
        let owner = self.connection.downstream.owner();
        let body = expected(self.request.framing);
        let whose = Sharing::Own { owner: &owner, body };
        let pooled = match choice {
            Choice::Any => self.pooled(plan.addresses().take(1), whose),
            Choice::PreferNew | Choice::PreferOwn | Choice::New => None,
        };
        if let Some(up) = pooled {
            *reused = true;
            return Ok(up);
        }
        let pending = &self.connection.worker.http.pool.pending;
        let _dialling = match choice {
            Choice::Any | Choice::PreferNew => match pending.next(&self.key, &owner, body) {
                WithoutConnection::Dial(dialling) => Some(dialling),
                WithoutConnection::Wait(waiting) => {
                    watch(self.connection, down, clock, waiting.ended()).await?;
                    if let Some(up) = self.pooled(plan.addresses().take(1), whose) {
                        return Ok(up);
                    }
                    None
                }
            },
            Choice::PreferOwn | Choice::New => None,
        };
        // All waits for a place together.
        let until = Instant::now() + self.key.cluster.pool.connect_timeout;
        let patience = match choice {
            Choice::Any | Choice::PreferNew | Choice::PreferOwn => WaitPolicy::None,
            Choice::New => WaitPolicy::Share(until),
        };
        match self.connect(down, clock, plan, patience, owner.clone()).await {
            // No room for a connection of its own.
            Err(Failure::Dial(DialError::Overflow { .. })) if choice != Choice::New => {}
            result => return result,
        }
        // One that waits, to whichever endpoint; the place of one that waits for something else; one
        // that others use; the next place.
        if let Some(up) = self.pooled(plan.addresses(), whose) {
            *reused = true;
            return Ok(up);
        }
        match self.connect(down, clock, plan, WaitPolicy::Idle(until), owner.clone()).await {
            Err(Failure::Dial(DialError::Overflow { .. })) => {}
            result => return result,
        }
        if let Some(up) = self.pooled(plan.addresses(), Sharing::Any { owner: &owner }) {
            *reused = true;
            return Ok(up);
        }
        self.connect(down, clock, plan, WaitPolicy::Share(until), owner.clone()).await
    }

    async fn connect<D: Inbound>(
        &self,
        down: &mut D,
        clock: &mut Clock<'_>,
        plan: &Plan,
        patience: WaitPolicy,
        owner: ShareOwner,
    ) -> Result<Outbound, Failure> {
        let worker = &self.connection.worker;
        let whose = (owner, &self.connection.downstream.holder);
        let connecting = connect(worker, &self.key, plan, patience, whose, self.stats);
        watch(self.connection, down, clock, connecting).await?
    }

    /// A connection that waits or has room, to the first of these endpoints that has one.
    fn pooled(
        &self,
        mut addresses: impl Iterator<Item = UpstreamAddr>,
        whose: Sharing<'_>,
    ) -> Option<Outbound> {
        let http = &self.connection.worker.http;
        let scratch = &mut http.scratch.borrow_mut();
        addresses.find_map(|addr| http.pool.checkout(&self.key, addr, whose, self.policy, scratch))
    }
}

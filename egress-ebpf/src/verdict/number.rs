//! A verdict as one number.
//!
//! The kernel's verifier checks some functions by themselves, once for whatever they are called with:
//! those that take numbers and give one back. What comes back says nothing to it of how the function got
//! there, so a program goes on once and not once for each way to each verdict.

use super::{Action, Judgement, Mode, Target, Verdict};
use crate::{abi::PolicyId, addr::PortBe, packet::Flow, reason::Reason};

/// A verdict, and the mode that it is carried out in. From the lowest bit on: the action (4 bits), the mode
/// (4), the reason (8), the target's port (16) and its group (32).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a verdict that nobody carries out is a hole"]
pub struct Number(pub u64);

// An unknown action denies, and an unknown mode enforces.
const DENY: u64 = 0;
const ALLOW: u64 = 1;
const REDIRECT: u64 = 2;
const TUNNEL: u64 = 3;

const ENFORCE: u64 = 0;
const AUDIT: u64 = 1;
const EXEMPT: u64 = 2;
const AUDIT_REDIRECT: u64 = 3;

const MODE: u32 = 4;
const REASON: u32 = 8;
const PORT: u32 = 16;
const GROUP: u32 = 32;

impl Number {
    /// Of these.
    #[inline(always)]
    pub const fn new(verdict: Verdict, mode: Mode) -> Self {
        let Verdict { action, reason } = verdict;
        let (action, target) = match action {
            Action::Deny => (DENY, None),
            Action::Allow => (ALLOW, None),
            Action::Redirect(target) => (REDIRECT, Some(target)),
            Action::Tunnel(target) => (TUNNEL, Some(target)),
        };
        let mode = match mode {
            Mode::Enforce => ENFORCE,
            Mode::Audit => AUDIT,
            Mode::Exempt => EXEMPT,
            Mode::AuditRedirect => AUDIT_REDIRECT,
        };
        let target = match target {
            Some(Target { group, port }) => (group as u64) << GROUP | (port.get() as u64) << PORT,
            None => 0,
        };
        Self(action | mode << MODE | (reason as u64) << REASON | target)
    }

    /// The number of the reason, which the caller knows for one.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the bits from there on")]
    pub const fn reason(self) -> u8 {
        (self.0 >> REASON) as u8
    }

    /// The verdict, for this reason.
    #[inline(always)]
    pub const fn verdict(self, reason: Reason) -> Verdict {
        let action = match self.0 & 0xf {
            ALLOW => Action::Allow,
            REDIRECT => Action::Redirect(self.target()),
            TUNNEL => Action::Tunnel(self.target()),
            _ => Action::Deny,
        };
        Verdict { action, reason }
    }

    /// The judgement on a flow, for this reason.
    #[inline(always)]
    pub const fn judgement(
        self,
        reason: Reason,
        policy: PolicyId,
        flow: Flow,
        ether_type: u16,
    ) -> Judgement {
        let mode = match self.0 >> MODE & 0xf {
            AUDIT => Mode::Audit,
            EXEMPT => Mode::Exempt,
            AUDIT_REDIRECT => Mode::AuditRedirect,
            _ => Mode::Enforce,
        };
        Judgement::new(self.verdict(reason), mode, policy, flow, ether_type)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the bits from there on")]
    const fn target(self) -> Target {
        let port = (self.0 >> PORT) as u16;
        Target { group: (self.0 >> GROUP) as u32, port: PortBe::new(port) }
    }
}

impl Judgement {
    /// Its verdict and its mode.
    #[inline(always)]
    pub const fn number(&self) -> Number {
        Number::new(self.verdict, self.mode)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    proptest! {
        #[test]
        fn a_verdict_comes_back_as_it_was(
            action in 0..4, group: u32, port: u16, reason in select(Reason::ALL),
            mode in select(&[Mode::Enforce, Mode::Audit, Mode::AuditRedirect, Mode::Exempt][..]), policy: PolicyId,
        ) {
            let target = Target { group, port: PortBe::new(port) };
            let action = match action {
                0 => Action::Allow,
                1 => Action::Redirect(target),
                2 => Action::Tunnel(target),
                _ => Action::Deny,
            };
            let verdict = Verdict { action, reason };
            let judgement = Judgement::new(verdict, mode, policy, Flow::UNKNOWN, 7);
            let number = judgement.number();
            prop_assert_eq!(number.reason(), reason as u8);
            prop_assert_eq!(number.verdict(reason), verdict);
            prop_assert_eq!(number.judgement(reason, policy, Flow::UNKNOWN, 7), judgement);
        }

        #[test]
        fn an_unknown_number_is_enforced_and_denies(number: u64) {
            let number = Number(number | 0xff);
            let verdict = Verdict::deny(Reason::NoRoute);
            let judgement = Judgement::new(verdict, Mode::Enforce, 1, Flow::UNKNOWN, 0);
            prop_assert_eq!(number.judgement(Reason::NoRoute, 1, Flow::UNKNOWN, 0), judgement);
        }
    }
}

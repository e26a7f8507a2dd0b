//! What was decided, and the only ways from there to a hook's return value.

mod number;

pub use self::number::Number;
use crate::{
    abi::{self, GroupId, PolicyId},
    addr::PortBe,
    packet::Flow,
    reason::Reason,
};

/// How a policy's verdicts are carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// As they are.
    Enforce,
    /// Reported; everything passes as if there were no programs.
    Audit,
    /// Reported; redirects are carried out, so that gateways see the traffic, and everything else passes.
    AuditRedirect,
    /// Not judged.
    Exempt,
}

impl Mode {
    /// From [`abi::Policy::mode`]. A number that isn't known enforces.
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(mode: u32) -> Self {
        match mode {
            abi::mode::AUDIT => Self::Audit,
            abi::mode::AUDIT_REDIRECT => Self::AuditRedirect,
            abi::mode::EXEMPT => Self::Exempt,
            _ => Self::Enforce,
        }
    }
}

/// Where a redirected connect goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// The gateway group of which an endpoint is to be picked.
    pub group: GroupId,
    /// The port there.
    pub port: PortBe,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Let it pass.
    Allow,
    /// Refuse or drop it.
    Deny,
    /// Send it to a gateway. Only a connect can get this.
    Redirect(Target),
    /// Send it to the node's tunnel listener, for a gateway. Only a connect can get this.
    Tunnel(Target),
}

/// What to do, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a verdict that nobody carries out is a hole"]
pub struct Verdict {
    /// What to do.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

impl Verdict {
    /// Let it pass.
    #[inline(always)]
    pub const fn allow(reason: Reason) -> Self {
        Self { action: Action::Allow, reason }
    }

    /// Refuse or drop it.
    #[inline(always)]
    pub const fn deny(reason: Reason) -> Self {
        Self { action: Action::Deny, reason }
    }
}

/// A verdict with the mode that it is carried out in and what it was about. It can be reported by
/// reference; it is used up by turning it into what the hook returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a judgement that doesn't become the hook's return value is a hole"]
pub struct Judgement {
    policy: PolicyId,
    mode: Mode,
    verdict: Verdict,
    flow: Flow,
    ether_type: u16,
}

/// `tc`: go on with the next program of the chain, `TC_ACT_UNSPEC` and `TCX_NEXT`.
pub const TC_NEXT: i32 = -1;
/// `tc`: drop, `TC_ACT_SHOT` and `TCX_DROP`.
pub const TC_DROP: i32 = 2;
/// cgroup hooks: pass.
pub const CGROUP_PASS: i32 = 1;
/// cgroup hooks: refuse.
pub const CGROUP_REFUSE: i32 = 0;

/// The error that a refused system call shall see (Linux's numbers).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// Policy refuses it.
    pub const EACCES: Self = Self(13);
    /// Policy allows it, but no gateway is there, or no tunnel to it.
    pub const ECONNREFUSED: Self = Self(111);
}

impl Judgement {
    /// Puts a verdict together with its mode and its subject.
    #[inline(always)]
    pub const fn new(
        verdict: Verdict,
        mode: Mode,
        policy: PolicyId,
        flow: Flow,
        ether_type: u16,
    ) -> Self {
        Self { policy, mode, verdict, flow, ether_type }
    }

    /// What a `tc` program returns.
    #[inline(always)]
    #[must_use]
    pub const fn tc(self) -> i32 {
        if self.passes() { TC_NEXT } else { TC_DROP }
    }

    /// What a `cgroup_skb` program returns.
    #[inline(always)]
    #[must_use]
    pub const fn cgroup_skb(self) -> i32 {
        if self.passes() { CGROUP_PASS } else { CGROUP_REFUSE }
    }

    /// Whether the system call goes on, and with which error it fails if not.
    ///
    /// # Errors
    /// The refusal's error number.
    #[inline(always)]
    pub const fn system_call(self) -> Result<(), Errno> {
        if self.passes() {
            return Ok(());
        }
        // No `match` over every reason: without a default the compiler takes all other values for
        // impossible, and lets their branch lead past the program's end, which the verifier refuses.
        let nobody_there =
            matches!(self.verdict.reason, Reason::NoHealthyGateway | Reason::NoTunnel);
        Err(if nobody_there { Errno::ECONNREFUSED } else { Errno::EACCES })
    }

    /// What a hook on a system call returns that sends nothing: what it lets be sent is judged then.
    #[inline(always)]
    #[must_use]
    pub const fn deferred(self) -> i32 {
        CGROUP_PASS
    }

    /// Where a connect must be sent before it may pass. `None` in audit mode without redirects, which
    /// changes nothing.
    #[inline(always)]
    #[must_use]
    pub const fn redirect(&self) -> Option<Target> {
        match (self.mode, self.verdict.action) {
            (Mode::Enforce | Mode::AuditRedirect, Action::Redirect(target)) => Some(target),
            _ => None,
        }
    }

    /// What a connect must be sent to the tunnel listener for, before it may pass. `None` in audit
    /// mode without redirects, which changes nothing.
    #[inline(always)]
    #[must_use]
    pub const fn tunnel(&self) -> Option<Target> {
        match (self.mode, self.verdict.action) {
            (Mode::Enforce | Mode::AuditRedirect, Action::Tunnel(target)) => Some(target),
            _ => None,
        }
    }

    /// The same, but refused: a redirect could not be carried out.
    #[inline(always)]
    pub const fn refused(self, reason: Reason) -> Self {
        Self { verdict: Verdict::deny(reason), ..self }
    }

    #[inline(always)]
    const fn passes(self) -> bool {
        match (self.mode, self.verdict.action) {
            (Mode::Audit | Mode::AuditRedirect | Mode::Exempt, _) => true,
            (Mode::Enforce, Action::Allow | Action::Redirect(_) | Action::Tunnel(_)) => true,
            (Mode::Enforce, Action::Deny) => false,
        }
    }

    /// The policy that decided.
    #[inline(always)]
    #[must_use]
    pub const fn policy(&self) -> PolicyId {
        self.policy
    }

    /// What it was about.
    #[inline(always)]
    #[must_use]
    pub const fn flow(&self) -> &Flow {
        &self.flow
    }

    /// Ethertype of the packet, host byte order; zero where there was no packet.
    #[inline(always)]
    #[must_use]
    pub const fn ether_type(&self) -> u16 {
        self.ether_type
    }

    /// Why.
    #[inline(always)]
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.verdict.reason
    }

    /// The verdict as one of [`abi::action`], whatever the mode does with it.
    #[inline(always)]
    #[must_use]
    pub const fn action_code(&self) -> u8 {
        match self.verdict.action {
            Action::Allow => abi::action::ALLOW,
            Action::Deny => abi::action::DENY,
            Action::Redirect(_) | Action::Tunnel(_) => abi::action::REDIRECT,
        }
    }

    /// Whether audit mode lets pass what would be denied or redirected. Of a redirect that was carried out, ask
    /// [`Self::carried_out`].
    #[inline(always)]
    #[must_use]
    pub const fn audited(&self) -> bool {
        matches!(self.mode, Mode::Audit | Mode::AuditRedirect)
            && !matches!(self.verdict.action, Action::Allow)
    }

    /// The same, once a connect was sent where [`Self::redirect`] or [`Self::tunnel`] say: in audit mode too, that
    /// is what enforcement does. What packets are asked about stays as simple as it is for the verifier.
    #[inline(always)]
    pub const fn carried_out(self) -> Self {
        match (self.mode, self.verdict.action) {
            (Mode::AuditRedirect, Action::Redirect(_) | Action::Tunnel(_)) => {
                Self { mode: Mode::Enforce, ..self }
            }
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests;

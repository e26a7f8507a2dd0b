use super::*;

const TARGET: Target = Target { group: 1, port: PortBe::new(443) };
const ACTIONS: [Action; 4] =
    [Action::Allow, Action::Deny, Action::Redirect(TARGET), Action::Tunnel(TARGET)];

fn judgement(action: Action, reason: Reason, mode: Mode) -> Judgement {
    Judgement::new(Verdict { action, reason }, mode, 7, Flow::UNKNOWN, 0x0800)
}

fn results(judgement: Judgement) -> [bool; 3] {
    [
        judgement.tc() == TC_NEXT,
        judgement.cgroup_skb() == CGROUP_PASS,
        judgement.system_call().is_ok(),
    ]
}

#[test]
fn enforcing_stops_every_denial_at_every_hook() {
    for reason in Reason::ALL {
        let denied = judgement(Action::Deny, *reason, Mode::Enforce);
        assert_eq!(results(denied), [false; 3], "{reason:?}");
        assert_eq!((denied.tc(), denied.cgroup_skb()), (TC_DROP, CGROUP_REFUSE));
        assert_eq!(results(judgement(Action::Allow, *reason, Mode::Enforce)), [true; 3]);
    }
}

#[test]
fn audit_passes_and_reports_what_would_have_been() {
    for reason in Reason::ALL {
        for action in ACTIONS {
            let audited = judgement(action, *reason, Mode::Audit);
            assert_eq!(results(audited), [true; 3], "{action:?} {reason:?}");
            assert_eq!(audited.redirect(), None, "audit changes nothing");
            assert_eq!(audited.tunnel(), None, "audit changes nothing");
            assert_eq!(audited.audited(), action != Action::Allow);
            assert_eq!(audited.reason(), *reason);
            let enforced = judgement(action, *reason, Mode::Enforce);
            assert_eq!(audited.action_code(), enforced.action_code());
        }
    }
}

/// With redirects, gateways get what they would get if it was enforced; nothing is refused.
#[test]
fn audit_with_redirects_sends_to_gateways_and_refuses_nothing() {
    for reason in Reason::ALL {
        for action in ACTIONS {
            let audited = judgement(action, *reason, Mode::AuditRedirect);
            let enforced = judgement(action, *reason, Mode::Enforce);
            assert_eq!(results(audited), [true; 3], "{action:?} {reason:?}");
            assert_eq!(audited.redirect(), enforced.redirect());
            assert_eq!(audited.tunnel(), enforced.tunnel());
            assert_eq!(audited.action_code(), enforced.action_code());
            let done = audited.carried_out();
            assert_eq!((results(done), done.action_code()), ([true; 3], audited.action_code()));
            assert_eq!(done.audited(), action == Action::Deny);
            // A redirect that fails is a refusal that is not carried out.
            let failed = audited.refused(Reason::NoHealthyGateway);
            assert_eq!((results(failed), failed.audited()), ([true; 3], true));
        }
    }
}

/// Nothing but the audit modes lets a denial pass, and nothing turns another mode into one of them.
#[test]
fn audit_does_not_leak_into_enforce() {
    for raw in (0..=1024).chain([u32::MAX, u32::MAX - 1, 1 << 31, 1 << 16, 0x0100_0000]) {
        let mode = Mode::from_raw(raw);
        let denied = judgement(Action::Deny, Reason::NoRoute, mode);
        let audited = matches!(raw, abi::mode::AUDIT | abi::mode::AUDIT_REDIRECT);
        let passes = audited || raw == abi::mode::EXEMPT;
        assert_eq!(results(denied), [passes; 3], "mode {raw}");
        assert_eq!(denied.audited(), audited);
        for action in [ACTIONS[2], ACTIONS[3]] {
            let refused = judgement(action, Reason::Routed, mode).refused(Reason::OriginalDstFull);
            assert_eq!(results(refused), [passes; 3], "a failed {action:?} in mode {raw}");
        }
    }
}

#[test]
fn a_redirect_that_fails_is_refused() {
    let redirected = judgement(ACTIONS[2], Reason::Routed, Mode::Enforce);
    assert!(redirected.redirect().is_some());
    let refused = redirected.refused(Reason::NoHealthyGateway);
    assert_eq!(refused.redirect(), None);
    assert_eq!(refused.system_call(), Err(Errno::ECONNREFUSED));
    assert_eq!((refused.policy(), refused.ether_type()), (7, 0x0800));
}

/// A connect goes one way.
#[test]
fn what_goes_through_the_tunnel_goes_to_no_gateway_by_itself() {
    let tunneled = judgement(ACTIONS[3], Reason::Tunneled, Mode::Enforce);
    assert_eq!((tunneled.redirect(), tunneled.tunnel()), (None, Some(TARGET)));
    assert_eq!(judgement(ACTIONS[2], Reason::Routed, Mode::Enforce).tunnel(), None);
    assert_eq!(tunneled.action_code(), abi::action::REDIRECT);
    let refused = tunneled.refused(Reason::NoTunnel);
    assert_eq!((refused.redirect(), refused.tunnel()), (None, None));
    assert_eq!(refused.system_call(), Err(Errno::ECONNREFUSED));
    assert_eq!(refused.action_code(), abi::action::DENY);
}

#[test]
fn only_a_missing_gateway_is_a_refused_connection() {
    for reason in Reason::ALL {
        let errno = judgement(Action::Deny, *reason, Mode::Enforce).system_call();
        let nobody_there = matches!(reason, Reason::NoHealthyGateway | Reason::NoTunnel);
        let expected = if nobody_there { Errno::ECONNREFUSED } else { Errno::EACCES };
        assert_eq!(errno, Err(expected), "{reason:?}");
    }
}

//! Who may have how much of a resource that all sources of a worker share. Pure.

/// A resource: its bound, and what one source may have of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bound {
    pub(super) all: usize,
    pub(super) each: usize,
}

/// What is used of it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct State {
    /// By everybody.
    pub(super) used: usize,
    /// By who asks for more.
    pub(super) own: usize,
    /// Sources that use any, who asks included.
    pub(super) sources: usize,
    /// The process is short of memory: nothing more is given out without something coming back.
    pub(super) pressed: bool,
}

/// What becomes of a question for more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// There is enough.
    Admit,
    /// Another source has more than its share, and gives something back first.
    MakeRoom,
    /// Who asks has its share.
    Refuse,
}

/// Judges a question for `amount` more. While there is enough, a source may have up to its own
/// bound. Where there is not, the shares of all sources are equal: who is below its share gets it
/// from the source that has the most, and nobody else gets anything.
pub(super) fn judge(bound: Bound, state: State, amount: usize) -> Verdict {
    let State { used, own, sources, pressed } = state;
    let (wanted, total) = (own.saturating_add(amount), used.saturating_add(amount));
    if wanted > bound.each || amount > bound.all {
        return Verdict::Refuse;
    }
    if total <= bound.all && !pressed {
        return Verdict::Admit;
    }
    let share = used.min(bound.all) / sources.max(1);
    if wanted > share { Verdict::Refuse } else { Verdict::MakeRoom }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUND: Bound = Bound { all: 100, each: 60 };

    fn ask(used: usize, own: usize, sources: usize) -> Verdict {
        judge(BOUND, State { used, own, sources, pressed: false }, 1)
    }

    #[test]
    fn a_source_has_its_own_bound_while_there_is_enough() {
        assert_eq!(ask(59, 59, 1), Verdict::Admit);
        assert_eq!(ask(60, 60, 1), Verdict::Refuse);
        assert_eq!(ask(99, 10, 3), Verdict::Admit);
    }

    #[test]
    fn the_largest_is_refused_and_the_small_ones_get_their_share() {
        // Two have 50 each, a third one comes.
        assert_eq!(ask(100, 50, 2), Verdict::Refuse);
        assert_eq!(ask(100, 0, 3), Verdict::MakeRoom);
        assert_eq!(ask(100, 32, 3), Verdict::MakeRoom);
        assert_eq!(ask(100, 33, 3), Verdict::Refuse);
    }

    #[test]
    fn under_pressure_shares_are_of_what_is_used() {
        let ask = |own| judge(BOUND, State { used: 20, own, sources: 2, pressed: true }, 1);
        assert_eq!(ask(10), Verdict::Refuse);
        assert_eq!(ask(1), Verdict::MakeRoom);
    }

    proptest! {
        #[test]
        fn who_makes_room_exists(used in 0_usize..200, own in 0_usize..200, others in 1_usize..9) {
            // A source that is told to make room finds a larger source: what is not
            // its own is spread over the others, and one of them has more than the asker will.
            let own = own.min(used);
            let state = State { used, own, sources: others + 1, pressed: true };
            if judge(BOUND, state, 1) == Verdict::MakeRoom {
                prop_assert!((used - own).div_ceil(others) > own);
            }
        }
    }
}

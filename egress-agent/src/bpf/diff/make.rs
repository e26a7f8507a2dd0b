//! Making the changes, whatever fails on the way.

use std::collections::HashSet;

use egress_ebpf::addr::Addr;

use super::{Change, Op, Ops};
use crate::bpf::plan::Prefix;

impl Ops {
    /// Makes the changes by `apply`, leaving out those that must not follow a failure. Gives back
    /// what failed.
    ///
    /// A map of denials that is full is the one case where something has to go before the new can
    /// come: see [`Self::make_room`].
    pub fn make<E>(&self, mut apply: impl FnMut(&Op) -> Result<(), E>) -> Vec<E> {
        let mut errors = Vec::new();
        // The policy of whoever is closed comes first, and nobody may get it before it is there.
        errors.extend(self.close.iter().find_map(|op| apply(op).err()));
        if !errors.is_empty() {
            return errors;
        }
        all(&self.enforce, &mut apply, &mut errors);
        let enforced = errors.is_empty();
        if enforced {
            all(&self.seclude, &mut apply, &mut errors);
        }
        let mut refused = Vec::new();
        for op in &self.tighten {
            match (op, apply(op)) {
                (_, Ok(())) => {}
                (Op::Denied(Change::Put(key, ())), Err(error)) => refused.push((*key, error)),
                (_, Err(error)) => errors.push(error),
            }
        }
        let tightened = errors.is_empty() && refused.is_empty();
        if tightened {
            all(&self.gateways, &mut apply, &mut errors);
        }
        if enforced {
            all(&self.assign, &mut apply, &mut errors);
        }
        all(&self.redirect, &mut apply, &mut errors);
        let mut gone = HashSet::new();
        if errors.is_empty() && !refused.is_empty() {
            refused = self.make_room(refused, &mut gone, &mut apply, &mut errors);
            if errors.is_empty() && refused.is_empty() {
                all(&self.gateways, &mut apply, &mut errors);
            }
        }
        errors.extend(refused.into_iter().map(|(_, error)| error));
        if errors.is_empty() {
            let went =
                |op: &Op| matches!(op, Op::Denied(Change::Remove(key)) if gone.contains(key));
            let mut left = self.loosen.iter().filter(|op| !went(op));
            errors.extend(left.find_map(|op| apply(op).err()));
        }
        if errors.is_empty() {
            errors.extend(self.open.iter().find_map(|op| apply(op).err()));
        }
        errors
    }

    /// Removes denials that go anyway (they are added to `gone`), and tries those again that found
    /// no place; gives back those that still find none.
    ///
    /// All that takes something away has been done by now, apart from the denials that are to be
    /// put. So what a removed denial covered is let out only if the new contents let it out; unless
    /// one of the missing denials covers it too. So a denial stays that covers a missing one, or that a
    /// missing one covers.
    fn make_room<E>(
        &self,
        refused: Vec<(Prefix<Addr>, E)>,
        gone: &mut HashSet<Prefix<Addr>>,
        apply: &mut impl FnMut(&Op) -> Result<(), E>,
        errors: &mut Vec<E>,
    ) -> Vec<(Prefix<Addr>, E)> {
        let missing: HashSet<Prefix<Addr>> = refused.iter().map(|(missing, _)| *missing).collect();
        let covers: HashSet<Prefix<Addr>> = missing.iter().copied().flat_map(wider).collect();
        for op in &self.loosen {
            let Op::Denied(Change::Remove(key)) = op else { continue };
            if covers.contains(key) || wider(*key).any(|wider| missing.contains(&wider)) {
                continue;
            }
            match apply(op) {
                Ok(()) => {
                    gone.insert(*key);
                }
                Err(error) => errors.push(error),
            }
        }
        let again = refused.into_iter().filter_map(|(key, _)| {
            apply(&Op::Denied(Change::Put(key, ()))).err().map(|error| (key, error))
        });
        again.collect()
    }
}

/// Makes all of them, whichever fails.
fn all<E>(ops: &[Op], apply: &mut impl FnMut(&Op) -> Result<(), E>, errors: &mut Vec<E>) {
    errors.extend(ops.iter().filter_map(|op| apply(op).err()));
}

/// The prefix and all that hold it.
fn wider(prefix: Prefix<Addr>) -> impl Iterator<Item = Prefix<Addr>> {
    let addr = u128::from_be_bytes(prefix.data.octets());
    (0..=prefix.bits).map(move |bits| {
        let mask = u128::MAX.checked_shl(u128::BITS.saturating_sub(bits)).unwrap_or(0);
        Prefix { bits, data: Addr::v6((addr & mask).to_be_bytes()) }
    })
}

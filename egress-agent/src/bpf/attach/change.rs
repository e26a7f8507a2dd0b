//! What becomes of a place.

use super::targets::Target;

/// What became of an interface or a cgroup since the last look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is gone; nothing can pass it.
    Gone {
        /// What.
        target: Target,
        /// It was named by itself, not by a pattern: it is expected back.
        named: bool,
    },
    /// A new one that a pattern matches; the programs are attached.
    Appeared {
        /// What.
        target: Target,
    },
    /// It is as it should be again.
    Repaired {
        /// What.
        target: Target,
        /// What was wrong.
        repair: Repair,
    },
}

/// What was wrong and is repaired.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Repair {
    /// An interface was made again under its name.
    Interface,
    /// A cgroup was made again under its path.
    Cgroup,
    /// A program was detached.
    Detached,
    /// Another program had come before ours.
    Order,
    /// A pin was removed, or replaced by another.
    Pin,
}

impl Repair {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Interface, Self::Cgroup, Self::Detached, Self::Order, Self::Pin];

    /// For metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Cgroup => "cgroup",
            Self::Detached => "detached",
            Self::Order => "order",
            Self::Pin => "pin",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_name() {
        let names: std::collections::BTreeSet<_> = Repair::ALL.map(Repair::name).into();
        assert_eq!(names.len(), Repair::ALL.len());
    }
}

//! IPv4, IPv6, or both.

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The name in the table and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// Where an attempt makes sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Families {
    /// In both.
    Both,
    /// IPv4 alone has it.
    V4,
    /// IPv6 alone has it.
    V6,
}

impl Families {
    /// One by one.
    #[must_use]
    pub const fn all(self) -> &'static [Family] {
        match self {
            Self::Both => &[Family::V4, Family::V6],
            Self::V4 => &[Family::V4],
            Self::V6 => &[Family::V6],
        }
    }
}

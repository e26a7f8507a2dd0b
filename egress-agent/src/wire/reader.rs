//! Reading TLS's presentation language (RFC 8446 §3): numbers in network byte order, vectors with
//! a length in front.

/// A cursor over bytes that are all there; running over the end is the sender's fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

/// The bytes end before what they announce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Truncated;

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Truncated> {
        let (first, rest) = self.0.split_first().ok_or(Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Truncated> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Truncated)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*head))
    }

    /// A vector with a length of one byte.
    pub(super) fn vec8(&mut self) -> Result<Reader<'a>, Truncated> {
        let len = self.u8()?;
        self.take(len.into()).map(Reader)
    }

    /// A vector with a length of two bytes.
    pub(super) fn vec16(&mut self) -> Result<Reader<'a>, Truncated> {
        let len = self.u16()?;
        self.take(len.into()).map(Reader)
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }
}

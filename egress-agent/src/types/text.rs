//! Text that lies in bytes which others use too.

use std::{borrow::Cow, fmt, ops::Deref};

use bytes::Bytes;

/// Text that costs nothing to clone, and nothing to make out of bytes that were received: it keeps all
/// of them alive for as long.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Text(Bytes);

impl Text {
    /// `part`, which lies in `whole`, or a copy of it if it does not. What is no UTF-8 is replaced.
    #[must_use]
    pub fn part_of(whole: &Bytes, part: &[u8]) -> Self {
        match String::from_utf8_lossy(part) {
            Cow::Borrowed(text) => Self(shared(whole, text.as_bytes())),
            Cow::Owned(text) => text.into(),
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

/// The bytes of `part`, in `whole` where they lie there.
fn shared(whole: &Bytes, part: &[u8]) -> Bytes {
    let (within, at) = (whole.as_ptr_range(), part.as_ptr_range());
    let lies_there = within.start <= at.start && at.end <= within.end;
    if lies_there { whole.slice_ref(part) } else { Bytes::copy_from_slice(part) }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        // It always is: nothing else is ever put in.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_lies_in_the_whole() {
        let whole = Bytes::from_static(b"GET /path HTTP/1.1");
        let path = Text::part_of(&whole, &whole[4..9]);
        assert_eq!(&*path, "/path");
        assert_eq!(path.bytes().as_ptr(), whole[4..].as_ptr());
        for (part, text) in [(&b"other"[..], "other"), (b"", ""), (b"\xff!", "\u{fffd}!")] {
            assert_eq!(&*Text::part_of(&whole, part), text);
        }
        assert_eq!(Text::from("x".to_owned()), Text::from("x"));
    }
}

//! What every packet of the probe carries, so that the canary knows it in whatever wrapping.

use std::fmt;

const PREFIX: &[u8] = b"egress-probe/";
/// More than any attempt's name has.
const MAX_NAME: usize = 40;

/// One run of the probe: a random number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ProbeId(u32);

impl ProbeId {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().as_fields().0)
    }
}

impl fmt::Display for ProbeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A run and an attempt of it: `egress-probe/1a2b3c4d/udplite-v4/`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Token {
    /// The run.
    pub id: ProbeId,
    /// The attempt's name.
    pub name: String,
}

impl Token {
    /// As it is sent.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let Self { id, name } = self;
        [PREFIX, format!("{id}/{name}/").as_bytes()].concat()
    }

    /// What the canary answers. It isn't what a canary answers to, so that two of them never answer
    /// each other for ever.
    #[must_use]
    pub fn answer(&self) -> Vec<u8> {
        let Self { id, name } = self;
        format!("egress-canary/{id}/{name}/").into_bytes()
    }

    /// Whether it has come back in `bytes`: from the canary, or from anything that echoes.
    #[must_use]
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        let Self { id, name } = self;
        memchr::memmem::find(bytes, format!("/{id}/{name}/").as_bytes()).is_some()
    }

    /// The first token in `bytes`.
    #[must_use]
    pub fn find(bytes: &[u8]) -> Option<Self> {
        memchr::memmem::find_iter(bytes, PREFIX).find_map(|at| Self::read(&bytes[at..]))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.get(PREFIX.len()..)?;
        let (id, rest) = rest.split_first_chunk::<8>()?;
        let id = ProbeId(u32::from_str_radix(std::str::from_utf8(id).ok()?, 16).ok()?);
        let rest = rest.strip_prefix(b"/")?;
        let end = rest.iter().take(MAX_NAME + 1).position(|byte| *byte == b'/')?;
        let name = std::str::from_utf8(&rest[..end]).ok()?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (end > 0 && name.bytes().all(plain)).then(|| Self { id, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_wherever_it_lies_and_only_whole() {
        let token = Token { id: ProbeId(0x1a2b_3c4d), name: "udplite-v4".into() };
        let bytes = token.bytes();
        assert_eq!(bytes, b"egress-probe/1a2b3c4d/udplite-v4/");
        let wrapped = [b"egress-probe/xx".as_slice(), &bytes, b"behind"].concat();
        assert_eq!(Token::find(&wrapped), Some(token.clone()));
        assert!(token.is_in(&wrapped) && token.is_in(&token.answer()));
        assert_eq!(Token::find(&token.answer()), None);
        for end in 0..bytes.len() {
            assert_eq!(Token::find(&bytes[..end]), None, "{end}");
        }
    }

    #[test]
    fn what_strangers_send_is_no_token() {
        let long = format!("egress-probe/1a2b3c4d/{}/", "x".repeat(MAX_NAME + 1));
        for bytes in [
            "egress-probe/1a2b3c4d//",
            "egress-probe/1a2b3cxx/tcp/",
            "egress-probe/1a2b3c4d/\x1b[2J/",
            &*long,
        ] {
            assert_eq!(Token::find(bytes.as_bytes()), None, "{bytes:?}");
        }
    }
}

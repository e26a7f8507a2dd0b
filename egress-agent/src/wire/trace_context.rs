//! W3C Trace Context: the header fields `traceparent` and `tracestate`.

/// Bytes of `tracestate` that are kept with a span: what every party has to pass on (§3.3.1.5).
const STATE_BYTES: usize = 512;

/// Where a request stands in its trace, as its sender says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceParent {
    /// The trace; not all zero.
    pub trace_id: [u8; 16],
    /// The span of the sender; not all zero.
    pub parent_id: [u8; 8],
    /// Whether the sender records its span.
    pub sampled: bool,
}

impl TraceParent {
    /// How long the field is.
    pub const LENGTH: usize = 55;

    /// Reads a whole field; `None` for what is not one (§3.2.2). A later version may have more behind what
    /// version 00 has.
    #[must_use]
    pub fn parse(field: &[u8]) -> Option<Self> {
        let (own, more) = field.trim_ascii().split_at_checked(Self::LENGTH)?;
        let [version, trace, parent, flags] = split(own)?;
        let [version] = hex(version)?;
        let has_more = match more {
            [] => false,
            [b'-', ..] => true,
            _ => return None,
        };
        if version == 0xff || (version == 0 && has_more) {
            return None;
        }
        let (trace_id, parent_id, [flags]) = (hex(trace)?, hex(parent)?, hex(flags)?);
        if trace_id == [0; 16] || parent_id == [0; 8] {
            return None;
        }
        Some(Self { trace_id, parent_id, sampled: flags & 1 == 1 })
    }

    /// The field, of version 00.
    #[must_use]
    pub fn text(&self) -> [u8; Self::LENGTH] {
        let mut text = [b'-'; Self::LENGTH];
        let bytes = [0_u8].into_iter().chain(self.trace_id).chain(self.parent_id);
        let bytes = bytes.chain([u8::from(self.sampled)]);
        // Dashes stay where they are.
        let places = (0..Self::LENGTH).filter(|at| !matches!(at, 2 | 35 | 52));
        let digits = bytes.flat_map(|byte| [byte >> 4, byte & 15]);
        for (at, digit) in places.zip(digits) {
            if let (Some(place), Some(digit)) =
                (text.get_mut(at), b"0123456789abcdef".get(usize::from(digit)))
            {
                *place = *digit;
            }
        }
        text
    }
}

/// The four parts between the dashes.
fn split(own: &[u8]) -> Option<[&[u8]; 4]> {
    let mut parts = own.split(|byte| *byte == b'-');
    let four = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(four)
}

/// So many bytes in lower-case hexadecimal digits, as the standard wants them.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// What is kept of `tracestate` with a span: whole members from its beginning, in visible ASCII, at most
/// 512 bytes.
pub fn kept_state<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut kept = String::new();
    let members = fields.into_iter().flat_map(|field| field.split(|byte| *byte == b','));
    for member in members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()) {
        let Ok(member) = std::str::from_utf8(member) else { break };
        let comma = usize::from(!kept.is_empty());
        let is_visible = member.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !is_visible || kept.len() + comma + member.len() > STATE_BYTES {
            break;
        }
        if comma == 1 {
            kept.push(',');
        }
        kept.push_str(member);
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_standards_example_is_read_and_written() {
        let parent = TraceParent::parse(EXAMPLE.as_bytes()).unwrap();
        assert!(parent.sampled);
        assert_eq!(parent.parent_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert_eq!(&parent.text()[..], EXAMPLE.as_bytes());
        let not = EXAMPLE.replace("-01", "-00");
        assert!(!TraceParent::parse(not.as_bytes()).unwrap().sampled);
        // Other flags are not ours to understand.
        let more = EXAMPLE.replace("-01", "-fe");
        assert!(!TraceParent::parse(more.as_bytes()).unwrap().sampled);
        assert!(TraceParent::parse(format!(" {EXAMPLE} ").as_bytes()).is_some());
    }

    #[test]
    fn no_prefix_and_nothing_malformed_is_one() {
        for end in 0..EXAMPLE.len() {
            assert_eq!(TraceParent::parse(&EXAMPLE.as_bytes()[..end]), None, "{end}");
        }
        for wrong in [
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-012",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319cb-7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
            "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceParent::parse(wrong.as_bytes()), None, "{wrong}");
        }
        // A version to come may have more.
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what";
        assert!(TraceParent::parse(later.as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in any::<[u8; 16]>(), parent in any::<[u8; 8]>(), sampled: bool) {
            prop_assume!(trace != [0; 16] && parent != [0; 8]);
            let own = TraceParent { trace_id: trace, parent_id: parent, sampled };
            prop_assert_eq!(TraceParent::parse(&own.text()), Some(own));
        }

        #[test]
        fn whatever_is_read_is_written_the_same(field in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(parent) = TraceParent::parse(&field) {
                prop_assert_eq!(TraceParent::parse(&parent.text()), Some(parent));
            }
        }

        #[test]
        fn a_state_is_bounded(fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..4)) {
            let kept = kept_state(fields.iter().map(Vec::as_slice));
            prop_assert!(kept.len() <= STATE_BYTES && kept.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        }
    }

    #[test]
    fn a_state_is_kept_in_whole_members() {
        let fields: [&[u8]; 2] = [b"a=1, b=2", b"c=3"];
        assert_eq!(kept_state(fields), "a=1,b=2,c=3");
        let long = format!("a=1,b={},c=3", "x".repeat(STATE_BYTES));
        assert_eq!(kept_state([long.as_bytes()]), "a=1");
        assert_eq!(kept_state([&b"a=1,b=\xff"[..]]), "a=1");
        assert_eq!(kept_state([]), "");
    }
}

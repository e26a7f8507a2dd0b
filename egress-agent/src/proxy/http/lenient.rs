//! What readers of messages have in common that take liberties: tests compare what they read.

/// A number in this radix. A lenient reader takes what its first digits say, after blanks or a sign.
pub(super) fn number(text: &[u8], radix: u32, is_lenient: bool) -> Option<usize> {
    let text = std::str::from_utf8(text).ok()?;
    let is_digit = |c: char| c.is_digit(radix);
    let text = if is_lenient {
        text.trim_start_matches([' ', '\t', '+']).split(|c| !is_digit(c)).next()?
    } else {
        text
    };
    if text.chars().all(is_digit) { usize::from_str_radix(text, radix).ok() } else { None }
}

/// A body in chunks with its trailers, and what follows. `line` takes the next line from the bytes.
pub(super) fn chunks<'a>(
    mut bytes: &'a [u8],
    is_lenient: bool,
    line: impl Fn(&mut &'a [u8]) -> Option<&'a [u8]>,
) -> Option<(Vec<u8>, &'a [u8])> {
    let mut body = Vec::new();
    loop {
        let size = line(&mut bytes)?.split(|b| *b == b';').next()?.trim_ascii_end();
        let size = number(size, 16, is_lenient)?;
        if size == 0 {
            while !line(&mut bytes)?.is_empty() {}
            return Some((body, bytes));
        }
        let (chunk, rest) = bytes.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        bytes = rest;
        line(&mut bytes)?.is_empty().then_some(())?;
    }
}

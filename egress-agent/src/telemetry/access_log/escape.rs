//! Header values and paths are the client's words: escaped so that none can end a line, a quoted
//! field or a JSON string, or steer the terminal of who reads the log.

use std::{fmt, io::Write as _};

use crate::types::is_unseen;

/// Text form.
pub(super) struct TextEscaped<'a> {
    line: &'a mut Vec<u8>,
    left: usize,
}

impl<'a> TextEscaped<'a> {
    /// Writes at most `max` bytes, before escaping.
    pub(super) fn new(line: &'a mut Vec<u8>, max: Option<usize>) -> Self {
        Self { line, left: max.unwrap_or(usize::MAX) }
    }
}

impl fmt::Write for TextEscaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let text = truncate(text, &mut self.left);
        // Almost always there is nothing to escape.
        if text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\') {
            self.line.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        for c in text.chars() {
            if let Some(short) = short_escape(c) {
                self.line.extend_from_slice(short);
                continue;
            }
            match c {
                c if c.is_ascii_control() => {
                    write!(self.line, "\\x{:02x}", u32::from(c)).map_err(|_| fmt::Error)?;
                }
                c if is_unseen(c) => {
                    write!(self.line, "\\u{{{:x}}}", u32::from(c)).map_err(|_| fmt::Error)?;
                }
                c => self.line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Ok(())
    }
}

/// Inside a JSON string (RFC 8259 §7).
pub(super) struct JsonEscaped<'a> {
    line: &'a mut Vec<u8>,
    left: usize,
}

impl<'a> JsonEscaped<'a> {
    /// Writes at most `max` bytes, before escaping.
    pub(super) fn new(line: &'a mut Vec<u8>, max: Option<usize>) -> Self {
        Self { line, left: max.unwrap_or(usize::MAX) }
    }
}

impl fmt::Write for JsonEscaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in truncate(text, &mut self.left).chars() {
            if let Some(short) = short_escape(c) {
                self.line.extend_from_slice(short);
                continue;
            }
            match c {
                c if is_unseen(c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(self.line, "\\u{unit:04x}").map_err(|_| fmt::Error)?;
                    }
                }
                c => self.line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Ok(())
    }
}

/// The escape that both forms have for a character, if they have a short one.
fn short_escape(c: char) -> Option<&'static [u8]> {
    match c {
        '"' => Some(b"\\\""),
        '\\' => Some(b"\\\\"),
        '\n' => Some(b"\\n"),
        '\r' => Some(b"\\r"),
        '\t' => Some(b"\\t"),
        _ => None,
    }
}

/// At most `left` bytes of it, in whole characters.
fn truncate<'a>(text: &'a str, left: &mut usize) -> &'a str {
    let mut end = text.len().min(*left);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // Once something was cut off nothing may follow.
    *left = if end < text.len() { 0 } else { *left - end };
    &text[..end]
}

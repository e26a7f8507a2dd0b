//! Bodies of HTTP/1 messages: where the next piece lies in the bytes that were read, and where the
//! body ends. No I/O.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderMap;

use super::{
    super::{bad::BadMessage, framing::Framing},
    head::{HeadLimits, parse_trailers},
    sender::Sender,
};
use crate::telemetry::Normalized;

/// Longest chunk extension of a client, in bytes; an upstream's may take all of [`MAX_EXTENSIONS`].
/// Extensions are read over and not passed on.
const MAX_EXTENSION: u16 = 256;
/// Chunk extensions of one body together.
const MAX_EXTENSIONS: u32 = 16 * 1024;
/// Digits of a chunk's size: 64 bits.
const MAX_DIGITS: u8 = 16;
/// The trailer section.
const TRAILERS: HeadLimits = HeadLimits { bytes: 8 * 1024, headers: 32 };

/// Reads the framing of one body.
#[derive(Debug)]
pub(in super::super) struct Decoder {
    state: State,
    extensions: u32,
    from: Sender,
    normalized: Vec<Normalized>,
}

#[derive(Debug)]
enum State {
    Done,
    /// This many bytes are still to come.
    Length(u64),
    UntilClose,
    Size {
        value: u64,
        digits: u8,
    },
    /// Blanks between the size and what follows it.
    SizeBlanks {
        size: u64,
    },
    Extension {
        size: u64,
        length: u16,
    },
    /// The LF after a size line.
    SizeEnd {
        size: u64,
    },
    ChunkData {
        left: u64,
    },
    ChunkCr,
    ChunkLf,
    Trailers(Vec<u8>),
    /// What comes can no longer be read: the body never ends.
    Failed(BadMessage),
}

/// What the next bytes are.
#[derive(PartialEq, Eq, Debug)]
pub(in super::super) enum Step {
    /// All of the input was framing, and more is needed.
    Need,
    /// A piece of the body; `consumed` bytes of the input are done with.
    Data { at: Range<usize>, consumed: usize },
    /// The body is complete; what follows the first `consumed` bytes is another message.
    End { trailers: Option<HeaderMap>, consumed: usize },
}

impl Decoder {
    /// A decoder for a body with this framing.
    pub(in super::super) fn new(framing: Framing, from: Sender) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, extensions: 0, from, normalized: Vec::new() }
    }

    /// What was put right since the last time.
    pub(in super::super) fn take_normalized(&mut self) -> Vec<Normalized> {
        std::mem::take(&mut self.normalized)
    }

    /// Whether the body ends with the connection.
    pub(in super::super) fn is_until_close(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    fn note(&mut self, kind: Normalized) {
        if !self.normalized.contains(&kind) {
            self.normalized.push(kind);
        }
    }

    /// Whether the body has ended.
    pub(in super::super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// The connection ended here: was that the body's end?
    pub(in super::super) fn eof(&mut self) -> bool {
        if matches!(self.state, State::UntilClose) {
            self.state = State::Done;
        }
        self.is_done()
    }

    /// The next step through `input`, which starts where the last step ended.
    ///
    /// # Errors
    /// Framing that isn't exactly RFC 9112 §7.1.
    pub(in super::super) fn decode(&mut self, input: &[u8]) -> Result<Step, BadMessage> {
        let step = self.step(input);
        if let Err(bad) = &step {
            self.state = State::Failed(*bad);
        }
        step
    }

    fn step(&mut self, input: &[u8]) -> Result<Step, BadMessage> {
        let mut at = 0;
        loop {
            match &mut self.state {
                State::Done => return Ok(Step::End { trailers: None, consumed: at }),
                State::Failed(bad) => return Err(*bad),
                State::Length(_)
                | State::UntilClose
                | State::Size { .. }
                | State::SizeBlanks { .. }
                | State::Extension { .. }
                | State::SizeEnd { .. }
                | State::ChunkData { .. }
                | State::ChunkCr
                | State::ChunkLf
                | State::Trailers(_)
                    if at == input.len() =>
                {
                    return Ok(Step::Need);
                }
                State::UntilClose => {
                    return Ok(Step::Data { at: at..input.len(), consumed: input.len() });
                }
                State::Length(left) => {
                    let end = take(left, at, input.len());
                    if *left == 0 {
                        self.state = State::Done;
                    }
                    return Ok(Step::Data { at: at..end, consumed: end });
                }
                State::ChunkData { left } => {
                    let end = take(left, at, input.len());
                    if *left == 0 {
                        self.state = State::ChunkCr;
                    }
                    return Ok(Step::Data { at: at..end, consumed: end });
                }
                State::Trailers(section) => {
                    let byte = input.get(at).copied().unwrap_or_default();
                    at += 1;
                    section.push(byte);
                    if let Some((trailers, dropped)) = trailer_section(section, self.from)? {
                        self.state = State::Done;
                        if dropped {
                            self.note(Normalized::Trailer);
                        }
                        return Ok(Step::End { trailers, consumed: at });
                    }
                }
                State::Size { .. }
                | State::SizeBlanks { .. }
                | State::Extension { .. }
                | State::SizeEnd { .. }
                | State::ChunkCr
                | State::ChunkLf => {
                    let byte = input.get(at).copied().unwrap_or_default();
                    at += 1;
                    self.framing_byte(byte)?;
                }
            }
        }
    }

    /// One byte of a size line or of the CR LF after a chunk.
    fn framing_byte(&mut self, byte: u8) -> Result<(), BadMessage> {
        self.state = match (std::mem::replace(&mut self.state, State::Done), byte) {
            (State::Size { value, digits }, byte) => self.size_byte(value, digits, byte)?,
            (State::Extension { size, .. }, b'\r') => State::SizeEnd { size },
            (State::SizeBlanks { size }, b' ' | b'\t') => {
                self.extensions += 1;
                if self.extensions > MAX_EXTENSIONS {
                    return Err(BadMessage::ChunkSize);
                }
                State::SizeBlanks { size }
            }
            (State::SizeBlanks { size }, b'\r') => State::SizeEnd { size },
            (State::SizeBlanks { size }, b';') => State::Extension { size, length: 0 },
            (State::SizeBlanks { .. }, _) => return Err(BadMessage::ChunkSize),
            (State::Extension { size, length }, b'\t' | b' '..=b'~')
                if length < MAX_EXTENSION || self.from == Sender::Upstream =>
            {
                if length == MAX_EXTENSION {
                    self.note(Normalized::ChunkExtension);
                }
                self.extensions += 1;
                if self.extensions > MAX_EXTENSIONS {
                    return Err(BadMessage::ChunkExtension);
                }
                State::Extension { size, length: length + 1 }
            }
            (State::Extension { .. }, _) => return Err(BadMessage::ChunkExtension),
            (State::SizeEnd { size: 0 }, b'\n') => State::Trailers(Vec::new()),
            (State::SizeEnd { size }, b'\n') => State::ChunkData { left: size },
            (State::SizeEnd { .. }, _) => return Err(BadMessage::ChunkSize),
            (State::ChunkCr, b'\r') => State::ChunkLf,
            (State::ChunkLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::ChunkCr | State::ChunkLf, _) => return Err(BadMessage::ChunkEnd),
            (
                state @ (State::Done
                | State::Length(_)
                | State::UntilClose
                | State::ChunkData { .. }
                | State::Trailers(_)
                | State::Failed(_)),
                _,
            ) => state,
        };
        Ok(())
    }

    fn size_byte(&mut self, value: u64, digits: u8, byte: u8) -> Result<State, BadMessage> {
        match (byte, char::from(byte).to_digit(16)) {
            (_, Some(digit)) if digits < MAX_DIGITS => {
                Ok(State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
            }
            (b'\r', None) if digits > 0 => Ok(State::SizeEnd { size: value }),
            (b' ' | b'\t', None) if digits > 0 && self.from == Sender::Upstream => {
                self.note(Normalized::ChunkBlanks);
                Ok(State::SizeBlanks { size: value })
            }
            (b';', None) if digits > 0 => Ok(State::Extension { size: value, length: 0 }),
            _ => Err(BadMessage::ChunkSize),
        }
    }
}

/// The trailers, once `section` is whole, and whether some were left out; there may be none.
fn trailer_section(
    section: &mut Vec<u8>,
    from: Sender,
) -> Result<Option<(Option<HeaderMap>, bool)>, BadMessage> {
    match section.as_slice() {
        b"\r\n" => Ok(Some((None, false))),
        b"\n" => Err(BadMessage::LineEnding),
        [.., before, b'\n'] if *before != b'\r' => Err(BadMessage::LineEnding),
        [.., b'\r', b'\n', b'\r', b'\n'] => {
            let section = Bytes::from(std::mem::take(section));
            let (trailers, dropped) = parse_trailers(&section, TRAILERS, from)?;
            Ok(Some((Some(trailers), dropped)))
        }
        section if section.len() >= TRAILERS.bytes => Err(BadMessage::Trailers),
        _ => Ok(None),
    }
}

/// Takes up to `left` bytes of `input_len` from `at`; the end of what was taken.
fn take(left: &mut u64, at: usize, input_len: usize) -> usize {
    let room = input_len - at;
    let taken = usize::try_from(*left).map_or(room, |left| left.min(room));
    *left -= taken as u64;
    at + taken
}

#[cfg(test)]
mod tests;

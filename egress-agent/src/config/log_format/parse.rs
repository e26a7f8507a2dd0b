//! From a format string to its segments.

use http::HeaderName;

use super::{
    error::LogFormatError,
    operators::{OPERATORS, REQUEST_HEADERS, RESPONSE_HEADERS, names, nearest},
    place::Place,
};
use crate::{
    policy::is_claim,
    types::log::{Field, Segment},
};

pub(super) fn parse(format: &str, place: Place) -> Result<Vec<Segment>, LogFormatError> {
    let mut segments = Vec::new();
    let mut literal = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        literal.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        if !literal.is_empty() {
            segments.push(Segment::Literal(std::mem::take(&mut literal)));
        }
        let (segment, after) = operator(rest, place)?;
        segments.push(segment);
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        segments.push(Segment::Literal(literal));
    }
    Ok(segments)
}

/// Parses what follows a `%` up to and with the closing one.
fn operator(text: &str, place: Place) -> Result<(Segment, &str), LogFormatError> {
    let syntax = || {
        let mut found: String = text.chars().take(40).collect();
        found.insert(0, '%');
        LogFormatError::Syntax { found }
    };
    let end = text.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
    let (name, mut rest) = text.split_at(end.ok_or_else(syntax)?);
    if name.is_empty() {
        return Err(syntax());
    }
    let mut argument = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let (inside, after) = inner.split_once(')').ok_or_else(syntax)?;
        argument = Some(inside);
        rest = after;
    }
    let mut max = None;
    if let Some(length) = rest.strip_prefix(':') {
        let (digits, _) = length.split_once('%').ok_or_else(syntax)?;
        max = Some(digits.parse().ok().filter(|max| *max > 0).ok_or_else(|| {
            LogFormatError::Length { operator: name.to_owned(), found: digits.to_owned() }
        })?);
        rest = &length[digits.len()..];
    }
    let rest = rest.strip_prefix('%').ok_or_else(syntax)?;
    Ok((Segment::Value { fields: fields(name, argument, place)?, max }, rest))
}

fn fields(name: &str, argument: Option<&str>, place: Place) -> Result<Vec<Field>, LogFormatError> {
    match (name, argument) {
        ("START_TIME", None | Some("")) => Ok(vec![Field::StartTime(None)]),
        ("START_TIME", Some(format)) => {
            // jiff says what it can't write only when it writes.
            jiff::fmt::strtime::format(
                format,
                &jiff::Zoned::new(jiff::Timestamp::UNIX_EPOCH, jiff::tz::TimeZone::UTC),
            )
            .map_err(|error| LogFormatError::Time {
                found: format.to_owned(),
                problem: error.to_string(),
            })?;
            Ok(vec![Field::StartTime(Some(format.to_owned()))])
        }
        ("REQ", argument) => headers(Side::Request, argument.unwrap_or(""), place),
        ("RESP", argument) => headers(Side::Response, argument.unwrap_or(""), place),
        (name, argument) => {
            let Some((_, field)) = OPERATORS.iter().find(|(known, _)| *known == name) else {
                return Err(LogFormatError::UnknownOperator {
                    found: name.to_owned(),
                    nearest: nearest(name),
                });
            };
            match argument {
                None | Some("") => Ok(vec![field.clone()]),
                Some(found) => Err(LogFormatError::Argument {
                    operator: name.to_owned(),
                    found: found.to_owned(),
                }),
            }
        }
    }
}

/// Whose headers an operator names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

impl Side {
    const fn operator(self) -> &'static str {
        match self {
            Self::Request => "REQ",
            Self::Response => "RESP",
        }
    }

    const fn known(self) -> &'static [(&'static str, Field)] {
        match self {
            Self::Request => REQUEST_HEADERS,
            Self::Response => RESPONSE_HEADERS,
        }
    }
}

fn header(side: Side, found: &str, place: Place) -> Result<Field, LogFormatError> {
    let (operator, known) = (side.operator(), side.known());
    if let Some((_, field)) = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(found)) {
        return Ok(field.clone());
    }
    let found = found.to_owned();
    match (side, place) {
        (_, Place::Log) => {
            Err(LogFormatError::UnknownHeader { operator, found, expected: names(known) })
        }
        (Side::Response, Place::Request) => Err(LogFormatError::NoResponse { found }),
        (side, Place::Request | Place::Response) => {
            let Ok(name) = HeaderName::from_bytes(found.as_bytes()) else {
                return Err(LogFormatError::NoHeader { operator, found });
            };
            if is_taken_out(&name) || (side == Side::Request && is_claim(&name)) {
                return Err(LogFormatError::TakenOut { operator, found });
            }
            Ok(match side {
                Side::Request => Field::RequestHeader(name),
                Side::Response => Field::ResponseHeader(name),
            })
        }
    }
}

/// Whether the gateway takes a field out of every message: it is about one connection.
fn is_taken_out(name: &HeaderName) -> bool {
    const FRAMING: [&str; 12] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ];
    FRAMING.contains(&name.as_str())
}

/// `A?B`: B where A isn't set.
fn headers(side: Side, argument: &str, place: Place) -> Result<Vec<Field>, LogFormatError> {
    let header = |found: &str| header(side, found, place);
    match argument.split_once('?') {
        Some((first, second)) => {
            let mut fields = vec![header(first)?, header(second)?];
            fields.dedup();
            Ok(fields)
        }
        None => Ok(vec![header(argument)?]),
    }
}

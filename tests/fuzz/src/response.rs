//! What an upstream's HTTP/1 bytes are, once they are on their way to a client.

use egress_agent::proxy::http::{Answered, answered};
use http::Method;

/// Fields by name, values as they are, in the order of the message.
type Fields = Vec<(String, Vec<u8>)>;

/// A response to the letter of RFC 9112.
#[derive(PartialEq, Eq, Debug)]
struct Response {
    status: u16,
    fields: Fields,
    body: Vec<u8>,
    trailers: Fields,
    /// Its end was seen.
    whole: bool,
}

/// Fewer than a head may have.
const MOST_FIELDS: usize = 90;

/// The first byte chooses the method and how the upstream's bytes are cut. The rest is what it sends.
///
/// What a client gets can be read in one way: it is one response to the letter, whole if and only if the
/// upstream's was; it is the same however the bytes are cut, and the same again when the gateway reads what it
/// wrote itself; and what is read of a beginning stays, whatever follows.
pub fn response(bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let method = if choice & 1 == 1 { Method::HEAD } else { Method::GET };
    let step = usize::from(choice >> 1) + 1;
    let all = read(&method, bytes, &answered(&method, bytes, bytes.len() + 1));
    let cut = read(&method, bytes, &answered(&method, bytes, step));
    assert_eq!(all, cut, "in pieces of {step}: {:?}", text(bytes));
    for end in (0..bytes.len()).step_by(bytes.len() / 20 + 1) {
        let beginning = &bytes[..end];
        let some = read(&method, beginning, &answered(&method, beginning, step));
        is_beginning(&some, &all, bytes);
    }
    // The gateway adds a field of its own, for which there may be no room.
    let few = |response: &&Response| response.fields.len() < MOST_FIELDS;
    let complete = |response: &&Response| response.status >= 200 && response.whole;
    let Some(response) = all.last().filter(few).filter(complete) else { return };
    let written = answered(&method, bytes, step).bytes;
    let again = answered(&method, &written, step);
    assert!(again.whole, "{:?} is refused", text(&written));
    assert_eq!(read(&method, &written, &again).last(), Some(response), "{:?}", text(&written));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All responses that a strict reader finds in what a client gets for `sent`: interim ones, and after them at
/// most one other, which is whole if and only if the gateway says so.
fn read(method: &Method, sent: &[u8], answer: &Answered) -> Vec<Response> {
    let mut rest = answer.bytes.as_slice();
    let mut all = Vec::new();
    while !rest.is_empty() {
        let response = strict(method, &mut rest)
            .unwrap_or_else(|| panic!("{:?} came of {:?}", text(&answer.bytes), text(sent)));
        let interim = response.status < 200;
        all.push(response);
        assert!(interim || rest.is_empty(), "{:?}: {:?} is left over", text(sent), text(rest));
    }
    let whole = all.last().is_some_and(|response| response.status >= 200 && response.whole);
    assert_eq!(whole, answer.whole, "{:?} came of {:?}", text(&answer.bytes), text(sent));
    assert!(answer.whole || !answer.reusable, "{:?}", text(sent));
    all
}

/// The first response of `bytes`. `None` if it is none to the letter.
fn strict(method: &Method, bytes: &mut &[u8]) -> Option<Response> {
    let line = line(bytes)?;
    let (status, reason) = line.strip_prefix(b"HTTP/1.1 ")?.split_at_checked(3)?;
    if !reason.starts_with(b" ") || !reason.iter().all(|b| matches!(b, b' '..=b'~')) {
        return None;
    }
    let status: u16 = std::str::from_utf8(status).ok()?.parse().ok()?;
    let fields = fields(bytes)?;
    let framing = |name: &str| {
        let mut values = fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value);
        (values.next(), values.count())
    };
    let mut response = Response {
        status,
        fields: Vec::new(),
        body: Vec::new(),
        trailers: Vec::new(),
        whole: true,
    };
    match (framing("content-length"), framing("transfer-encoding")) {
        ((length, 0), (None, 0)) => {
            let length = match length {
                Some(digits) if digits.iter().all(u8::is_ascii_digit) => {
                    Some(std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?)
                }
                Some(_) => return None,
                None => None,
            };
            if status >= 200 && *method != Method::HEAD && !matches!(status, 204 | 304) {
                // The gateway always says where the end is.
                let length = usize::try_from(length?).unwrap_or(usize::MAX);
                response.whole = take(bytes, length, &mut response.body);
            }
        }
        ((None, 0), (Some(coding), 0)) if coding == b"chunked" && status >= 200 => {
            if *method != Method::HEAD && !matches!(status, 204 | 304) {
                response.whole = chunks(bytes, &mut response)?;
            }
        }
        _ => return None,
    }
    let hop = ["connection", "keep-alive", "upgrade", "proxy-connection"];
    for (name, value) in &fields {
        if hop.contains(&name.as_str()) && !(name == "connection" && value == b"close") {
            return None;
        }
    }
    // What frames the message may differ where its bytes come in other pieces, or are sent again.
    let own = ["connection", "content-length", "transfer-encoding"];
    response.fields =
        fields.into_iter().filter(|(name, _)| !own.contains(&name.as_str())).collect();
    Some(response)
}

/// The next line without its CR LF. Neither occurs in it.
fn line<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    let line = bytes[..end].strip_suffix(b"\r")?;
    *bytes = &bytes[end + 1..];
    (!line.contains(&b'\r')).then_some(line)
}

/// Fields up to the empty line.
fn fields(bytes: &mut &[u8]) -> Option<Fields> {
    let mut all = Vec::new();
    loop {
        let line = line(bytes)?;
        if line.is_empty() {
            return Some(all);
        }
        let at = line.iter().position(|b| *b == b':')?;
        let (name, value) = (&line[..at], line[at + 1..].strip_prefix(b" ")?);
        let token =
            |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(b);
        let clean = |b: &u8| matches!(b, b'\t' | b' '..=b'~' | 0x80..);
        if name.is_empty() || !name.iter().all(token) || !value.iter().all(clean) {
            return None;
        }
        all.push((text(name), value.trim_ascii().to_vec()));
    }
}

/// Takes so many bytes, or as many as there are. Whether they were all there.
fn take(bytes: &mut &[u8], length: usize, body: &mut Vec<u8>) -> bool {
    let (taken, rest) = bytes.split_at(length.min(bytes.len()));
    body.extend_from_slice(taken);
    *bytes = rest;
    taken.len() == length
}

/// Takes a body in chunks with its trailers. Whether its end was there; `None` if it is none to the letter.
fn chunks(bytes: &mut &[u8], response: &mut Response) -> Option<bool> {
    loop {
        if bytes.is_empty() {
            return Some(false);
        }
        let digits = line(bytes)?;
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            response.trailers = fields(bytes)?;
            return Some(true);
        }
        if !take(bytes, size, &mut response.body) {
            return None;
        }
        *bytes = bytes.strip_prefix(b"\r\n")?;
    }
}

/// Whether `some`, read of a beginning, is a beginning of `all`.
fn is_beginning(some: &[Response], all: &[Response], bytes: &[u8]) {
    assert!(some.len() <= all.len(), "{some:?} {:?}", text(bytes));
    for (one, other) in some.iter().zip(all) {
        assert_eq!((one.status, &one.fields), (other.status, &other.fields), "{:?}", text(bytes));
        assert!(other.body.starts_with(&one.body), "{one:?} {other:?}");
    }
}

//! Requests that could be read in two ways, made by a grammar, against readers of many habits: of the client's own
//! bytes, and of what goes to the upstream.

use std::cell::Cell;

use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestCaseError, TestRunner},
};

use super::{
    super::lenient::{self, number},
    *,
};

const CASES: u32 = 5000;

/// A liberty that readers in use take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Habit {
    /// A line ends with LF alone.
    BareLf,
    /// A line ends with CR alone.
    BareCr,
    /// Of several lengths the last one counts.
    LastLength,
    /// The length counts where both are given.
    LengthWins,
    /// `chunked` anywhere in `Transfer-Encoding` is enough.
    AnyChunked,
    /// A number is what its first digits say.
    Numbers,
    /// Blanks before a header's colon are overlooked.
    SpacedNames,
    /// Of several hosts the last one counts.
    LastHost,
    /// An absolute target's host counts, and not the header's.
    TargetWins,
    /// A line that begins with a blank belongs to the one before; otherwise it is one of its own.
    JoinsFolds,
    /// A value ends with NUL.
    EndsAtNul,
    /// Words of a request line may have more than one blank between them, and what is in their middle is the target.
    LooseLine,
}

use Habit::{
    AnyChunked, BareCr, BareLf, EndsAtNul, JoinsFolds, LastHost, LastLength, LengthWins, LooseLine,
    Numbers, SpacedNames, TargetWins,
};

const HABITS: [Habit; 12] = [
    BareLf,
    BareCr,
    LastLength,
    LengthWins,
    AnyChunked,
    Numbers,
    SpacedNames,
    LastHost,
    TargetWins,
    JoinsFolds,
    EndsAtNul,
    LooseLine,
];

/// A request as one reader reads it.
#[derive(PartialEq, Eq, Debug)]
struct Reading {
    method: String,
    /// Path and query.
    target: String,
    /// In its normal form, without the port that was dialled.
    host: String,
    body: Vec<u8>,
    /// Where it ends.
    end: usize,
}

#[derive(Debug)]
struct Reader(Vec<Habit>);

impl Reader {
    /// Those without habits, with each one, with each two, and with all.
    fn all() -> Vec<Self> {
        let mut all = vec![Self(Vec::new()), Self(HABITS.to_vec())];
        for (at, habit) in HABITS.into_iter().enumerate() {
            all.push(Self(vec![habit]));
            all.extend(HABITS[..at].iter().map(|other| Self(vec![habit, *other])));
        }
        all
    }

    fn has(&self, habit: Habit) -> bool {
        self.0.contains(&habit)
    }

    /// The next line without its end.
    fn line<'a>(&self, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (cr, lf) = (self.has(BareCr), self.has(BareLf));
        let (at, next) = (0..bytes.len()).find_map(|at| match &bytes[at..] {
            [b'\r', b'\n', ..] => Some((at, at + 2)),
            [b'\n', ..] if lf => Some((at, at + 1)),
            [b'\r', ..] if cr => Some((at, at + 1)),
            _ => None,
        })?;
        let line = &bytes[..at];
        *bytes = &bytes[next..];
        Some(line)
    }

    /// Method and target.
    fn words<'a>(&self, line: &'a str) -> Option<(&'a str, String)> {
        let words: Vec<_> = if self.has(LooseLine) {
            line.split_ascii_whitespace().collect()
        } else {
            line.split(' ').collect()
        };
        let [method, target @ .., version] = &words[..] else { return None };
        let one = self.has(LooseLine) || target.len() == 1;
        (one && version.starts_with("HTTP/1.")).then(|| (*method, target.join(" ")))
    }

    /// The fields up to the empty line, with names in lower case.
    fn fields(&self, rest: &mut &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        loop {
            let line = self.line(rest)?;
            if line.is_empty() {
                return Some(fields);
            }
            if self.has(JoinsFolds) && matches!(line, [b' ' | b'\t', ..]) {
                let (_, value) = fields.last_mut()?;
                value.push(b' ');
                value.extend_from_slice(line.trim_ascii());
                continue;
            }
            let line = line.trim_ascii_start();
            let at = line.iter().position(|b| *b == b':')?;
            let (name, value) = (&line[..at], line[at + 1..].trim_ascii());
            let trimmed = name.trim_ascii_end();
            if name != trimmed && !self.has(SpacedNames) {
                return None;
            }
            let end = value.iter().position(|b| *b == 0 && self.has(EndsAtNul));
            let value = &value[..end.unwrap_or(value.len())];
            fields.push((trimmed.to_ascii_lowercase(), value.to_vec()));
        }
    }

    /// The first request of `bytes`; one empty line before it is overlooked (RFC 9112 §2.2).
    fn read(&self, bytes: &[u8]) -> Option<Reading> {
        let mut rest = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        let line = std::str::from_utf8(self.line(&mut rest)?).ok()?;
        let (method, target) = self.words(line)?;
        let fields = self.fields(&mut rest)?;
        let of = |name: &'static [u8]| {
            fields.iter().filter(move |(its, _)| its == name).map(|(_, value)| value)
        };
        let hosts: Vec<_> = of(b"host").map(|host| host.as_slice()).collect();
        let named = if self.has(LastHost) { hosts.last() } else { hosts.first() };
        let (absolute, target) = origin_form(method, &target);
        let absolute = absolute.as_deref().map(str::as_bytes);
        let named = if self.has(TargetWins) {
            absolute.or(named.copied())
        } else {
            named.copied().or(absolute)
        };
        let host = normal(std::str::from_utf8(named?).ok()?);
        let lengths: Vec<_> = of(b"content-length").flat_map(|v| v.split(|b| *b == b',')).collect();
        let length = if self.has(LastLength) { lengths.last() } else { lengths.first() };
        let encodings: Vec<_> = of(b"transfer-encoding").map(|v| v.to_ascii_lowercase()).collect();
        let chunked = encodings.iter().any(|encoding| {
            encoding == b"chunked"
                || (self.has(AnyChunked) && encoding.windows(7).any(|part| part == b"chunked"))
        });
        let (body, rest) = match length {
            Some(length) if encodings.is_empty() || self.has(LengthWins) => {
                let (body, rest) =
                    rest.split_at_checked(number(length.trim_ascii(), 10, self.has(Numbers))?)?;
                (body.to_vec(), rest)
            }
            _ if encodings.is_empty() => (Vec::new(), rest),
            _ if chunked => lenient::chunks(rest, self.has(Numbers), |bytes| self.line(bytes))?,
            _ => return None,
        };
        let end = bytes.len() - rest.len();
        Some(Reading { method: method.into(), target, host, body, end })
    }
}

/// The host of an absolute target, and its path.
fn origin_form(method: &str, target: &str) -> (Option<String>, String) {
    let lower = target.to_ascii_lowercase();
    let Some(rest) = lower.strip_prefix("http://") else { return (None, target.into()) };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let path = match &target["http://".len() + host.len()..] {
        "" if method == "OPTIONS" => "*",
        "" => "/",
        path => path,
    };
    (Some(host.into()), path.into())
}

/// A host without the port that was dialled, which some name and others do not.
fn normal(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let (name, port) = host.rsplit_once(':').unwrap_or((&host, ""));
    let name = if port.is_empty() || port.parse() == Ok(80) { name } else { &host };
    name.strip_suffix('.').unwrap_or(name).into()
}

fn line_end() -> impl Strategy<Value = &'static str> {
    prop_oneof![40 => Just("\r\n"), 1 => select(vec!["\n", "\r", "\r\r\n", "\n\r"])]
}

fn request_line() -> impl Strategy<Value = String> {
    let methods = ["GET", "GET", "POST", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"];
    let odd =
        ["get", "M-SEARCH", "", " GET", "G@T", "GET\t", "CONNECT", "\r\nGET", "\nGET", "GE\0T"];
    let method = prop_oneof![10 => select(methods.to_vec()), 1 => select(odd.to_vec())];
    let targets = ["/", "/a?b=c", "/a;b/../c", "//b.example/", "/%0d%0aX:%20y", "/a?u=http://b/"];
    let absolute = ["http://a.example/x", "HTTP://A.example:80/x?y", "http://a.example", "*"];
    let odd = [
        "http://b.example/x",
        "http://b.example@a.example/",
        "http://a.example:80@b.example/",
        "http://a.example\\b.example/",
        "http://a.example?x",
        "http://a.example#@b.example/",
        "https://a.example/",
        "http:///x",
        "http:/x",
        "a.example",
        "/x HTTP/1.1",
        "/x\ty",
        "/x\r\nHost: b.example",
        "/#x",
        "/\0",
        "/\u{e9}",
        "",
    ];
    let target = prop_oneof![
        8 => select(targets.to_vec()),
        3 => select(absolute.to_vec()),
        2 => select(odd.to_vec()),
    ];
    let odd = ["HTTP/1.2", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", "HTTP/1.1\t", "HTTP/1,1", ""];
    let version =
        prop_oneof![10 => Just("HTTP/1.1"), 2 => Just("HTTP/1.0"), 1 => select(odd.to_vec())];
    let blank = || prop_oneof![20 => Just(" "), 1 => select(vec!["  ", "\t", "\x0b", ""])];
    (method, blank(), target, blank(), version).prop_map(
        |(method, first, target, second, version)| {
            format!("{method}{first}{target}{second}{version}")
        },
    )
}

fn host() -> impl Strategy<Value = &'static str> {
    let odd = [
        "Host: A.Example",
        "Host: a.example.",
        "host:a.example:80",
        "Host: a.example:080",
        "Host:\ta.example ",
        "Host: a.example:8080",
        "Host: b.example",
        "Host: a.example\r\nHost: a.example",
        "Host: a.example\r\nHost: b.example",
        "Host: a.example, b.example",
        "Host: b.example@a.example",
        "Host: a.example/",
        "Host: a.example b.example",
        "Host: a.example\0b.example",
        "Host: a.example\r\n b.example",
        "Host:",
        "Host : a.example",
        " Host: a.example",
        "X: y",
    ];
    prop_oneof![5 => Just("Host: a.example"), 1 => select(odd.to_vec())]
}

fn header() -> impl Strategy<Value = &'static str> {
    let odd = [
        "Content-Length: 6",
        "Content-Length: 0",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 5, 5",
        "Content-Length: 5,6",
        "Content-Length: 5x",
        "Content-Length: 0x5",
        "Content-Length: 05",
        "Content-Length:\t5 ",
        "Content-Length : 5",
        "Content-Length\t: 3",
        "Content-Length:",
        "Content-Length: 5\r\n 6",
        "Content-Length: 18446744073709551621",
        "content-LENGTH: 4",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 0",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: identity",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: CHUNKED",
        "Transfer-Encoding:chunked\t",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding",
        "X : y",
        "X",
        "X: a\rTransfer-Encoding: chunked",
        "X: a\nContent-Length: 3",
        "X: a\0b",
        "X: a\r\n\tTransfer-Encoding: chunked",
        " X: y",
        ": y",
        "Upgrade: websocket\r\nConnection: Upgrade",
        "Expect: 100-continue",
        "TE: trailers",
    ];
    let plain = [
        "X: y",
        "X: \u{e9}",
        "X:",
        "Connection: close",
        "Connection: keep-alive, X",
        "Connection: Content-Length",
        "Connection: Transfer-Encoding, Host",
        "Proxy-Connection: close",
        "Cookie: a=b",
        "Trailer: X",
    ];
    prop_oneof![
        4 => Just("Content-Length: 5"),
        4 => Just("Transfer-Encoding: chunked"),
        5 => select(plain.to_vec()),
        3 => select(odd.to_vec()),
    ]
}

fn chunks() -> impl Strategy<Value = String> {
    let odd = [
        "5 ",
        "05",
        "5;a=b",
        "5;a=\"b;c\"",
        "5 ;a",
        "5;a\n",
        "5;\0",
        "0x5",
        "+5",
        "-5",
        "5,5",
        " 5",
        "5\r",
        "5\n",
        "",
        "4",
        "6",
    ];
    let size = prop_oneof![8 => Just("5"), 2 => select(odd.to_vec())];
    let chunk = (size, line_end(), line_end());
    let trailers = [
        "",
        "",
        "X: y\r\n",
        "Content-Length: 3\r\n",
        "Host: b\r\n",
        "X: y\n",
        "X\r\n",
        "X : y\r\n",
    ];
    let last = prop_oneof![6 => Just("0"), 1 => select(vec!["00", "0 ", "0;a", "0\r", "-0"])];
    let last = (last, line_end(), select(trailers.to_vec()));
    (prop::collection::vec(chunk, 0..3), last, line_end()).prop_map(|(chunks, last, end)| {
        let mut text = String::new();
        for (size, first, second) in chunks {
            text += &format!("{size}{first}hello{second}");
        }
        let (size, first, trailers) = last;
        text + &format!("{size}{first}{trailers}{end}")
    })
}

fn message() -> impl Strategy<Value = String> {
    let body = prop_oneof![3 => Just("hello".to_owned()), 4 => chunks(), 3 => Just(String::new())];
    let headers = prop::collection::vec((header(), line_end()), 0..3);
    (request_line(), line_end(), (host(), line_end()), headers, line_end(), body, any::<bool>())
        .prop_map(|(line, first, host, mut headers, end, body, last)| {
            headers.insert(if last { headers.len() } else { 0 }, host);
            let headers: String = headers.iter().map(|(h, end)| format!("{h}{end}")).collect();
            format!("{line}{first}{headers}{end}{body}")
        })
}

/// Most often what follows is another request.
fn connection() -> impl Strategy<Value = String> {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: b.example\r\n\r\n";
    let next = ["", "\r\n", "x", "0\r\n\r\n", smuggled, smuggled, smuggled];
    (prop::collection::vec(message(), 1..3), select(next.to_vec()))
        .prop_map(|(messages, next)| format!("{}{next}", messages.concat()))
}

/// What goes to the upstream is read in one way by all, one message after the other.
fn agreed(readers: &[Reader], sent: &[Vec<u8>]) -> Result<Vec<Reading>, TestCaseError> {
    // Bytes that nobody takes for the end of a message.
    let all = [&sent.concat()[..], b"poison"].concat();
    let (mut at, mut agreed) = (0, Vec::new());
    for message in sent {
        let mut readings = readers.iter().map(|reader| reader.read(&all[at..]));
        let Some(Some(first)) = readings.next() else {
            return Err(TestCaseError::fail("a reader without habits does not take it"));
        };
        prop_assert_eq!(first.end, message.len());
        for (reading, reader) in readings.zip(&readers[1..]) {
            prop_assert_eq!(reading.as_ref(), Some(&first), "{:?}", reader);
        }
        at += message.len();
        agreed.push(first);
    }
    Ok(agreed)
}

#[test]
fn what_is_sent_on_is_what_every_reader_of_the_client_reads_and_is_read_in_one_way() {
    let (accepted, refused, second) = (Cell::new(0_u32), Cell::new(0_u32), Cell::new(0_u32));
    let count = |counter: &Cell<u32>, is: bool| counter.set(counter.get() + u32::from(is));
    let readers = Reader::all();
    let mut runner = TestRunner::new(Config::with_cases(CASES));
    let ran = runner.run(&connection(), |text| {
        let sent = forwarded(text.as_bytes());
        count(&accepted, !sent.is_empty());
        count(&refused, sent.is_empty());
        count(&second, sent.len() > 1);
        let agreed = agreed(&readers, &sent)?;
        // Whoever stands before the gateway and takes the request at all has seen the same one.
        for reader in &readers {
            let (mut at, mut taken) = (0, 0);
            while let Some(expected) = agreed.get(taken) {
                let Some(read) = reader.read(&text.as_bytes()[at..]) else { break };
                at += read.end;
                taken += 1;
                // The gateway frames a body in its own way.
                let read = Reading { end: expected.end, ..read };
                prop_assert_eq!(&read, expected, "{:?}", reader);
            }
            prop_assert!(!reader.0.is_empty() || taken == agreed.len(), "no reader takes it");
        }
        Ok(())
    });
    ran.unwrap();
    println!("{accepted:?} accepted, {refused:?} refused, {second:?} with a further request");
    // Whoever refuses everything passes as well.
    assert!(accepted.get() > CASES / 10 && refused.get() > CASES / 10 && second.get() > CASES / 50);
}

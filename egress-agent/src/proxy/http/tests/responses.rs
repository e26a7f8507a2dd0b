//! What upstreams send that could be read in two ways, and what a client sees of it: exactly one response
//! that has one meaning, or a refusal, or one that shows that it broke off. What is left over on a
//! connection is never taken for the answer to another request.

use std::{cell::RefCell, rc::Rc};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{Gateway, SOON, Setup, head, local, upstream};

/// What the client is to see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    /// This response, and the connection is used again.
    Whole(u16, &'static str),
    /// This response, and the connection is closed.
    Last(u16, &'static str),
    /// The gateway's own answer.
    Refused,
    /// The gateway's own answer, or a response without its end.
    Broken,
}

/// What the upstream sends in answer to one request. It closes after a response that is not to be used
/// again only where nothing else tells its end.
#[derive(Debug)]
struct Case {
    method: &'static str,
    bytes: String,
    closes: bool,
    expect: Expect,
}

use Expect::{Broken, Last, Refused, Whole};

#[derive(Default)]
struct Table(Vec<Case>);

impl Table {
    fn add(&mut self, bytes: impl Into<String>, expect: Expect) {
        self.0.push(Case { method: "GET", bytes: bytes.into(), closes: false, expect });
    }

    /// The upstream closes after it.
    fn ended(&mut self, bytes: impl Into<String>, expect: Expect) {
        self.0.push(Case { method: "GET", bytes: bytes.into(), closes: true, expect });
    }

    fn head(&mut self, bytes: impl Into<String>, expect: Expect) {
        self.0.push(Case { method: "HEAD", bytes: bytes.into(), closes: false, expect });
    }
}

const NEXT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

fn ok(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}")
}

fn lengths(table: &mut Table) {
    for value in ["5", "05", "\t5\t", "  5"] {
        table.add(ok(&format!("Content-Length:{value}\r\n"), "hello"), Whole(200, "hello"));
    }
    for value in [
        "+5",
        "-5",
        "0x5",
        "5,6",
        "5,",
        ",5",
        "5,,5",
        "5, 05",
        "5;",
        "5 5",
        "five",
        "",
        "5.0",
        "5e0",
        "\"5\"",
        "0b101",
        "18446744073709551616",
        "99999999999999999999",
        "5\u{a0}",
        "5\x0b",
    ] {
        table.add(ok(&format!("Content-Length: {value}\r\n"), "hello"), Refused);
        // No body, so the length does not matter; but what it says has to be readable.
        table.head(ok(&format!("Content-Length: {value}\r\n"), ""), Refused);
    }
    for value in ["5,5", "5, 5", "5 ,\t5", "5,5,5"] {
        table.add(ok(&format!("Content-Length: {value}\r\n"), "hello"), Whole(200, "hello"));
        table.head(ok(&format!("Content-Length: {value}\r\n"), ""), Whole(200, ""));
    }
    for name in ["Content-Length", "content-length", "CONTENT-LENGTH"] {
        let headers = format!("Content-Length: 5\r\nX: y\r\n{name}: 5\r\n");
        table.add(ok(&headers, "hello"), Whole(200, "hello"));
        for (one, other) in [("5", "05"), ("5", "6"), ("6", "5"), ("0", "5"), ("5", "0")] {
            let headers = format!("Content-Length: {one}\r\nX: y\r\n{name}: {other}\r\n");
            table.add(ok(&headers, "hello"), Refused);
        }
    }
    for name in [
        "Content-Length ",
        "Content-Length\t",
        "Content-Length\x0b",
        "\0Content-Length",
        "Content Length",
    ] {
        table.add(ok(&format!("{name}: 5\r\n"), "hello"), Refused);
        table.add(ok(&format!("Content-Length: 5\r\n{name}: 3\r\n"), "hello"), Refused);
    }
}

fn encodings(table: &mut Table) {
    let body = "5\r\nhello\r\n0\r\n\r\n";
    for value in ["chunked", "Chunked", "CHUNKED", "  chunked\t"] {
        table.add(ok(&format!("Transfer-Encoding:{value}\r\n"), body), Whole(200, "hello"));
    }
    for value in [
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "identity",
        "identity, chunked",
        "xchunked",
        "chunkedx",
        "chunked;q=1",
        "chunked,",
        ",chunked",
        "\"chunked\"",
        "chunked chunked",
        "",
        "\x0bchunked",
        "chun\tked",
    ] {
        table.add(ok(&format!("Transfer-Encoding: {value}\r\n"), body), Refused);
        let both = format!("Transfer-Encoding: {value}\r\nContent-Length: 5\r\n");
        table.add(ok(&both, body), Refused);
    }
    for length in ["0", "5", "15", "999"] {
        for headers in [
            format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        ] {
            // Chunks override the length (RFC 9112 §6.3).
            table.add(ok(&headers, body), Last(200, "hello"));
            table.head(ok(&headers, ""), Last(200, ""));
            table.add(format!("HTTP/1.0 200 OK\r\n{headers}\r\n{body}"), Refused);
        }
    }
    for length in ["5, 6", "x", "", "-1", "18446744073709551616"] {
        let headers = format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n");
        table.add(ok(&headers, body), Refused);
        table.head(ok(&headers, ""), Refused);
    }
    for other in ["chunked", "identity", "gzip"] {
        let twice = format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: {other}\r\n");
        table.add(ok(&twice, body), Refused);
    }
    table.add(ok("Transfer-Encoding : chunked\r\n", body), Refused);
    table.add(format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"), Refused);
}

fn chunks(table: &mut Table) {
    let chunked = |body: &str| ok("Transfer-Encoding: chunked\r\n", body);
    for size in ["5", "05", "0000000000000005", "5 ", "5\t ", "5;a", "5;a=b;c=\"d\"", "5 ;a"] {
        table.add(chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n")), Whole(200, "hello"));
    }
    for size in [
        "0x5",
        "+5",
        "-5",
        " 5",
        "\t5",
        "5,",
        "5 5",
        "5_",
        "five",
        "",
        "\r\n5",
        "00000000000000005",
        "5\r",
        "5\n",
        "5;a\nb",
        "5;a\0",
        "5;a\rb",
        "fffffffffffffffff",
        "\u{ff15}",
    ] {
        table.add(chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n")), Broken);
        table.add(chunked(&format!("3\r\nabc\r\n{size}\r\nhello\r\n0\r\n\r\n")), Broken);
    }
    for end in ["\n", "\r", "", "x\r\n", "\r\r\n", "\n\r", " \r\n"] {
        table.add(chunked(&format!("5\r\nhello{end}0\r\n\r\n")), Broken);
    }
    for trailers in
        ["X: y\r\n", "Content-Length: 9\r\n", "Transfer-Encoding: x\r\n", "Set-Cookie: a\r\n"]
    {
        table.add(chunked(&format!("5\r\nhello\r\n0\r\n{trailers}\r\n")), Whole(200, "hello"));
    }
    for trailers in
        ["X: y\n", "X\r\n", ": y\r\n", "X : y\r\n", " X: y\r\n", "X: a\rb\r\n", "X: \0\r\n", "\n"]
    {
        table.add(chunked(&format!("5\r\nhello\r\n0\r\n{trailers}\r\n")), Broken);
    }
    for short in [
        "5\r\nhel",
        "5\r\nhello",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\n0\r\nX: y\r\n",
        "",
    ] {
        table.ended(chunked(short), Broken);
    }
}

fn heads(table: &mut Table) {
    let length = "Content-Length: 5\r\n";
    for line in [
        "X y: z\r\n",
        "X\0: y\r\n",
        "X\x0b: y\r\n",
        "Connection : close\r\n",
        "Upgrade\t: a\r\n",
        "X\r\n",
        ": y\r\n",
        "(X): y\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "X: y\n",
        "X: y\r\r\n",
        "X: a\nContent-Length: 9\r\n",
        "X: a\rContent-Length: 9\r\n",
        "X: \x7f\r\n",
        "Content-Length: 5\r\n 0\r\n",
        "Content-Length:\r\n 5\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Connection:\r\n close\r\n",
        "Upgrade: a\r\n\tb\r\n",
        "\"X\": y\r\n",
        "X\u{e9}: y\r\n",
    ] {
        let alone = if line.starts_with("Content-Length") { "" } else { length };
        table.add(ok(&format!("{line}{alone}"), "hello"), Refused);
        table.add(ok(&format!("{alone}Y: z\r\n{line}"), "hello"), Refused);
    }
    table.add(ok(&format!(" X: y\r\n{length}"), "hello"), Refused);
    for line in [
        "X: a\r\n b\r\n",
        "X: a\r\n\t \r\n  b\r\n",
        "X:\r\n y\r\n",
        "Content_Length: 9\r\n",
        "X: \r\n",
        "X:\r\n",
        "X: \u{e9}t\u{e9}\r\n",
        "X : y\r\n",
        "X\t \t: y\r\n",
    ] {
        table.add(ok(&format!("{line}{length}"), "hello"), Whole(200, "hello"));
    }
    // Lines that end with LF alone, from the status line on.
    for head in [
        "Content-Length: 5\n\n",
        "X: y\nContent-Length: 5\n\n",
        "X: y\r\nContent-Length: 5\r\n\r\n",
        "X: a\n b\nContent-Length: 5\n\r\n",
        "X : y\nContent-Length: 5, 5\r\n\n",
    ] {
        table.add(format!("HTTP/1.1 200 OK\n{head}hello"), Last(200, "hello"));
        table.add(format!("HTTP/1.1 200 OK\n{head}hello{NEXT}"), Last(200, "hello"));
    }
    table.ended("HTTP/1.0 200 OK\n\nhello", Last(200, "hello"));
    for head in [
        "Content-Length: 5\n\n",
        "X: y\nContent-Length: 5\r\n\r\n",
        "Content-Length: 5\r\n\n",
        "Content-Length: 5\n\r\n",
    ] {
        table.add(format!("HTTP/1.1 200 OK\r\n{head}hello"), Refused);
    }
    // A line end of a chunk stays CR LF.
    let chunks = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n";
    table.add(format!("{chunks}5\r\nhello\r\n0\r\n\r\n"), Last(200, "hello"));
    table.add(format!("{chunks}5\nhello\n0\n\n"), Broken);
    // Empty lines before the status line: curl, nginx and Python's client refuse them as well.
    for lead in ["\r\n", "\n", "\r\n\r\n"] {
        table.add(format!("{lead}{}", ok(length, "hello")), Refused);
    }
    for bytes in
        ["\nHTTP/1.1 200 OK\n\n", "HTTP/1.1 200 OK\r\r\n\r\n", "HTTP/1.1 200 OK\rX: y\r\n\r\n"]
    {
        table.ended(bytes, Refused);
    }
    for line in [
        "HTTP/1.1  2000 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 099 OK",
        "HTTP/2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/11 200 OK",
        "HTTP/1.10 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 20a OK",
        "HTTP/1.1\t200\tOK",
        "HTTP /1.1 200 OK",
        "ICY 200 OK",
        "200 OK",
        " HTTP/1.1 200 OK",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\rK",
        "HTTP/0.9 200 OK",
        "GET / HTTP/1.1",
        "SSH-2.0-OpenSSH_9.2",
    ] {
        table.add(format!("{line}\r\n{length}\r\nhello"), Refused);
    }
    for line in [
        "HTTP/1.1 200",
        "HTTP/1.1 200 ",
        "HTTP/1.1 200   ",
        "HTTP/1.1 200 OK  ",
        "HTTP/1.1  200 OK",
        "HTTP/1.1   200",
        "HTTP/1.1 200 a\tb",
        "HTTP/1.1 200 D\u{e9}j\u{e0} vu",
        "HTTP/1.1 200 Fine, thank you",
    ] {
        table.add(format!("{line}\r\n{length}\r\nhello"), Whole(200, "hello"));
    }
    // Statuses without a name.
    for status in [299, 450, 600, 999] {
        let line = format!("HTTP/1.1 {status} Odd\r\n");
        table.add(format!("{line}{length}\r\nhello"), Whole(status, "hello"));
    }
    let keep = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n";
    table.add(format!("{keep}{length}\r\nhello"), Whole(200, "hello"));
    table.ended(format!("{keep}\r\nhello"), Last(200, "hello"));
    table.add(format!("HTTP/1.0 200 OK\r\n{length}\r\nhello"), Last(200, "hello"));
    table.add(
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{length}\r\nhello"),
        Last(200, "hello"),
    );
    table.ended("HTTP/1.1 200 OK\r\n\r\nhello", Last(200, "hello"));
    table.ended("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", Broken);
    let whole = ok(length, "");
    for end in 1..whole.len() {
        table.ended(&whole[..end], Refused);
    }
    for (count, expect) in [(128, Whole(200, "hello")), (999, Whole(200, "hello")), (1000, Refused)]
    {
        table.add(ok(&format!("{}{length}", "X: y\r\n".repeat(count)), "hello"), expect);
    }
    table.add(ok(&format!("X: {}\r\n", "y".repeat(100_000)), ""), Refused);
}

fn no_bodies(table: &mut Table) {
    for headers in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", ""] {
        table.head(ok(headers, ""), Whole(200, ""));
        for body in ["hello", "5\r\nhello\r\n0\r\n\r\n", "\r\n", NEXT] {
            table.head(ok(headers, body), Last(200, ""));
            for status in [204, 304] {
                table.add(format!("HTTP/1.1 {status} No\r\n{headers}\r\n{body}"), Last(status, ""));
            }
        }
    }
}

fn left_over(table: &mut Table) {
    for rest in ["\r\n", "\n", "\0", "x", "0\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", NEXT] {
        table.add(ok("Content-Length: 5\r\n", &format!("hello{rest}")), Last(200, "hello"));
        table.add(ok("Content-Length: 0\r\n", rest), Last(200, ""));
        let chunks = format!("5\r\nhello\r\n0\r\n\r\n{rest}");
        table.add(ok("Transfer-Encoding: chunked\r\n", &chunks), Last(200, "hello"));
    }
}

fn interim(table: &mut Table) {
    let last = ok("Content-Length: 5\r\n", "hello");
    for first in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 199 Odd\r\n\r\n",
    ] {
        for times in [1, 2, 50] {
            table.add(format!("{}{last}", first.repeat(times)), Whole(200, "hello"));
        }
        table.add(first.repeat(10_000) + &last, Refused);
        table.ended(first, Refused);
    }
    table.add(format!("HTTP/1.1 103 Early Hints\r\n\r\nhello{last}"), Refused);
    table.add(format!("HTTP/1.1 101 Switching Protocols\r\n\r\n{last}"), Refused);
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    table.add(format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}\r\n{last}"), Refused);
}

/// A response as strict a reader as there is reads it.
#[derive(PartialEq, Eq, Debug)]
struct Response {
    status: u16,
    body: String,
    whole: bool,
}

/// All responses to these methods; nothing may be left over. `None` if it is no HTTP/1.1, to the letter.
fn read(mut bytes: &[u8], methods: &[&str]) -> Option<Vec<Response>> {
    let mut all = Vec::new();
    let mut methods = methods.iter();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        bytes = &bytes[end + 4..];
        let mut lines = text.split("\r\n");
        let line = lines.next()?.strip_prefix("HTTP/1.1 ")?;
        let status: u16 = line.get(..3)?.parse().ok()?;
        let (mut length, mut chunked) = (None, false);
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            if line.contains(['\r', '\n', '\0']) || name.contains([' ', '\t']) {
                return None;
            }
            match name {
                "content-length" if length.is_none() => length = Some(value.parse::<usize>().ok()?),
                "transfer-encoding" if !chunked && value == "chunked" => chunked = true,
                "content-length" | "transfer-encoding" => return None,
                _ => {}
            }
        }
        if status < 200 {
            continue;
        }
        let method = methods.next()?;
        let mut response = Response { status, body: String::new(), whole: true };
        if length.is_some() && chunked {
            return None;
        }
        if *method != "HEAD" && !matches!(status, 204 | 304) {
            // The gateway always says where the end is.
            response.whole = match length {
                Some(length) => take(&mut bytes, length, &mut response.body),
                None if chunked => take_chunks(&mut bytes, &mut response.body)?,
                None => return None,
            };
        }
        let whole = response.whole;
        all.push(response);
        if !whole && !bytes.is_empty() {
            return None;
        }
    }
    Some(all)
}

/// Takes so many bytes, or as many as there are.
fn take(bytes: &mut &[u8], length: usize, body: &mut String) -> bool {
    let (taken, rest) = bytes.split_at(length.min(bytes.len()));
    body.push_str(std::str::from_utf8(taken).unwrap());
    *bytes = rest;
    taken.len() == length
}

fn take_chunks(bytes: &mut &[u8], body: &mut String) -> Option<bool> {
    loop {
        let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
            *bytes = &[];
            return Some(false);
        };
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?, 16).ok()?;
        *bytes = &bytes[end + 2..];
        if size == 0 {
            loop {
                let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
                *bytes = &bytes[end + 2..];
                if end == 0 {
                    return Some(true);
                }
            }
        }
        if !take(bytes, size, body) {
            return Some(false);
        }
        *bytes = bytes.strip_prefix(b"\r\n")?;
    }
}

/// Answers `/NUMBER` with a case, and anything else with its path and the connection's number.
async fn start(table: Rc<Table>) -> (Gateway, Rc<RefCell<Vec<(String, usize)>>>) {
    let asked = Rc::<RefCell<Vec<_>>>::default();
    let heard = Rc::clone(&asked);
    let (addr, _) = upstream(move |mut io, connection, _| {
        let (table, heard) = (Rc::clone(&table), Rc::clone(&heard));
        async move {
            let mut bytes = Vec::new();
            while let Ok(request) = head(&mut io, &mut bytes).await {
                let path = request.split(' ').nth(1).unwrap().to_owned();
                heard.borrow_mut().push((path.clone(), connection));
                let case = path[1..].parse().ok().and_then(|number: usize| table.0.get(number));
                let answer = match case {
                    Some(case) => case.bytes.clone(),
                    None => ok(&format!("Content-Length: {}\r\n", path.len()), &path),
                };
                // The gateway may have closed it in the middle.
                let sent = io.write_all(answer.as_bytes()).await;
                if sent.is_err() || case.is_some_and(|case| case.closes) {
                    break;
                }
            }
        }
    })
    .await;
    (Setup::new().http("a.example", addr).start().await, asked)
}

#[test]
fn a_client_sees_one_response_with_one_meaning_or_a_refusal() {
    let mut table = Table::default();
    for part in [lengths, encodings, chunks, heads, no_bodies, left_over, interim] {
        part(&mut table);
    }
    println!("{} responses", table.0.len());
    assert!(table.0.len() >= 350);
    let table = Rc::new(table);
    local(async {
        let (gateway, asked) = start(Rc::clone(&table)).await;
        for (number, case) in table.0.iter().enumerate() {
            let mut client = gateway.connect().await;
            // Two requests at once: the second has its own answer, whatever came with the first.
            let host = "Host: a.example\r\n";
            let first = format!("{} /{number} HTTP/1.1\r\n{host}\r\n", case.method);
            let second = format!("GET /then{number} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
            client.send(&(first + &second)).await;
            let mut bytes = Vec::new();
            let read_all = client.io.read_to_end(&mut bytes);
            tokio::time::timeout(SOON, read_all).await.expect("an end").unwrap();
            let shown = String::from_utf8_lossy(&bytes);
            let seen = read(&bytes, &[case.method, "GET"]);
            let seen = seen.unwrap_or_else(|| panic!("{case:#?}\n{shown}"));
            let first = seen.first().unwrap_or_else(|| panic!("no answer: {case:#?}"));
            let own = first.whole && matches!(first.status, 502 | 503);
            let good = match case.expect {
                Whole(status, body) | Last(status, body) => {
                    *first == Response { status, body: body.to_owned(), whole: true }
                }
                Refused => own,
                Broken => own || !first.whole,
            };
            assert!(good, "{case:#?}\n{shown}");
            // Where the first had an end, the second is answered, with what was asked for.
            assert_eq!(seen.len(), 1 + usize::from(first.whole), "{case:#?}\n{shown}");
            if let Some(then) = seen.get(1) {
                assert_eq!(
                    (then.status, &then.body),
                    (200, &format!("/then{number}")),
                    "{case:#?}"
                );
            }
            let mine = format!("/{number}");
            let asked = asked.take();
            let used: Vec<_> = asked.iter().filter(|(path, _)| *path == mine).collect();
            let then = asked.iter().find(|(path, _)| *path != mine);
            let again = then.is_some_and(|(_, then)| used.iter().any(|(_, one)| one == then));
            assert_eq!(again, matches!(case.expect, Whole(..)), "used again: {case:#?} {asked:?}");
        }
    });
}

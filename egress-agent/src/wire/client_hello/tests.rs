use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

const LIMIT: usize = 32 * 1024;

/// A ClientHello as a real client writes it.
fn real(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = name.to_owned().try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &len16(data), data].concat()
}

fn len16(data: &[u8]) -> [u8; 2] {
    u16::try_from(data.len()).unwrap().to_be_bytes()
}

fn sni(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = entries
        .iter()
        .flat_map(|(kind, name)| [&[*kind][..], &len16(name), name].concat())
        .collect();
    extension(SERVER_NAME, &[&len16(&list)[..], &list].concat())
}

fn message(extensions: &[u8]) -> Vec<u8> {
    let body =
        [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 0x01], &[1, 0], &len16(extensions), extensions]
            .concat();
    [&[CLIENT_HELLO, 0][..], &len16(&body), &body].concat()
}

/// Splits a message into records of `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &len16(part), part].concat()).collect()
}

fn parse(bytes: &[u8]) -> Result<Parsed<ClientHello>, HelloError> {
    HelloReader::new(LIMIT).parse(bytes)
}

fn parse_message(message: &[u8]) -> Result<Parsed<ClientHello>, HelloError> {
    parse(&records(message, LARGEST_RECORD))
}

fn host(name: &str) -> Option<Host> {
    Some(Host::parse(name).unwrap())
}

#[test]
fn a_real_hello_says_its_name_and_protocols() {
    let bytes = real("edition.cnn.com", &[b"h2", b"http/1.1"]);
    let Ok(Parsed::Complete(hello)) = parse(&bytes) else { panic!("not complete") };
    assert_eq!(hello.server_name, host("edition.cnn.com"));
    assert_eq!(hello.alpn, [&b"h2"[..], b"http/1.1"]);
    assert!(!hello.encrypted);
    let Ok(Parsed::Complete(hello)) = parse(&real("192.0.2.1", &[])) else { panic!("no") };
    assert_eq!(hello.server_name, None, "clients leave SNI out for addresses");
}

#[test]
fn every_prefix_is_incomplete_and_the_whole_is_complete() {
    for size in [LARGEST_RECORD, 50, 1] {
        let hello = records(&message(&sni(&[(0, b"a.example")])), size);
        let mut kept = HelloReader::new(LIMIT);
        for end in 0..hello.len() {
            assert_eq!(parse(&hello[..end]), Ok(Parsed::Incomplete), "{end}");
            assert_eq!(kept.parse(&hello[..end]), Ok(Parsed::Incomplete), "{end}");
        }
        for result in [parse(&hello), kept.parse(&hello)] {
            let Ok(Parsed::Complete(hello)) = result else { panic!("{result:?}") };
            assert_eq!(hello.server_name, host("a.example"));
        }
    }
}

#[test]
fn every_split_into_two_records_reads_the_same() {
    let whole = message(&sni(&[(0, b"a.example")]));
    for split in 1..whole.len() {
        let bytes = [records(&whole[..split], split), records(&whole[split..], LIMIT)].concat();
        let result = parse(&bytes);
        let Ok(Parsed::Complete(hello)) = result else { panic!("{split}: {result:?}") };
        assert_eq!(hello.server_name, host("a.example"), "{split}");
    }
}

#[test]
fn what_follows_in_records_of_its_own_is_left_alone() {
    let hello = message(&sni(&[(0, b"a.example")]));
    let early_data = [&records(&hello, LIMIT)[..], &[20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 9]].concat();
    assert!(matches!(parse(&early_data), Ok(Parsed::Complete(_))));
    // In the hello's own record it is an error, split or not.
    let trailing = [&hello[..], &[0]].concat();
    for size in [LARGEST_RECORD, 64] {
        assert_eq!(parse(&records(&trailing, size)), Err(HelloError::Malformed));
    }
}

#[test]
fn encrypted_client_hello_is_seen() {
    let ech = [sni(&[(0, b"front.example")]), extension(ENCRYPTED_CLIENT_HELLO, &[0; 40])].concat();
    let Ok(Parsed::Complete(hello)) = parse_message(&message(&ech)) else { panic!("no") };
    assert!(hello.encrypted);
}

#[test]
fn names_that_two_parsers_could_read_differently_are_refused() {
    for entries in [
        &[][..],
        &[(0, &b"a.example"[..]), (0, b"b.example")],
        &[(0, b"a.example"), (1, b"x")],
        &[(1, b"a.example")],
        &[(0, b"")],
        &[(0, b"192.0.2.1")],
        &[(0, b"2001:db8::1")],
        &[(0, b"a.example.")],
        &[(0, b"a.example\0.b.example")],
        &[(0, b"a example")],
        &[(0, b"*.example")],
        &[(0, b"\xff\xfe")],
    ] {
        let result = parse_message(&message(&sni(entries)));
        assert_eq!(result, Err(HelloError::ServerName), "{entries:?}");
    }
    let two = [sni(&[(0, b"a.example")]), sni(&[(0, b"b.example")])].concat();
    assert_eq!(parse_message(&message(&two)), Err(HelloError::DuplicateExtension(0)));
    let unknown_twice = [extension(0x1234, b"x"), extension(5, b""), extension(0x1234, b"")];
    let unknown_twice = parse_message(&message(&unknown_twice.concat()));
    assert_eq!(unknown_twice, Err(HelloError::DuplicateExtension(0x1234)));
}

#[test]
fn lengths_that_contradict_each_other_are_malformed() {
    let good = sni(&[(0, b"a.example")]);
    let longer_inside = extension(SERVER_NAME, b"\x00\x40\x00\x00\x01a");
    let trailing_inside = extension(SERVER_NAME, b"\x00\x04\x00\x00\x01a!");
    let empty_alpn = extension(ALPN, b"\x00\x00");
    let empty_protocol = extension(ALPN, b"\x00\x01\x00");
    for bad in [longer_inside, trailing_inside, empty_alpn, empty_protocol, vec![0, 0, 0, 9]] {
        assert_eq!(parse_message(&message(&bad)), Err(HelloError::Malformed), "{bad:?}");
    }
    // A byte more or less than the message says.
    let mut short = message(&good);
    short.pop();
    let len = short.len() - MESSAGE_HEADER;
    short[3] = u8::try_from(len).unwrap();
    assert_eq!(parse_message(&short), Err(HelloError::Malformed));
}

#[test]
fn other_records_and_messages_are_refused_at_once() {
    for bytes in [&b"GET"[..], &[23], &[22, 2], &[22, 3, 1, 0, 0], &[22, 3, 1, 0x40, 1]] {
        assert_eq!(parse(bytes), Err(HelloError::NotTls), "{bytes:?}");
    }
    assert_eq!(parse(&[22, 3, 1, 0, 9, 2]), Err(HelloError::NotClientHello));
    let second_is_alert = [&records(&message(&[])[..9], 9)[..], &[21, 3, 1, 0, 2, 1, 0]].concat();
    assert_eq!(parse(&second_is_alert), Err(HelloError::NotTls));
}

#[test]
fn a_hello_over_the_limit_is_refused_by_its_header() {
    let over = u32::try_from(LIMIT + 1).unwrap().to_be_bytes();
    let header = [22, 3, 1, 0x40, 0, CLIENT_HELLO, over[1], over[2], over[3]];
    assert_eq!(parse(&header), Err(HelloError::TooLong { limit: LIMIT }));
    let at = u32::try_from(LIMIT).unwrap().to_be_bytes();
    let header = [22, 3, 1, 0x40, 0, CLIENT_HELLO, at[1], at[2], at[3]];
    assert_eq!(parse(&header), Ok(Parsed::Incomplete));
    // Many small records do not bypass it.
    let drip = [&header[..6], &[at[1]]].concat();
    let drip: Vec<u8> = records(&drip[5..], 1)
        .into_iter()
        .chain(records(&[at[2], at[3]], 1))
        .chain(records(&vec![3; LIMIT / 2], 1))
        .collect();
    assert_eq!(parse(&drip[..drip.len() - 1]), Err(HelloError::TooLong { limit: LIMIT }));
}

/// Found by fuzzing: bytes in one piece were accepted that were too long where they came in two.
#[test]
fn many_small_records_are_too_long_however_they_arrive() {
    let drip = records(&message(&sni(&[(0, b"a.example")])), 1);
    let whole = HelloReader::new(100).parse(&drip);
    assert_eq!(whole, Err(HelloError::TooLong { limit: 100 }));
    for end in 0..drip.len() {
        let result = HelloReader::new(100).parse(&drip[..end]);
        assert!(result == Ok(Parsed::Incomplete) || result == whole, "{end}: {result:?}");
    }
    let one = records(&message(&sni(&[(0, b"a.example")])), LARGEST_RECORD);
    assert!(matches!(HelloReader::new(100).parse(&one), Ok(Parsed::Complete(_))));
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        drop(parse(&bytes));
        drop(parse_message(&message(&bytes)));
        drop(parse_message(&[&[CLIENT_HELLO, 0][..], &len16(&bytes), &bytes].concat()));
    }

    #[test]
    fn one_changed_byte_never_changes_the_name_unseen(at in 0usize..80, to in any::<u8>()) {
        let mut bytes = records(&message(&sni(&[(0, b"a.example")])), LARGEST_RECORD);
        let at = at % bytes.len();
        bytes[at] = to;
        // Either it is refused, waits for more, or the name is what the bytes say.
        if let Ok(Parsed::Complete(hello)) = parse(&bytes)
            && let Some(Host::Name(name)) = hello.server_name
        {
            let lower = bytes.to_ascii_lowercase();
            prop_assert!(memchr::memmem::find(&lower, name.as_bytes()).is_some());
        }
    }
}

//! Whether the name servers answer.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// The query's number.
const ID: [u8; 2] = [0x65, 0x67];

/// Those of a resolv.conf(5).
pub(super) fn servers(resolv_conf: &str) -> Vec<IpAddr> {
    let lines = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let mut all: Vec<IpAddr> = Vec::new();
    for server in lines.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()) {
        if !all.contains(&server) {
            all.push(server);
        }
    }
    all
}

/// Asks one for the root's name servers, which every resolver knows; what is wrong, if anything is.
pub(super) fn ask(server: IpAddr) -> Option<String> {
    match exchange(SocketAddr::new(server, 53)) {
        Ok(answer) => is_answer(&answer)
            .then_some(())
            .map_or_else(|| Some("it answers with something else than DNS".to_owned()), |()| None),
        Err(error) => Some(format!("no answer: {error}")),
    }
}

fn exchange(server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    socket.send(&query())?;
    let mut answer = vec![0; 512];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// RFC 1035 §4.1: recursion is desired; one question: the root, NS, IN.
fn query() -> [u8; 17] {
    let mut query = [0; 17];
    query[..2].copy_from_slice(&ID);
    query[2] = 1;
    query[5] = 1;
    query[14] = 2;
    query[16] = 1;
    query
}

/// Whether it is a response to that question, whatever it says.
fn is_answer(bytes: &[u8]) -> bool {
    bytes.len() >= 12 && bytes[..2] == ID && bytes[2] & 0x80 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_once_each() {
        let text = "# x\nsearch a.example\nnameserver 192.0.2.53\n nameserver 2001:db8::53\n\
                    nameserver 192.0.2.53\nnameserver bad\noptions ndots:1\n";
        let expected: [IpAddr; 2] =
            ["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()];
        assert_eq!(servers(text), expected);
        assert_eq!(servers(""), [] as [IpAddr; 0]);
    }

    #[test]
    fn an_answer_is_told_from_something_else() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = server.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let mut question = [0; 64];
            let (length, client) = server.recv_from(&mut question).unwrap();
            assert_eq!(question[..length], query());
            question[2] |= 0x80;
            server.send_to(&question[..length], client).unwrap();
        });
        assert!(is_answer(&exchange(addr).unwrap()));
        serving.join().unwrap();
        assert!(!is_answer(&query()));
        assert!(!is_answer(b"short"));
    }
}

//! An authoritative DNS server for [`plan::ZONE`], over UDP and TCP (RFC 1035 §4.2).

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{RData, Record, RecordType, rdata},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::Names;
use crate::plan;

/// Short, so that changes are seen; long enough not to be asked twice in one connection.
const TTL: u32 = 5;

pub(super) async fn serve_udp(socket: UdpSocket, names: Names) {
    let mut buffer = vec![0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        if let Some(answer) = answer(&buffer[..length], &names) {
            socket.send_to(&answer, peer).await.ok();
        }
    }
}

pub(super) async fn serve_tcp(listener: TcpListener, names: Names) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::task::spawn_local(tcp(stream, names.clone()));
    }
}

async fn tcp(mut stream: TcpStream, names: Names) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; usize::from(length)];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let Some(answer) = answer(&query, &names) else { continue };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        if stream.write_u16(length).await.is_err() || stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "another crate's enum, which may grow")]
fn answer(query: &[u8], names: &Names) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let mut reply = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    reply.metadata.authoritative = true;
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    for question in &query.queries {
        reply.add_query(question.clone());
        let name = question.name().to_ascii().to_ascii_lowercase();
        // Whoever asks for these hears nothing: a dead name server, and one that ignores AAAA.
        let plain = name.trim_end_matches('.');
        let ignored = plain.ends_with(".v4only.wild.example.com")
            && question.query_type() == RecordType::AAAA;
        if ignored || plain.ends_with(".dead.wild.example.com") {
            return None;
        }
        let Some((v4, v6)) = find(plain, names) else {
            reply.metadata.response_code = ResponseCode::NXDomain;
            continue;
        };
        let data: Vec<_> = match question.query_type() {
            RecordType::A => v4.into_iter().map(|v4| RData::A(rdata::A(v4))).collect(),
            RecordType::AAAA => v6.into_iter().map(|v6| RData::AAAA(rdata::AAAA(v6))).collect(),
            _ => Vec::new(),
        };
        for data in data {
            reply.add_answer(Record::from_rdata(question.name().clone(), TTL, data));
        }
    }
    reply.to_vec().ok()
}

/// The addresses of a name; `wild.example.com` has a wildcard. Nothing below `dead.wild.example.com` is
/// answered, and below `v4only.wild.example.com` only questions for IPv4 addresses are.
fn find(name: &str, names: &Names) -> Option<(Vec<Ipv4Addr>, Option<Ipv6Addr>)> {
    if let Some(moved) = names.find(name) {
        return Some((moved, None));
    }
    let parse = |v4: Option<&str>, v6: Option<&str>| {
        (v4.and_then(|v4| v4.parse().ok()).into_iter().collect(), v6.and_then(|v6| v6.parse().ok()))
    };
    if name.ends_with(".wild.example.com") {
        return Some(parse(Some(plan::WEB), None));
    }
    let (_, v4, v6) = plan::ZONE.iter().find(|(zone_name, ..)| *zone_name == name)?;
    Some(parse(*v4, *v6))
}

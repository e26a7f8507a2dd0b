//! What a peer serves: each connection and each socket on a thread of its own.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use egress_tests::plan;

/// Binds everything, then serves for ever.
pub(crate) fn serve(addresses: &[IpAddr]) -> io::Result<()> {
    let mut threads = Vec::new();
    for address in addresses {
        let echo = TcpListener::bind((*address, plan::PEER_ECHO))?;
        let http = TcpListener::bind((*address, plan::PEER_HTTP))?;
        // Bound to the address, so that answers come from where they are expected.
        let udp = UdpSocket::bind((*address, plan::PEER_ECHO))?;
        threads.push(thread::spawn(move || each(&echo, echo_stream)));
        threads.push(thread::spawn(move || each(&http, answer)));
        threads.push(thread::spawn(move || echo_datagrams(&udp)));
    }
    for thread in threads {
        thread.join().ok();
    }
    Ok(())
}

fn each(listener: &TcpListener, work: fn(TcpStream) -> io::Result<()>) {
    for stream in listener.incoming().flatten() {
        // A client that goes away is no fault of the server.
        thread::spawn(move || work(stream).ok());
    }
}

fn echo_stream(stream: TcpStream) -> io::Result<()> {
    io::copy(&mut &stream, &mut &stream).map(|_| ())
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut buffer = vec![0; 65_536];
    loop {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], peer).ok();
        }
    }
}

/// `GET /NUMBER` is answered with as many bytes, every request with `200`.
fn answer(stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(&stream);
    let (mut wanted, mut body) = (0, 0);
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(path) = lower.strip_prefix("get /") {
            let number = path.split(' ').next().unwrap_or_default();
            wanted = number.parse().unwrap_or(0);
        } else if let Some(length) = lower.strip_prefix("content-length:") {
            body = length.trim().parse().unwrap_or(0);
        }
    }
    io::copy(&mut lines.take(body), &mut io::sink())?;
    write!(&stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {wanted}\r\n\r\n")?;
    io::copy(&mut io::repeat(b'x').take(wanted), &mut &stream).map(|_| ())
}

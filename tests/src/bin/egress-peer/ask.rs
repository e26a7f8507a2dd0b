//! What a peer asks of another.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    process::ExitCode,
    thread,
    time::Duration,
};

use egress_tests::wait::patiently;
use socket2::{Domain, Socket, Type};

/// How long an answer may take, on an ordinary machine.
const WAIT: Duration = Duration::from_millis(1500);

fn socket(to: SocketAddr, from: Option<IpAddr>, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), kind, None)?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    Ok(socket)
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..=u8::MAX).cycle().take(bytes).collect()
}

/// One connection.
pub(crate) fn tcp(to: SocketAddr, from: Option<IpAddr>, bytes: usize) -> io::Result<()> {
    let socket = socket(to, from, Type::STREAM)?;
    socket.connect_timeout(&to.into(), patiently(WAIT))?;
    let stream = TcpStream::from(socket);
    // A path that has to be found out first takes a retransmission or two.
    stream.set_read_timeout(Some(4 * patiently(WAIT)))?;
    let sent = pattern(bytes);
    let mut received = vec![0; bytes];
    thread::scope(|scope| {
        let writer = scope.spawn(|| (&stream).write_all(&sent));
        (&stream).read_exact(&mut received)?;
        writer.join().unwrap_or_else(|_| Err(ErrorKind::Other.into()))
    })?;
    same(&sent, &received)
}

/// One datagram of a socket that isn't connected.
pub(crate) fn udp(to: SocketAddr, from: Option<IpAddr>, bytes: usize) -> io::Result<()> {
    let socket = UdpSocket::from(socket(to, from, Type::DGRAM)?);
    socket.set_read_timeout(Some(patiently(WAIT)))?;
    let sent = pattern(bytes);
    socket.send_to(&sent, to)?;
    let mut received = vec![0; bytes + 1];
    let length = loop {
        let (length, peer) = socket.recv_from(&mut received)?;
        if peer == to {
            break length;
        }
    };
    same(&sent, received.get(..length).unwrap_or_default())
}

fn same(sent: &[u8], received: &[u8]) -> io::Result<()> {
    if sent == received { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
}

/// Says what happened, as a line and as an exit code.
pub(crate) fn tell(answer: io::Result<()>) -> ExitCode {
    match answer {
        Ok(()) => {
            println!("answered");
            ExitCode::SUCCESS
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            println!("no answer");
            ExitCode::from(2)
        }
        Err(error) => {
            println!("refused: {error}");
            ExitCode::from(1)
        }
    }
}

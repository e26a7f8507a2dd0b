//! The clients and the origins of the proxies: one thread that waits for all sockets at once, so that both
//! cost as little as they can and a proxy is all that is measured.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};
use rustls::{ServerConfig, ServerConnection};

/// What an origin answers: 64 bytes.
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\n\
    0123456789012345678901234567890123456789012345678901234 the end\n";
/// How every answer ends.
const END: &[u8] = b" the end\n";
/// How a request ends.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
/// Nothing takes as long.
const LONG: Duration = Duration::from_secs(20);

/// What an origin does.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// Answers each request.
    Http,
    /// The same inside TLS.
    Https(Arc<ServerConfig>),
    /// Answers whatever it gets with the end of a response.
    Any,
}

enum Socket {
    Listener(TcpListener, Origin),
    Plain(TcpStream, Origin),
    Tls(TcpStream, Box<ServerConnection>),
    Client(TcpStream),
}

/// All sockets.
pub(super) struct World {
    epoll: OwnedFd,
    sockets: Vec<Option<Socket>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
}

/// A client's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Client(usize);

impl World {
    /// With these origins.
    pub(super) fn new(origins: Vec<(SocketAddr, Origin)>) -> Result<Self> {
        let mut world = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            sockets: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; 64 * 1024],
            events: Vec::with_capacity(256),
        };
        for (addr, origin) in origins {
            let listener = TcpListener::bind(addr).with_context(|| addr.to_string())?;
            listener.set_nonblocking(true)?;
            world.add(Socket::Listener(listener, origin))?;
        }
        Ok(world)
    }

    fn add(&mut self, socket: Socket) -> Result<usize> {
        let at = self.free.pop().unwrap_or_else(|| {
            self.sockets.push(None);
            self.sockets.len() - 1
        });
        let data = epoll::EventData::new_u64(at as u64);
        let flags = epoll::EventFlags::IN;
        match &socket {
            Socket::Listener(listener, _) => epoll::add(&self.epoll, listener, data, flags)?,
            Socket::Plain(stream, _) | Socket::Tls(stream, _) | Socket::Client(stream) => {
                epoll::add(&self.epoll, stream, data, flags)?;
            }
        }
        self.sockets[at] = Some(socket);
        Ok(at)
    }

    /// A client connects.
    pub(super) fn connect(&mut self, to: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect_timeout(&to, LONG).with_context(|| to.to_string())?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.add(Socket::Client(stream)).map(Client)
    }

    /// A client says something.
    pub(super) fn say(&mut self, client: Client, bytes: &[u8]) -> Result<()> {
        let Some(Socket::Client(stream)) = &mut self.sockets[client.0] else {
            bail!("the proxy closed the connection");
        };
        Ok(stream.write_all(bytes)?)
    }

    /// A client leaves.
    pub(super) fn close(&mut self, client: Client) {
        self.remove(client.0);
    }

    fn remove(&mut self, at: usize) {
        if self.sockets[at].take().is_some() {
            self.free.push(at);
        }
    }

    /// Goes on until so many clients have their answers; what to do with each is `answered`'s.
    pub(super) fn until(
        &mut self,
        count: usize,
        answered: impl FnMut(&mut Self, Client) -> Result<()>,
    ) -> Result<()> {
        let mut events = std::mem::take(&mut self.events);
        let answers = self.answers(count, answered, &mut events);
        self.events = events;
        answers
    }

    fn answers(
        &mut self,
        count: usize,
        mut answered: impl FnMut(&mut Self, Client) -> Result<()>,
        events: &mut Vec<epoll::Event>,
    ) -> Result<()> {
        let mut done = 0;
        while done < count {
            let timeout = Timespec { tv_sec: 20, tv_nsec: 0 };
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout)) {
                Ok(_) => {}
                Err(error) if error == rustix::io::Errno::INTR => continue,
                Err(error) => return Err(error.into()),
            }
            ensure!(!events.is_empty(), "{done} of {count} answers, and no more");
            for event in &*events {
                let at = usize::try_from(event.data.u64())?;
                if self.serve(at)? {
                    done += 1;
                    answered(self, Client(at))?;
                }
            }
        }
        Ok(())
    }

    /// Lets the origins see who has left.
    pub(super) fn settle(&mut self) -> Result<()> {
        let until = Instant::now() + Duration::from_millis(300);
        let mut events = std::mem::take(&mut self.events);
        while Instant::now() < until {
            events.clear();
            let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout))?;
            for event in &events {
                self.serve(usize::try_from(event.data.u64())?)?;
            }
        }
        self.events = events;
        Ok(())
    }

    /// Serves what a socket has; whether it is a client that has its whole answer.
    fn serve(&mut self, at: usize) -> Result<bool> {
        let Some(socket) = self.sockets[at].as_mut() else { return Ok(false) };
        let alive = match socket {
            Socket::Listener(listener, origin) => {
                let origin = origin.clone();
                let accepted = listener.accept();
                return self.accept(accepted, origin).map(|()| false);
            }
            Socket::Plain(stream, origin) => plain(stream, origin, &mut self.buffer),
            Socket::Tls(stream, tls) => encrypted(stream, tls, &mut self.buffer),
            Socket::Client(stream) => match stream.read(&mut self.buffer) {
                Ok(0) => bail!("the proxy closed a connection"),
                Ok(read) => {
                    let read = &self.buffer[..read];
                    let refused =
                        read.starts_with(b"HTTP/1.1 ") && !read.starts_with(b"HTTP/1.1 200");
                    ensure!(!refused, "{}", String::from_utf8_lossy(read));
                    return Ok(read.ends_with(END));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            },
        };
        match alive {
            Ok(true) => {}
            Ok(false) => self.remove(at),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.remove(at),
        }
        Ok(false)
    }

    fn accept(
        &mut self,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        origin: Origin,
    ) -> Result<()> {
        let (stream, _) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let socket = match origin {
            Origin::Https(config) => Socket::Tls(stream, Box::new(ServerConnection::new(config)?)),
            origin @ (Origin::Http | Origin::Any) => Socket::Plain(stream, origin),
        };
        self.add(socket).map(drop)
    }
}

/// Answers; whether the connection goes on.
fn plain(stream: &mut TcpStream, origin: &Origin, buffer: &mut [u8]) -> io::Result<bool> {
    let read = stream.read(buffer)?;
    if read == 0 {
        return Ok(false);
    }
    match origin {
        Origin::Http | Origin::Https(_) if !buffer[..read].ends_with(END_OF_HEAD) => {}
        Origin::Http | Origin::Https(_) => stream.write_all(RESPONSE)?,
        Origin::Any => stream.write_all(&RESPONSE[RESPONSE.len() - 64..])?,
    }
    Ok(true)
}

fn encrypted(
    stream: &mut TcpStream,
    tls: &mut ServerConnection,
    buffer: &mut [u8],
) -> io::Result<bool> {
    if tls.read_tls(stream)? == 0 {
        return Ok(false);
    }
    tls.process_new_packets().map_err(io::Error::other)?;
    match tls.reader().read(buffer) {
        Ok(0) => return Ok(false),
        Ok(read) if buffer[..read].ends_with(END_OF_HEAD) => tls.writer().write_all(RESPONSE)?,
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    while tls.wants_write() {
        tls.write_tls(stream)?;
    }
    Ok(true)
}

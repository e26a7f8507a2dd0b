//! Reading every packet of a host in a thread.

use std::{
    io::{ErrorKind, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::NetNs;

/// `ETH_P_ALL` in network byte order: every packet, of either direction.
const EVERY_PACKET: u16 = 0x0003_u16.to_be();
/// How long a read waits before the thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// A thread that reads; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Packets {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Packets {
    /// Hands every frame that this host sends and receives to `each`, from the moment this returns. The
    /// socket's buffer has so many bytes.
    ///
    /// # Errors
    /// No packet socket.
    pub(crate) fn read(
        host: &NetNs,
        buffer: usize,
        mut each: impl FnMut(&[u8]) + Send + 'static,
    ) -> Result<Self> {
        let mut socket = host.enter(|| -> Result<Socket> {
            let every = Some(Protocol::from(i32::from(EVERY_PACKET)));
            let socket = Socket::new(Domain::PACKET, Type::RAW, every)?;
            socket.set_read_timeout(Some(LOOK))?;
            socket.set_recv_buffer_size(buffer)?;
            Ok(socket)
        })??;
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut frame = vec![0; 1 << 17];
            while !stopped.load(Ordering::Acquire) {
                match socket.read(&mut frame) {
                    Ok(length) => each(&frame[..length]),
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                        ) => {}
                    Err(_) => return,
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

//! A frame through an `AF_XDP` socket: memory of the process, a ring, and no packet socket
//! (kernel 4.18; Documentation/networking/af_xdp.rst).
#![allow(unsafe_code, reason = "frames and rings are memory that is shared with the kernel")]

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use socket2::{Domain, Socket, Type};

use super::raw::{bind, send_to, set_option};

const FRAME: usize = 2048;
const MEMORY: usize = 4096;
const ENTRIES: u32 = 2;

/// An `AF_XDP` socket that sends by copying, on the first queue of an interface.
#[derive(Debug)]
pub struct XdpSocket {
    fd: OwnedFd,
    memory: Mapping,
}

#[derive(Debug)]
struct Mapping {
    start: *mut u8,
    length: usize,
}

// SAFETY: the mapping belongs to whoever owns the value, and is only used through `&mut`.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nobody else knows of it.
        // An error could only mean that it isn't mapped.
        unsafe { munmap(self.start.cast(), self.length) }.ok();
    }
}

impl XdpSocket {
    /// Opens it on an interface.
    ///
    /// # Errors
    /// What the kernel said: `EAFNOSUPPORT` without XDP sockets, `EPERM` without `CAP_NET_RAW`.
    pub fn open(ifindex: u32) -> io::Result<Self> {
        let fd = OwnedFd::from(Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None)?);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so nothing of ours is mapped over.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), MEMORY, protection, MapFlags::PRIVATE)? };
        let memory = Mapping { start: start.cast(), length: MEMORY };
        // struct xdp_umem_reg, as it was first: address, length, frame's size, headroom.
        let mut registration = u64::try_from(start.addr()).unwrap_or(0).to_ne_bytes().to_vec();
        registration.extend(u64::try_from(MEMORY).unwrap_or(0).to_ne_bytes());
        registration.extend(u32::try_from(FRAME).unwrap_or(0).to_ne_bytes());
        registration.extend(0_u32.to_ne_bytes());
        set_option(&fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)?;
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_TX_RING] {
            set_option(&fd, libc::SOL_XDP, ring, &ENTRIES.to_ne_bytes())?;
        }
        // struct sockaddr_xdp: family, flags, interface, queue, the descriptor of shared memory.
        let family = u16::try_from(libc::AF_XDP).unwrap_or(0);
        let mut address = [family.to_ne_bytes(), libc::XDP_COPY.to_ne_bytes()].concat();
        address.extend(ifindex.to_ne_bytes());
        address.extend([0; 8]);
        bind(&fd, &address)?;
        Ok(Self { fd, memory })
    }

    /// Sends one frame; the socket is of no use afterwards.
    ///
    /// # Errors
    /// What the kernel said; `InvalidInput` for a frame that doesn't fit.
    pub fn send(self, frame: &[u8]) -> io::Result<()> {
        let length = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= FRAME);
        let length = length.ok_or(io::ErrorKind::InvalidInput)?;
        let offsets = self.offsets()?;
        let place = |at: u64| usize::try_from(at).map_err(|_| io::ErrorKind::InvalidData);
        let (producer, descriptor) = (place(offsets.tx.producer)?, place(offsets.tx.desc)?);
        let size = descriptor + size_of::<libc::xdp_desc>() * 2;
        let at = u64::try_from(libc::XDP_PGOFF_TX_RING).map_err(|_| io::ErrorKind::InvalidData)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so nothing of ours is mapped over.
        let ring =
            unsafe { mmap(ptr::null_mut(), size, protection, MapFlags::SHARED, &self.fd, at)? };
        let ring = Mapping { start: ring.cast(), length: size };
        // SAFETY: the memory has room for a frame of `FRAME` bytes, and `frame` isn't longer. The
        // offsets are the kernel's for this ring, which is mapped up to the second descriptor; they
        // are aligned for their types. The producer's number is written last, atomically, since
        // from then on the kernel reads what it names.
        unsafe {
            ptr::copy_nonoverlapping(frame.as_ptr(), self.memory.start, frame.len());
            let first = ring.start.add(descriptor);
            ptr::write_unaligned(first.cast(), libc::xdp_desc { addr: 0, len: length, options: 0 });
            let producer: *mut AtomicU32 = ring.start.add(producer).cast();
            (*producer).store(1, Ordering::Release);
        }
        match send_to(&self.fd, &[], libc::MSG_DONTWAIT, &[]) {
            // The kernel has taken it, and has more to do.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
            sent => sent.map(drop),
        }
    }

    /// Where the parts of the rings are.
    fn offsets(&self) -> io::Result<libc::xdp_mmap_offsets> {
        // SAFETY: a structure of integers, for which zeros are valid.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { mem::zeroed() };
        let mut length = libc::socklen_t::try_from(size_of_val(&offsets))
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        let fd = self.fd.as_fd().as_raw_fd();
        // SAFETY: the kernel writes at most `length` bytes, the structure's size.
        let done = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_XDP,
                libc::XDP_MMAP_OFFSETS,
                (&raw mut offsets).cast(),
                &raw mut length,
            )
        };
        if done == 0 { Ok(offsets) } else { Err(io::Error::last_os_error()) }
    }
}

//! A ring of frames that a packet socket sends from memory it shares with the kernel
//! (`PACKET_TX_RING`, packet(7)).
#![allow(unsafe_code, reason = "the ring is memory that is shared with the kernel")]

use std::{
    io,
    os::fd::AsFd,
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::raw::{send_to, set_option};

const BLOCK: usize = 4096;
const FRAME: usize = 2048;
/// Where the data starts behind a `tpacket2_hdr` of 32 bytes, without `PACKET_TX_HAS_OFF`.
const DATA: usize = 32;
const TPACKET_V2: i32 = 1;
const TP_STATUS_SEND_REQUEST: u32 = 1;

/// Sends one frame from a ring of the packet socket `fd`, which has to be bound to an interface.
///
/// # Errors
/// What the kernel said; `InvalidInput` for a frame that doesn't fit.
pub fn send(fd: impl AsFd, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= FRAME - DATA);
    let length = length.ok_or(io::ErrorKind::InvalidInput)?;
    set_option(&fd, libc::SOL_PACKET, libc::PACKET_VERSION, &TPACKET_V2.to_ne_bytes())?;
    // struct tpacket_req: block size, blocks, frame size, frames.
    let request: Vec<u8> = [BLOCK, 1, FRAME, BLOCK / FRAME]
        .into_iter()
        .filter_map(|number| u32::try_from(number).ok())
        .flat_map(u32::to_ne_bytes)
        .collect();
    set_option(&fd, libc::SOL_PACKET, libc::PACKET_TX_RING, &request)?;
    // SAFETY: the kernel chooses the address, so nothing of ours is mapped over.
    let ring = unsafe {
        mmap(ptr::null_mut(), BLOCK, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)?
    };
    // SAFETY: `ring` is a page of `BLOCK` bytes, aligned to it and ours alone until the status
    // says otherwise; the header (status, length, …) and `length` ≤ FRAME - DATA bytes fit into
    // its first frame. The status is written last, with an atomic store, since the kernel acts on
    // it.
    unsafe {
        let base = ring.cast::<u8>();
        ptr::copy_nonoverlapping(frame.as_ptr(), base.add(DATA), frame.len());
        ring.cast::<u32>().add(1).write(length);
        (*ring.cast::<AtomicU32>()).store(TP_STATUS_SEND_REQUEST, Ordering::Release);
    }
    // Waits until the kernel is done with the ring's frames.
    let sent = send_to(&fd, &[], 0, &[]);
    // SAFETY: the page was mapped above with this length, and nothing points to it now.
    unsafe { munmap(ring, BLOCK)? };
    sent.map(drop)
}

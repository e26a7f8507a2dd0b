//! The programs' debug lines, which only debug builds have.

use std::io;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

use super::Error;

/// The programs' ring buffer for debug lines; an object without debug lines has none.
const MAP: &str = "AYA_LOGS";

/// Forwards the programs' debug lines to the agent's log for as long as the runtime lives. Must be
/// called inside a runtime, and before the programs are loaded, which need the ring buffer alive.
///
/// # Errors
/// The ring buffer can't be read.
pub(super) fn forward(ebpf: &mut Ebpf) -> Result<(), Error> {
    if ebpf.map(MAP).is_none() {
        return Ok(());
    }
    let what = "can't read the eBPF programs' debug lines";
    let logger = EbpfLogger::init(ebpf).map_err(io::Error::other).map_err(Error::io(what))?;
    #[expect(
        deprecated,
        reason = "its successor is the same but unsafe; the logger keeps its descriptor open"
    )]
    let mut logger = AsyncFd::with_interest(logger, Interest::READABLE).map_err(Error::io(what))?;
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}

//! The access log: workers write lines into memory, one thread writes them out.

mod counts;
mod escape;
mod lane;
mod losses;
mod refusals;
mod render;
mod target;
mod writer;

use std::{
    io,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use arc_swap::ArcSwapOption;
use thiserror::Error;

pub use self::counts::AccessLogCounts;
pub use self::losses::{LineFate, UnwrittenLines};
pub use self::render::{Heads, header as header_text};
use self::{refusals::Refusal, target::Target, writer::Writer};
use super::AccessLogEntry;
use crate::{
    config::{LogFormat, LogFormatError},
    policy::{AccessLogEncoding, MeshConfig},
    types::ShareOwner,
};

/// Why the access log can't be written as configured.
#[derive(Debug, Error)]
pub enum AccessLogError {
    /// The format isn't one.
    #[error("accessLogFormat: {0}")]
    Format(#[from] LogFormatError),
    /// The file can't be opened.
    #[error("accessLogFile: {path} can't be opened for appending: {source}")]
    Open {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The writing thread couldn't be started.
    #[error("the access log's thread can't be started: {0}")]
    Thread(io::Error),
}

/// The access log of the process. Never blocks who logs: what can't be held is dropped and counted.
///
/// Lines about what was forwarded and lines about what was refused wait in buffers of their own, and
/// each workload has a share of both. Refusals beyond a rate, by workload and reason, become one line
/// with a count.
#[derive(Debug, Default)]
pub struct AccessLog {
    format: Arc<ArcSwapOption<LogFormat>>,
    writer: ArcSwapOption<Writer>,
    /// The target that is in force, to tell whether it changes.
    path: Mutex<Option<String>>,
}

impl AccessLog {
    /// Applies the mesh's `accessLogFile`, `accessLogFormat` and `accessLogEncoding`; on an error
    /// everything stays as it was.
    ///
    /// # Errors
    /// The format isn't one, or the file can't be opened.
    pub fn configure(&self, mesh: &MeshConfig) -> Result<(), AccessLogError> {
        let MeshConfig { access_log_file, access_log_format, access_log_encoding, .. } = mesh;
        let mut path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        // An empty name is Istio's way to switch the log off.
        let Some(new) = access_log_file.as_ref().filter(|file| !file.is_empty()) else {
            self.format.store(None);
            return Ok(());
        };
        let format = LogFormat::compile(access_log_format.as_deref(), *access_log_encoding)?;
        if path.as_ref() != Some(new) {
            let target = Target::open(new)
                .map_err(|source| AccessLogError::Open { path: new.clone(), source })?;
            match &*self.writer.load() {
                Some(writer) => writer.redirect(target),
                None => {
                    let format = Arc::clone(&self.format);
                    let summarize = Box::new(move |summary: &_, line: &mut _| {
                        if let Some(format) = &*format.load() {
                            render::aggregate(format, summary, line);
                        }
                    });
                    let writer =
                        Writer::start(target, summarize).map_err(AccessLogError::Thread)?;
                    self.writer.store(Some(Arc::new(writer)));
                }
            }
            *path = Some(new.clone());
        }
        self.format.store(Some(Arc::new(format)));
        Ok(())
    }

    /// Whether lines are written at all, so that callers may save the work of an entry.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.format.load().is_some()
    }

    /// Logs one request or connection.
    pub fn log(&self, entry: &AccessLogEntry) {
        let format = self.format.load();
        let Some(format) = &*format else { return };
        let writer = self.writer.load();
        let Some(writer) = &*writer else { return };
        let render = |line: &mut Vec<u8>| render::render(format, entry, line);
        let owner = entry.owner();
        match entry.reason.filter(|_| !entry.was_forwarded()) {
            None => writer.forwarded(&owner, render),
            Some(reason) => {
                let time = entry.start_time + entry.duration;
                let address = entry.downstream_remote.ip();
                writer.refused(&Refusal { owner, reason, time, address }, render);
            }
        }
    }

    /// The line of one request or connection without its newline, whether the log is on or not: in Istio's
    /// format where it is off.
    #[must_use]
    pub fn line(&self, entry: &AccessLogEntry) -> String {
        static ISTIO: LazyLock<Option<LogFormat>> =
            LazyLock::new(|| LogFormat::compile(None, AccessLogEncoding::Text).ok());
        let mut line = Vec::new();
        if let Some(format) = self.format.load().as_deref().or(ISTIO.as_ref()) {
            render::render(format, entry, &mut line);
        }
        String::from_utf8_lossy(line.trim_ascii_end()).into_owned()
    }

    /// Call it before something is forwarded. If the output is behind, it waits until there is room
    /// for the owner's line: a second at most, and not at all if nothing is being written.
    pub async fn wait_for_room(&self, owner: &ShareOwner) {
        if !self.is_on() {
            return;
        }
        // Kept across the wait, which may outlast a change of the settings.
        let writer = self.writer.load_full();
        if let Some(writer) = writer {
            writer.wait_for_room(owner).await;
        }
    }

    /// Writes out what is held, and ends the writing thread; lines that come later are dropped.
    /// Waits at most two seconds, so that an output that nobody reads doesn't keep the process.
    pub fn shutdown(&self) {
        if let Some(writer) = &*self.writer.load() {
            writer.stop();
        }
    }

    /// Lines that were not written one by one, by workload.
    #[must_use]
    pub fn unwritten(&self) -> Vec<UnwrittenLines> {
        self.writer.load().as_ref().map(|writer| writer.losses().all()).unwrap_or_default()
    }

    /// How it fares.
    #[must_use]
    pub fn counts(&self) -> AccessLogCounts {
        self.writer.load().as_ref().map(|writer| writer.counts()).unwrap_or_default()
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shutdown();
    }
}

#[cfg(test)]
mod flood_tests;
#[cfg(test)]
mod tests;

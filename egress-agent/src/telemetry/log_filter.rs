//! Which of the agent's own messages are written, as it may be changed while the process runs.

use std::sync::{Mutex, OnceLock, PoisonError};

/// Puts a filter in force: directives as `RUST_LOG` has them.
type Change = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The filter of the process.
pub struct LogFilter {
    change: Change,
    directives: Mutex<String>,
}

impl LogFilter {
    /// One that has these directives, and changes them in this way.
    pub fn new(
        directives: String,
        change: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { change: Box::new(change), directives: Mutex::new(directives) }
    }

    /// The directives in force.
    pub fn directives(&self) -> String {
        self.directives.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts others in force.
    ///
    /// # Errors
    /// They cannot be read; nothing has changed.
    pub fn change(&self, directives: &str) -> Result<(), String> {
        let mut current = self.directives.lock().unwrap_or_else(PoisonError::into_inner);
        (self.change)(directives)?;
        directives.clone_into(&mut current);
        Ok(())
    }
}

static FILTER: OnceLock<LogFilter> = OnceLock::new();

/// Sets the filter of this process. Only the first one counts.
pub fn set_log_filter(filter: LogFilter) {
    FILTER.set(filter).ok();
}

/// The filter of this process, if it has one.
pub fn log_filter() -> Option<&'static LogFilter> {
    FILTER.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_changes_nothing() {
        let filter = LogFilter::new("info".into(), |text| {
            if text == "bad" { Err("no level".into()) } else { Ok(()) }
        });
        assert_eq!(filter.change("bad"), Err("no level".into()));
        assert_eq!(filter.directives(), "info");
        assert_eq!(filter.change("debug"), Ok(()));
        assert_eq!(filter.directives(), "debug");
    }
}

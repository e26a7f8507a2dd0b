//! How the agent writes its own messages to standard error: text or JSON with times, or, where the
//! journal reads them, lines with a priority, because the journal adds the time.

use std::{
    env, fmt,
    io::{self, IsTerminal},
};

use clap::{ArgAction, Args, ValueEnum};
use rustix::fs::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::telemetry::{LogFilter, set_log_filter};

/// The options of all commands.
#[derive(Args, Debug)]
pub(super) struct LogArgs {
    /// How the agent's own messages are written to standard error. Where systemd's journal reads
    /// them, each line has a priority (`journalctl -p warning`), and text has no time of its own.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "EGRESS_LOG_FORMAT")]
    log_format: LogFormat,
    /// Say more: `-v` debug, `-vv` trace. `RUST_LOG` does it per module.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

impl LogArgs {
    /// Whether messages are for a program to read.
    pub(super) fn is_json(&self) -> bool {
        self.log_format == LogFormat::Json
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum LogFormat {
    /// One line a message.
    Text,
    /// One JSON object a line.
    Json,
}

/// Messages go to standard error: standard output belongs to events, access log and results.
pub(super) fn init(args: &LogArgs) {
    let level = match args.verbose {
        0 => "info",
        1 => "info,egress_agent=debug",
        _ => "info,egress_agent=trace",
    };
    // The client of the API server logs bodies that it can't parse, Secrets among them. What it meets is
    // reported by whoever asked.
    let quiet = |directives: &str| format!("{directives},kube_client=off,kube_runtime=off");
    let given = env::var(EnvFilter::DEFAULT_ENV).ok();
    let given = given.filter(|given| EnvFilter::try_new(given).is_ok());
    let directives = given.unwrap_or_else(|| level.to_owned());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(quiet(&directives)))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // Their types differ.
    macro_rules! start {
        ($builder:expr) => {{
            let builder = $builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            set_log_filter(LogFilter::new(directives, move |text| {
                let filter = EnvFilter::try_new(quiet(text)).map_err(|error| error.to_string())?;
                handle.reload(filter).map_err(|error| error.to_string())
            }));
        }};
    }
    match (args.log_format, is_journal()) {
        (LogFormat::Text, false) => start!(builder.with_target(false)),
        (LogFormat::Text, true) => start!(
            builder
                .with_target(false)
                .without_time()
                .with_level(false)
                .map_event_format(Prioritized)
        ),
        (LogFormat::Json, false) => start!(builder.json().flatten_event(true)),
        (LogFormat::Json, true) => {
            start!(builder.json().flatten_event(true).map_event_format(Prioritized));
        }
    }
}

/// Whether the journal reads standard error: systemd.exec(5) says how to tell.
fn is_journal() -> bool {
    let stream = env::var("JOURNAL_STREAM").unwrap_or_default();
    fstat(io::stderr()).is_ok_and(|stat| is_stream(&stream, stat.st_dev, stat.st_ino))
}

/// `JOURNAL_STREAM` holds the device and the inode of the stream, in decimal.
fn is_stream(variable: &str, device: u64, inode: u64) -> bool {
    variable
        .split_once(':')
        .is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

/// Another format, with a priority before each line (sd-daemon(3)).
struct Prioritized<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritized<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        prioritized(&text, priority(*event.metadata().level()), &mut writer)
    }
}

/// The journal takes each line for a message of its own.
fn prioritized(text: &str, priority: u8, to: &mut impl fmt::Write) -> fmt::Result {
    text.lines().try_for_each(|line| writeln!(to, "<{priority}>{line}"))
}

/// The priority of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_recognised_by_device_and_inode() {
        assert!(is_stream("9:1234", 9, 1234));
        for other in ["", "9", "9:1235", "8:1234", "9:1234:1", "a:b"] {
            assert!(!is_stream(other, 9, 1234), "{other}");
        }
    }

    #[test]
    fn each_line_has_the_priority_of_its_message() {
        let mut text = String::new();
        prioritized("one\n  two\n", priority(Level::WARN), &mut text).unwrap();
        assert_eq!(text, "<4>one\n<4>  two\n");
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(levels.map(priority), [3, 4, 6, 7, 7]);
    }
}

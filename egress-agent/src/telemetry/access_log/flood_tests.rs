//! One workload's lines against another's, with an output that is read late.

use std::{
    fs::{self, File},
    future::Future as _,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    thread::JoinHandle,
};

use super::{
    tests::{mesh, refused, request},
    *,
};
use crate::types::{Namespace, Workload};

/// A pipe in place of the file: what is written waits until somebody reads.
struct Pipe {
    _dir: tempfile::TempDir,
    path: PathBuf,
    end: File,
}

impl Pipe {
    fn new() -> Self {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let end = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        Self { _dir: dir, path, end }
    }

    /// Reads until the line `/end`.
    fn read(&self) -> JoinHandle<Vec<String>> {
        let end = BufReader::new(self.end.try_clone().unwrap());
        std::thread::spawn(move || {
            end.lines().map(Result::unwrap).take_while(|line| line != "/end").collect()
        })
    }
}

fn of(name: &str, path: &str, entry: AccessLogEntry) -> AccessLogEntry {
    let workload = Workload {
        name: name.into(),
        namespace: Namespace("default".into()),
        ..(**entry.workload.as_ref().unwrap()).clone()
    };
    AccessLogEntry { path: Some(path.into()), workload: Some(Arc::new(workload)), ..entry }
}

fn count(log: &AccessLog, name: &str, fate: LineFate) -> u64 {
    let all = log.unwritten().into_iter();
    let its = all.filter(|lines| lines.workload.as_ref().is_some_and(|(_, its)| &**its == name));
    its.filter(|lines| lines.fate == fate).map(|lines| lines.count).sum()
}

/// What `aggregated=` says in all lines.
fn aggregated(lines: &[String]) -> u64 {
    let counts = lines.iter().filter_map(|line| line.split_once("aggregated="));
    counts.map(|(_, rest)| rest.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn refusals_of_one_take_no_line_of_what_others_had_forwarded() {
    let pipe = Pipe::new();
    let log = AccessLog::default();
    log.configure(&mesh(Some(&pipe.path))).unwrap();
    let flood = 200_000;
    for n in 0..flood {
        log.log(&of("flood", "/refused", refused()));
        if n % 10_000 == 0 {
            log.log(&of("good", &format!("/good/{n}"), request()));
        }
    }
    let reader = pipe.read();
    log.shutdown();
    log_end(&pipe);
    let lines = reader.join().unwrap();
    let good = lines.iter().filter(|line| line.starts_with("/good/")).count();
    assert_eq!(good, 20, "each forwarded request has its line");
    let own = u64::try_from(lines.iter().filter(|line| *line == "/refused").count()).unwrap();
    assert!(own >= 100 && own < flood / 2, "{own} lines of refusals");
    assert_eq!(own + aggregated(&lines), flood, "each refusal is a line or in a count");
    let reason = LineFate::Aggregated(refused().reason.unwrap());
    assert_eq!(count(&log, "flood", reason), flood - own);
    assert_eq!(log.counts().dropped, 0);
}

fn log_end(pipe: &Pipe) {
    use std::io::Write as _;
    (&pipe.end).write_all(b"/end\n").unwrap();
}

#[test]
fn what_one_has_forwarded_takes_no_line_of_others() {
    let pipe = Pipe::new();
    let log = AccessLog::default();
    log.configure(&mesh(Some(&pipe.path))).unwrap();
    let long = format!("/flood/{}", "x".repeat(10_000));
    while count(&log, "flood", LineFate::Lost) < 100 {
        log.log(&of("flood", &long, request()));
    }
    for n in 0..1000 {
        log.log(&of("good", &format!("/good/{n}"), request()));
    }
    let reader = pipe.read();
    log.shutdown();
    log_end(&pipe);
    let lines = reader.join().unwrap();
    assert_eq!(lines.iter().filter(|line| line.starts_with("/good/")).count(), 1000);
    assert_eq!(log.counts().dropped, count(&log, "flood", LineFate::Lost));
}

#[tokio::test]
async fn what_is_forwarded_waits_for_its_line() {
    let pipe = Pipe::new();
    let log = AccessLog::default();
    log.configure(&mesh(Some(&pipe.path))).unwrap();
    let entry = of("busy", &format!("/busy/{}", "x".repeat(10_000)), request());
    let (busy, idle) = (entry.owner(), of("idle", "/", request()).owner());
    let mut waiting = 0;
    // The first that would have to wait while nobody reads.
    let logged = loop {
        let mut room = pin!(log.wait_for_room(&busy));
        if room.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            let mut others = pin!(log.wait_for_room(&idle));
            let ready = others.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
            assert!(ready, "only the one with too many lines waits");
            let reader = pipe.read();
            room.await;
            log.log(&entry);
            break (waiting + 1, reader);
        }
        log.log(&entry);
        waiting += 1;
    };
    log.shutdown();
    log_end(&pipe);
    let lines = logged.1.join().unwrap();
    assert_eq!(lines.len(), logged.0);
    assert_eq!(log.counts().dropped, 0);
}

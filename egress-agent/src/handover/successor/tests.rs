use std::{net::TcpListener, time::Instant};

use tempfile::TempDir;

use super::*;

/// A program that does this.
fn script(text: &str) -> Program {
    Program { path: "/bin/sh".into(), args: vec!["-c".into(), text.into()] }
}

#[tokio::test]
async fn a_program_that_cannot_take_over_is_an_error_that_says_why() {
    let dir = TempDir::new().unwrap();
    let none = Program { path: dir.path().join("none"), args: Vec::new() };
    let error = upgrade(&none, &[], Vec::new()).await.unwrap_err();
    assert!(matches!(error, UpgradeError::Start { .. }), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sockets = vec![("capture 80".to_owned(), listener.into())];
    let ends = script("exit 7");
    let error = upgrade(&ends, &sockets, Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("exit status: 7"), "{error}");
    // It closes the channel, which is its standard input, and is ended.
    let start = Instant::now();
    let stays = script("exec sleep 600 </dev/null");
    let error = upgrade(&stays, &sockets, Vec::new()).await.unwrap_err();
    assert!(matches!(error, UpgradeError::Silent), "{error}");
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn an_upgrade_that_is_given_up_ends_the_new_process() {
    let dir = TempDir::new().unwrap();
    let pid = dir.path().join("pid");
    let stays = script(&format!("echo $$ >{0}.new; mv {0}.new {0}; exec sleep 600", pid.display()));
    let upgrading = tokio::spawn(async move { upgrade(&stays, &[], Vec::new()).await.map(drop) });
    let number = loop {
        if let Ok(text) = fs::read_to_string(&pid) {
            break text.trim().to_owned();
        }
        sleep(LOOK).await;
    };
    assert!(Path::new("/proc").join(&number).exists());
    upgrading.abort();
    assert!(upgrading.await.unwrap_err().is_cancelled());
    assert!(!Path::new("/proc").join(&number).exists());
}

#[test]
fn the_path_that_the_program_was_started_by_counts_if_it_leads_to_it() {
    let dir = TempDir::new().unwrap();
    let (own, link, other) =
        (dir.path().join("v1"), dir.path().join("current"), dir.path().join("other"));
    fs::write(&own, "1").unwrap();
    fs::write(&other, "2").unwrap();
    std::os::unix::fs::symlink(&own, &link).unwrap();
    assert_eq!(named_or_own(Some(&link), own.clone()), link);
    assert_eq!(named_or_own(Some(&other), own.clone()), own);
    assert_eq!(named_or_own(Some(Path::new("v1")), own.clone()), own);
    assert_eq!(named_or_own(None, own.clone()), own);
}

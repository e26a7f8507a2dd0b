use std::{fs, os::unix::fs::symlink, path::Path};

use tempfile::TempDir;

use super::*;
use crate::source::{Directory, Files, ReadError};

type Read = Result<Arc<Files>, Vec<ReadError>>;

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);
/// Polling never helps these tests: what is seen is seen by inotify.
const NO_POLL: Timing =
    Timing { quiet: Duration::from_millis(20), at_most: Duration::from_secs(1), poll: LONG };
/// Quick polling, for what inotify doesn't see.
const POLL: Timing = Timing { poll: Duration::from_millis(20), ..NO_POLL };

async fn next(watcher: &mut Watcher<Directory>) -> Read {
    timeout(LONG / 2, watcher.next()).await.expect("no change was noticed")
}

async fn text(watcher: &mut Watcher<Directory>) -> String {
    let files = next(watcher).await.unwrap();
    files.resources.iter().map(|file| &*file.text).collect()
}

fn watch(dir: &Path, timing: Timing) -> Watcher<Directory> {
    Watcher::new(Directory::new(dir.into(), None), timing)
}

#[tokio::test]
async fn writes_renames_and_removals_are_noticed() {
    let dir = TempDir::new().unwrap();
    let (file, other) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
    fs::write(&file, "1").unwrap();
    let mut watcher = watch(dir.path(), NO_POLL);
    assert_eq!(text(&mut watcher).await, "1");
    fs::write(&file, "2").unwrap();
    assert_eq!(text(&mut watcher).await, "2");
    // Atomic replacement.
    fs::write(dir.path().join(".a.tmp"), "3").unwrap();
    fs::rename(dir.path().join(".a.tmp"), &file).unwrap();
    assert_eq!(text(&mut watcher).await, "3");
    // vim: the original becomes the backup, a new file is written, the backup goes.
    fs::rename(&file, dir.path().join("a.yaml~")).unwrap();
    fs::write(&file, "4").unwrap();
    fs::remove_file(dir.path().join("a.yaml~")).unwrap();
    assert_eq!(text(&mut watcher).await, "4");
    fs::write(&other, "5").unwrap();
    assert_eq!(text(&mut watcher).await, "45");
    fs::remove_file(&file).unwrap();
    assert_eq!(text(&mut watcher).await, "5");
    // A directory of its own, made later.
    fs::create_dir(dir.path().join("app")).unwrap();
    fs::write(dir.path().join("app/c.yaml"), "6").unwrap();
    assert_eq!(text(&mut watcher).await, "65");
    fs::write(dir.path().join("app/c.yaml"), "7").unwrap();
    assert_eq!(text(&mut watcher).await, "75");
}

#[tokio::test]
async fn kubelets_swap_of_a_link_is_one_change() {
    let dir = TempDir::new().unwrap();
    for (version, text) in [("..1", "one"), ("..2", "two")] {
        fs::create_dir(dir.path().join(version)).unwrap();
        fs::write(dir.path().join(version).join("a.yaml"), text).unwrap();
        fs::write(dir.path().join(version).join("b.yaml"), text).unwrap();
    }
    symlink("..1", dir.path().join("..data")).unwrap();
    symlink("..data/a.yaml", dir.path().join("a.yaml")).unwrap();
    symlink("..data/b.yaml", dir.path().join("b.yaml")).unwrap();
    let mut watcher = watch(dir.path(), NO_POLL);
    assert_eq!(text(&mut watcher).await, "oneone");
    symlink("..2", dir.path().join("..data_tmp")).unwrap();
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    assert_eq!(text(&mut watcher).await, "twotwo");
}

#[tokio::test]
async fn a_directory_that_goes_is_an_error_and_may_come_back() {
    let top = TempDir::new().unwrap();
    let dir = top.path().join("config");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a.yaml"), "1").unwrap();
    let mut watcher = watch(&dir, NO_POLL);
    assert_eq!(text(&mut watcher).await, "1");
    fs::remove_dir_all(&dir).unwrap();
    // The file may be seen to go first.
    let mut read = next(&mut watcher).await;
    if read.is_ok() {
        read = next(&mut watcher).await;
    }
    assert!(matches!(&read.unwrap_err()[..], [ReadError::Directory { .. }]));
    // Made elsewhere and moved here at once, as a deployment does.
    fs::create_dir(top.path().join("new")).unwrap();
    fs::write(top.path().join("new/a.yaml"), "2").unwrap();
    fs::rename(top.path().join("new"), &dir).unwrap();
    assert_eq!(text(&mut watcher).await, "2");
    fs::write(dir.join("a.yaml"), "3").unwrap();
    assert_eq!(text(&mut watcher).await, "3");
}

#[tokio::test]
async fn the_mesh_file_is_watched_wherever_it_is() {
    let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mesh = elsewhere.path().join("mesh.yaml");
    fs::write(&mesh, "1").unwrap();
    let directory = Directory::new(dir.path().into(), Some(mesh.clone()));
    let mut watcher = Watcher::new(directory, NO_POLL);
    assert_eq!(next(&mut watcher).await.unwrap().mesh.as_ref().unwrap().text, "1");
    fs::write(elsewhere.path().join("new"), "2").unwrap();
    fs::rename(elsewhere.path().join("new"), &mesh).unwrap();
    assert_eq!(next(&mut watcher).await.unwrap().mesh.as_ref().unwrap().text, "2");
    fs::remove_file(&mesh).unwrap();
    assert!(next(&mut watcher).await.is_err());
}

#[tokio::test]
async fn what_inotify_does_not_see_is_polled() {
    let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let target = elsewhere.path().join("target");
    fs::write(&target, "1").unwrap();
    symlink(&target, dir.path().join("a.yaml")).unwrap();
    let mut watcher = watch(dir.path(), POLL);
    assert_eq!(text(&mut watcher).await, "1");
    fs::write(&target, "22").unwrap();
    assert_eq!(text(&mut watcher).await, "22");
    // The same without inotify at all.
    watcher.inotify = None;
    fs::write(&target, "333").unwrap();
    assert_eq!(text(&mut watcher).await, "333");
}

#[tokio::test]
async fn a_touch_without_a_new_content_is_no_change() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, "1").unwrap();
    let mut watcher = watch(dir.path(), POLL);
    assert_eq!(text(&mut watcher).await, "1");
    fs::write(&file, "1").unwrap();
    assert!(timeout(Duration::from_millis(300), watcher.next()).await.is_err());
    fs::write(&file, "2").unwrap();
    assert_eq!(text(&mut watcher).await, "2");
    assert_eq!(watcher.again().await.unwrap().resources.len(), 1);
}

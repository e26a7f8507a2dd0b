use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

fn names(files: &Files, dir: &TempDir) -> Vec<String> {
    let relative = |file: &RawFile| {
        let path = Path::new(&file.path).strip_prefix(dir.path()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    files.resources.iter().map(relative).collect()
}

fn write(dir: &TempDir, name: &str, text: &str) {
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn yaml_in_the_directory_and_one_below_counts_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    for name in ["b.yaml", "a.yml", "apps/web.yaml"] {
        write(&dir, name, name);
    }
    let editors = [".a.yml.swp", "a.yml~", "#a.yml#", "b.yaml.orig", "b.yaml.bak", ".#b.yaml"];
    let others = ["4913", "README.md", ".git/x.yaml", "apps/deep/x.yaml", "yaml"];
    for name in editors.iter().chain(&others) {
        write(&dir, name, "not this");
    }
    fs::create_dir(dir.path().join("dir.yaml")).unwrap();
    let files = Directory::new(dir.path().into(), None).read().unwrap();
    assert_eq!(names(&files, &dir), ["a.yml", "apps/web.yaml", "b.yaml"]);
    assert_eq!(files.mesh, None);
    assert_eq!(files.resources[0].text, "a.yml");
}

#[test]
fn the_mesh_file_is_no_resource() {
    let dir = TempDir::new().unwrap();
    write(&dir, "a.yaml", "a");
    write(&dir, "mesh.yaml", "m");
    write(&dir, "other.yaml", "o");

    let files = Directory::new(dir.path().into(), None).read().unwrap();
    assert_eq!(names(&files, &dir), ["a.yaml", "other.yaml"]);
    assert_eq!(files.mesh.unwrap().text, "m");

    // Named by another spelling of its path.
    let spelled = dir.path().join("./other.yaml");
    let files = Directory::new(dir.path().into(), Some(spelled)).read().unwrap();
    assert_eq!(names(&files, &dir), ["a.yaml", "mesh.yaml"]);
    assert_eq!(files.mesh.unwrap().text, "o");
}

#[test]
fn every_unreadable_part_is_an_error_and_not_an_absence() {
    let dir = TempDir::new().unwrap();
    write(&dir, "good.yaml", "good");
    fs::write(dir.path().join("latin.yaml"), b"caf\xe9").unwrap();
    symlink("nowhere", dir.path().join("broken.yaml")).unwrap();
    let mesh = dir.path().join("no-mesh");
    let errors = Directory::new(dir.path().into(), Some(mesh.clone())).read().unwrap_err();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(matches!(&errors[0], ReadError::File { path, .. } if *path == mesh));
    assert!(matches!(&errors[1], ReadError::File { path, .. } if path.ends_with("broken.yaml")));
    assert!(matches!(&errors[2], ReadError::NotText { at: 3, .. }));

    let gone = Directory::new(dir.path().join("gone"), None).read().unwrap_err();
    assert!(matches!(&gone[..], [ReadError::Directory { .. }]), "{gone:?}");
    let file = Directory::new(dir.path().join("good.yaml"), None).read().unwrap_err();
    assert!(matches!(&file[..], [ReadError::Directory { .. }]), "{file:?}");
}

#[test]
fn an_empty_directory_is_no_error() {
    let dir = TempDir::new().unwrap();
    assert_eq!(Directory::new(dir.path().into(), None).read(), Ok(Files::default()));
}

#[test]
fn a_file_too_large_is_refused() {
    let dir = TempDir::new().unwrap();
    let file = File::create(dir.path().join("big.yaml")).unwrap();
    file.set_len(MAX_FILE_BYTES + 1).unwrap();
    let errors = Directory::new(dir.path().into(), None).read().unwrap_err();
    assert!(matches!(&errors[..], [ReadError::TooLarge { .. }]));
    file.set_len(0).unwrap();
    assert!(Directory::new(dir.path().into(), None).read().is_ok());
}

#[test]
fn the_fingerprint_tells_content_and_presence() {
    let dir = TempDir::new().unwrap();
    let directory = Directory::new(dir.path().join("config"), None);
    let absent = directory.fingerprint();
    fs::create_dir(dir.path().join("config")).unwrap();
    let empty = directory.fingerprint();
    assert_ne!(absent, empty);
    write(&dir, "config/a.yaml", "1");
    let one = directory.fingerprint();
    assert_ne!(empty, one);
    write(&dir, "config/a.yaml~", "backup");
    assert_eq!(one, directory.fingerprint());
    write(&dir, "config/a.yaml", "22");
    assert_ne!(one, directory.fingerprint());
}

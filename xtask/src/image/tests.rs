use super::*;

const SMALL: u64 = 1 << 20;

fn program() -> Vec<u8> {
    [b"\x7fELF".to_vec(), (0..200_u8).cycle().take(4096).collect()].concat()
}

fn image(directory: &Path) {
    make(directory, "egress-enforcer:1.2.3", &program(), b"authorities\n").expect("an image");
}

#[test]
fn an_image_is_read_back_as_it_was_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("image");
    image(&output);
    let read = layout::check(&output, SMALL).expect("it is whole");
    assert_eq!(read.config["os"], "linux");
    let env = serde_json::json!(["PATH=/", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"]);
    assert_eq!(read.config["config"]["Env"], env);
    let paths: Vec<_> = read.files.iter().map(|file| &*file.path).collect();
    let expected =
        ["egress-agent", "etc/", "etc/ssl/", "etc/ssl/certs/", "etc/ssl/certs/ca-certificates.crt"];
    assert_eq!(paths, expected);
    assert_eq!(read.files[0].size, 4100);
    let index = fs::read_to_string(output.join("index.json")).expect("an index");
    assert!(index.contains(r#""org.opencontainers.image.ref.name":"1.2.3""#), "{index}");
    let blobs = fs::read_dir(output.join("blobs/sha256")).expect("blobs").count();
    assert_eq!(blobs, 3, "a manifest, a configuration, a layer");
}

#[test]
fn the_same_files_make_the_same_image() {
    let directory = tempfile::tempdir().expect("a directory");
    let outputs = ["a", "b"].map(|name| directory.path().join(name));
    outputs.iter().for_each(|output| image(output));
    let [a, b] = outputs.map(|output| layout::read(&output).expect("an image").digest);
    assert_eq!(a, b);
    // It replaces itself, and nothing that is no image.
    image(&directory.path().join("a"));
    let other = directory.path().join("other");
    fs::create_dir(&other).expect("a directory");
    fs::write(other.join("precious"), "").expect("a file");
    assert!(make(&other, "x:1", &program(), b"a").is_err());
    assert!(other.join("precious").exists());
}

/// Whatever is changed in an image is found.
#[test]
fn a_changed_image_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("image");
    let blobs = || {
        let blobs = fs::read_dir(output.join("blobs/sha256")).expect("blobs").flatten();
        blobs.map(|blob| blob.path()).collect::<Vec<_>>()
    };
    image(&output);
    for number in 0..blobs().len() {
        image(&output);
        let path = &blobs()[number];
        let mut bytes = fs::read(path).expect("a blob");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(path, bytes).expect("a blob");
        let error = format!("{:#}", layout::check(&output, SMALL).expect_err("it is changed"));
        assert!(error.contains("holds something else"), "{error}");
        image(&output);
        fs::remove_file(&blobs()[number]).expect("a blob");
        assert!(layout::check(&output, SMALL).is_err());
    }
    for (name, from, to) in [
        ("oci-layout", "1.0.0", "2.0.0"),
        ("index.json", "\"size\":", "\"size\":1"),
        ("index.json", "sha256:", "sha256:../"),
    ] {
        image(&output);
        let text = fs::read_to_string(output.join(name)).expect(name).replace(from, to);
        fs::write(output.join(name), text).expect(name);
        assert!(layout::check(&output, SMALL).is_err(), "{name}: {to}");
    }
}

#[test]
fn an_image_that_is_too_large_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("image");
    image(&output);
    let size = layout::read(&output).expect("an image").compressed;
    assert!(layout::check(&output, size).is_ok());
    let error = layout::check(&output, size - 1).expect_err("a byte too much").to_string();
    assert!(error.contains("MiB"), "{error}");
}

#[test]
fn only_a_program_becomes_an_image() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("image");
    assert!(make(&output, "x:1", b"#!/bin/sh\n", b"a").is_err());
    make(&output, "x:1", &program(), b"").expect("it is written");
    assert!(layout::check(&output, SMALL).is_err(), "no authorities");
}

/// The Containerfile makes the same image with a container engine.
#[test]
fn the_containerfile_agrees() {
    let text = fs::read_to_string(run::root().join("Containerfile")).expect("the Containerfile");
    let (_, last) = text.rsplit_once("\nFROM ").expect("stages");
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().join("image");
    image(&output);
    let config = layout::read(&output).expect("an image").config;
    let config = &config["config"];
    for env in config["Env"].as_array().expect("variables") {
        let line = format!("ENV {}\n", env.as_str().expect("text"));
        assert!(last.contains(&line), "{line}");
    }
    for (word, field) in [("ENTRYPOINT", "Entrypoint"), ("CMD", "Cmd")] {
        let line = format!("{word} {}\n", config[field]);
        assert!(last.contains(&line), "{line}");
    }
    for path in [PROGRAM, AUTHORITIES] {
        assert!(last.contains(&format!(" /{path}\n")), "{path} is not copied");
    }
}

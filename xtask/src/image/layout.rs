//! The OCI image layout (image-spec 1.1): a directory of blobs named by their digests, an index that names
//! the manifest, and a file that says what this is. Written here, and read back.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::layer::{AUTHORITIES, File, Layer, PROGRAM, decompress, digest, list};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What the image's configuration says.
pub(super) struct Config<'a> {
    pub(super) architecture: &'static str,
    pub(super) version: &'a str,
    pub(super) diff_id: &'a str,
}

impl Config<'_> {
    fn json(&self) -> Value {
        json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "Entrypoint": [format!("/{PROGRAM}")],
                "Cmd": ["--help"],
                // `kubectl exec … -- egress-agent status` finds it.
                "Env": ["PATH=/", format!("SSL_CERT_FILE=/{AUTHORITIES}")],
                "WorkingDir": "/",
                "Labels": {
                    "org.opencontainers.image.title": "egress-enforcer",
                    "org.opencontainers.image.version": self.version,
                    "org.opencontainers.image.licenses": "Apache-2.0",
                },
            },
            "rootfs": {"type": "layers", "diff_ids": [self.diff_id]},
        })
    }
}

/// A layout that is written.
pub(super) struct Layout {
    directory: PathBuf,
}

impl Layout {
    /// An empty one, in place of what is there. Only a layout is replaced.
    pub(super) fn new(directory: &Path) -> Result<Self> {
        let at = || directory.display().to_string();
        if directory.exists() {
            ensure!(
                directory.join("oci-layout").is_file(),
                "{} is there and no image layout; it is not replaced",
                at()
            );
            fs::remove_dir_all(directory).with_context(at)?;
        }
        fs::create_dir_all(directory.join("blobs/sha256")).with_context(at)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Writes an image of one layer; the file that says that it is a layout comes last.
    pub(super) fn write(&mut self, name: &str, config: &Config<'_>, layer: &Layer) -> Result<()> {
        let config = self.blob(CONFIG, config.json().to_string().as_bytes())?;
        let layer = self.blob(LAYER, &layer.compressed)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
        });
        let mut manifest = self.blob(MANIFEST, manifest.to_string().as_bytes())?;
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        manifest["annotations"] = json!({
            "org.opencontainers.image.ref.name": tag,
            "io.containerd.image.name": name,
        });
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
        self.file("index.json", index.to_string().as_bytes())?;
        self.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
    }

    /// Writes a blob, and gives its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Result<Value> {
        let digest = digest(bytes)?;
        self.file(&blob_path(&digest)?, bytes)?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.directory.join(name);
        fs::write(&path, bytes).with_context(|| path.display().to_string())
    }
}

fn blob_path(digest: &str) -> Result<String> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    });
    let hex = hex.with_context(|| format!("{digest} is no digest"))?;
    Ok(format!("blobs/sha256/{hex}"))
}

/// What was read back.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) digest: String,
    pub(super) config: Value,
    pub(super) files: Vec<File>,
    pub(super) compressed: u64,
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:.1} MiB compressed", self.digest, mib(self.compressed))?;
        for File { path, mode, size, .. } in &self.files {
            write!(f, "\n    {mode} {:>7.1} MiB /{path}", mib(*size))?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a size to be read by people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Reads an image and holds it to what it must be: every digest and size, the program alone with the
/// authorities, all of it root's, and no more than `most` bytes.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(directory: &Path, most: u64) -> Result<Image> {
    let image = read(directory)?;
    let config = &image.config["config"];
    ensure!(config["Entrypoint"] == json!([format!("/{PROGRAM}")]), "the entry point: {config}");
    let files: Vec<_> = image.files.iter().filter(|file| !file.path.ends_with('/')).collect();
    let names: Vec<_> = files.iter().map(|file| (&*file.path, &*file.mode)).collect();
    ensure!(
        names == [(PROGRAM, "-rwxr-xr-x"), (AUTHORITIES, "-rw-r--r--")],
        "the files are {names:?}"
    );
    for file in &image.files {
        ensure!(file.owner == "0/0", "{} is not root's", file.path);
    }
    ensure!(files.iter().all(|file| file.size > 0), "a file is empty");
    ensure!(
        image.compressed <= most,
        "the image is of {:.1} MiB, and at most {:.1} are expected",
        mib(image.compressed),
        mib(most)
    );
    Ok(image)
}

/// Follows the index to the manifest, the configuration and the layer.
pub(super) fn read(directory: &Path) -> Result<Image> {
    let layout: Value = parse(&file(directory, "oci-layout")?)?;
    ensure!(layout["imageLayoutVersion"] == "1.0.0", "no image layout: {layout}");
    let index: Value = parse(&file(directory, "index.json")?)?;
    ensure!(index["mediaType"] == INDEX && index["schemaVersion"] == 2, "the index: {index}");
    let [manifest_of] = items(&index["manifests"]) else { bail!("the index: {index}") };
    let manifest: Value = parse(&blob(directory, manifest_of, MANIFEST)?)?;
    let config: Value = parse(&blob(directory, &manifest["config"], CONFIG)?)?;
    let [layer_of] = items(&manifest["layers"]) else { bail!("the layers: {manifest}") };
    let compressed = blob(directory, layer_of, LAYER)?;
    let tar = decompress(&compressed)?;
    let of_tar = digest(&tar)?;
    ensure!(
        config["rootfs"]["diff_ids"] == json!([of_tar]),
        "the layer is not the configuration's"
    );
    Ok(Image {
        digest: manifest_of["digest"].as_str().unwrap_or_default().to_owned(),
        config,
        files: list(&tar)?,
        compressed: u64::try_from(compressed.len())?,
    })
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn parse(bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).context("JSON")
}

fn file(directory: &Path, name: &str) -> Result<Vec<u8>> {
    let path = directory.join(name);
    fs::read(&path).with_context(|| path.display().to_string())
}

/// The blob of a descriptor, if it is what the descriptor says.
fn blob(directory: &Path, descriptor: &Value, media_type: &str) -> Result<Vec<u8>> {
    ensure!(descriptor["mediaType"] == media_type, "{descriptor} is no {media_type}");
    let wanted = descriptor["digest"].as_str().context("a descriptor without a digest")?;
    let bytes = file(directory, &blob_path(wanted)?)?;
    ensure!(digest(&bytes)? == wanted, "{wanted} holds something else");
    ensure!(descriptor["size"] == json!(bytes.len()), "{wanted} is of another size");
    Ok(bytes)
}

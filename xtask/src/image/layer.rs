//! The image's only layer: a tar file, compressed. tar, gzip and sha256sum make it, which every Debian has.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

use crate::run;

/// The program's path in the image.
pub(super) const PROGRAM: &str = "egress-agent";
/// The trusted authorities' path in the image, where programs look for them on Debian.
pub(super) const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";

/// A file of the image.
pub(super) struct Entry<'a> {
    pub(super) path: &'a str,
    pub(super) mode: u32,
    pub(super) bytes: &'a [u8],
}

/// A layer, as the layout holds it.
pub(super) struct Layer {
    pub(super) compressed: Vec<u8>,
    /// Of the tar file before it was compressed.
    pub(super) diff_id: String,
}

/// A file or a directory of a layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct File {
    /// That of a directory ends in a slash.
    pub(super) path: String,
    /// As `ls -l` writes it.
    pub(super) mode: String,
    pub(super) size: u64,
    /// User and group, by number.
    pub(super) owner: String,
}

/// `sha256:…`.
pub(super) fn digest(bytes: &[u8]) -> Result<String> {
    let output = filter(&mut run::command("sha256sum"), bytes)?;
    let text = String::from_utf8(output).context("sha256sum's output")?;
    let hex = text.split(' ').next().unwrap_or_default();
    Ok(format!("sha256:{hex}"))
}

/// The layer of these files and of the directories above them; all are root's and without a time.
pub(super) fn layer(files: &[Entry<'_>]) -> Result<Layer> {
    let root = tempfile::tempdir().context("a directory for the layer")?;
    for Entry { path, mode, bytes } in files {
        let path = root.path().join(path);
        let above = path.parent().context("a file is in a directory")?;
        fs::create_dir_all(above).with_context(|| above.display().to_string())?;
        for directory in above.ancestors().take_while(|above| *above != root.path()) {
            allow(directory, 0o755)?;
        }
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
        allow(&path, *mode)?;
    }
    let mut tar = run::command("tar");
    tar.args(["--create", "--file=-", "--format=ustar", "--sort=name", "--mtime=@0"]);
    tar.args(["--owner=0", "--group=0", "--numeric-owner", "--directory"]).arg(root.path());
    let first = |file: &Entry<'_>| file.path.split('/').next().map(str::to_owned);
    let tar = filter(tar.args(files.iter().filter_map(first)), &[])?;
    let compressed = filter(run::command("gzip").args(["--best", "--no-name"]), &tar)?;
    Ok(Layer { compressed, diff_id: digest(&tar)? })
}

fn allow(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| path.display().to_string())
}

/// The tar file of a layer.
pub(super) fn decompress(layer: &[u8]) -> Result<Vec<u8>> {
    filter(run::command("gzip").arg("--decompress"), layer)
}

/// What is in a tar file.
pub(super) fn list(tar: &[u8]) -> Result<Vec<File>> {
    let output = filter(
        run::command("tar").args(["--list", "--file=-", "--verbose", "--numeric-owner"]),
        tar,
    )?;
    let text = String::from_utf8(output).context("tar's output")?;
    text.lines().map(|line| listed(line).with_context(|| line.to_owned())).collect()
}

/// `-rwxr-xr-x 0/0 4100 1970-01-01 00:00 egress-agent`.
fn listed(line: &str) -> Option<File> {
    let mut words = line.split_whitespace();
    let (mode, owner) = (words.next()?.to_owned(), words.next()?.to_owned());
    let size = words.next()?.parse().ok()?;
    let path = words.nth(2)?.to_owned();
    words.next().is_none().then_some(File { path, mode, size, owner })
}

/// What a program writes when it reads this.
fn filter(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    let text = run::text(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().with_context(|| format!("cannot start `{text}`"))?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        // Both at a time: a program may write before it has read everything. That it does not read to the
        // end is its own error, which its status shows.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input).ok()));
        child.wait_with_output()
    })
    .with_context(|| format!("`{text}`"))?;
    if !output.status.success() {
        bail!("`{text}` failed: {}", output.status);
    }
    Ok(output.stdout)
}

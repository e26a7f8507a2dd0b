//! Debian's kernel packages: which there are, and getting one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::run;

/// A kernel, unpacked.
pub(crate) struct Kernel {
    /// `6.1`.
    pub(crate) version: String,
    /// `6.1.0-56-amd64`, as `uname -r` says.
    pub(crate) release: String,
    /// The compressed kernel.
    pub(crate) image: PathBuf,
    /// The directory that is `/lib/modules` for it.
    pub(crate) modules: PathBuf,
}

/// A package that can be had, the newest of its version.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Offer {
    /// `6.1`.
    pub(crate) version: String,
    name: String,
}

/// The newest package of each kernel version that apt's lists hold.
///
/// # Errors
/// There is no apt.
pub(crate) fn offers() -> Result<Vec<Offer>> {
    let names =
        run::output("apt-cache", &["search", "--names-only", "^linux-image-[0-9].*-amd64$"]);
    let names = names.context("apt-cache can't be asked: this needs Debian's package lists")?;
    Ok(newest(names.lines().filter_map(|line| line.split(' ').next())))
}

/// The newest of each version. Other flavours (cloud, rt) lack what the guest needs.
fn newest<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Offer> {
    let mut found: Vec<(Vec<u32>, Offer)> = Vec::new();
    for name in names {
        let Some(middle) =
            name.strip_prefix("linux-image-").and_then(|name| name.strip_suffix("-amd64"))
        else {
            continue;
        };
        let flavoured =
            ["cloud", "rt", "dbg", "unsigned"].iter().any(|word| middle.ends_with(word));
        let numbers = numbers(middle);
        // A meta-package (`linux-image-6.12-amd64`) has two numbers, and no kernel in it.
        let [major, minor, _, ..] = numbers[..] else { continue };
        if flavoured {
            continue;
        }
        let offer = Offer { version: format!("{major}.{minor}"), name: name.to_owned() };
        match found.iter_mut().find(|(_, other)| other.version == offer.version) {
            Some(best) if best.0 < numbers => *best = (numbers, offer),
            Some(_) => {}
            None => found.push((numbers, offer)),
        }
    }
    found.sort();
    found.into_iter().map(|(_, offer)| offer).collect()
}

fn numbers(text: &str) -> Vec<u32> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Downloads and unpacks it, unless that was done before.
///
/// # Errors
/// The download fails, or there is no kernel in the package.
pub(crate) fn fetch(offer: &Offer, dir: &Path) -> Result<Kernel> {
    let unpacked = dir.join(&offer.name);
    if !unpacked.is_dir() {
        println!("downloading {}", offer.name);
        run::show(run::command("apt-get").args(["download", &offer.name]).current_dir(dir))?;
        let start = format!("{}_", offer.name);
        let package = fs::read_dir(dir)?.flatten().map(|entry| entry.path()).find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(&start) && name.ends_with(".deb")
        });
        let package = package.with_context(|| format!("apt-get downloaded no {start}….deb"))?;
        unpack(&package, &unpacked)?;
        fs::remove_file(package)?;
    }
    kernel_in(&unpacked)
}

/// Unpacks a package that was downloaded otherwise.
///
/// # Errors
/// There is no kernel in it.
pub(crate) fn given(package: &Path, dir: &Path) -> Result<Kernel> {
    let name = package.file_stem().unwrap_or_default();
    let unpacked = dir.join(name);
    if !unpacked.is_dir() {
        unpack(package, &unpacked)?;
    }
    kernel_in(&unpacked)
}

fn unpack(package: &Path, to: &Path) -> Result<()> {
    // Half an unpacked package must not look whole.
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let part = to.with_file_name(format!(".{name}.part"));
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    run::show(run::command("dpkg-deb").arg("--extract").args([package, &part]))?;
    let kernel = kernel_in(&part)?;
    let base = kernel.modules.ancestors().nth(2).unwrap_or(&part).to_owned();
    // The package is meant to be configured; its modules' dependencies are made here instead.
    run::show(run::command("depmod").arg("--basedir").arg(base).arg(&kernel.release))?;
    fs::rename(&part, to).with_context(|| to.display().to_string())
}

fn kernel_in(unpacked: &Path) -> Result<Kernel> {
    let nothing = || format!("there is no kernel with modules in {}", unpacked.display());
    // Packages of Debian 13 and later have the modules below /usr.
    let modules = ["lib/modules", "usr/lib/modules"].map(|path| unpacked.join(path));
    let modules = modules.into_iter().find(|path| path.is_dir()).with_context(nothing)?;
    let entry = fs::read_dir(&modules)?.flatten().next().with_context(nothing)?;
    let release = entry.file_name().to_string_lossy().into_owned();
    let image = unpacked.join("boot").join(format!("vmlinuz-{release}"));
    let [major, minor, ..] = numbers(&release)[..] else {
        bail!("{release} in {} is no kernel's release", unpacked.display());
    };
    if !image.is_file() {
        bail!(nothing());
    }
    Ok(Kernel { version: format!("{major}.{minor}"), release, image, modules })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_plain_package_of_each_version_is_taken() {
        let names = [
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-47-amd64",
            "linux-image-6.1.0-99-cloud-amd64",
            "linux-image-6.1.0-99-rt-amd64",
            "linux-image-6.1.0-99-amd64-dbg",
            "linux-image-6.1.0-99-amd64-unsigned",
            "linux-image-6.12-amd64",
            "linux-image-amd64",
            "linux-image-6.12.117+deb12-amd64",
            "linux-image-6.12.9+deb12-amd64",
            "linux-image-5.10.0-30-amd64",
        ];
        let offers = newest(names.into_iter());
        let found: Vec<_> =
            offers.iter().map(|offer| (offer.version.as_str(), offer.name.as_str())).collect();
        assert_eq!(
            found,
            [
                ("5.10", "linux-image-5.10.0-30-amd64"),
                ("6.1", "linux-image-6.1.0-56-amd64"),
                ("6.12", "linux-image-6.12.117+deb12-amd64"),
            ]
        );
    }
}

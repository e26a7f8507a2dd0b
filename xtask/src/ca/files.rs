//! What the small authority does with files, and the way it runs `openssl`.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};

/// Replaces all files of a directory at once, as kubelet does: a new directory, and one rename of a
/// link to it.
pub(super) fn publish(home: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let version = format!("..{stamp}");
    let before = fs::read_link(home.join("..data")).ok();
    fs::create_dir_all(home.join(&version))?;
    for (name, content) in files {
        let path = home.join(&version).join(name);
        fs::write(&path, content)?;
        if name.ends_with(".key") {
            private(&path)?;
        }
    }
    let next = home.join("..data_tmp");
    symlink(&version, &next)?;
    fs::rename(&next, home.join("..data"))?;
    for (name, _) in files {
        let link = home.join(name);
        if !link.is_symlink() {
            symlink(format!("..data/{name}"), link)?;
        }
    }
    if let Some(before) = before {
        fs::remove_dir_all(home.join(before))?;
    }
    Ok(())
}

/// Nobody else reads it.
pub(super) fn private(path: &Path) -> Result<()> {
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// A time as `openssl ca` wants it: `YYYYMMDDHHMMSSZ`.
pub(super) fn date(time: SystemTime) -> Result<String> {
    let seconds = time.duration_since(UNIX_EPOCH)?.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 1970 to a date of the Gregorian calendar, in years that begin in March.
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    Ok(format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}Z"))
}

/// An `openssl` command whose output matters only where it fails.
pub(super) struct Openssl(Command);

pub(super) fn openssl(args: &[&str]) -> Openssl {
    let mut process = Command::new("openssl");
    process.args(args);
    Openssl(process)
}

impl Openssl {
    pub(super) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.0.arg(arg);
        self
    }

    pub(super) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.0.args(args);
        self
    }

    pub(super) fn finish(mut self) -> Result<()> {
        let output = self
            .0
            .output()
            .context("cannot run openssl; install it (`apt-get install openssl`)")?;
        if !output.status.success() {
            bail!("{:?} failed:\n{}", self.0, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_openssl_wants_them() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        assert_eq!(at(0), "19700101000000Z");
        assert_eq!(at(951_782_399), "20000228235959Z");
        assert_eq!(at(951_782_400), "20000229000000Z");
        assert_eq!(at(1_767_225_599), "20251231235959Z");
    }
}

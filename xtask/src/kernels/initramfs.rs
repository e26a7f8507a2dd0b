//! The guest's first root file system: just enough to mount the host's files, read-only, and to
//! become what is there. So the guest has the tests, the agent and every tool at the paths that they
//! have here, and nothing has to be copied.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{cpio::Archive, package::Kernel};
use crate::run;

/// What the first script runs.
const TOOLS: [&str; 5] = ["sh", "mount", "mkdir", "insmod", "chroot"];
/// What the root needs: files of the host over virtio, and a layer that can be written to.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// The name under which QEMU offers the host's files.
pub(crate) const TAG: &str = "host";

/// Builds it. In it, `/init` mounts the host's root and runs the script at `then` from there.
///
/// # Errors
/// A tool or a module is missing.
pub(crate) fn build(kernel: &Kernel, then: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for tool in TOOLS {
        let path = run::find_program(tool)
            .with_context(|| format!("`{tool}` is missing on this machine"))?;
        archive.program(&Path::new("bin").join(tool), fs::read(&path)?)?;
        libraries(&mut archive, &path)?;
    }
    for dir in ["dev", "proc", "lower", "rw", "root"] {
        archive.directory(Path::new(dir))?;
    }
    let mut init = "#!/bin/sh\nset -e\nexport PATH=/bin\n".to_owned();
    let modules = kernel.modules.join(&kernel.release);
    let list = modules.join("modules.dep");
    let list = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    for module in in_order(&list, &MODULES) {
        let name = Path::new(&module).file_name().unwrap_or_default().to_string_lossy();
        let path = format!("/modules/{name}");
        archive.program(Path::new(&path), fs::read(modules.join(&module))?)?;
        writeln!(init, "insmod {path}")?;
    }
    // Moved, not only entered: Linux makes no user namespace in a changed root.
    write!(
        init,
        "mount -t proc proc /proc
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro {TAG} /lower
mount -t tmpfs tmpfs /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work overlay /root
cd /root
mount --no-mtab --move . /
exec chroot . /bin/sh {}
",
        then.display()
    )?;
    archive.program(Path::new("init"), init.into_bytes())?;
    archive.bytes()
}

/// The shared libraries of a program, at their own paths.
fn libraries(archive: &mut Archive, program: &Path) -> Result<()> {
    let list = run::output("ldd", &[&program.to_string_lossy()]).unwrap_or_default();
    for path in list.lines().filter_map(library) {
        if !archive.has(&path) {
            let data = fs::read(&path).with_context(|| path.display().to_string())?;
            archive.program(&path, data)?;
        }
    }
    Ok(())
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, or `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn library(line: &str) -> Option<PathBuf> {
    line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from)
}

/// The modules' files with what they depend on before them. One that isn't in the list (`modules.dep`)
/// is built into the kernel.
fn in_order(list: &str, wanted: &[&str]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        // `kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz …`: what is needed first is last.
        let line = list.lines().filter_map(|line| line.split_once(':')).find(|(file, _)| {
            let file = file.rsplit('/').next().unwrap_or_default();
            file.split('.').next() == Some(name)
        });
        let Some((file, needs)) = line else { continue };
        for file in needs.split_whitespace().rev().chain([file]) {
            if !order.iter().any(|other| other == file) {
                order.push(file.to_owned());
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let list = "kernel/fs/overlayfs/overlay.ko:\n\
                    kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/fscache/fscache.ko kernel/fs/netfs/netfs.ko\n\
                    kernel/net/9p/9pnet.ko.xz:\n\
                    kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko kernel/drivers/virtio/virtio.ko\n";
        assert_eq!(
            in_order(list, &["virtio_pci", "9pnet_virtio", "9p", "overlay"]),
            [
                "kernel/drivers/virtio/virtio.ko",
                "kernel/net/9p/9pnet.ko",
                "kernel/net/9p/9pnet_virtio.ko.xz",
                "kernel/fs/netfs/netfs.ko",
                "kernel/fs/fscache/fscache.ko",
                "kernel/fs/9p/9p.ko",
                "kernel/fs/overlayfs/overlay.ko",
            ]
        );
    }

    #[test]
    fn ldds_lines_hold_paths() {
        let path = |line| library(line).map(|path| path.to_string_lossy().into_owned());
        let libc = "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)";
        assert_eq!(path(libc).as_deref(), Some("/lib/x86_64-linux-gnu/libc.so.6"));
        assert_eq!(path("\t/lib64/ld.so (0x0)").as_deref(), Some("/lib64/ld.so"));
        assert_eq!(path("\tlinux-vdso.so.1 (0x00007f)"), None);
        assert_eq!(path("\tnot a dynamic executable"), None);
    }
}

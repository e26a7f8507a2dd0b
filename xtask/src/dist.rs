//! `cargo xtask dist`: the agent as one static file, which runs in a container image without
//! anything else in it (`FROM scratch`), and beside it its manual pages and completion scripts, a Debian package,
//! the SBOM and checksums.

mod artefacts;
mod cross;
mod package;
mod sbom;

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

pub(crate) use self::artefacts::{of_quick, package_of, release};
use crate::run;

/// Program header type of an interpreter's path, elf(5): a program that has one isn't static.
const PT_INTERP: u32 = 3;
/// Section type of a table of symbols, elf(5): what `strip` removes.
const SHT_SYMTAB: u32 = 2;

/// How the file is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Build {
    /// For users: optimised as a whole.
    Release,
    /// For tests: the same kernel programs and the same linking, hardly optimised, in a third of the
    /// time.
    Quick,
}

/// Where the file is.
pub(crate) fn path(build: Build) -> PathBuf {
    let dist = run::target_dir().join("dist");
    match build {
        Build::Release => dist,
        Build::Quick => dist.join("quick"),
    }
    .join("egress-agent")
}

/// Builds it (see [`path`]), and proves that it needs no other file.
///
/// # Errors
/// The build fails, or what came out isn't static or doesn't start.
pub(crate) fn run(how: Build) -> Result<PathBuf> {
    let profile = match how {
        Build::Release => "release",
        Build::Quick => "quick",
    };
    let target = format!("{ARCH}-unknown-linux-gnu");
    let mut build = run::command("cargo");
    build.args([
        "build",
        "--profile",
        profile,
        "--package",
        "egress-agent",
        "--bin",
        "egress-agent",
    ]);
    // With a target that is named, flags are for the agent alone: build scripts and procedural
    // macros stay as they are, and the other builds in this directory too.
    build.args(["--target", &target]).env("RUSTFLAGS", "-C target-feature=+crt-static");
    // Told by `egress-agent version`. Tests are not built anew for each commit.
    if let (Build::Release, Some(commit)) = (how, commit()) {
        build.env("EGRESS_COMMIT", commit);
    }
    println!("RUSTFLAGS='-C target-feature=+crt-static' {}", run::text(&build));
    run::show(&mut build)?;

    let built = run::target_dir().join(target).join(profile).join("egress-agent");
    let program = path(how);
    let dist = program.parent().context("the file has no directory")?;
    fs::create_dir_all(dist).with_context(|| dist.display().to_string())?;
    put(&built, &program)?;
    let bytes = fs::read(&program).with_context(|| program.display().to_string())?;
    if !is_static(&bytes).with_context(|| program.display().to_string())? {
        bail!(
            "{} needs a dynamic linker, so it isn't static. Is the static C library there \
             (Debian: libc6-dev)?",
            program.display()
        );
    }
    starts(dist, &program)?;
    if how == Build::Release {
        describe(dist, &program)?;
    }
    println!("{}: static, {} MiB", program.display(), bytes.len() >> 20);
    Ok(program)
}

/// The commit that is checked out, where this is a repository.
fn commit() -> Option<String> {
    let mut git = run::command("git");
    let output = git.args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Writes what the program says of itself: `man/man1/*.1`, and `completions/` for each shell.
fn describe(dist: &Path, program: &Path) -> Result<()> {
    describe_into(dist, program)?;
    println!("{}: manual pages and completion scripts", dist.display());
    Ok(())
}

fn describe_into(dist: &Path, program: &Path) -> Result<()> {
    let program = program.to_string_lossy();
    let pages = dist.join("man/man1");
    run::show(run::command(&program).arg("man").arg(&pages))?;
    let help = run::output(&program, &["--help"]).context("the program has no help")?;
    let commands = commands(&help);
    if commands.is_empty() {
        bail!("the help of {program} lists no command");
    }
    for command in commands {
        let page = pages.join(format!("egress-agent-{command}.1"));
        if !page.exists() {
            bail!("there is no {}", page.display());
        }
    }
    let dir = dist.join("completions");
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    for (shell, name) in
        [("bash", "egress-agent"), ("zsh", "_egress-agent"), ("fish", "egress-agent.fish")]
    {
        let output = run::command(&program).args(["completion", shell]).output()?;
        if !output.status.success() {
            bail!("{program} has no completion for {shell}");
        }
        let path = dir.join(name);
        fs::write(&path, output.stdout).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The commands that a page of help lists, but for `help`.
fn commands(help: &str) -> Vec<&str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| {
        // What goes on below a line is indented further.
        let name = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?;
        name.split_whitespace().next()
    });
    names.filter(|name| *name != "help").collect()
}

/// Beside it and then renamed: one that is running can't be written to. Each run writes a file of its
/// own, since several may run at a time.
fn put(built: &Path, program: &Path) -> Result<()> {
    let dir = program.parent().context("a program is in a directory")?;
    let new = tempfile::NamedTempFile::new_in(dir).with_context(|| dir.display().to_string())?;
    let path = new.path();
    fs::copy(built, path).with_context(|| format!("{} to {}", built.display(), path.display()))?;
    new.into_temp_path().persist(program).with_context(|| program.display().to_string())
}

/// Starts it: with root in a directory where nothing else is, as in an empty container image.
fn starts(dist: &Path, program: &Path) -> Result<()> {
    let mut start = if run::is_root() {
        let mut chroot = run::command("chroot");
        chroot.arg(dist).arg("/egress-agent");
        chroot
    } else {
        run::command(&program.to_string_lossy())
    };
    run::show(start.arg("--version"))
}

/// Whether a 64-bit little-endian ELF file names no interpreter.
fn is_static(elf: &[u8]) -> Result<bool> {
    // `e_phoff`, `e_phentsize`, `e_phnum` of its header, and `p_type` of each program header.
    let kinds = kinds(elf, Table { offset: 0x20, size: 0x36, count: 0x38, kind: 0 })?;
    Ok(!kinds.is_empty() && !kinds.contains(&PT_INTERP))
}

/// Whether a 64-bit little-endian ELF file has no table of symbols.
fn is_stripped(elf: &[u8]) -> Result<bool> {
    // `e_shoff`, `e_shentsize`, `e_shnum` of its header, and `sh_type` of each section header.
    let kinds = kinds(elf, Table { offset: 0x28, size: 0x3a, count: 0x3c, kind: 4 })?;
    Ok(!kinds.contains(&SHT_SYMTAB))
}

/// Where the header of an ELF file describes a table of headers, and where each of these has its type.
struct Table {
    offset: usize,
    size: usize,
    count: usize,
    kind: usize,
}

/// The types of a table's headers.
fn kinds(elf: &[u8], table: Table) -> Result<Vec<u32>> {
    let short = "it ends in the middle of its ELF headers";
    let word = |at: usize| -> Result<usize> {
        let bytes = elf.get(at..at + 2).context(short)?;
        Ok(usize::from(u16::from_le_bytes(bytes.try_into()?)))
    };
    // `e_ident`: magic number, ELFCLASS64, ELFDATA2LSB.
    if elf.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("it is no 64-bit little-endian ELF file");
    }
    let headers = elf.get(table.offset..table.offset + 8).context(short)?;
    let headers = usize::try_from(u64::from_le_bytes(headers.try_into()?))?;
    let (size, count) = (word(table.size)?, word(table.count)?);
    let kind = |number: usize| {
        let at = size
            .checked_mul(number)
            .and_then(|offset| headers.checked_add(offset)?.checked_add(table.kind))
            .context("its headers lie outside of it")?;
        let kind = elf.get(at..).and_then(|rest| rest.get(..4)).context(short)?;
        Ok(u32::from_le_bytes(kind.try_into()?))
    };
    (0..count).map(kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of `kinds.len()` program headers, each only its type.
    fn elf(kinds: &[u8]) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(0x40, 0);
        elf[0x20] = 0x40;
        elf[0x36] = 56;
        elf[0x38] = u8::try_from(kinds.len()).unwrap_or(u8::MAX);
        for kind in kinds {
            elf.push(*kind);
            elf.resize(elf.len() + 55, 0);
        }
        elf
    }

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        assert!(is_static(&elf(&[6, 1, 1, 2])).is_ok_and(|is| is));
        assert!(is_static(&elf(&[6, 3, 1, 2])).is_ok_and(|is| !is));
        assert!(is_static(&elf(&[1, 1, 3])).is_ok_and(|is| !is));
        // An object without program headers is no program.
        assert!(is_static(&elf(&[])).is_ok_and(|is| !is));
        let own = std::env::current_exe().and_then(fs::read);
        assert!(own.is_ok_and(|own| is_static(&own).is_ok()));
    }

    /// A file of section headers, each only its type.
    fn sections(kinds: &[u8]) -> Vec<u8> {
        let mut elf = elf(&[]);
        elf[0x28] = 0x40;
        elf[0x3a] = 64;
        elf[0x3c] = u8::try_from(kinds.len()).unwrap_or(u8::MAX);
        for kind in kinds {
            let at = elf.len();
            elf.resize(at + 64, 0);
            elf[at + 4] = *kind;
        }
        elf
    }

    #[test]
    fn a_program_with_symbols_is_not_stripped() {
        assert!(is_stripped(&sections(&[0, 1, 3])).is_ok_and(|is| is));
        assert!(is_stripped(&sections(&[0, 1, 2, 3])).is_ok_and(|is| !is));
        let whole = sections(&[0, 1]);
        assert!(is_stripped(&whole[..0x40 + 64]).is_err(), "a header is missing");
        // What cargo builds for a test has its symbols.
        let own = std::env::current_exe().and_then(fs::read).expect("this program");
        assert!(is_stripped(&own).is_ok_and(|is| !is));
    }

    #[test]
    fn a_page_of_help_lists_the_commands() {
        let help = "Agent\n\nUsage: egress-agent <COMMAND>\n\nCommands:\n  node        Enforce on this node: \
                    load\n              the programs\n  bug-report  Write\n  help        Print\n\nOptions:\n  -v\n";
        assert_eq!(commands(help), ["node", "bug-report"]);
        assert_eq!(commands("no list"), Vec::<&str>::new());
    }

    #[test]
    fn several_at_a_time_put_a_whole_program() {
        let dir = tempfile::tempdir().expect("a directory");
        let (built, program) = (dir.path().join("built"), dir.path().join("program"));
        let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        fs::write(&built, &bytes).expect("a program");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..16 {
                        put(&built, &program).expect("it is put there");
                        assert!(fs::read(&program).expect("it is there") == bytes);
                    }
                });
            }
        });
        let left = fs::read_dir(dir.path()).expect("a directory").count();
        assert_eq!(left, 2, "nothing else is left");
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let whole = elf(&[6, 1, 3]);
        for length in 0..0x40 + 2 * 56 + 4 {
            assert!(is_static(&whole[..length]).is_err(), "{length}");
        }
    }
}

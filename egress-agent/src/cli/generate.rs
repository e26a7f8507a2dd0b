//! The `completion` and `man` commands: what is made of the command line's own description.

use std::{fs, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Command, ValueEnum};

use super::output::stdout;

/// Options of `completion`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  # For this shell alone.
  source <(egress-agent completion bash)

  # For every user.
  egress-agent completion bash > \\
      /usr/share/bash-completion/completions/egress-agent
  egress-agent completion zsh > /usr/share/zsh/vendor-completions/_egress-agent
  egress-agent completion fish > \\
      /usr/share/fish/vendor_completions.d/egress-agent.fish")]
pub(super) struct CompletionArgs {
    /// The shell that it is for.
    #[arg(value_enum)]
    shell: Shell,
}

/// A shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Options of `man`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  egress-agent man /usr/local/share/man/man1")]
pub(super) struct ManArgs {
    /// The directory, which is made where it is missing.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Prints a completion script.
///
/// # Errors
/// Standard output can't be written.
pub(super) fn completion(args: &CompletionArgs, mut command: Command) -> anyhow::Result<ExitCode> {
    let script = script(args.shell, &mut command);
    let mut out = stdout();
    out.write_all(&script)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell, command: &mut Command) -> Vec<u8> {
    let mut script = Vec::new();
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, command, name, &mut script);
    script
}

/// Writes a manual page for each command.
///
/// # Errors
/// A file can't be written.
pub(super) fn man(args: &ManArgs, command: Command) -> anyhow::Result<ExitCode> {
    let ManArgs { dir } = args;
    if dir.exists() && !dir.is_dir() {
        bail!("found the file {}, expected a directory", dir.display());
    }
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    clap_mangen::generate_to(command, dir).with_context(|| dir.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::process::{Command as Process, Stdio};

    use clap::Arg;

    use super::*;

    fn command() -> Command {
        let explain = Command::new("explain").about("Say why").arg(Arg::new("from").long("from"));
        Command::new("egress-agent").about("Agent").subcommand(explain)
    }

    #[test]
    fn scripts_know_commands_and_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(script(shell, &mut command())).unwrap();
            for word in ["egress-agent", "explain", "from"] {
                assert!(script.contains(word), "{shell:?}: {script}");
            }
        }
    }

    /// Every machine of ours has bash; it is asked whether the script is one.
    #[test]
    fn bash_takes_its_script() {
        let script = script(Shell::Bash, &mut command());
        let mut bash = Process::new("bash");
        let mut bash = bash.args(["-n", "/dev/stdin"]).stdin(Stdio::piped()).spawn().unwrap();
        bash.stdin.take().unwrap().write_all(&script).unwrap();
        assert!(bash.wait().unwrap().success());
    }

    #[test]
    fn each_command_has_a_page() {
        let dir = tempfile::TempDir::new().unwrap();
        let args = ManArgs { dir: dir.path().join("man1") };
        man(&args, command()).unwrap();
        let read = |name: &str| fs::read_to_string(args.dir.join(name)).unwrap();
        assert!(read("egress-agent.1").contains(".TH egress-agent 1"));
        assert!(read("egress-agent-explain.1").contains("\\-\\-from"));
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(man(&ManArgs { dir: file }, command()).is_err());
    }
}

//! `cargo xtask verifier`: how many instructions of each program the verifier goes through, by
//! kernel. It gives up at a million, and a change that makes it go through many more is seen in the
//! file's history before a kernel refuses the program.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::{kernels, run, setup};

/// The file, in the repository.
const FILE: &str = "egress-agent/tests/programs/verifier.txt";

const HEAD: &str = "\
# Instructions that the kernel's verifier went through for each program; it gives up at a million.
# Written by `cargo xtask verifier [--kernels]`. The test `programs` compares what the running kernel
# says. A debug build's programs have lines for the log, which cost instructions.
";

/// Which kernels.
#[derive(Args)]
pub(crate) struct Options {
    /// Other kernels too, as for `cargo xtask kernels`: all there are, or the ones named.
    #[arg(long, value_delimiter = ',', num_args = 0.., value_name = "VERSION")]
    kernels: Option<Vec<String>>,
}

/// Kernel's version, build, program.
type Key = (String, String, String);

/// The file's contents.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Counts {
    compiler: String,
    counts: BTreeMap<Key, u32>,
}

/// Renews the counts of the running kernel, and of others that are asked for.
///
/// # Errors
/// Root is missing, a build fails, or a kernel refuses a program.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !run::is_root() {
        bail!("programs are loaded into the kernel: run this as root");
    }
    let purpose = if options.kernels.is_some() { setup::For::Kernels } else { setup::For::Demo };
    setup::run(purpose)?;
    run::show(run::command("cargo").args(["build", "--workspace", "--bins"]))?;
    let debug = run::target_dir().join("debug/egress-agent");
    let agents = [debug, kernels::released()?];
    let file = run::root().join(FILE);
    let mut counts = Counts::parse(&fs::read_to_string(&file).unwrap_or_default());
    for agent in &agents {
        let args = ["kernel", "--output", "json"];
        let report = run::output(&agent.to_string_lossy(), &args)
            .with_context(|| format!("`{} kernel` failed", agent.display()))?;
        counts.take(&report)?;
    }
    if let Some(asked) = &options.kernels {
        for report in kernels::reports(asked, &agents)? {
            counts.take(&report)?;
        }
    }
    fs::write(&file, counts.text()).with_context(|| file.display().to_string())?;
    println!("{}", file.strip_prefix(run::root()).unwrap_or(Path::new(FILE)).display());
    Ok(())
}

impl Counts {
    /// Lines that aren't understood are left out, and so not written again.
    fn parse(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text.lines() {
            if let Some(compiler) = line.strip_prefix("# Compiler: ") {
                compiler.clone_into(&mut counts.compiler);
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [kernel, build, program, count] = words[..]
                && let Ok(count) = count.parse()
            {
                counts.counts.insert((kernel.into(), build.into(), program.into()), count);
            }
        }
        counts
    }

    /// Replaces what the report of an `egress-agent kernel -o json` is about.
    fn take(&mut self, report: &str) -> Result<()> {
        let about = || format!("the agent's report {report:?}");
        let report: Value = serde_json::from_str(report).with_context(about)?;
        let text = |name: &str| report[name].as_str().with_context(about);
        let mut numbers = text("release")?.split(|c: char| !c.is_ascii_digit());
        let kernel = format!(
            "{}.{}",
            numbers.next().unwrap_or_default(),
            numbers.next().unwrap_or_default()
        );
        let (build, compiler) = (text("build")?, text("compiler")?);
        if self.compiler != compiler {
            if !self.counts.is_empty() {
                println!("another compiler than before: all earlier counts are dropped");
            }
            self.counts.clear();
            compiler.clone_into(&mut self.compiler);
        }
        self.counts.retain(|key, _| (key.0.as_str(), key.1.as_str()) != (&kernel, build));
        let programs = report["programs"].as_object().with_context(about)?;
        for (program, count) in programs {
            let Some(count) = count.as_u64() else {
                println!("Linux {kernel} doesn't count instructions (5.16 and later do)");
                return Ok(());
            };
            let key = (kernel.clone(), build.to_owned(), program.clone());
            self.counts.insert(key, u32::try_from(count)?);
        }
        println!("Linux {kernel}: {} programs, {build} build", programs.len());
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{HEAD}# Compiler: {}\n# Kernel, build, program, instructions:\n",
            self.compiler
        );
        let mut rows: Vec<_> = self.counts.iter().collect();
        // 6.1 before 6.12, and 6.2 before both of 6.10 and 6.12.
        rows.sort_by_key(|(key, _)| {
            let numbers = key.0.split('.').map(|number| number.parse().unwrap_or(0_u32));
            (numbers.collect::<Vec<_>>(), *key)
        });
        for ((kernel, build, program), count) in rows {
            writeln!(text, "{kernel:<8} {build:<8} {program:<16} {count:>8}").ok();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(release: &str, compiler: &str, counts: &str) -> String {
        format!(
            r#"{{"release":"{release}","build":"debug","compiler":"{compiler}","programs":{{{counts}}}}}"#
        )
    }

    #[test]
    fn a_report_replaces_what_it_is_about_and_nothing_else() -> Result<()> {
        let mut counts = Counts::default();
        counts.take(&report("6.12.9+deb12-amd64", "c1", r#""connect4":7,"old":1"#))?;
        counts.take(&report("6.1.0-56-amd64", "c1", r#""connect4":5"#))?;
        counts.take(&report("6.12.11-amd64", "c1", r#""connect4":8"#))?;
        let text = counts.text();
        assert_eq!(Counts::parse(&text), counts);
        let rows: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            rows.iter().map(|row| row.split_whitespace().collect::<Vec<_>>()).collect::<Vec<_>>(),
            [["6.1", "debug", "connect4", "5"], ["6.12", "debug", "connect4", "8"]]
        );

        counts.take(&report("6.18.1", "c2", r#""connect4":9"#))?;
        assert_eq!(counts.counts.len(), 1, "counts of another compiler aren't comparable");
        counts.take(&report("5.10.1", "c2", r#""connect4":null"#))?;
        assert_eq!(counts.counts.len(), 1);
        assert!(counts.take("not JSON").is_err());
        Ok(())
    }
}

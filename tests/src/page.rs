//! A page of the documentation, as far as tests follow it: what is to be typed, and files that are to be written.
//! A test that reads its commands from the page cannot differ from it.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

/// A fenced block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    language: String,
    /// What is between the fences.
    pub text: String,
}

/// What a reader does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Types a command.
    Run(String),
    /// Writes a file, whose path is the comment in its first line.
    Write {
        /// Where.
        path: String,
        /// All of it.
        text: String,
    },
}

impl Block {
    /// The commands of a `console` block, continued lines joined; of another block the file that it shows.
    ///
    /// # Errors
    /// It is neither.
    pub fn steps(&self) -> Result<Vec<Step>> {
        if self.language != "console" {
            let first = self.text.lines().next().unwrap_or_default();
            let path = first.strip_prefix("# /").with_context(|| format!("no path: {first:?}"))?;
            return Ok(vec![Step::Write { path: format!("/{path}"), text: self.text.clone() }]);
        }
        let joined = self.text.replace("\\\n", " ");
        let typed = joined.lines().filter_map(|line| {
            let line = line.strip_prefix("# ").or_else(|| line.strip_prefix("$ "))?;
            Some(Step::Run(line.trim().to_owned()))
        });
        Ok(typed.collect())
    }
}

/// The blocks below a heading of a page, up to the next heading.
///
/// # Errors
/// The page has no such heading, or no block below it.
pub fn blocks(page: &str, heading: &str) -> Result<Vec<Block>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let blocks = parsed(&text, heading);
    if blocks.is_empty() {
        bail!("{page} has no block below {heading:?}");
    }
    Ok(blocks)
}

/// All steps below a heading, in order.
///
/// # Errors
/// As for [`blocks()`], or a block is neither commands nor a file.
pub fn steps(page: &str, heading: &str) -> Result<Vec<Step>> {
    let steps: Vec<_> = blocks(page, heading)?.iter().map(Block::steps).collect::<Result<_>>()?;
    Ok(steps.concat())
}

/// The commands of the first block below a heading that has this text.
///
/// # Errors
/// As for [`blocks()`], or no block has it.
pub fn commands(page: &str, heading: &str, text: &str) -> Result<Vec<String>> {
    let all = blocks(page, heading)?;
    let is_it = |block: &&Block| block.language == "console" && block.text.contains(text);
    let block =
        all.iter().find(is_it).with_context(|| format!("{page}: no block with {text:?}"))?;
    let steps = block.steps()?.into_iter();
    Ok(steps
        .filter_map(|step| if let Step::Run(line) = step { Some(line) } else { None })
        .collect())
}

fn parsed(text: &str, heading: &str) -> Vec<Block> {
    let (mut blocks, mut open, mut is_below) = (Vec::new(), None::<Block>, false);
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take().filter(|_| is_below)),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, Some(info)) => {
                let language = info.split(' ').next().unwrap_or_default().to_owned();
                open = Some(Block { language, text: String::new() });
            }
            (None, None) if line.starts_with('#') => {
                is_below = line.trim_start_matches('#').trim() == heading;
            }
            (None, None) => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_files_below_a_heading_are_found() {
        let text = "# A\n```console\n# a\n```\n## B c\nx\n```console\n# a \\\n    b\nprinted\n$ d\n```\n\
                    ```ini\n# /etc/x\ny=1\n```\n### D\n```console\n# e\n```\n";
        let found: Vec<Step> =
            parsed(text, "B c").iter().flat_map(|block| block.steps().unwrap()).collect();
        let run = |line: &str| Step::Run(line.into());
        let file = Step::Write { path: "/etc/x".into(), text: "# /etc/x\ny=1\n".into() };
        assert_eq!(found, [run("a      b"), run("d"), file]);
        assert!(parsed(text, "C").is_empty());
    }
}

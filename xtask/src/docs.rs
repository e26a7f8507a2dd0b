//! Every `cargo xtask` line of the documentation is one that is understood.

use clap::Parser as _;

use super::{Cli, run};

#[path = "../../egress-agent/tests/docs/markdown.rs"]
pub(crate) mod markdown;
#[path = "../../egress-agent/tests/docs/shell.rs"]
pub(crate) mod shell;

/// The words after `cargo xtask` of a command.
fn ours(words: &[String]) -> Option<&[String]> {
    let at = words.windows(2).position(|pair| pair == ["cargo", "xtask"])?;
    words.get(at + 1..)
}

fn parse(words: &[String]) -> Result<(), String> {
    use clap::error::ErrorKind::{
        DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
    };
    // A sentence may name a command without what it has to do.
    let shown = [DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion];
    match Cli::try_parse_from(words) {
        Err(error) if !shown.contains(&error.kind()) => Err(error.to_string()),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[test]
fn command_lines_of_the_documentation_are_understood() {
    assert_eq!(markdown::root(), run::root());
    let mut seen = 0;
    for document in markdown::documents() {
        let text = std::fs::read_to_string(run::root().join(&document.path)).expect("a document");
        let spans = text.lines().filter(|line| !line.trim_start().starts_with("```"));
        let spans = spans.flat_map(|line| line.split('`').skip(1).step_by(2));
        let of_text = spans.filter(|span| span.starts_with("cargo xtask")).map(str::to_owned);
        let blocks = document.blocks.iter().flat_map(shell::commands).map(|(_, line)| line);
        for line in of_text.chain(blocks) {
            for words in shell::simple_commands(&line) {
                let Some(words) = ours(&words).filter(|words| words.len() > 1) else { continue };
                seen += 1;
                if let Err(error) = parse(words) {
                    panic!("{}: {line}\n{error}", document.path.display());
                }
            }
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn a_line_that_is_not_understood_is_found() {
    let line = |text: &str| shell::simple_commands(text).remove(0);
    for (text, good) in [
        ("cargo xtask demo --keep", true),
        ("sudo cargo xtask demo --keep", true),
        ("cargo xtask demo --keeps", false),
        ("cargo xtask demonstrate", false),
        ("cargo xtask fresh --only demo,test", true),
    ] {
        assert_eq!(parse(ours(&line(text)).expect("it")).is_ok(), good, "{text}");
    }
}

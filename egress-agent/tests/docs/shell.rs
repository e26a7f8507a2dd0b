//! As much of the shell as the documentation's command lines use.

use super::markdown::Block;

/// The commands of a `console` or `sh` block, each with the line where it starts; continued lines
/// are joined. In a `console` block, commands are the lines after a prompt, `$` or `#`.
pub(crate) fn commands(block: &Block) -> Vec<(usize, String)> {
    let mut commands = Vec::new();
    let mut lines = block.text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let prompted = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "));
        let command = match block.language.as_str() {
            "console" => prompted,
            "sh" => Some(line).filter(|line| !line.trim_start().starts_with('#')),
            _ => None,
        };
        let Some(command) = command else { continue };
        let mut command = command.to_owned();
        while command.ends_with('\\') {
            command.pop();
            command.push_str(lines.next().map_or("", |(_, line)| line));
        }
        commands.push((block.line + 1 + index, command));
    }
    commands
}

/// The simple commands of a line (parted by `|`, `&&`, `||`, `;`), each as its words, quotes taken
/// off, redirections and a comment left out.
pub(crate) fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    for word in words(line) {
        match word {
            Word::Plain(text) if matches!(&*text, "|" | "&&" | "||" | ";" | "&") => {
                all.push(Vec::new());
            }
            Word::Plain(text) if text.starts_with('#') => break,
            Word::Plain(text) if is_redirection(&text) => {}
            Word::Plain(text) | Word::Quoted(text) => {
                all.last_mut().expect("never empty").push(text);
            }
        }
    }
    all.retain(|words| !words.is_empty());
    all
}

fn is_redirection(word: &str) -> bool {
    word.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(['<', '>'])
}

enum Word {
    Plain(String),
    Quoted(String),
}

fn words(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(first) = chars.peek().copied() {
        if first.is_whitespace() {
            chars.next();
            continue;
        }
        let (mut text, mut quoted) = (String::new(), false);
        while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
            match c {
                '\'' | '"' => {
                    quoted = true;
                    text.extend(chars.by_ref().take_while(|other| *other != c));
                }
                '\\' => text.extend(chars.next()),
                c => text.push(c),
            }
        }
        // `command;` ends the command as `command ;` does.
        let ends = !quoted && text.len() > 1 && text.ends_with(';');
        if ends {
            text.pop();
        }
        words.push(if quoted { Word::Quoted(text) } else { Word::Plain(text) });
        if ends {
            words.push(Word::Plain(";".into()));
        }
    }
    words
}

#[test]
fn command_lines_are_read() {
    let block = Block {
        line: 10,
        language: "console".into(),
        words: vec![],
        indent: String::new(),
        text: "$ a b \\\n    'c d' | e 2>&1; f # g\noutput\n# h\n".into(),
    };
    let commands = commands(&block);
    assert_eq!(commands.len(), 2);
    assert_eq!(commands[1], (14, "h".to_owned()));
    let expected: [&[&str]; 3] = [&["a", "b", "c d"], &["e"], &["f"]];
    assert_eq!(simple_commands(&commands[0].1), expected);
}

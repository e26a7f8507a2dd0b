//! As much of Markdown as the checks need: headings with their anchors, fenced blocks, links.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A Markdown file of the repository.
pub(crate) struct Document {
    /// Its path, relative to the repository's root.
    pub(crate) path: PathBuf,
    /// Its headings, without the number signs and without code marks.
    pub(crate) headings: Vec<String>,
    /// Its fenced blocks.
    pub(crate) blocks: Vec<Block>,
    /// Its links: line and target.
    pub(crate) links: Vec<(usize, String)>,
}

/// A fenced block.
pub(crate) struct Block {
    /// The line of its fence, counted from 1.
    pub(crate) line: usize,
    /// The fence's first word: `yaml`, `console`, …
    pub(crate) language: String,
    /// The words after it.
    pub(crate) words: Vec<String>,
    /// The white space before its fence, in a list.
    pub(crate) indent: String,
    /// What is between the fences, without that indentation.
    pub(crate) text: String,
}

impl Block {
    /// The value of a word `name=value` of the fence.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

/// Every document that a reader of the repository meets.
pub(crate) fn documents() -> Vec<Document> {
    let root = root();
    let mut paths: Vec<_> = fs::read_dir(&root)
        .expect("the repository")
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    for directory in ["docs", "deploy"] {
        collect(&root.join(directory), "md", &mut paths);
    }
    paths.sort();
    let documents: Vec<_> = paths.iter().map(|path| Document::read(path, &root)).collect();
    assert!(documents.len() > 5, "the documentation is found");
    documents
}

/// Adds every file below `directory` that ends in `.extension`.
pub(crate) fn collect(directory: &Path, extension: &str, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()))
    {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            collect(&path, extension, paths);
        } else if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
}

impl Document {
    fn read(path: &Path, root: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let path = path.strip_prefix(root).expect("below the root").to_owned();
        Self::parse(path, &text)
    }

    /// Reads a document's text.
    pub(crate) fn parse(path: PathBuf, text: &str) -> Self {
        let mut document = Self { path, headings: vec![], blocks: vec![], links: vec![] };
        let mut open: Option<(String, Block)> = None;
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            match open.take() {
                Some((fence, block)) if line.trim() == fence => {
                    document.blocks.push(block);
                }
                Some((fence, mut block)) => {
                    block.text.push_str(line.strip_prefix(&*block.indent).unwrap_or(line));
                    block.text.push('\n');
                    open = Some((fence, block));
                }
                None => open = document.line(number, line),
            }
        }
        let unclosed = open.map(|(_, block)| block.line);
        assert_eq!(unclosed, None, "{}: a block isn't closed", document.path.display());
        document
    }

    fn line(&mut self, number: usize, line: &str) -> Option<(String, Block)> {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") {
            let ticks = trimmed.bytes().take_while(|b| *b == b'`').count();
            let (fence, info) = trimmed.split_at(ticks);
            let mut words = info.split_whitespace().map(str::to_owned);
            let language = words.next().unwrap_or_default();
            let indent = line[..line.len() - trimmed.len()].to_owned();
            let words = words.collect();
            let block = Block { line: number, language, words, indent, text: String::new() };
            return Some((fence.to_owned(), block));
        }
        if let Some(heading) = trimmed.strip_prefix('#') {
            let heading = heading.trim_start_matches('#').trim();
            self.headings.push(heading.replace('`', ""));
        }
        for (position, _) in line.match_indices("](") {
            if let Some((target, _)) = line[position + 2..].split_once(')') {
                self.links.push((number, target.to_owned()));
            }
        }
        None
    }

    /// The anchors that a link into this document may name, made as GitHub makes them.
    pub(crate) fn anchors(&self) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        for heading in &self.headings {
            let anchor: String = heading
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect();
            assert!(
                anchors.insert(anchor),
                "{}: the heading {heading:?} is there twice",
                self.path.display()
            );
        }
        anchors
    }
}

#[test]
fn a_document_is_read() {
    let text = "# A `b`: c\n\n[x](y.md#z) and [u](v)\n\n```yaml file=a.yaml bad\nk: v\n# no heading\n```\n";
    let document = Document::parse("a.md".into(), text);
    assert_eq!(document.headings, ["A b: c"]);
    assert_eq!(document.anchors().into_iter().collect::<Vec<_>>(), ["a-b-c"]);
    assert_eq!(document.links, [(3, "y.md#z".to_owned()), (3, "v".to_owned())]);
    let block = &document.blocks[0];
    assert_eq!((block.line, block.language.as_str()), (5, "yaml"));
    assert_eq!(block.value("file"), Some("a.yaml"));
    assert_eq!(block.text, "k: v\n# no heading\n");
}

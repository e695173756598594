//! A Markdown page as its code blocks, its text and its headings.

use std::path::{Path, PathBuf};

/// A page of documentation.
pub(super) struct Page {
    /// The path, as in the repository.
    pub(super) name: String,
    /// The same, absolute.
    pub(super) path: PathBuf,
    pub(super) blocks: Vec<Block>,
    /// The names by which links refer to the headings.
    pub(super) headings: Vec<String>,
    /// What is not in a code block.
    text: String,
}

/// A fenced code block.
pub(super) struct Block {
    /// The number of its first line, counted from 1.
    pub(super) line: usize,
    /// What follows the fence: the language, and words that say how it is checked.
    pub(super) info: String,
    pub(super) code: String,
}

impl Block {
    /// The name of the file that the page's other blocks read, if the block is one: `csv file=NAME`,
    /// a table, or `clojure file=NAME`, an included file.
    pub(super) fn file(&self) -> Option<&str> {
        let (_, words) = self.info.split_once(' ')?;
        words.strip_prefix("file=")
    }
}

/// All pages of the repository.
pub(super) fn all() -> Vec<Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .canonicalize()
        .expect("the repository exists");
    let folders = ["", "docs", "bench", "scripts", "vagrant", "examples"];
    let mut paths: Vec<_> = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).expect("the folder exists"))
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).expect("a path below the root");
            let content = std::fs::read_to_string(&path).expect("the page can be read");
            Page::new(name.display().to_string(), path.clone(), &content)
        })
        .collect()
}

impl Page {
    fn new(name: String, path: PathBuf, content: &str) -> Page {
        let (mut blocks, mut headings, mut text) = (Vec::new(), Vec::new(), String::new());
        let mut open: Option<Block> = None;
        for (index, line) in content.lines().enumerate() {
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(info)) => {
                    open = Some(Block {
                        line: index + 2,
                        info: info.trim().to_owned(),
                        code: String::new(),
                    });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.code.extend([line, "\n"]),
                (None, None) => {
                    text.extend([line, "\n"]);
                    if line.starts_with('#') {
                        headings.push(anchor(line.trim_start_matches('#').trim()));
                    }
                }
            }
        }
        assert!(open.is_none(), "{name}: a code block is not closed");
        Page {
            name,
            path,
            blocks,
            headings,
            text,
        }
    }

    /// The code in the text that is a call of `pseidon`.
    pub(super) fn commands_in_text(&self) -> Vec<String> {
        let text = self.text.replace('\n', " ");
        let code = text.split('`').skip(1).step_by(2);
        code.filter(|code| code.starts_with("pseidon "))
            .map(str::to_owned)
            .collect()
    }

    /// The targets of links, except addresses of other sites.
    pub(super) fn links(&self) -> Vec<String> {
        let targets = self.text.split("](").skip(1);
        targets
            .filter_map(|rest| rest.split_once(')'))
            .map(|(target, _)| target.to_owned())
            .filter(|target| !target.contains("://"))
            .collect()
    }
}

/// The name by which a link refers to a heading, as GitHub derives it.
fn anchor(heading: &str) -> String {
    heading
        .chars()
        .filter_map(|character| match character {
            ' ' => Some('-'),
            '-' | '_' => Some(character),
            _ if character.is_alphanumeric() => Some(character.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

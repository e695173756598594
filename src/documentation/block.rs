//! A code block of a pipeline file: completed to a file, planned as by `pseidon check`,
//! and tested as by `pseidon test`.
//!
//! A block that begins with `{` is a whole file. One that begins with `(` is a stage. Any other is
//! entries of a file. The info string says the rest: [`Files::check`].

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use crate::cli::{Exit, FileArgs, ParameterArgs};
use crate::registry::sample_log;
use crate::{commands, load};

use super::page::Block;

/// The pipeline files of a page.
pub(super) struct Files {
    folder: TempDir,
    /// The last whole file, in its valid form.
    last: String,
}

impl Files {
    /// A folder for the files of a page, with the tables and included files among these blocks.
    pub(super) fn new(blocks: &[&Block]) -> Files {
        let folder = TempDir::new().expect("a folder for the files of a page");
        for (name, block) in blocks
            .iter()
            .filter_map(|block| Some((block.file()?, block)))
        {
            let path = folder.path().join(name);
            let parent = path.parent().expect("it is in the folder");
            std::fs::create_dir_all(parent).expect("the folder can be created");
            std::fs::write(path, &block.code).expect("the file can be written");
        }
        let last = String::new();
        Files { folder, last }
    }

    /// Checks a block by the words after its language:
    ///
    /// - none: it is valid, and its `:tests` pass;
    /// - `fix=WRONG/RIGHT`: it is invalid as it is, and valid when WRONG is replaced by RIGHT;
    /// - `edit`: it is valid in place of the line of the page's last file that begins with the same
    ///   word;
    /// - `failing`: its `:tests` fail.
    pub(super) fn check(&mut self, block: &Block) -> Result<(), String> {
        let mut words = block.info.split(' ');
        let extension = if words.next() == Some("toml") {
            "toml"
        } else {
            "edn"
        };
        let (mut code, mut fails) = (block.code.clone(), false);
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("edit", "") => code = edit(&self.last, &code)?,
                ("failing", "") => fails = true,
                ("fix", replacement) => {
                    if self.plan(block.line, extension, &code).is_ok() {
                        return Err("the block is valid before it is fixed".to_owned());
                    }
                    let (wrong, right) = replacement
                        .split_once('/')
                        .ok_or("expected fix=WRONG/RIGHT")?;
                    code = code.replace(wrong, right);
                }
                _ => return Err(format!("the word `{word}` of the info string is unknown")),
            }
        }
        self.last = self.complete(block.line, extension, &code)?;
        if block.code.contains(":tests") {
            let path = self.write(block.line, extension, &self.last);
            let passed = matches!(
                commands::test::test(&[path], &ParameterArgs::default()),
                Exit::Done
            );
            if passed == fails {
                return Err(format!("its tests pass: {passed}"));
            }
        }
        Ok(())
    }

    /// The valid file that `code` stands for.
    fn complete(&self, line: usize, extension: &str, code: &str) -> Result<String, String> {
        let mut reasons = Vec::new();
        for file in completed(code, extension) {
            match self.plan(line, extension, &file) {
                Ok(()) => return Ok(file),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(reasons.join("\n  or, as another kind of stage: "))
    }

    fn plan(&self, line: usize, extension: &str, code: &str) -> Result<(), String> {
        plan(&FileArgs {
            file: Some(self.write(line, extension, code)),
            expression: None,
            parameters: ParameterArgs::default(),
        })
    }

    /// Writes a file. Its variables of the environment are replaced, since they are not set here.
    fn write(&self, line: usize, extension: &str, code: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{line}.{extension}"));
        std::fs::write(&path, without_variables(code)).expect("the file can be written");
        path
    }
}

/// Loads and plans a pipeline, as `pseidon check` does, and returns its errors.
pub(super) fn plan(from: &FileArgs) -> Result<(), String> {
    let text = load::text(from).map_err(|_| "the file cannot be read".to_owned())?;
    text.plan_for_log(Arc::new(sample_log())).map(|_| ())
}

/// The files that a block may stand for. One of them must be valid.
fn completed(code: &str, extension: &str) -> Vec<String> {
    let is_file = extension == "toml" || code.starts_with('{');
    if is_file {
        vec![code.to_owned()]
    } else if code.starts_with('(') {
        vec![
            format!("{{pipeline (-> (stdin {{:format \"json\"}})\n{code} (drop))}}"),
            format!("{{pipeline (->\n{code} (drop))}}"),
        ]
    } else {
        vec![format!("{{pipeline (-> (stdin) (drop))\n{code}}}")]
    }
}

/// Replaces the line of `file` that begins with the same word as `code`.
fn edit(file: &str, code: &str) -> Result<String, String> {
    let word = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let first = word(code);
    let lines: Vec<_> = file.lines().collect();
    let replaced = lines
        .iter()
        .position(|line| word(line) == first)
        .ok_or("the last file of the page has no line that begins with this word")?;
    let (before, after) = (&lines[..replaced], &lines[replaced + 1..]);
    Ok(format!(
        "{}\n{code}{}\n",
        before.join("\n"),
        after.join("\n")
    ))
}

/// `code` with a string in place of each `${env:…}` and `${file:…}`.
fn without_variables(code: &str) -> String {
    let mut pieces = code.split("${");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.split_once('}') {
            Some((variable, rest)) if !variable.starts_with("log:") => {
                text.extend(["value", rest]);
            }
            _ => text.extend(["${", piece]),
        }
    }
    text
}

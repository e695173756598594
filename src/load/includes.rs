//! `:include`: the stages, flows and expressions of other files.
//!
//! The texts of all files are [`joined`] to one, so that a plan is stored with all that it consists
//! of.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use pseidon_dsl::document::Include;
use pseidon_dsl::joined::{self, MARK};
use pseidon_dsl::{Diagnostic, Document, Span, document, encoding};

use super::{PipelineText, TextKind};
use crate::cli::Exit;

impl PipelineText {
    /// Parses the pipeline file and what it includes.
    ///
    /// # Errors
    /// All errors of the pipeline file; else all errors of the included files.
    pub(super) fn parse(&self) -> Result<Document, Vec<Diagnostic>> {
        joined::document(&self.text, |main| self.parse_main(main))
    }

    fn parse_main(&self, text: &str) -> Result<Document, Vec<Diagnostic>> {
        match self.kind {
            TextKind::Edn => document::from_edn(text),
            TextKind::Toml => document::from_toml(text),
            TextKind::Flow => document::from_flow(text),
        }
    }

    /// Reads the files that the pipeline file includes, and appends them to its text. Errors are
    /// printed.
    pub(crate) fn with_includes(mut self) -> Result<PipelineText, Exit> {
        if let Some(at) = self.text.find(MARK) {
            let span = Span::new(at, at + MARK.len_utf8());
            let message = "a pipeline file cannot have the control character U+001E";
            let error = Diagnostic::new(span, message, "remove it");
            // Behind the mark the text would look like an included file.
            self.text.truncate(at + MARK.len_utf8());
            return Err(self.show(&[error]));
        }
        // The errors of a text that cannot be parsed are printed when it is planned.
        let Ok(document) = self.parse_main(&self.text) else {
            return Ok(self);
        };
        if document.includes.is_empty() {
            return Ok(self);
        }
        let mut reader = Reader::new(&self);
        let folder = self.base.clone();
        match reader.read_all(&document.includes, &folder) {
            Ok(()) => {
                self.text = reader.joined;
                Ok(self)
            }
            Err(error) => {
                self.text = reader.joined;
                Err(self.show(&[error]))
            }
        }
    }
}

/// Reads included files, each once, and what they include.
struct Reader {
    joined: String,
    /// No file outside of this folder may be included; `None` if it cannot be determined.
    root: Option<PathBuf>,
    /// The canonical paths of what was read.
    read: BTreeSet<PathBuf>,
    /// The canonical paths of the files from the pipeline file to the one that is read.
    within: Vec<PathBuf>,
}

impl Reader {
    fn new(main: &PipelineText) -> Reader {
        let root = std::fs::canonicalize(&main.base).ok().map(|base| {
            let repository = base.ancestors().find(|folder| folder.join(".git").exists());
            repository.unwrap_or(&base).to_owned()
        });
        let within = std::fs::canonicalize(&main.name).ok();
        Reader {
            joined: main.text.clone(),
            root,
            read: BTreeSet::new(),
            within: within.into_iter().collect(),
        }
    }

    fn read_all(&mut self, includes: &[Include], folder: &Path) -> Result<(), Diagnostic> {
        includes
            .iter()
            .try_for_each(|include| self.read(include, folder))
    }

    /// Reads a file, whose path begins at the folder of the file that includes it.
    fn read(&mut self, include: &Include, folder: &Path) -> Result<(), Diagnostic> {
        let path = without_dots(&folder.join(&include.path));
        let shown = path.display().to_string();
        let wrong = |label: String| {
            let message = format!("cannot include {}", include.path);
            Diagnostic::new(include.span, message, label)
        };
        let canonical = std::fs::canonicalize(&path)
            .map_err(|error| wrong(format!("cannot read {shown}: {error}")))?;
        if self.within.contains(&canonical) {
            return Err(wrong(
                "it includes itself, directly or through others".into(),
            ));
        }
        if let Some(root) = self
            .root
            .as_ref()
            .filter(|root| !canonical.starts_with(root))
        {
            let label = format!("it is outside of {}", root.display());
            return Err(wrong(label).with_help(
                "included files are in the repository of the pipeline file, or, without a \
                 repository, in its folder or below",
            ));
        }
        if !self.read.insert(canonical.clone()) {
            return Ok(());
        }
        let bytes = std::fs::read(&canonical).map_err(|error| error.to_string());
        let text = bytes
            .and_then(encoding::decode)
            .map_err(|reason| wrong(format!("cannot read {shown}: {reason}")))?;
        if text.contains(MARK) || shown.contains([MARK, '\n']) {
            let label = "its text has the control character U+001E, or its path that or a line end";
            return Err(wrong(label.into()));
        }
        let part = joined::append(&mut self.joined, &shown, &text);
        // Its errors are printed together with others when the pipeline is planned.
        let Ok(fragment) = joined::fragment(&part) else {
            return Ok(());
        };
        self.within.push(canonical);
        let folder = path.parent().unwrap_or(Path::new("."));
        let outcome = self.read_all(&fragment.includes, folder);
        self.within.pop();
        outcome
    }
}

/// A path as it is shown: `stages/../common.edn` is `common.edn`.
fn without_dots(path: &Path) -> PathBuf {
    let mut shown = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if shown.file_name().is_some() => _ = shown.pop(),
            other => shown.push(other),
        }
    }
    shown
}

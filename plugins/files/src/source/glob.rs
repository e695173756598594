//! Globs: find the files of a source.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern, PatternError};

/// What a glob finds.
#[derive(Debug, Default)]
pub(super) struct GlobMatches {
    /// The files that match, ordered by path.
    pub(super) files: BTreeSet<PathBuf>,
    /// What may exist but may not be read by this process: folders, or the path before the first
    /// wildcard. A name without wildcards behind a wildcard is missing: in `a/*/b.json`, a folder
    /// below `a` that may not be read looks like one without `b.json`.
    pub(super) refused: Vec<(PathBuf, io::Error)>,
    /// Pipes, sockets and devices that match. They are not read: they have no content that can be
    /// read again.
    pub(super) special: BTreeSet<PathBuf>,
}

/// One path or glob as the user wrote it, with the folder at which relative ones start.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    text: String,
    base: PathBuf,
}

impl Glob {
    /// Checks the syntax of a glob. The file system is not read.
    pub(super) fn new(text: &str, base: &Path) -> Result<Glob, PatternError> {
        Pattern::new(text)?;
        Ok(Glob {
            text: text.to_owned(),
            base: base.to_owned(),
        })
    }

    /// Whether it is a plain path without wildcards.
    pub(super) fn is_one_file(&self) -> bool {
        Pattern::escape(&self.text) == self.text
    }

    /// The files that match now; folders are left out. A hidden file or folder matches only a name
    /// with a leading dot, not a wildcard, so that files which another program is still writing are
    /// not read as finished ones. A path of a file that exists is not a glob, whatever its
    /// characters.
    pub(super) fn find(&self) -> io::Result<GlobMatches> {
        let Some(base) = self.base.to_str() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the folder {} has a name that is not UTF-8",
                    self.base.display()
                ),
            ));
        };
        let pattern = if Path::new(&self.text).is_absolute() {
            self.text.clone()
        } else {
            format!("{}/{}", Pattern::escape(base), self.text)
        };
        let mut found = GlobMatches::default();
        if !self.is_one_file() {
            let literal = self.base.join(&self.text);
            if literal.is_file() {
                // A file whose name has a bracket.
                found.files.insert(literal);
                return Ok(found);
            }
        }
        let paths = glob::glob_with(&pattern, MatchOptions::new())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        for path in paths {
            let path = match path {
                Ok(path) => path,
                // The folder was removed meanwhile.
                Err(error) if error.error().kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.error().kind() == io::ErrorKind::PermissionDenied => {
                    found.refused.push((error.path().to_owned(), error.into()));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if !self.accepts_hidden(&path) {
                continue;
            }
            match path.metadata() {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(metadata) if !metadata.is_file() => _ = found.special.insert(path),
                // What is wrong with it shows when it is read.
                _ => _ = found.files.insert(path),
            }
        }
        found.refused.extend(self.refusal());
        Ok(found)
    }

    /// Whether each hidden name of the path is one with a leading dot in the glob. Behind `**` it is
    /// enough that there is such a name. (The option of the glob library for this panics at a name
    /// that is not UTF-8.)
    fn accepts_hidden(&self, path: &Path) -> bool {
        let fixed = self.fixed();
        let rest = Path::new(&self.text).strip_prefix(&fixed);
        let patterns: Vec<Component<'_>> = rest.map_or(Vec::new(), |it| it.components().collect());
        let below = path.strip_prefix(self.base.join(&fixed)).unwrap_or(path);
        let any_depth = patterns.iter().any(|part| part.as_os_str() == "**");
        below.components().enumerate().all(|(at, name)| {
            let is_meant = match any_depth {
                true => patterns.iter().copied().any(is_hidden),
                false => patterns.get(at).copied().is_some_and(is_hidden),
            };
            is_meant || !is_hidden(name)
        })
    }

    /// The components before the first wildcard.
    fn fixed(&self) -> PathBuf {
        let is_plain = |part: &Component<'_>| {
            let name = part.as_os_str().to_string_lossy();
            Pattern::escape(&name) == name
        };
        let parts = Path::new(&self.text).components();
        parts.take_while(is_plain).collect()
    }

    /// The path before the first wildcard, if it is in a folder that this process may not read. For
    /// the glob library it does not exist.
    fn refusal(&self) -> Option<(PathBuf, io::Error)> {
        let path = self.base.join(self.fixed());
        let error = path.metadata().err()?;
        (error.kind() == io::ErrorKind::PermissionDenied).then_some((path, error))
    }

    /// `path` for messages and `@topic`: relative to the base folder if it is below that.
    pub(super) fn display_path(&self, path: &Path) -> String {
        path.strip_prefix(&self.base)
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned()
    }
}

fn is_hidden(component: Component<'_>) -> bool {
    matches!(component, Component::Normal(name) if name.as_encoded_bytes().starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn finds_files_by_name_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base[1]");
        for file in [
            "b.json",
            "a.json",
            "a.txt",
            "x/c.json",
            "x/y/d.json",
            ".hidden.json",
            ".secret/e.json",
            ".secret/.f.json",
            "g[1].json",
            "g1.json",
            "folder.json/f",
        ] {
            let path = base.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        use std::os::unix::ffi::OsStrExt;
        fs::write(base.join(std::ffi::OsStr::from_bytes(b"\xff.json")), "").unwrap();

        let cases: &[(&str, &[&str])] = &[
            ("*.json", &["a.json", "b.json", "g1.json", "g[1].json"]),
            (
                "**/*.json",
                &[
                    "a.json",
                    "b.json",
                    "g1.json",
                    "g[1].json",
                    "x/c.json",
                    "x/y/d.json",
                ],
            ),
            ("x/*/d.json", &["x/y/d.json"]),
            ("a.txt", &["a.txt"]),
            (".hidden.*", &[".hidden.json"]),
            (".secret/*", &[".secret/e.json"]),
            (".secret/**/*.json", &[".secret/e.json"]),
            ("g[1].json", &["g[1].json"]),
            ("none*", &[]),
            ("nowhere/*", &[]),
            ("[ab].txt", &["a.txt"]),
        ];
        for (text, expected) in cases {
            let glob = Glob::new(text, &base).unwrap();
            let found: Vec<String> = glob
                .find()
                .unwrap()
                .files
                .iter()
                .map(|path| glob.display_path(path))
                .collect();
            assert_eq!(&found, expected, "{text}");
        }
    }

    #[test]
    fn distinguishes_a_path_from_a_glob() {
        let base = Path::new("/base");
        assert!(Glob::new("logs/app.log", base).unwrap().is_one_file());
        assert!(!Glob::new("logs/*.log", base).unwrap().is_one_file());
        assert!(!Glob::new("logs/app.log[12]", base).unwrap().is_one_file());
        assert!(Glob::new("a[", base).is_err());
    }
}

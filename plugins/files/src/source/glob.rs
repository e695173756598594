//! Globs: find the files of a source.

mod output;
mod walk;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use glob::{Pattern, PatternError};

use self::walk::Walk;

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

    /// The path or glob as the user wrote it.
    pub(super) fn text(&self) -> &str {
        &self.text
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
        let mut found = GlobMatches::default();
        if !self.is_one_file() {
            let literal = self.base.join(&self.text);
            if literal.is_file() {
                // A file whose name has a bracket.
                found.files.insert(literal);
                return Ok(found);
            }
        }
        // Only folders match a trailing slash.
        if self.text.ends_with('/') {
            return Ok(found);
        }
        let walk = Walk::of(Path::new(&self.text), &self.base)?;
        found.refused.extend(walk.refused);
        for path in walk.paths {
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
    /// enough that there is such a name.
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
        printable(path.strip_prefix(&self.base).unwrap_or(path))
    }
}

/// A path as a string. In one that is not UTF-8, the bytes that are not, and `%`, are `%` and two
/// hexadecimal digits.
pub(super) fn printable(path: &Path) -> String {
    if let Some(text) = path.to_str() {
        return text.to_owned();
    }
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text += &chunk.valid().replace('%', "%25");
        chunk
            .invalid()
            .iter()
            .for_each(|byte| text += &format!("%{byte:02X}"));
    }
    text
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
        let not_utf8 = |name: &'static [u8]| base.join(std::ffi::OsStr::from_bytes(name));
        fs::write(not_utf8(b"\xff%.json"), "").unwrap();
        fs::create_dir(not_utf8(b"z\xfe")).unwrap();
        fs::write(not_utf8(b"z\xfe/h.json"), "").unwrap();

        let cases: &[(&str, &[&str])] = &[
            (
                "*.json",
                &["a.json", "b.json", "g1.json", "g[1].json", "%FF%25.json"],
            ),
            ("?%.json", &["%FF%25.json"]),
            ("z?/*", &["z%FE/h.json"]),
            (
                "**/*.json",
                &[
                    "a.json",
                    "b.json",
                    "g1.json",
                    "g[1].json",
                    "x/c.json",
                    "x/y/d.json",
                    "z%FE/h.json",
                    "%FF%25.json",
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
    fn links_in_a_circle_are_followed_once() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["in/d", "in/e", "out"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join("a.json"), "").unwrap();
        }
        let link = |target: &str, link: &str| {
            std::os::unix::fs::symlink(target, dir.path().join(link)).unwrap();
        };
        link("..", "in/d/up");
        link("..", "in/e/up");
        link("itself", "in/itself");
        link("../out", "in/b");
        link("e", "in/c");
        let find = |text: &str| -> Vec<String> {
            let glob = Glob::new(text, dir.path()).unwrap();
            let found = glob.find().unwrap().files;
            found.iter().map(|path| glob.display_path(path)).collect()
        };
        let files = ["in/b/a.json", "in/d/a.json", "in/e/a.json"];
        assert_eq!(find("in/**/*.json"), files);
        assert_eq!(
            find("in/**/up/**/a.json"),
            ["in/d/up/b/a.json", "in/d/up/d/a.json", "in/d/up/e/a.json"]
        );
        assert_eq!(find("in/*/a.json").len(), 4);
    }

    #[test]
    fn a_folder_is_found_by_the_name_that_is_not_hidden() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["in/.hidden", "in/z", "out"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("out/a.json"), "").unwrap();
        for link in ["in/.hidden/l", "in/z/l"] {
            std::os::unix::fs::symlink("../../out", dir.path().join(link)).unwrap();
        }
        let glob = Glob::new("in/**/*.json", dir.path()).unwrap();
        let found = glob.find().unwrap().files;
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [dir.path().join("in/z/l/a.json")]
        );
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

//! Whether a glob matches what the pipeline itself writes.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};

use glob::Pattern;

use super::Glob;
use super::walk::Walk;

impl Glob {
    /// A path like those that match, as it is in `@topic`: a wildcard is `x`.
    pub(in super::super) fn example_name(&self) -> String {
        let mut name = String::new();
        let mut chars = self.text.chars();
        while let Some(char) = chars.next() {
            match char {
                '*' | '?' => name.push('x'),
                '[' => {
                    let class: String = chars.by_ref().take_while(|char| *char != ']').collect();
                    name.extend(class.chars().find(|char| *char != '!'));
                }
                char => name.push(char),
            }
        }
        name
    }

    /// Whether a file would match if it existed, also by symbolic links.
    pub(in super::super) fn would_match(&self, file: &Path) -> bool {
        let file = canonical(file);
        let fixed = self.fixed();
        let rest = Path::new(&self.text).strip_prefix(&fixed);
        let parts: Vec<&OsStr> = rest.map_or(Vec::new(), |rest| rest.iter().collect());
        let Some((last, folders)) = parts.split_last() else {
            return false;
        };
        let below = |folder: &Path| -> Option<Vec<OsString>> {
            let below = file.strip_prefix(canonical(folder)).ok()?;
            Some(below.iter().map(OsStr::to_owned).collect())
        };
        let start = self.base.join(&fixed);
        let is_match = |names: Vec<OsString>| {
            let path = names
                .iter()
                .fold(start.clone(), |path, name| path.join(name));
            matches(&parts, &names) && self.accepts_hidden(&path)
        };
        if below(&start).is_some_and(is_match) {
            return true;
        }
        // A link behind a wildcard may lead to it.
        let folders: PathBuf = fixed.iter().chain(folders.iter().copied()).collect();
        let Ok(walk) = Walk::of(&folders, &self.base) else {
            return false;
        };
        let is_deep = folders.components().any(|part| part.as_os_str() == "**");
        let leads_there = |folder: &PathBuf| {
            let Some(names) = below(folder) else {
                return false;
            };
            let path = names
                .iter()
                .fold(folder.clone(), |path, name| path.join(name));
            self.accepts_hidden(&path)
                && match names.as_slice() {
                    [name] => matches(&[last], std::slice::from_ref(name)),
                    [.., name] => is_deep && matches(&[last], std::slice::from_ref(name)),
                    [] => false,
                }
        };
        walk.paths.iter().any(leads_there)
    }
}

/// Whether the names of a path match the parts of a glob.
fn matches(parts: &[&OsStr], names: &[OsString]) -> bool {
    let Some((part, rest)) = parts.split_first() else {
        return names.is_empty();
    };
    let part = part.to_string_lossy();
    if part == "**" {
        return matches(rest, names) || (names.len() > 1 && matches(parts, &names[1..]));
    }
    let Some((name, below)) = names.split_first() else {
        return false;
    };
    let is_match = Pattern::new(&part).is_ok_and(|part| part.matches(&name.to_string_lossy()));
    is_match && matches(rest, below)
}

/// The path without links, as far as it exists, and without `.` and `..` behind that.
fn canonical(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut existing = path.to_owned();
    loop {
        let looked_at = match existing.as_os_str().is_empty() {
            true => Path::new("."),
            false => existing.as_path(),
        };
        if let Ok(found) = fs::canonicalize(looked_at) {
            missing.reverse();
            return missing.iter().fold(found, |path, name| path.join(name));
        }
        match existing.components().next_back() {
            Some(Component::Normal(name)) => missing.push(name.to_owned()),
            Some(Component::CurDir | Component::ParentDir) => {}
            _ => return path.to_owned(),
        }
        existing.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_matches_files_that_do_not_exist_yet() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("d/e")).unwrap();
        fs::create_dir(dir.path().join("linked")).unwrap();
        std::os::unix::fs::symlink("d", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("../linked", dir.path().join("d/l")).unwrap();
        let cases = [
            ("d/*.json", "d/a.json", true),
            ("./d/*.json", "d/./a.json", true),
            ("d/*.json", "d/a.txt", false),
            ("d/app-*.json", "d/a.json", false),
            ("d/*.json", "d/x/a.json", false),
            ("d/**/*.json", "d/x/y/a.json", true),
            ("d/**/*.json", "d/a.json", true),
            ("d/*/*.json", "d/x/a.json", true),
            ("link/*.json", "d/a.json", true),
            ("d/*.json", "link/a.json", true),
            ("d/*/*.json", "linked/a.json", true),
            ("d/**/*.json", "linked/x/a.json", true),
            ("in/*", "out/a.json", false),
            ("new/**/*", "new/x/a.json", true),
            ("d/a.json", "d/a.json", false),
            ("**/*.json", "d/.out/a.json", false),
            ("d/**/.o*/*.json", "d/.out/a.json", true),
        ];
        for (text, file, expected) in cases {
            let glob = Glob::new(text, dir.path()).unwrap();
            let found = glob.would_match(&dir.path().join(file));
            assert_eq!(found, expected, "{text} {file}");
        }
        let glob = Glob::new("in/[ab]?-*.json", dir.path()).unwrap();
        assert_eq!(glob.example_name(), "in/ax-x.json");
    }
}

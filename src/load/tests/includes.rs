//! `:include`: from files to a plan, and the errors with their places.

use std::path::PathBuf;

use pseidon_dsl::joined::by_file;

use super::super::{Parameters, PipelineText, read};
use crate::cli::Exit;

/// A folder with files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Folder {
        let folder = Folder(tempfile::tempdir().expect("a folder"));
        for (name, text) in files {
            let path = folder.path(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            std::fs::write(path, text).expect("written");
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The text of the file `main.edn` and of what it includes.
    fn text(&self) -> Result<PipelineText, Exit> {
        read(&self.path("main.edn"), Parameters::default())?.with_includes()
    }

    /// The errors of the file, each with the file that it is in and the text at its place.
    fn errors(&self) -> Vec<(String, String, String)> {
        let text = self.text().ok().expect("all files can be read");
        let errors = match text.parse() {
            Ok(document) => text
                .plan_in(&crate::registry::registry(), &document, &|_, _, _| {
                    Err("nothing is inferred".to_owned())
                })
                .map(drop)
                .expect_err("wrong"),
            Err(errors) => errors,
        };
        let mut shown = Vec::new();
        for (part, errors) in by_file(&text.name, &text.text, &errors) {
            let name = part.path.map_or("main.edn", |path| {
                path.rsplit_once("/").map_or(path, |(_, name)| name)
            });
            for error in errors {
                let place = error.span.start as usize..error.span.end as usize;
                let at = part.text.get(place).unwrap_or_default().to_owned();
                shown.push((name.to_owned(), error.message, at));
            }
        }
        shown
    }
}

const MAIN: &str = "{:include [\"parts/a.edn\" \"parts/b.toml\"] in (stdin) \
                    pipeline (-> in cleaned out)}";
const A: &str =
    "{:include \"deep/c.edn\" cleaned (-> trimmed (where \"x > 1\")) spare (set \"y = 1\")}";
const B: &str = "include = \"deep/c.edn\"\n[stages.out]\nfiles = \"out\"\n";
const C: &str = "; é\n{trimmed (set \"n = trim(n)\")}";

#[test]
fn included_files_are_a_part_of_the_plan() {
    let files = [
        ("main.edn", MAIN),
        ("parts/a.edn", A),
        ("parts/b.toml", B),
        ("parts/deep/c.edn", C),
    ];
    let folder = Folder::new(&files);
    let text = folder.text().ok().expect("readable");
    let plan = |text: &PipelineText| {
        let document = text.document().ok().expect("valid");
        text.plan(&document).ok().expect("valid")
    };
    let included = plan(&text);
    let alone = Folder::new(&[(
        "main.edn",
        "{in (stdin) trimmed (set \"n = trim(n)\") out (files \"out\") \
         pipeline (-> in trimmed (where \"x > 1\") out)}",
    )]);
    let alone = plan(&alone.text().ok().expect("readable"));
    assert_eq!(included.fingerprint, alone.fingerprint);

    // A stored plan does not depend on the files.
    std::fs::remove_dir_all(folder.path("parts")).expect("removed");
    let again = PipelineText {
        text: included.text.clone(),
        ..text
    };
    assert_eq!(plan(&again).fingerprint, included.fingerprint);
    assert!(folder.text().is_err(), "the files are gone");
}

#[test]
fn errors_are_shown_in_the_file_that_has_them() {
    let cases = [
        (
            A.replace("x > 1", "x > > 1"),
            C.to_owned(),
            ("a.edn", "unexpected", ">"),
        ),
        (
            A.to_owned(),
            C.replace("set", "sett"),
            ("c.edn", "unknown plugin `sett`", "sett"),
        ),
        (
            A.to_owned(),
            C.replace("trim(n)", "trm(n)"),
            ("c.edn", "unknown function `trm`", "trm"),
        ),
        (
            A.replace("spare", "in"),
            C.to_owned(),
            ("a.edn", "`in` is defined in two files", "in"),
        ),
        (
            A.replace("spare", ":name"),
            C.to_owned(),
            ("a.edn", "an included file cannot", ":name"),
        ),
    ];
    for (a, c, (file, message, at)) in cases {
        let files = [
            ("main.edn", MAIN),
            ("parts/a.edn", &a),
            ("parts/b.toml", B),
            ("parts/deep/c.edn", &c),
        ];
        let errors = Folder::new(&files).errors();
        let (in_file, found, place) = &errors[0];
        assert_eq!(in_file, file, "{errors:?}");
        assert!(found.contains(message), "{errors:?}");
        assert!(place.starts_with(at), "{errors:?}");
    }
}

#[test]
fn files_that_cannot_be_included() {
    let outside = Folder::new(&[("x.edn", "{}")]);
    let outside = outside.path("x.edn").display().to_string();
    let wrong = [
        ("missing.edn", ""),
        ("main.edn", ""),
        ("../x.edn", ""),
        (outside.as_str(), ""),
        ("a.edn", "{:include \"b.edn\"}"),
        ("mark.edn", ""),
    ];
    for (path, a) in wrong {
        let main = format!("{{:include \"{path}\" pipeline (-> (stdin) (drop))}}");
        let files = [
            ("main.edn", main.as_str()),
            ("a.edn", a),
            ("b.edn", "{:include \"a.edn\"}"),
            ("mark.edn", "{} ;\u{1e}"),
        ];
        assert!(Folder::new(&files).text().is_err(), "{path}");
    }
    let marked = Folder::new(&[("main.edn", "{pipeline (-> (stdin) (drop))} ;\u{1e}x\n{}")]);
    assert!(marked.text().is_err());
}

#[test]
fn a_repository_is_the_limit_if_there_is_one() {
    let folder = Folder::new(&[
        ("repository/.git/HEAD", ""),
        ("repository/shared.edn", "{out (drop)}"),
        (
            "repository/pipelines/main.edn",
            "{:include \"../shared.edn\" pipeline (-> (stdin) out)}",
        ),
        ("outside.edn", "{out (drop)}"),
        (
            "repository/pipelines/far.edn",
            "{:include \"../../outside.edn\" pipeline (-> (stdin) out)}",
        ),
    ]);
    let text = |name: &str| read(&folder.path(name), Parameters::default())?.with_includes();
    let inside = text("repository/pipelines/main.edn").ok().expect("inside");
    assert!(inside.document().is_ok());
    assert!(text("repository/pipelines/far.edn").is_err());
}

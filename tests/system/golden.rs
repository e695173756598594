//! What a person reads, compared with the files of `tests/golden`: help texts, plans, errors, the
//! report of tests, a conversion, the summary of a run, and the HTTP pages ([`pages`]).
//!
//! `UPDATE_GOLDEN=1` rewrites the files; the change is then reviewed in the diff.

mod pages;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::Site;

const HOUSE: &str = env!("CARGO_MANIFEST_DIR");
const COMMANDS: [&str; 16] = [
    "check",
    "completions",
    "consume",
    "functions",
    "import",
    "infer",
    "man",
    "offsets",
    "plugins",
    "produce",
    "replay",
    "reset",
    "run",
    "staged",
    "status",
    "test",
];

/// A command in the folder of the golden files, without color and on a terminal of no width.
fn pseidon(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pseidon"));
    command
        .current_dir(Path::new(HOUSE).join("tests/golden"))
        .args(arguments)
        .env("NO_COLOR", "1")
        .env_remove("PSEIDON_LOG");
    command.output().expect("the binary starts")
}

/// The exit code and both outputs.
fn shown(output: &Output) -> String {
    let code = output.status.code().expect("it was not killed");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it prints UTF-8");
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    format!("exit code {code}\n--- standard output\n{printed}--- standard error\n{said}")
}

/// Compares all files of a test, and reports all that differ.
#[derive(Default)]
pub(crate) struct Goldens(Vec<String>);

impl Goldens {
    pub(crate) fn compare(&mut self, name: &str, actual: &str) {
        let path = Path::new(HOUSE).join("tests/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, actual).expect("the golden file can be written");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if expected != actual {
            self.0.push(format!(
                "{name}\n=== expected\n{expected}\n=== actual\n{actual}"
            ));
        }
    }

    pub(crate) fn finish(self) {
        let count = self.0.len();
        assert!(
            count == 0,
            "{count} outputs differ from tests/golden; UPDATE_GOLDEN=1 rewrites them\n{}",
            self.0.join("\n")
        );
    }
}

fn files_in(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(HOUSE).join(folder)).expect("the folder exists");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.retain(|path| matches!(path.extension(), Some(kind) if kind == "edn" || kind == "toml"));
    paths.sort();
    paths
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().expect("a name");
    name.to_string_lossy().replace('.', "-")
}

#[test]
fn help_texts() {
    let mut goldens = Goldens::default();
    let help = shown(&pseidon(&["help"]));
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        let text = shown(&pseidon(&["help", command]));
        goldens.compare(&format!("help-{command}.txt"), &text);
    }
    goldens.compare("help.txt", &help);
    goldens.finish();
}

/// `check` of each pipeline file in a folder of `tests/golden`, compared with the file beside it.
/// `also` gets the file's name and what `check` printed.
fn compare_checks(folder: &str, also: impl Fn(&str, &str)) {
    let mut goldens = Goldens::default();
    let files = files_in(&format!("tests/golden/{folder}"));
    assert!(!files.is_empty(), "tests/golden/{folder} has no cases");
    for path in files {
        let file = path.strip_prefix(Path::new(HOUSE).join("tests/golden"));
        let file = file.expect("it is below the folder").to_string_lossy();
        let checked = shown(&pseidon(&["check", &file]));
        also(&file, &checked);
        goldens.compare(&format!("{folder}/{}.txt", name_of(&path)), &checked);
    }
    goldens.finish();
}

/// `run` finds the same errors as `check`, and starts nothing.
#[test]
fn errors_in_pipeline_files() {
    let files = files_in("tests/golden/errors");
    assert!(files.len() >= 20, "cases are missing");
    compare_checks("errors", |file, checked| {
        assert!(checked.starts_with("exit code 2\n"), "{file}: {checked}");
        assert_eq!(shown(&pseidon(&["run", file])), checked, "{file}");
    });
}

#[test]
fn each_command_names_a_file_that_does_not_exist() {
    let mut goldens = Goldens::default();
    for command in ["check", "run", "test"] {
        goldens.compare("no-file.txt", &shown(&pseidon(&[command, "none.edn"])));
    }
    goldens.finish();
}

#[test]
fn plans() {
    compare_checks("plans", |file, checked| {
        assert!(checked.starts_with("exit code 0\n"), "{file}: {checked}");
    });
}

#[test]
fn plans_of_the_examples() {
    let mut goldens = Goldens::default();
    for path in files_in("examples") {
        let output = pseidon(&["check", &path.to_string_lossy()]);
        goldens.compare(&format!("check-{}.txt", name_of(&path)), &shown(&output));
    }
    goldens.finish();
}

#[test]
fn tests_that_fail() {
    let mut goldens = Goldens::default();
    let output = pseidon(&["test", "failing-test.edn"]);
    goldens.compare("failing-test.txt", &shown(&output));
    // A test that cannot be run is an error of the file, which `check` finds as well.
    for command in ["check", "test"] {
        let output = pseidon(&[command, "invalid-tests.edn"]);
        goldens.compare(&format!("invalid-tests-{command}.txt"), &shown(&output));
    }
    goldens.finish();
}

#[test]
fn a_conversion_and_a_reference_page() {
    let mut goldens = Goldens::default();
    let legacy = format!("{HOUSE}/conf/legacy/minimal.edn");
    goldens.compare("import.txt", &shown(&pseidon(&["import", &legacy])));
    goldens.compare("plugins.txt", &shown(&pseidon(&["plugins"])));
    goldens.compare("plugins-drop.txt", &shown(&pseidon(&["plugins", "drop"])));
    goldens.compare(
        "plugins-unknown.txt",
        &shown(&pseidon(&["plugins", "kafak"])),
    );
    goldens.finish();
}

#[test]
fn functions_of_expressions() {
    let mut goldens = Goldens::default();
    for name in ["REGEXP_MATCH", "nvl", "uper"] {
        let file = format!("functions-{}.txt", name.to_lowercase().replace('_', "-"));
        goldens.compare(&file, &shown(&pseidon(&["functions", name])));
    }
    goldens.finish();
    let list = shown(&pseidon(&["functions"]));
    for line in [
        "\nMath Functions\n",
        "\n  abs  ",
        "\n  nullif  ",
        "\n  now  ",
    ] {
        assert!(list.contains(line), "{line} is missing in\n{list}");
    }
}

#[test]
fn the_summary_of_a_run() {
    let site = Site::new("summary");
    site.write("in.json", "{\"n\":1}\n{\"n\":2}\nno json\n");
    site.write(
        "pipeline.edn",
        r#"{:name "summary" in (files {:path "in.json" :schema {:n :int64}})
            pipeline (-> in (where "n > 1") (files {:path "out" :codec :json}))}"#,
    );
    let output = site
        .command("pipeline.edn")
        .env("NO_COLOR", "1")
        .output()
        .expect("it runs");
    let mut goldens = Goldens::default();
    goldens.compare("summary.txt", &without_times(&shown(&output)));
    let again = pseidon_again(&site);
    goldens.compare("summary-again.txt", &without_times(&again));
    goldens.finish();
}

/// What a second run prints, without the time at which the first one ended.
fn pseidon_again(site: &Site) -> String {
    let mut command = site.pseidon();
    let output = command
        .args(["run", "pipeline.edn"])
        .env("NO_COLOR", "1")
        .output();
    let text = shown(&output.expect("it runs"));
    let ended = " ended at ";
    let (before, after) = text
        .split_once(ended)
        .expect("it says when the first run ended");
    let (time, rest) = after.split_once(". ").expect("a sentence follows");
    assert_eq!(time.len(), "2026-11-28T11:10:07Z".len(), "{time}");
    format!("{before}{ended}TIME. {rest}")
}

/// Log lines without their times, and without how long the run took.
fn without_times(text: &str) -> String {
    let line = |line: &str| {
        let message = line.split_once("Z ").map_or(line, |(_, message)| message);
        let (known, _) = message.split_once(" seconds=").unwrap_or((message, ""));
        format!("{known}\n")
    };
    text.lines().map(line).collect()
}

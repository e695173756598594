//! Commands and runs whose standard output or standard error was closed by its reader, as
//! `pseidon plugins | head -3` does, or is on a full disk.

use std::fs::File;
use std::process::{Command, Output, Stdio};

use crate::harness::Site;

/// A pipe whose reader has gone.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// A device that is always full.
fn full() -> Stdio {
    let device = File::options().write(true).open("/dev/full");
    device.expect("the device can be opened").into()
}

fn site(name: &str) -> Site {
    let site = Site::new(name);
    site.write("a.ndjson", "{\"n\":1}\n{\"n\":2}\n");
    site.write(
        "in.edn",
        r#"{in (files "a.ndjson") pipeline (-> in (files "out"))}"#,
    );
    site.write(
        "wrong.edn",
        "{in (flies \"a.ndjson\") pipeline (-> in (drop))}",
    );
    site
}

fn code(mut command: Command, arguments: &[&str]) -> (Option<i32>, String) {
    let output: Output = command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

const PRINTING: [&[&str]; 9] = [
    &["--help"],
    &["plugins"],
    &["plugins", "files"],
    &["plugins", "--json-schema"],
    &["functions"],
    &["completions", "bash"],
    &["check", "in.edn"],
    &["infer", "a.ndjson"],
    &["staged", "in.edn"],
];

#[test]
fn a_command_ends_quietly_when_its_output_is_closed() {
    let site = site("closed-output");
    for arguments in PRINTING {
        let mut command = site.pseidon();
        command.stdout(closed());
        let (code, said) = code(command, arguments);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_command_whose_output_cannot_be_written_says_so_in_one_line() {
    let site = site("full-output");
    for arguments in PRINTING {
        let mut command = site.pseidon();
        command.stdout(full());
        let (code, said) = code(command, arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        assert!(said.contains("No space left"), "{arguments:?}: {said}");
    }
}

#[test]
fn the_exit_code_does_not_depend_on_whether_errors_can_be_printed() {
    let site = site("closed-errors");
    let cases: [(&[&str], i32); 6] = [
        (&["check", "wrong.edn"], 2),
        (&["check", "none.edn"], 2),
        (&["run", "wrong.edn"], 2),
        (&["plugins", "kafak"], 2),
        (&["status", "http://127.0.0.1:1"], 1),
        (&["no-such-command"], 2),
    ];
    for stream in [closed, full] {
        for (arguments, expected) in cases {
            let mut command = site.pseidon();
            let status = command.args(arguments).stderr(stream()).status();
            let code = status.expect("the binary can be started").code();
            assert_eq!(code, Some(expected), "{arguments:?}");
        }
    }
}

#[test]
fn a_run_goes_on_when_only_standard_error_is_closed() {
    let site = site("closed-log");
    for (number, format) in ["text", "json"].into_iter().enumerate() {
        let flow = format!(r#"(-> (files "a.ndjson") (files {{:path "out{number}"}}))"#);
        let arguments = ["run", "--log", "debug", "--log-format", format, "-e", &flow];
        let mut command = site.pseidon();
        let status = command.args(arguments).stderr(closed()).status();
        assert_eq!(status.expect("it runs").code(), Some(0));
        assert!(site.path(&format!("out{number}")).exists());
    }
}

#[test]
fn a_run_ends_when_its_output_is_closed() {
    let site = site("closed-both");
    let flow = r#"(-> (generate {:record {:id "n"}}) (stdout))"#;
    let mut command = site.pseidon();
    command.args(["run", "-e", flow]);
    let status = command.stdout(closed()).stderr(closed()).status();
    assert_eq!(status.expect("it runs").code(), Some(0));
    // The same with one pipe for both, as `2>&1 | head -1` makes it.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = site.pseidon();
    command.args(["run", "-e", flow]);
    command.stdout(writer.try_clone().expect("a second handle"));
    let mut run = command.stderr(writer).spawn().expect("it starts");
    drop(command);
    drop(reader);
    assert_eq!(run.wait().expect("it ends").code(), Some(0));
}

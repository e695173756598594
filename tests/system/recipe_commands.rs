//! The commands of docs/recipes.md, as they are printed.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::Site;
use crate::harness::output::{files, lines, rows};

/// A command of the page: its inputs, and what it writes.
struct Case {
    heading: &'static str,
    /// The names of files and their lines.
    inputs: &'static [(&'static str, &'static [&'static str])],
    /// The folder of the output.
    out: &'static str,
    /// The rows of the output in any order, those of Parquet as `name=value`.
    expected: &'static [&'static str],
}

const EVENTS: (&str, &[&str]) = (
    "events/a.ndjson",
    &[
        r#"{"id":1,"amount":50,"country":"no","time":"2026-01-30T23:00:00Z","extra":1}"#,
        r#"{"id":2,"amount":50.5,"country":"xx","time":"2026-01-31T10:00:00Z","extra":2}"#,
    ],
);

const SALES: (&str, &[&str]) = (
    "sales/a.csv",
    &["id,name,price", r#"1,"a, b",9.5"#, "2,,", "3,c,70"],
);

/// How many of its equal records are written is not known.
const SAMPLE: &str = "A part of the records";

const CASES: [Case; 14] = [
    Case {
        heading: "Keep some records",
        inputs: &[("logs/a.ndjson", &[r#"{"status":200}"#, r#"{"status":503}"#])],
        out: "failed",
        expected: &[r#"{"status":503}"#],
    },
    Case {
        heading: "Filter, choose columns, Parquet by day",
        inputs: &[EVENTS],
        out: "lake/day=2026-01-31",
        expected: &["amount=50.5 country=xx day=2026-01-31 id=2"],
    },
    Case {
        heading: "Add, change and remove fields",
        inputs: &[(
            "events/a.ndjson",
            &[r#"{"type":"a", "usr":7,"password":"x","more":[1, 2]}"#],
        )],
        out: "out",
        expected: &[r#"{"type":"a", "user":7,"more":[1, 2],"kind":"A"}"#],
    },
    Case {
        heading: "Rows of Parquet files as JSON",
        inputs: &[SALES],
        out: "large",
        expected: &[r#"{"id":3,"name":"c","price":70.0}"#],
    },
    Case {
        heading: "CSV to Parquet",
        inputs: &[SALES],
        out: "out",
        expected: &["id=1 name=a, b price=9.5", "id=2", "id=3 name=c price=70.0"],
    },
    Case {
        heading: "A web server's log to Parquet",
        inputs: &[(
            "access.log",
            &[r#"192.0.2.7 - - [31/Jan/2026:10:00:00 +0000] "GET /a HTTP/1.1" 200 5 "-" "curl""#],
        )],
        out: "lake/2026-01-31",
        expected: &[
            "agent=curl client=192.0.2.7 method=GET path=/a protocol=HTTP/1.1 \
             request=GET /a HTTP/1.1 size=5 status=200 time=2026-01-31T10:00:00Z",
        ],
    },
    Case {
        heading: "The parts of a line, by a regular expression",
        inputs: &[("app.log", &["WARN 12: slow", "INFO : ok"])],
        out: "out",
        expected: &[
            r#"{"level":"INFO","ms":null,"text":"ok"}"#,
            r#"{"level":"WARN","ms":"12","text":"slow"}"#,
        ],
    },
    Case {
        heading: "Many small compressed files to a few large ones",
        inputs: &[
            ("parts/1.ndjson", &[r#"{"n":1}"#]),
            ("parts/2.ndjson", &[r#"{"n":2}"#, r#"{"n":3}"#]),
        ],
        out: "whole",
        expected: &[r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#],
    },
    Case {
        heading: SAMPLE,
        inputs: &[("clicks/a.ndjson", &[r#"{"user_id":1}"#; 2000])],
        out: "some",
        expected: &[r#"{"user_id":1}"#],
    },
    Case {
        heading: "Without personal data",
        inputs: &[(
            "tickets/a.ndjson",
            &[r#"{"id":1,"message":"from a@b.org, 192.0.2.7"}"#],
        )],
        out: "out",
        expected: &[r#"{"id":1,"message":"from [email], [ip]"}"#],
    },
    Case {
        heading: "One record for each element of a list",
        inputs: &[(
            "orders/a.ndjson",
            &[r#"{"id":1,"items":[{"sku":"a"},{"sku":"b"}],"by":"c"}"#],
        )],
        out: "out",
        expected: &[
            r#"{"id":1,"by":"c","item":{"sku":"a"}}"#,
            r#"{"id":1,"by":"c","item":{"sku":"b"}}"#,
        ],
    },
    Case {
        heading: "Fields from another file",
        inputs: &[
            (
                "events/a.ndjson",
                &[r#"{"country":"no"}"#, r#"{"country":"xx"}"#],
            ),
            ("countries.csv", &["code,name", "no,Norway"]),
        ],
        out: "out",
        expected: &[
            r#"{"country":"no","country_name":"Norway"}"#,
            r#"{"country":"xx","country_name":null}"#,
        ],
    },
    Case {
        heading: "Count per minute",
        inputs: &[(
            "clicks/a.ndjson",
            &[
                r#"{"time":"2026-01-31T10:00:07Z","status":200}"#,
                r#"{"time":"2026-01-31T10:01:00Z","status":200}"#,
                r#"{"time":"2026-01-31T10:00:59Z","status":200}"#,
            ],
        )],
        out: "out",
        expected: &[
            r#"{"minute":"2026-01-31T10:00","status":200,"n":2}"#,
            r#"{"minute":"2026-01-31T10:01","status":200,"n":1}"#,
        ],
    },
    Case {
        heading: "Without duplicates",
        inputs: &[(
            "products/a.ndjson",
            &[
                r#"{"id":7,"n":1}"#,
                r#"{"id":8,"n":2}"#,
                r#"{"id":7,"n":3}"#,
            ],
        )],
        out: "out",
        expected: &[r#"{"id":7,"n":1}"#, r#"{"id":8,"n":2}"#],
    },
];

/// The other tool's lines and the command of each section that has both.
fn commands() -> Vec<(&'static str, usize, &'static str)> {
    let page = include_str!("../../docs/recipes.md");
    let sections = page.split("\n## ").skip(1);
    sections
        .filter_map(|section| {
            let (heading, text) = section.split_once('\n')?;
            let (others, text) = block(text, "```text\n")?;
            let (command, _) = block(text, "```sh run\n")?;
            Some((heading, others.lines().count(), command))
        })
        .collect()
}

/// The first code block that begins in this way, and the text after it.
fn block<'t>(text: &'t str, begin: &str) -> Option<(&'t str, &'t str)> {
    text.split_once(begin)?.1.split_once("```")
}

/// Runs a command of a shell with the binary in the search path.
fn run(site: &Site, command: &str) {
    let binary = Path::new(env!("CARGO_BIN_EXE_pseidon"));
    let path = std::env::var("PATH").expect("a search path");
    let folder = binary.parent().expect("a folder").display();
    let done = Command::new("sh")
        .args(["-c", command])
        .current_dir(site.path("."))
        .env("PATH", format!("{folder}:{path}"))
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command}\n{said}");
}

/// Writes the inputs, compressed or as Parquet files if the command reads those.
fn write_inputs(site: &Site, case: &Case, command: &str) {
    for (name, lines) in case.inputs {
        site.write(name, lines.join("\n") + "\n");
    }
    if command.contains(".gz") {
        run(site, "gzip parts/*");
    }
    if command.contains(".parquet\"") {
        run(
            site,
            r#"pseidon run -e '(-> (files {:path "sales/*.csv" :schema :infer})
                                   (files {:path "sales" :codec :parquet}))'"#,
        );
    }
}

fn output(folder: &Path) -> Vec<String> {
    let all = files(folder);
    let mut found: Vec<String> = all
        .iter()
        .flat_map(|path| match path.extension() {
            Some(ending) if ending == "parquet" => rows(path)
                .iter()
                .map(|row| {
                    let values = row.iter().map(|(name, value)| format!("{name}={value}"));
                    values.collect::<Vec<_>>().join(" ")
                })
                .collect(),
            _ => lines(path),
        })
        .collect();
    found.sort();
    found
}

#[test]
fn each_command_does_what_its_section_says() {
    let commands = commands();
    let headings: Vec<_> = commands.iter().map(|(heading, ..)| *heading).collect();
    let tested: Vec<_> = CASES.iter().map(|case| case.heading).collect();
    assert_eq!(headings, tested);
    for (case, (_, _, command)) in CASES.iter().zip(commands) {
        let site = Site::new("recipe-command");
        write_inputs(&site, case, command);
        run(&site, command);
        let mut found = output(&site.path(case.out));
        if case.heading == SAMPLE {
            assert!(found.len() < 200, "{} of 2000 records", found.len());
            found.dedup();
        }
        assert_eq!(found, case.expected, "{command}");
    }
}

#[test]
fn no_command_is_longer_than_what_others_write() {
    for (heading, others, command) in commands() {
        let lines = command.lines().count();
        assert!(
            lines <= others,
            "{heading}: {lines} lines instead of {others}"
        );
    }
}

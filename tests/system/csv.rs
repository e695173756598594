//! CSV as it is in the world: headers in another order, quotes with line ends, empty values.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::harness::output::{all_lines, files, hidden, lines};
use crate::harness::{Site, wait_until};

/// Runs a flow of the command line. Returns the lines that it prints, and its log.
fn printed(site: &Site, flow: &str, input: &str) -> (Vec<String>, String) {
    let mut command: Command = site.pseidon();
    command.args(["run", "-e", flow]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    let mut stdin = child.stdin.take().expect("it is piped");
    // A flow that does not read it may have exited.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it exits");
    let log = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{log}");
    let text = String::from_utf8(output.stdout).expect("text");
    (text.lines().map(str::to_owned).collect(), log)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).expect("compressed");
    encoder.finish().expect("compressed")
}

#[test]
fn columns_are_found_by_name_in_files_of_several_programs() {
    let site = Site::new("csv-names");
    site.write(
        "in/a.csv",
        "\u{feff}id,amount,\"full name\"\r\n1,12.50,\"Ann, \"\"A\"\"\"\r\n\r\n2,,\"\"\r\n",
    );
    site.write(
        "in/b.csv.gz",
        gzip(b"full name,more,id\nBo,x,3\n\"C\nD\",y,4"),
    );
    let flow = r#"(-> (files {:path ["in/a.csv" "in/b.csv.gz"]})
        (select "id::int as id, \"full name\" as name, amount") (stdout))"#;
    let (mut records, log) = printed(&site, flow, "");
    records.sort();
    assert_eq!(
        records,
        [
            r#"{"id":1,"name":"Ann, \"A\"","amount":"12.50"}"#,
            r#"{"id":2,"name":"","amount":null}"#,
            r#"{"id":3,"name":"Bo","amount":null}"#,
            r#"{"id":4,"name":"C\nD","amount":null}"#,
        ],
        "{log}"
    );
}

#[test]
fn types_are_inferred_and_compared_as_numbers() {
    let site = Site::new("csv-infer");
    site.write(
        "a.csv",
        "id,zip,price,at\n1,00501,9.5,2024-05-01 10:00:00\n2,98101,50.5,2024-05-02T10:00:00Z\n",
    );
    let flow = r#"(-> (files {:path "a.csv" :schema :infer}) (where "price > 50") (stdout))"#;
    let (records, log) = printed(&site, flow, "");
    assert_eq!(
        records,
        [r#"{"id":2,"zip":"98101","price":50.5,"at":"2024-05-02T10:00:00.000000Z"}"#],
        "{log}"
    );
    let inferred = site.pseidon().args(["infer", "a.csv"]).output();
    let inferred = String::from_utf8(inferred.expect("it runs").stdout).expect("text");
    assert_eq!(
        inferred,
        "{:id :int64, :zip :utf8, :price :float64, :at :timestamp_us}\n"
    );
    // Without types, a comparison with a number compares numbers.
    let flow = r#"(-> (files "a.csv") (where "price > 50") (select "id, zip") (stdout :csv))"#;
    assert_eq!(printed(&site, flow, "").0, ["id,zip", "2,98101"]);
}

#[test]
fn records_that_do_not_match_the_header_are_counted() {
    let site = Site::new("csv-invalid");
    let input = "a\tb\n1\t2\n1\n1\t2\t3\n\"4\t5\n";
    let flow = r#"(-> (stdin "tsv") (select "a, b") (stdout :tsv))"#;
    let flow = flow.replace("(stdin \"tsv\")", "(stdin {:format \"tsv:quote=none\"})");
    let (records, log) = printed(&site, &flow, input);
    assert_eq!(records, ["a\tb", "1\t2", "\"\"\"4\"\t5"]);
    for part in ["count=2 reason=\"expected 2 fields, found 1\"", "dropped=2"] {
        assert!(log.contains(part), "`{part}` is missing in\n{log}");
    }
}

/// Every file of the sink has the header, and the source reads all of them back.
#[test]
fn written_files_are_read_back() {
    let site = Site::new("csv-back");
    let texts = ["", "a,b", "\"q\"", "x\ny", "plain"];
    let records: Vec<Value> = (0..200)
        .map(|n| json!({"n": n, "text": texts[n % texts.len()], "none": null}))
        .collect();
    let text: String = records.iter().map(|record| format!("{record}\n")).collect();
    site.write("in.ndjson", text);
    for (codec, compression) in [
        ("csv", ":none"),
        ("csv", ":gzip"),
        ("tsv", ":zstd"),
        ("tsv", ":bzip2"),
        ("csv", ":snappy"),
    ] {
        let (out, name) = (format!("out-{codec}-{}", &compression[1..]), "name");
        site.write(
            "write.edn",
            format!(
                r#"{{:{name} "{out}"
                    in (files {{:path "in.ndjson" :schema {{:n :int64 :text :utf8 :none :utf8}}}})
                    pipeline (-> in (files {{:path "{out}" :codec :{codec} :compression {compression}
                                             :check-freq "10ms" :rollover {{:records 50}}}}))}}"#
            ),
        );
        site.finish("write.edn", 30);
        let found = files(&site.path(&out));
        assert!(found.iter().all(|path| lines(path)[0].starts_with("n")));
        let flow = format!(
            r#"(-> (files {{:path "{out}/**/*" :format "{codec}" :schema {{:n :int64 :text :utf8 :none :utf8}}}})
                   (stdout))"#
        );
        let (mut back, log) = printed(&site, &flow, "");
        back.sort_by_key(|line| {
            let record: Value = serde_json::from_str(line).expect("json");
            record["n"].as_u64()
        });
        let expected: Vec<String> = records
            .iter()
            .map(|record| {
                let text = &record["text"];
                format!(r#"{{"n":{},"text":{text},"none":null}}"#, record["n"])
            })
            .collect();
        assert_eq!(back, expected, "{log}");
    }
}

const RECORDS: u64 = 100_000;
/// After how many commits each run is killed.
const KILLED_AFTER: [u32; 3] = [2, 3, 4];

#[test]
fn a_plain_file_is_read_once() {
    killed_while_reading("csv-plain", "in/a.csv", "", |content| content);
}

#[test]
fn a_compressed_file_is_read_once() {
    killed_while_reading("csv-gzip", "in/a.csv.gz", "", |content| gzip(&content));
}

#[test]
fn a_followed_file_is_read_once() {
    killed_while_reading(
        "csv-follow",
        "in/a.csv",
        ":follow true :poll \"50ms\"",
        |content| content,
    );
}

/// Kills runs while their lane has committed files and holds newer records. Each record has line
/// ends in quotes, and looks like two records to who resumes inside of it.
fn killed_while_reading(test: &str, path: &str, more: &str, encode: fn(Vec<u8>) -> Vec<u8>) {
    let site = Site::new(test);
    let mut content = String::from("id,text\n");
    for number in 0..RECORDS {
        content += &format!("{number},\"{}\n{number},\"\"torn\"\"\n\"\n", pad(number));
    }
    fs::create_dir_all(site.path("in")).expect("a folder");
    site.write(path, encode(content.into_bytes()));
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:name "csv" :settings {{:commit-interval "50ms"}}
                in (files {{:path "{path}" :schema {{:id :int64 :text :utf8}} :on-error :noop {more}}})
                pipeline (-> in (select "id, translate(text, chr(10), '|') as text") (files {{:path "out" :codec :csv :compression :gzip :check-freq "10ms" :rollover {{:records 400 :idle "1s"}}}}))}}"#
        ),
    );
    for commits in KILLED_AFTER {
        let mut command = site.command("pipeline.edn");
        command.env("PSEIDON_FAIL", format!("committed:{commits}"));
        site.start(command).expect_death("committed", 60);
    }
    let mut pseidon = site.run("pipeline.edn");
    let records = || {
        let mut all = all_lines(&site.path("out"));
        all.retain(|line| line != "id,text");
        all
    };
    wait_until("everything is visible", 120, || {
        records().len() as u64 >= RECORDS
    });
    if more.is_empty() {
        pseidon.expect_exit(0, 60);
    } else {
        pseidon.stop(60);
    }
    let mut expected: Vec<String> = (0..RECORDS)
        .map(|number| format!("{number},\"{}|{number},\"\"torn\"\"|\"", pad(number)))
        .collect();
    expected.sort();
    let found = records();
    assert!(found == expected, "{} of {RECORDS} records", found.len());
    assert!(hidden(&site.path("out")).is_empty());
}

/// What makes the records different in length.
fn pad(number: u64) -> String {
    "x".repeat(number as usize * 7919 % 61)
}

#[test]
fn an_open_quote_at_the_end_is_an_invalid_record() {
    let site = Site::new("csv-open-quote");
    let flow = |source: &str| format!(r#"(-> ({source}) (select "a, b") (stdout))"#);
    for rest in ["3,\"x", "3,\"x\n", "3,\"x\ny\n"] {
        let text = format!("a,b\n1,2\n{rest}");
        site.write("a.csv", &text);
        site.write("b.csv.gz", gzip(text.as_bytes()));
        for source in [
            r#"files "a.csv""#,
            r#"files "b.csv.gz""#,
            r#"stdin {:format "csv"}"#,
        ] {
            let (records, log) = printed(&site, &flow(source), &text);
            assert_eq!(records, [r#"{"a":"1","b":"2"}"#], "{source}: {log}");
            assert!(log.contains("dropped=1"), "{source}, {rest:?}: {log}");
        }
    }
    // A header with an open quote leaves no records.
    site.write("a.csv", "a,\"b\n1,2\n");
    let (records, _) = printed(&site, &flow(r#"files "a.csv""#), "");
    assert_eq!(records, [""; 0]);
}

#[test]
fn empty_fields_of_txt_keep_their_place_if_wanted() {
    let site = Site::new("txt-empty");
    site.write("in.txt", "1\tAnn\tOslo\n2\t\tRome\n3\tBo\n");
    let flow = |empty: &str| {
        format!(
            r#"(-> (files "in.txt" {{:format "txt:sep=tab;{empty}ts=-1;fields=id,name,city"}})
                   (select "id, name, city") (stdout))"#
        )
    };
    let last = r#"{"id":"3","name":"Bo","city":null}"#;
    let (records, _) = printed(&site, &flow("empty=keep;"), "");
    let ann = r#"{"id":"1","name":"Ann","city":"Oslo"}"#;
    assert_eq!(
        records,
        [ann, r#"{"id":"2","name":null,"city":"Rome"}"#, last]
    );
    let (records, _) = printed(&site, &flow(""), "");
    assert_eq!(
        records,
        [ann, r#"{"id":"2","name":"Rome","city":null}"#, last]
    );
}

#[test]
fn another_separator_is_found_and_reported() {
    let site = Site::new("csv-separator");
    site.write("a.csv", "id;name;price\n1;\"x;\ny\";2.5\n");
    let run = |arguments: &[&str]| {
        let output = site.pseidon().args(arguments).output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let inferred =
        "; with :format \"csv:sep=semicolon\"\n{:id :int64, :name :utf8, :price :float64}\n";
    assert_eq!(run(&["infer", "a.csv"]).1, inferred);
    let flow = r#"(-> (files {:path "a.csv" :schema :infer}) (stdout))"#;
    let (code, _, log) = run(&["run", "-e", flow]);
    assert_eq!(code, Some(2), "{log}");
    let reason = "the header `id;name;price` is a single field; if its separator is a semicolon, \
                  set :format \"csv:sep=semicolon\"";
    assert!(log.contains(reason), "{log}");
    // Beside files with the right one, its records are invalid.
    site.write("b.csv", "price,id\n3,2\n");
    let flow = r#"(-> (files "*.csv") (select "id, price") (stdout))"#;
    let (code, records, log) = run(&["run", "-e", flow]);
    assert_eq!(
        (code, records.as_str()),
        (Some(0), "{\"id\":\"2\",\"price\":\"3\"}\n"),
        "{log}"
    );
    let reason = "has none of the fields that are used (id, price); its separator may be a \
                  semicolon: set sep=semicolon";
    assert!(log.contains(reason), "{log}");
    for (options, help) in [
        (":header false", "set :format \"csv:header=false\""),
        (
            ":columns [a]",
            "name the fields: :format \"csv:fields=a,b,c\"",
        ),
        (":nullstr \"NA\"", ":format \"csv:null=NULL\""),
        (":delimiter \";\"", ":format \"csv:sep=semicolon\""),
        (
            ":format \"csv:header=false\"",
            "without a header, the fields are column1, column2, …",
        ),
    ] {
        let flow = format!(r#"(-> (files {{:path "a.csv" {options}}}) (select "id") (stdout))"#);
        let (_, _, log) = run(&["check", "-e", &flow]);
        assert!(log.contains(help), "{help} is missing in\n{log}");
    }
    for stage in [
        r#"(set "id = 1")"#,
        r#"(remove "id")"#,
        r#"(dedupe "id")"#,
        r#"(unnest "id")"#,
        r#"(select "*, 1 as x")"#,
        r#"(where "id > 1")"#,
    ] {
        let flow = format!(r#"(-> (files "a.csv") {stage} (stdout))"#);
        let (_, _, log) = run(&["check", "-e", &flow]);
        assert!(log.contains(":infer"), "{stage}: {log}");
    }
}

/// The fields have the names of the schema, and the sink writes the dialect of another program.
#[test]
fn files_without_a_header_and_in_other_dialects() {
    let site = Site::new("csv-dialects");
    site.write("in/a.csv", "# 'made by\n1;'Ann; A';1,5\n2;\\N;\\N\n");
    site.write("in/b.csv.gz", gzip(b"3;'it\\'s';-0,25"));
    site.write(
        "pipeline.edn",
        r#"{in (files {:path "in/*"
                       :format "csv:sep=semicolon;quote=single;escape=backslash;comment=#;null=\\N;decimal=comma;header=false"
                       :schema {:id :int64 :name :utf8 :price :float64}})
            typed (select "id, name, price")
            out (files {:path "out" :codec :csv
                        :csv {:header false :sep "|" :null "NULL" :decimal :comma}})
            pipeline (-> in typed out)
            :tests [{:name "no header" :at typed :input ["7;x;0,5"]
                     :output [{:id 7 :name "x" :price 0.5}]}]}"#,
    );
    site.finish("pipeline.edn", 30);
    let expected = ["1|Ann; A|1,5", "2|NULL|NULL", "3|it's|-0,25"];
    assert_eq!(all_lines(&site.path("out")), expected);
    let tested = site.pseidon().args(["test", "pipeline.edn"]).output();
    assert!(tested.expect("it runs").status.success());
    // Without a schema, the fields have numbers.
    let flow = r#"(-> (files {:path "out/*" :format "csv:sep=|;header=false;null=NULL"})
                      (where "column2 is null") (select "column1 as id") (stdout))"#;
    assert_eq!(printed(&site, flow, "").0, [r#"{"id":"2"}"#]);
    let flow = r#"(-> (stdin {:format "tsv:header=false" :schema {:a :int64 :b :utf8}})
                      (stdout {:format :csv :csv {:header false}}))"#;
    assert_eq!(printed(&site, flow, "1\tx\n2\ty\n").0, ["1,x", "2,y"]);
    let flow = r#"(-> (stdin "csv") (stdout {:format :csv :delimiter "|"}))"#;
    let checked = site.pseidon().args(["check", "-e", flow]).output();
    let errors = String::from_utf8(checked.expect("it runs").stderr).expect("text");
    assert!(errors.contains(":csv {:sep \"semicolon\"}"), "{errors}");
}

//! The options that each key is converted to.

use super::{converted, with};

/// The effect of `more` on the pipeline file: the words that a file without it does not have, on
/// one line.
fn effect(more: &str) -> String {
    let bare = |piece: &str| {
        piece
            .trim_start_matches(['{', '('])
            .trim_end_matches(['}', ')'])
            .to_owned()
    };
    let pieces =
        |text: &str| -> Vec<String> { converted(text).text.split_whitespace().map(bare).collect() };
    let plain = pieces(&with(""));
    pieces(&with(more))
        .into_iter()
        .filter(|piece| !plain.contains(piece))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Keys, and their effect on the pipeline file.
const EFFECTS: &[(&str, &str)] = &[
    (
        ":etl-db-user \"u\" :etl-db-pwd \"\"",
        ":user \"u\" :password \"\"",
    ),
    (":etl-group \"a b\"", "\"a-b\" \"a b\" \"a b\""),
    (":topic-refresh-freq-ms 1500", "\"1500ms\""),
    (":etl-error-threshold 7", "7"),
    (":kafka-use-earliest true", ":earliest"),
    (":kafka-use-earliest nil", ""),
    (
        ":redis-conf {:host \"r\"}",
        ":state \"redis://r:6379\" :offsets-of :redis \"redis://r:6379\"",
    ),
    (
        ":redis-conf {:host \"r:1\" :port 2}",
        ":state \"redis://r:1\" :offsets-of :redis \"redis://r:1\"",
    ),
    (
        ":redis-conf {:host \"r\" :port \"2\" :db 3}",
        ":state \"redis://r:2/3\" :offsets-of :redis \"redis://r:2/3\"",
    ),
    (
        ":redis-conf {:host \"::1\"}",
        ":state \"redis://[::1]:6379\" :offsets-of :redis \"redis://[::1]:6379\"",
    ),
    (
        ":redis-conf {:host \"a:1, b\"}",
        ":state \"redis-cluster://a:1,b:6379\" :offsets-of :redis \
            \"redis-cluster://a:1,b:6379\"",
    ),
    (
        ":redis-conf {:host [{:host \"a\"} \"b:2\"] :password \"${env:P}\"}",
        ":state \"redis-cluster://:${env:P}@a:6379,b:2\" :offsets-of :redis \
            \"redis-cluster://:${env:P}@a:6379,b:2\"",
    ),
    (
        ":redis-conf {:host \"${env:R}\"}",
        ":state \"redis://${env:R}\" :offsets-of :redis \"redis://${env:R}\"",
    ),
    (
        ":redis-conf {:host \"r\"} :state \"redis://other\"",
        ":state \"redis://other\" :offsets-of :redis \"redis://r:6379\"",
    ),
    (
        ":etl-threads 1 :io-threads 2 :memory 1000000000",
        ":etl-threads 1 :io-threads 2 :memory 1000000000",
    ),
    (
        ":monitor-port 1 :monitor-host \"::\" :repl-port 65535",
        ":monitor-port 1 :monitor-host \"::\" :repl-port 65535",
    ),
    (
        ":monitor-names [\"a\" \"b\"] :token \"${env:T}\"",
        ":monitor-names [\"a\" \"b\"] :token \"${env:T}\"",
    ),
    (":fatal-errors \"/var/log/x\"", "\"/var/log/x\""),
    (
        ":avro-schema-registry-url \"http://r\"",
        ":registry \"http://r\"",
    ),
    (":writer {:codec :none}", ":output-format :txt"),
    (":writer {:codec \"avro\"}", ":output-format :avro"),
    (":writer {:codec :native-gzip}", ""),
    (":writer {:check-freq 1}", "\"1ms\""),
    (
        ":writer {:rollover-size 5 :rollover-timeout 6000 :rollover-abs-timeout \
            9223372036854775807}",
        "5 \"6s\" \"3153600000s\"",
    ),
    (":writer {:parallel-files 5 :write-multiplier 4}", "20"),
    (
        ":writer {:parquet-block-size 20971520}",
        ":row-group 20971520",
    ),
    (":writer {:base-dir (\"/a\" \"/b\")}", "[\"/a\" \"/b\"]"),
    (
        ":move-files true",
        ":move-to :path \
            \"${log:base_partition}/${log:log_partition}/{${log:time}:${log:date}}\" :prefix \
            \"${host:name}-\"",
    ),
];

#[test]
fn each_key_has_its_effect() {
    for &(more, expected) in EFFECTS {
        assert_eq!(effect(more), expected, "{more}");
    }
}

#[test]
fn databases_are_parsed_from_jdbc_urls() {
    for (host, expected) in [
        (
            "//localhost:3306/mydb",
            ":url \"mysql://localhost:3306/mydb\"",
        ),
        (
            "jdbc:mysql://db/mydb?user=u&password=p",
            ":url \"mysql://db/mydb\" :user \"u\" :password \"p\"",
        ),
        ("///mydb", ":url \"mysql://localhost/mydb\""),
        ("//a:1,b:2/mydb", ":url \"mysql://a:1/mydb\""),
        ("//${env:DB}/mydb", ":url \"mysql://${env:DB}/mydb\""),
    ] {
        let text = with("").replace("//h/d", host);
        let pipeline = converted(&text).text;
        assert!(pipeline.contains(expected), "{host}: {pipeline}");
    }
}

#[test]
fn a_password_in_the_file_adds_a_comment() {
    let advice = "${env:ETL_DB_PWD}";
    for (more, expected) in [
        (":etl-db-pwd \"hunter2\"", true),
        (":etl-db-pwd \"${file:/run/secrets/pwd}\"", false),
        (":redis-conf {:host \"r\" :password \"hunter2\"}", true),
        ("", false),
    ] {
        assert_eq!(
            converted(&with(more)).text.contains(advice),
            expected,
            "{more}"
        );
    }
    let escaped = converted(&with(":redis-conf {:host \"r\" :password \"a/b@c%\"}")).text;
    assert!(
        escaped.contains("redis://:a%2Fb%40c%25@r:6379"),
        "{escaped}"
    );
}

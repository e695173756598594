//! `parse`: lines of logs become columns, and lines of another kind are invalid.

use crate::harness::Site;

/// The output of a flow over one file, and its log.
fn parsed(site: &Site, content: &str, stages: &str) -> (Vec<String>, String) {
    site.write("in.log", content);
    let flow = format!(r#"(-> (files {{:path "in.log" :format "txt"}}) {stages} (stdout))"#);
    printed(site, &flow)
}

fn printed(site: &Site, flow: &str) -> (Vec<String>, String) {
    let output = site.pseidon().args(["run", "-e", flow]).output();
    let output = output.expect("the binary can be started");
    let log = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{log}");
    let text = String::from_utf8(output.stdout).expect("text");
    (text.lines().map(str::to_owned).collect(), log)
}

#[test]
fn access_logs_of_web_servers() {
    let site = Site::new("parse-nginx");
    let content = concat!(
        r#"203.0.113.7 - al ice [10/Oct/2024:13:55:36 -0700] "GET /a?q=1 HTTP/1.1" 200 2326 "https://e.org/" "M \"x\"""#,
        "\n",
        r#"::1 - - [10/Oct/2024:13:55:37 +0000] "\x16\x03\x01" 400 0 "-" "-""#,
        "\n",
        r#"10.0.0.1 - - [10/Oct/2024:13:55:38 +0000] "POST /x HTTP/2.0" 500 -"#,
        "\nnot a request\n",
    );
    for name in ["nginx", "apache"] {
        let (records, log) = parsed(&site, content, &format!(r#"(parse "line" :{name})"#));
        assert_eq!(
            records,
            [
                r#"{"client":"203.0.113.7","user":"al ice","time":"2024-10-10T20:55:36.000000Z","method":"GET","path":"/a?q=1","protocol":"HTTP/1.1","request":"GET /a?q=1 HTTP/1.1","status":200,"size":2326,"referer":"https://e.org/","agent":"M \\\"x\\\"","vhost":null,"rest":null}"#,
                r#"{"client":"::1","user":null,"time":"2024-10-10T13:55:37.000000Z","method":null,"path":null,"protocol":null,"request":"\\x16\\x03\\x01","status":400,"size":0,"referer":null,"agent":null,"vhost":null,"rest":null}"#,
                r#"{"client":"10.0.0.1","user":null,"time":"2024-10-10T13:55:38.000000Z","method":"POST","path":"/x","protocol":"HTTP/2.0","request":"POST /x HTTP/2.0","status":500,"size":null,"referer":null,"agent":null,"vhost":null,"rest":null}"#,
            ]
        );
        let reason = "stage=\"parse\" count=1 reason=\"the string does not match the pattern\"";
        assert!(log.contains(reason), "{log}");
    }
}

/// Apache's combined format with virtual hosts, and fields that are added at the end.
#[test]
fn access_logs_with_more_fields() {
    let site = Site::new("parse-vhosts");
    let content = concat!(
        r#"e.org:443 1.2.3.4 - - [10/Oct/2024:13:55:36 +0000] "GET / HTTP/1.1" 200 5 "-" "M""#,
        "\n",
        r#"2001:db8::1 - - [10/Oct/2024:13:55:36 +0000] "GET / HTTP/1.1" 200 5 "-" "M" "9.9.9.9" rt=0.1 "#,
        "\n",
        r#"1.2.3.4 - - [10/Oct/2024:13:55:36 +0000] "GET / HTTP/1.1" 200 5 7"#,
        "\n",
        r#"1.2.3.4:5678 - john smith [10/Oct/2024:13:55:36 +0000] "GET / HTTP/1.1" 200 5 "-" "M"x"#,
        "\n",
    );
    let stages = r#"(parse "line" :nginx) (select "vhost, client, user, agent, rest")"#;
    assert_eq!(
        parsed(&site, content, stages).0,
        [
            r#"{"vhost":"e.org:443","client":"1.2.3.4","user":null,"agent":"M","rest":null}"#,
            r#"{"vhost":null,"client":"2001:db8::1","user":null,"agent":"M","rest":"\"9.9.9.9\" rt=0.1"}"#,
            r#"{"vhost":null,"client":"1.2.3.4","user":null,"agent":null,"rest":"7"}"#,
            r#"{"vhost":null,"client":"1.2.3.4:5678","user":"john smith","agent":"M","rest":"x"}"#,
        ]
    );
}

/// The examples of RFC 5424, section 6.5, and RFC 3164, section 5.4.
#[test]
fn messages_of_syslog() {
    let site = Site::new("parse-syslog");
    let content = concat!(
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed\n",
        "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time.\n",
        "<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [x@1 a=\"\\]\"][y@1 b=\"2\"]\n",
        "<192>1 2003-10-11T22:14:15.003Z h app - - - no such priority\n",
    );
    let stages = r#"(parse "line" :syslog) (select "facility, severity, time, app, process, message_id as id, data, message")"#;
    assert_eq!(
        parsed(&site, content, stages).0,
        [
            r#"{"facility":4,"severity":2,"time":"2003-10-11T22:14:15.003000Z","app":"su","process":null,"id":"ID47","data":null,"message":"'su root' failed"}"#,
            r#"{"facility":20,"severity":5,"time":"2003-08-24T12:14:15.000003Z","app":"myproc","process":"8710","id":null,"data":null,"message":"%% It's time."}"#,
            r#"{"facility":20,"severity":5,"time":"2003-10-11T22:14:15.003000Z","app":"evntslog","process":null,"id":"ID47","data":"[x@1 a=\"\\]\"][y@1 b=\"2\"]","message":null}"#,
        ]
    );
    let content = concat!(
        "<34>Oct 11 22:14:15 mymachine su: 'su root' failed\n",
        "Feb  5 17:32:18 10.0.0.99 cron[12]: done\n",
        "<13>Feb  5 17:32:18 host no tag here\n",
        "2024-10-10T13:55:36.123456+02:00 host sshd[7]: ok\n",
        "<192>Feb  5 17:32:18 host app: no such priority\n",
    );
    assert_eq!(
        parsed(&site, content, r#"(parse "line" :syslog-bsd)"#).0,
        [
            r#"{"facility":4,"severity":2,"time":"Oct 11 22:14:15","host":"mymachine","app":"su","process":null,"message":"'su root' failed"}"#,
            r#"{"facility":null,"severity":null,"time":"Feb  5 17:32:18","host":"10.0.0.99","app":"cron","process":"12","message":"done"}"#,
            r#"{"facility":1,"severity":5,"time":"Feb  5 17:32:18","host":"host","app":null,"process":null,"message":"no tag here"}"#,
            r#"{"facility":null,"severity":null,"time":"2024-10-10T13:55:36.123456+02:00","host":"host","app":"sshd","process":"7","message":"ok"}"#,
        ]
    );
}

#[test]
fn pairs_of_logfmt_are_fields_of_one_column() {
    let site = Site::new("parse-logfmt");
    let content = concat!(
        r#"time=2024-10-10T13:55:36Z level=info msg="it \"works\"" status=200 retry"#,
        "\n",
        "level=error status=x other=1\nno pairs here\n",
    );
    let (records, log) = parsed(&site, content, r#"(parse "line" :logfmt)"#);
    assert_eq!(
        records,
        [
            r#"{"fields":{"time":"2024-10-10T13:55:36Z","level":"info","msg":"it \"works\"","status":"200","retry":true}}"#,
            r#"{"fields":{"level":"error","status":"x","other":"1"}}"#,
        ]
    );
    assert!(log.contains("the string has no pair key=value"), "{log}");
    let stages = r#"(parse "line" :logfmt {:keep "@offset as at"})
        (where "fields.level = 'info' and fields.status > 100")
        (select "fields.time::timestamp as time, fields.msg, fields.status::int64 as status, at")"#;
    assert_eq!(
        parsed(&site, content, stages).0,
        [r#"{"time":"2024-10-10T13:55:36.000000Z","msg":"it \"works\"","status":200,"at":0}"#]
    );
}

#[test]
fn a_pattern_in_toml_is_a_string() {
    let site = Site::new("parse-toml");
    site.write("in.log", "a=1\n");
    site.write(
        "pipeline.toml",
        r#"pipeline = "(-> in pairs (stdout))"
           [stages.in]
           files = { path = "in.log" }
           [stages.pairs]
           parse = { text = "line", pattern = '(?<key>\w+)=(?<value>\w*)' }
        "#,
    );
    let output = site.pseidon().args(["run", "pipeline.toml"]).output();
    let output = output.expect("the binary can be started");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "{\"key\":\"a\",\"value\":\"1\"}\n",
        "{log}"
    );
}

/// Groups keep their places, a group without a part of the match is NULL, and other fields are kept
/// if they are named.
#[test]
fn named_groups_of_a_regular_expression() {
    let site = Site::new("parse-regex");
    site.write(
        "in.ndjson",
        "{\"log\":\"b=2\",\"pod\":\"x\",\"n\":5}\n{\"log\":\"a=1 b=2\",\"pod\":\"y\",\"n\":0.5}\n\
         {\"log\":null}\n{\"log\":\"c\"}\n",
    );
    let flow = r##"(-> (files "in.ndjson")
        (parse "log" #r"(?:a=(?<a>\d) )?b=(?<b>\d)" {:keep "pod, n + 1 as m"})
        (where "b::int > 1 or b is null") (stdout))"##;
    let (records, log) = printed(&site, flow);
    assert_eq!(
        records,
        [
            r#"{"a":null,"b":"2","pod":"x","m":6}"#,
            r#"{"a":"1","b":"2","pod":"y","m":1.5}"#,
            r#"{"a":null,"b":null,"pod":null,"m":null}"#,
        ],
        "{log}"
    );
}

#[test]
fn a_test_sees_the_columns() {
    let site = Site::new("parse-tests");
    site.write(
        "pipeline.edn",
        r##"{in       (files {:path "none" :format "txt"})
             pairs    (parse "line" #r"(?<key>\w+)=(?<value>\w*)")
             pipeline (-> in pairs (stdout))
             :tests [{:name "pairs" :at pairs :input ["a=1" "b="]
                      :output [{:key "a" :value "1"} {:key "b" :value ""}]}]}"##,
    );
    let output = site.pseidon().args(["test", "pipeline.edn"]).output();
    let output = output.expect("the binary can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
}

/// Each beginning of a line, and each line with another byte in a place, becomes a record or is
/// invalid.
#[test]
fn lines_that_are_cut_or_damaged() {
    let lines = [
        (
            ":nginx",
            r#"1.2.3.4 - a [10/Oct/2024:13:55:36 -0700] "GET /a?q=1 HTTP/1.1" 200 23 "https://e.org/" "M \"x\"""#,
        ),
        (
            ":syslog",
            r#"<165>1 2003-10-11T22:14:15.003Z h app 87 ID47 [x@1 a="\]"][y@1 b="2"] message"#,
        ),
        (":syslog-bsd", "<34>Oct 11 22:14:15 host su[23]: message"),
        (r##"#r"^(?<a>\S+) (?<b>\d+)$""##, "word 9223372036854775808"),
    ];
    let site = Site::new("parse-damaged");
    for (pattern, line) in lines {
        let cuts = (1..line.len()).map(|end| line[..end].to_owned());
        let damaged = (0..line.len()).flat_map(|at| {
            ["\"", "9", " ", "é", "\0", "]", "\\"].map(|byte| {
                let (before, after) = line.split_at(at);
                format!("{before}{byte}{}", &after[1..])
            })
        });
        let content: Vec<String> = cuts.chain(damaged).collect();
        let (records, log) = parsed(
            &site,
            &content.join("\n"),
            &format!(r#"(parse "line" {pattern})"#),
        );
        let dropped = log.split("dropped=").nth(1).expect("a summary");
        let dropped = dropped.split(' ').next().map(str::parse::<usize>);
        let invalid = dropped.expect("a number").expect("a number");
        assert_eq!(records.len() + invalid, content.len(), "{pattern}\n{log}");
        assert!(!records.is_empty() && invalid > 0, "{pattern}\n{log}");
    }
}

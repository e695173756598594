//! Named expressions, from pipeline files to their output.

use crate::harness::Site;

const REQUESTS: &str = concat!(
    r#"{"host":"a","status":200,"url":{"path":"/x"},"flags":5}"#,
    "\n",
    r#"{"host":"b","status":503,"url":{"path":"/y "},"flags":2}"#,
    "\n",
    r#"{"host":"a","status":500,"url":{"path":"/x"},"flags":7}"#,
    "\n",
);

const COMMON: &str = r#"{:expressions {"path(url)" "trim(trailing ' ' from url.path)"
                                       "has(flags, bit)" "flags & (1 << bit) <> 0"
                                       "spare(x)" "x"}}"#;

const EDN: &str = r#"{:include "common.edn"
    :expressions {is_error "status >= 500"
                  "errors()" "sum(is_error()::bigint)"
                  "share(part, whole)" "round(part::double / whole, 2)"}
    in (files "in.ndjson")
    lines (select "host, is_error() as error, path(url), has(flags, 0) as first, has(flags, 1)")
    hosts (group "host, path(url)" "share(errors(), count(*)) as share, errors()")
    pipeline (-> in (all (-> (where "not is_error()") (files {:path "fine/{path(url)}" :codec :json}))
                         (-> lines (files {:path "lines" :codec :json}))
                         (-> hosts (files {:path "hosts" :codec :json}))))
    :tests [{:name "errors" :at hosts
             :input [{:host "a" :status 500 :url {:path "/"}} {:host "a" :status 1 :url {:path "/"}}]
             :output [{:host "a" :path "/" :share 0.5 :errors 1}]}]}"#;

const TOML: &str = r#"
include = "common.edn"
pipeline = '''(-> in (all (-> (where "not is_error()") fine) (-> lines (files {:path "lines" :codec :json}))
                          (-> hosts (files {:path "hosts" :codec :json}))))'''
[expressions]
is_error = "status >= 500"
"errors()" = "sum(is_error()::bigint)"
"share(part, whole)" = "round(part::double / whole, 2)"
[stages]
in = { files = "in.ndjson" }
fine = { files = { path = "fine/{path(url)}", codec = "json" } }
lines = { select = "host, is_error() as error, path(url), has(flags, 0) as first, has(flags, 1)" }
[flows]
hosts = '''(-> (group "host, path(url)" "share(errors(), count(*)) as share, errors()"))'''
"#;

/// The files below a folder, sorted, each with its name and its lines.
fn output(site: &Site, folder: &str) -> Vec<String> {
    let base = site.path(folder);
    let mut lines: Vec<String> = crate::harness::output::files(&base)
        .iter()
        .flat_map(|path| {
            let bucket = path.parent().expect("a folder").strip_prefix(&base);
            let bucket = bucket.expect("below it").display().to_string();
            crate::harness::output::lines(path)
                .into_iter()
                .map(move |line| format!("{bucket} {line}"))
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn named_expressions_of_both_languages_and_of_included_files() {
    for (name, text) in [("p.edn", EDN), ("p.toml", TOML)] {
        let site = Site::new("named-expressions");
        site.write("in.ndjson", REQUESTS);
        site.write("common.edn", COMMON);
        let file = site.write(name, text);
        if name == "p.edn" {
            let tested = site.pseidon().arg("test").arg(&file).output();
            let tested = tested.expect("the binary starts");
            assert!(tested.status.success(), "{tested:?}");
        }
        let run = site.pseidon().arg("run").arg(&file).output();
        let run = run.expect("the binary starts");
        let log = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.success(), "{log}");
        assert_eq!(
            output(&site, "lines"),
            [
                r#" {"host":"a","error":false,"path":"/x","first":true,"has":false}"#,
                r#" {"host":"a","error":true,"path":"/x","first":true,"has":true}"#,
                r#" {"host":"b","error":true,"path":"/y","first":false,"has":true}"#,
            ]
        );
        assert_eq!(
            output(&site, "hosts"),
            [
                r#" {"host":"a","path":"/x","share":0.5,"errors":1}"#,
                r#" {"host":"b","path":"/y","share":1.0,"errors":1}"#,
            ]
        );
        let fine = output(&site, "fine");
        assert_eq!(fine.len(), 1, "{fine:?}");
        assert!(
            fine[0].starts_with("%2Fx {\"host\":\"a\",\"status\":200"),
            "{fine:?}"
        );
    }
}

//! Pipeline files: EDN, TOML and the flow alone.

use pseidon_dsl::document::{Call, Flow, Pattern, from_edn, from_flow, from_toml};
use pseidon_dsl::{Diagnostic, Document, Span, print};

const CLICKSTREAM: &str = r#"{:name "clickstream"
 :settings {:etl-threads 2 :io-threads 2 :memory "512MB" :state "redis://localhost:6379"}

 clicks (kafka {:brokers "localhost:9092" :topics ["clicks"] :format "json" :start :earliest})
 served (where "status < 500 and agent not like '%bot%'")
 slim   (select "user.id as user, url, status, to_timestamp_millis(ts) as at")
 lake   (files {:path "out/{@topic}/date={at:%Y-%m-%d}/hour={at:%H}"
                :codec :parquet :rollover {:size "128MB" :idle "60s" :age "10m"}})
 errors (kafka {:brokers "localhost:9092" :topic "clicks.errors"})

 pipeline (-> clicks (all (-> served slim lake)
                          (-> (where "status >= 500") errors)))

 :tests [{:name "bots stay out" :at served
          :input  [{:status 200 :agent "Mozilla"} {:status 200 :agent "a bot"}]
          :output [{:status 200 :agent "Mozilla"}]}]}
"#;

const CLICKSTREAM_TOML: &str = r#"name = "clickstream"
pipeline = "(-> clicks (all (-> served slim lake) (-> (where 'status >= 400') errors)))"
[stages.clicks]
kafka = { brokers = "localhost:9092", topics = ["clicks"], format = "json", start = "earliest" }
[stages.served]
where = "status < 500 and agent not like '%bot%'"
"#;

const ERRORS_BY_STATUS: &str = r#"{:name "errors-by-status"                                        ; no :state, so it is kept in .pseidon/ beside this file
 logs (files {:path "logs/*.json.gz" :format "json"
              :schema {:user {:id :utf8} :status :int64 :ts :int64 :tags [:utf8]}})   ; Arrow's names; a map is a struct, a vector a list
 out  (files {:path "out/{status}" :codec :json :compression :gzip :rollover {:records 100000 :idle "30s"}})
 pipeline (-> logs (where "status >= 400") out)}
"#;

fn show_call(call: &Call) -> String {
    let args: Vec<String> = call.args.iter().map(print::print).collect();
    format!("[{} {}]", call.plugin, args.join(" ")).replace(" ]", "]")
}

fn show_flow(flow: &Flow) -> String {
    let all = |flows: &[Flow]| flows.iter().map(show_flow).collect::<Vec<_>>().join(" ");
    match flow {
        Flow::Named(name, _) => name.to_string(),
        Flow::Inline(call) => show_call(call),
        Flow::Thread(flows, _) => format!("(-> {})", all(flows)),
        Flow::All(flows, _) => format!("(all {})", all(flows)),
        Flow::Match {
            branches,
            otherwise,
            ..
        } => {
            let branches = branches.iter().map(|branch| match &branch.pattern {
                Pattern::Text(text) => format!("={text} {}", show_flow(&branch.flow)),
                Pattern::Regex(text) => format!("~{} {}", text.value, show_flow(&branch.flow)),
            });
            let otherwise = otherwise
                .iter()
                .map(|flow| format!("else {}", show_flow(flow)));
            format!(
                "(match {})",
                branches.chain(otherwise).collect::<Vec<_>>().join(" ")
            )
        }
        Flow::Route {
            branches,
            otherwise,
            ..
        } => {
            let branches = branches.iter().map(|branch| {
                let condition = print::print(&branch.condition);
                format!("{condition} {}", show_flow(&branch.flow))
            });
            let otherwise = otherwise
                .iter()
                .map(|flow| format!("else {}", show_flow(flow)));
            format!(
                "(route {})",
                branches.chain(otherwise).collect::<Vec<_>>().join(" ")
            )
        }
    }
}

fn show_stages(document: &Document) -> Vec<String> {
    document
        .stages
        .iter()
        .map(|stage| format!("{} = {}", stage.name, show_call(&stage.call)))
        .collect()
}

/// Each error as `underlined text: message; label`.
fn errors(text: &str, result: Result<Document, Vec<Diagnostic>>) -> Vec<String> {
    let errors = result.expect_err(text);
    let shown = errors.iter().map(|error| {
        let underlined = &text[error.span.start as usize..error.span.end as usize];
        format!("{underlined}: {}; {}", error.message, error.label)
    });
    shown.collect()
}

fn at(text: &str, part: &str) -> Span {
    let start = text.find(part).expect("part of the text");
    Span::new(start, start + part.len())
}

#[test]
fn the_edn_form() {
    let document = from_edn(CLICKSTREAM).expect("valid");
    assert_eq!(
        document.name,
        Some(("clickstream".to_owned(), at(CLICKSTREAM, "\"clickstream\"")))
    );
    let settings: Vec<String> = document
        .settings
        .iter()
        .map(|(name, _, value)| format!("{name}={}", print::print(value)))
        .collect();
    assert_eq!(
        settings,
        [
            "etl-threads=2",
            "io-threads=2",
            "memory=\"512MB\"",
            "state=\"redis://localhost:6379\""
        ]
    );
    assert_eq!(document.settings[1].1, at(CLICKSTREAM, ":io-threads"));
    assert_eq!(
        show_stages(&document),
        [
            r#"clicks = [kafka {:brokers "localhost:9092", :topics ["clicks"], :format "json", :start :earliest}]"#,
            r#"served = [where "status < 500 and agent not like '%bot%'"]"#,
            r#"slim = [select "user.id as user, url, status, to_timestamp_millis(ts) as at"]"#,
            r#"lake = [files {:path "out/{@topic}/date={at:%Y-%m-%d}/hour={at:%H}", :codec :parquet, :rollover {:size "128MB", :idle "60s", :age "10m"}}]"#,
            r#"errors = [kafka {:brokers "localhost:9092", :topic "clicks.errors"}]"#,
        ]
    );
    assert_eq!(
        show_flow(&document.pipeline),
        r#"(-> clicks (all (-> served slim lake) (-> [where "status >= 500"] errors)))"#
    );
    assert_eq!(
        document.stages[1].call.span,
        at(
            CLICKSTREAM,
            "(where \"status < 500 and agent not like '%bot%'\")"
        )
    );
    assert_eq!(document.calls().len(), 6);
    let [test] = document.tests.as_slice() else {
        panic!("one test")
    };
    assert_eq!(
        (
            test.name.as_str(),
            test.at.0.to_string(),
            test.input.len(),
            test.output.len()
        ),
        ("bots stay out", "served".to_owned(), 2, 1)
    );
}

#[test]
fn the_toml_form() {
    let document = from_toml(CLICKSTREAM_TOML).expect("valid");
    assert_eq!(
        document.name.as_ref().map(|(name, _)| name.as_str()),
        Some("clickstream")
    );
    assert_eq!(
        show_stages(&document),
        [
            r#"clicks = [kafka {:brokers "localhost:9092", :topics ["clicks"], :format "json", :start "earliest"}]"#,
            r#"served = [where "status < 500 and agent not like '%bot%'"]"#,
        ]
    );
    assert_eq!(
        show_flow(&document.pipeline),
        r#"(-> clicks (all (-> served slim lake) (-> [where "status >= 400"] errors)))"#
    );
    assert_eq!(
        document.pipeline.span(),
        at(
            CLICKSTREAM_TOML,
            "(-> clicks (all (-> served slim lake) (-> (where 'status >= 400') errors)))"
        )
    );
    let inline = document.calls().pop().expect("the inline stage").span;
    assert_eq!(inline, at(CLICKSTREAM_TOML, "(where 'status >= 400')"));
    let header = at(CLICKSTREAM_TOML, "stages.clicks");
    assert_eq!(
        document.stages[0].name_span,
        Span {
            start: header.end - 6,
            ..header
        }
    );
}

#[test]
fn both_formats_are_equivalent() {
    let edn = r#"{:name "n" :settings {:memory "1GB" :threads 2 :ratio 1.5 :on true :at #inst "2024-01-31T12:30:00Z"}
        a (kafka {:topics ["x"] :properties {:session.timeout.ms "6000"} :deep {:er {:x 1}}}) b drop
        pipeline (-> a (match "x" b #r"y\d" (drop) :else b))
        :tests [{:name "t" :at a :input [{:x 1}] :output []}]}"#;
    let toml = r#"name = "n"
        pipeline = '''(-> a (match "x" b #r"y\d" (drop) :else b))'''
        [settings]
        memory = "1GB"
        threads = 2
        ratio = 1.5
        on = true
        at = 2024-01-31T12:30:00Z
        [stages]
        a.kafka = { topics = ["x"], properties = { "session.timeout.ms" = "6000" }, deep.er.x = 1 }
        b = "drop"
        [[tests]]
        name = "t"
        at = "a"
        input = [{ x = 1 }]
        output = []"#;
    let (edn, toml) = (
        from_edn(edn).expect("valid EDN"),
        from_toml(toml).expect("valid TOML"),
    );
    assert_eq!(show_stages(&edn), show_stages(&toml));
    assert_eq!(show_flow(&edn.pipeline), show_flow(&toml.pipeline));
    let settings = |document: &Document| {
        document
            .settings
            .iter()
            .map(|(name, _, value)| format!("{name} {}", print::print(value)))
            .collect::<Vec<_>>()
    };
    assert_eq!(settings(&edn), settings(&toml));
    assert_eq!(
        (edn.name.map(|(name, _)| name), edn.tests.len()),
        (toml.name.map(|(name, _)| name), toml.tests.len())
    );
}

#[test]
fn files_without_a_server() {
    let document = from_edn(ERRORS_BY_STATUS).expect("valid");
    assert_eq!(document.stages.len(), 2);
    assert_eq!(
        show_flow(&document.pipeline),
        r#"(-> logs [where "status >= 400"] out)"#
    );
}

#[test]
fn legacy_files() {
    let document = from_edn(
        "{a some.Plugin b other.ns/Thing pipeline (-> a (match \"t\" b #r\"^x\" (all a b)))}",
    )
    .expect("valid");
    assert_eq!(
        show_stages(&document),
        ["a = [some.Plugin]", "b = [other.ns/Thing]"]
    );
    assert_eq!(
        show_flow(&document.pipeline),
        "(-> a (match =t b ~^x (all a b)))"
    );
}

#[test]
fn a_file_without_a_flow_is_an_error_with_a_flow_to_paste() {
    for (text, help) in [
        ("{}", "add `pipeline (-> source sink)`"),
        ("{in (stdin) out (stdout)}", "add `pipeline (-> in out)`"),
    ] {
        let errors = from_edn(text).expect_err("there is no flow");
        let [error] = errors.as_slice() else {
            panic!("{errors:?}")
        };
        assert_eq!(error.message, "this file has no `pipeline`");
        assert_eq!(error.help.as_deref(), Some(help));
    }
}

#[test]
fn a_flow_alone() {
    let document =
        from_flow("(-> (files {:path 'in/*'}) (where 'a = ''x''') (stdout))").expect("valid");
    assert_eq!(
        show_flow(&document.pipeline),
        r#"(-> [files {:path "in/*"}] [where "a = 'x'"] [stdout])"#
    );
    assert!(document.stages.is_empty());
    from_flow("(-> (files) 5)").expect_err("5 is not a stage");
    from_flow("").expect_err("empty input");
}

#[test]
fn all_errors_of_a_file_at_once() {
    let text = r#"{:nam "x"
 :settings {"memory" 1}
 a 5
 -> (kafka)
 b ->
 c ("kafka")
 d ()
 e (kafka 012)
 [f] 1
 pipeline (-> a 7 (all) (match :x a "y" b #r"a(b" e :else c "z" d "w"))
 :tests [5 {:name "" :at 1 :inputs [] :output {}}]}"#;
    assert_eq!(
        errors(text, from_edn(text)),
        [
            ":nam: unknown key `:nam`; expected one of :name, :settings, :include, :expressions, :tests",
            "\"memory\": a string cannot name a setting; expected a keyword such as :etl-threads",
            "5: `a` must be a stage or a flow; expected (plugin …) or (-> …), found a number",
            "->: `->` is reserved and cannot name a stage; this word combines stages",
            "->: `->` combines stages and is not itself a stage; expected a plugin, or (-> …)",
            "\"kafka\": a string is not a plugin name; expected a name such as kafka",
            "(): this list is empty; expected a stage such as (kafka {…})",
            "012: `012` is not a number; a number cannot start with 0",
            "[f]: a vector cannot be a key in a pipeline file; expected a symbol (a stage name or \
                `pipeline`) or a keyword",
            "7: a number cannot be part of a flow; expected a stage or (-> …)",
            "(all): this form has no stages; expected at least one stage",
            ":x: `match` cannot compare a topic with a keyword; expected a string, #r\"…\" or \
                :else",
            "a(b: invalid regular expression; unclosed group",
            "\"z\": `:else` must be the last branch; unreachable branch",
            "\"w\": this `match` branch has no flow; expected a flow after this",
            "5: a test must be a map; expected {:name … :at … :input […] :output […]}, found a \
                number",
            "{:name \"\" :at 1 :inputs [] :output {}}: missing required key `:input`; a test \
                requires :name, :at, :input and :output",
            "\"\": the test name is empty; expected a non-empty string",
            "1: `:at` must name a stage; expected a symbol, found a number",
            ":inputs: unknown key `:inputs`; expected one of :name, :at, :input, :output",
            "{}: `:output` must be a vector of records; expected [ … ], found a map",
        ]
    );
    let help = from_edn(text).expect_err("wrong")[0].help.clone();
    assert_eq!(help.as_deref(), Some("did you mean `:name`?"));
}

#[test]
fn errors_in_toml() {
    let text = "nmae = \"x\"\npipeline = \"(-> a \\u0041 5 (match))\"\n[stages]\nc = 5\npipeline \
        = \"x\"\n[stages.b]\nkafka = 1\nfiles = 2\n";
    assert_eq!(
        errors(text, from_toml(text)),
        [
            "nmae: unknown key `nmae`; expected one of name, settings, include, expressions, stages, flows, \
                pipeline, tests",
            "5: `c` must be a stage; expected a table, found a number",
            "pipeline: `pipeline` is reserved and cannot name a stage; this word names the flow of \
                the file",
            "b: `b` must be one stage; expected one key, the plugin name; found 2",
        ]
    );
    let text = "pipeline = \"(-> a \\u0041 5 (match))\"";
    assert_eq!(
        errors(text, from_toml(text)),
        [
            "5: a number cannot be part of a flow; expected a stage or (-> …)",
            "(match): this `match` has no branches; expected a string or #r\"…\", then a flow"
        ]
    );
    let text = "pipeline = \"\"\"\n(-> a\n  \\\n   'b\"\"\"";
    assert_eq!(
        errors(text, from_toml(text)),
        ["': unclosed string; the string starts here"]
    );
    assert_eq!(errors("a = ", from_toml("a = ")).len(), 1);
}

/// A panic of an earlier `toml_edit`, found by the fuzz target `toml`.
#[test]
fn a_missing_value_whose_key_is_extended_is_an_error() {
    for text in [
        "p =\np.i = 1",
        "p = =a\np.i = 1",
        "p =\n[p.i]",
        "p =\n[[p]]",
    ] {
        assert_eq!(errors(text, from_toml(text)).len(), 1, "{text}");
    }
}

#[test]
fn strings_and_tables_of_toml_1_1() {
    let text = "pipeline = \"(-> a \\x41 5 (match))\"\nsettings = {\n  state-dir = 'x',\n}";
    assert_eq!(
        errors(text, from_toml(text)),
        [
            "5: a number cannot be part of a flow; expected a stage or (-> …)",
            "(match): this `match` has no branches; expected a string or #r\"…\", then a flow"
        ]
    );
}

#[test]
fn a_file_in_another_language_has_one_error_that_says_so() {
    let edn = "a pipeline file is written in EDN, or in TOML if its name ends with `.toml`";
    let toml = "a file whose name ends with `.toml` must be written in TOML";
    let begin = "in EDN it begins like this: {in (files \"in/*.json\") pipeline (-> in (stdout))}";
    let cases = [
        (
            "{\"name\": \"x\",\n \"pipeline\": [1]}",
            ("\"name\":", "JSON", begin),
            (
                "\"name\":",
                "JSON",
                "begin with `pipeline = \"(-> in out)\"`",
            ),
        ),
        (
            "# comment\npipeline:\n  - files: x\n",
            ("pipeline:", "YAML", begin),
            (
                "pipeline:",
                "YAML",
                "begin with `pipeline = \"(-> in out)\"`",
            ),
        ),
    ];
    for (text, (place, language, help), (toml_place, toml_language, toml_help)) in cases {
        let message = |place: &str, language: &str, label: &str| {
            [format!(
                "{place}: this file is written in {language}; {label}"
            )]
        };
        assert_eq!(errors(text, from_edn(text)), message(place, language, edn));
        assert_eq!(
            errors(text, from_toml(text)),
            message(toml_place, toml_language, toml)
        );
        let help_of = |read: Result<Document, Vec<Diagnostic>>| {
            read.expect_err("another language")[0].help.clone()
        };
        assert_eq!(help_of(from_edn(text)).as_deref(), Some(help));
        assert_eq!(help_of(from_toml(text)).as_deref(), Some(toml_help));
    }
    let text = "name = \"x\"\npipeline = \"(-> a b)\"\n";
    assert_eq!(
        errors(text, from_edn(text)),
        [format!("name =: this file is written in TOML; {edn}")]
    );
    let text = "; comment\n{:name \"x\" pipeline (-> a b)}\n";
    assert_eq!(
        errors(text, from_toml(text)),
        [format!("{{: this file is written in EDN; {toml}")]
    );
}

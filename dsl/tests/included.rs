//! Named flows, and files that are included.

use pseidon_dsl::Diagnostic;
use pseidon_dsl::document::{fragment_from_edn, fragment_from_toml, from_edn, from_toml};

/// The messages of the errors.
fn messages<T>(result: Result<T, Vec<Diagnostic>>) -> Vec<String> {
    let errors = result.err().expect("wrong");
    errors.into_iter().map(|error| error.message).collect()
}

#[test]
fn named_flows_and_included_files() {
    let edn = r#"{:include "common.edn"
 a (files "in/*")
 cleaned (-> (where "x > 1") trimmed)
 by-kind (route "kind = 'a'" (files "a") :else (drop))
 pipeline (-> a cleaned by-kind)}"#;
    let toml = r#"
include = ["common.edn"]
pipeline = "(-> a cleaned by-kind)"
[stages.a]
files = "in/*"
[flows]
cleaned = "(-> (where 'x > 1') trimmed)"
by-kind = '''(route "kind = 'a'" (files "a") :else (drop))'''
"#;
    for document in [from_edn(edn), from_toml(toml)] {
        let document = document.expect("valid");
        let includes: Vec<&str> = document
            .includes
            .iter()
            .map(|one| one.path.as_str())
            .collect();
        assert_eq!(includes, ["common.edn"]);
        let flows: Vec<_> = document
            .flows
            .iter()
            .map(|named| (named.name.to_string(), named.flow.parts().len()))
            .collect();
        assert_eq!(
            flows,
            [("cleaned".to_owned(), 2), ("by-kind".to_owned(), 2)]
        );
    }

    let text = "{:include [5 \"\"] a (files) a (-> b)}";
    assert_eq!(messages(from_edn(text)).len(), 3);
    let text = "pipeline = 'x'\n[stages]\na = 'drop'\n[flows]\na = '(-> b)'\npipeline = 'a'";
    assert_eq!(
        messages(from_toml(text)),
        ["`pipeline` is reserved and cannot name a flow",]
    );
    let text = "pipeline = 'x'\n[stages]\na = 'drop'\n[flows]\na = '(-> b)'\nb = 5";
    assert_eq!(messages(from_toml(text)), ["`b` must be a string"]);
    let text = "pipeline = 'x'\n[stages]\na = 'drop'\n[flows]\na = '(-> b)'";
    assert_eq!(messages(from_toml(text)), ["`a` is defined twice"]);
}

#[test]
fn an_included_file_has_stages_and_flows() {
    let fragment = fragment_from_edn("{:include \"b.edn\" a (drop) f (-> a a)}").expect("valid");
    let mut document = from_edn("{f (stdin) pipeline (-> f a)}").expect("valid");
    let twice = document.include(fragment).expect_err("`f` is in both");
    assert_eq!(twice.len(), 1);
    assert_eq!(twice[0].message, "`f` is defined in two files");
    assert!(
        document
            .stages
            .iter()
            .map(|stage| stage.included)
            .eq([false, true])
    );

    let text = "{:name \"x\" :settings {} :tests [] :nmae 1 pipeline a a (drop)}";
    assert_eq!(
        messages(fragment_from_edn(text)),
        [
            "an included file cannot have `:name`",
            "an included file cannot have `:settings`",
            "an included file cannot have `:tests`",
            "unknown key `:nmae`",
            "an included file cannot have `pipeline`",
        ]
    );
    fragment_from_edn("[]").expect_err("not a map");
    assert_eq!(
        fragment_from_toml("[flows]\nf = 'a'")
            .expect("valid")
            .flows
            .len(),
        1
    );
}

//! What a struct of options accepts, and the errors for everything else.

use std::time::Duration;

use pseidon_dsl::expr::SelectItem;
use pseidon_dsl::template::Template;
use pseidon_dsl::{Diagnostic, Span, edn};

use super::kinds::{
    ByteSize, IntegerIn, NamedExprs, NamesOrRegex, Pattern, PositiveInteger, Properties,
};
use super::{Choice, Expr, OnError, Options, ParseResult, SchemaOption, SpannedValue};
use crate::spec::{OptionDefault, PluginSpec, Role};

static SPEC: PluginSpec = PluginSpec {
    name: "test",
    role: Role::Sink,
    summary: "",
    details: "",
    positional: TestOptions::POSITIONAL,
    options: TestOptions::DECLARED,
    example: "(test \"a\")",
};

#[derive(Clone, Debug, PartialEq, Options)]
struct TestOptions {
    #[option(span)]
    span: Span,
    /// Where it is,
    /// in two lines.
    #[option(positional)]
    path: SpannedValue<String>,
    #[option(flatten)]
    access: AccessOptions,
    #[option(name = "n", default = "1_000")]
    count: u64,
    #[option(default = "a")]
    mode: Mode,
    parts: Option<IntegerIn<1, 3>>,
    size: Option<ByteSize>,
    age: Option<Duration>,
    rate: Option<f64>,
    verify: Option<bool>,
    names: Option<Vec<String>>,
    topics: Option<NamesOrRegex>,
    begins: Option<Pattern>,
    properties: Option<Properties>,
    key: Option<Expr>,
    headers: Option<NamedExprs>,
    columns: Option<Vec<SelectItem>>,
    folder: Option<Template>,
    schema: Option<SchemaOption>,
    #[option(default = "")]
    limits: LimitOptions,
    on_error: Option<OnError>,
}

#[derive(Clone, Debug, PartialEq, Options)]
struct AccessOptions {
    #[option(free)]
    user: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Options)]
struct LimitOptions {
    #[option(default = "5s")]
    max_time: Duration,
    when: Option<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Choice)]
enum Mode {
    A,
    LongName,
    #[option(name = "PLAIN")]
    Plain,
}

#[derive(Clone, Debug, Options)]
struct RequiredColumns {
    columns: Vec<SelectItem>,
}

fn parse(text: &str) -> ParseResult<TestOptions> {
    TestOptions::parse_stage(&SPEC, &edn::read_all(text).unwrap(), Span::new(0, 100))
}

/// The errors, each with its text, label, help and position in `text`.
fn errors(text: &str) -> Vec<String> {
    let shown = |error: Diagnostic| {
        let place = &text[error.span.start as usize..(error.span.end as usize).min(text.len())];
        let help = error.help.map(|help| format!(" ({help})"));
        format!(
            "{}: {}{} at {place}",
            error.message,
            error.label,
            help.unwrap_or_default()
        )
    };
    parse(text).unwrap_err().into_iter().map(shown).collect()
}

#[test]
fn missing_options_have_their_defaults() {
    let options = parse("\"a\"").unwrap();
    assert_eq!(
        options.path,
        SpannedValue {
            value: "a".to_owned(),
            span: Span::new(0, 3)
        }
    );
    assert_eq!(options.span, Span::new(0, 100));
    assert_eq!(options.count, 1000);
    assert_eq!(options.mode, Mode::A);
    assert_eq!(options.limits.max_time, Duration::from_secs(5));
    assert_eq!(options.access.user, None);
    assert_eq!(options.columns, None);
}

#[test]
fn values_of_every_kind_are_parsed() {
    let options = parse(
        r#"{:path p :user "u" :n "7" :mode :long-name :size "1KiB" :age "2s" :rate 0.5
            :verify "false" :names [a :b "c"] :topics #r"t.*" :begins #r"^\d" :properties {"x" 1 :y true}
            :key #r"k ~ '\d'" :headers {:h "a + 1"} :columns "a, b" :folder "out/{c}"
            :schema :infer :limits {:max-time "20ms" :when "w"} :on-error :noop}"#,
    )
    .unwrap();
    assert_eq!(options.path.value, "p");
    assert_eq!(options.access.user.as_deref(), Some("u"));
    assert_eq!(options.count, 7);
    assert_eq!(options.mode, Mode::LongName);
    assert_eq!(options.size, Some(ByteSize(1024)));
    assert_eq!(options.age, Some(Duration::from_secs(2)));
    assert_eq!(options.rate, Some(0.5));
    assert_eq!(options.verify, Some(false));
    let names = ["a", "b", "c"].map(str::to_owned).to_vec();
    assert_eq!(options.names, Some(names));
    let pattern = NamesOrRegex::Regex("t.*".to_owned());
    assert_eq!(options.topics, Some(pattern));
    assert_eq!(options.begins, Some(Pattern(r"^\d".to_owned())));
    let properties = [("x", "1"), ("y", "true")];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(options.properties, Some(Properties(properties.to_vec())));
    assert_eq!(options.schema, Some(SchemaOption::Infer));
    assert_eq!(options.limits.max_time, Duration::from_millis(20));
    assert_eq!(options.on_error, Some(OnError::Noop));
}

#[test]
fn a_value_of_a_wrong_kind_is_an_error() {
    for (text, expected) in [
        (
            "{:path [1]}",
            "`:path` cannot be a vector: expected a string at [1]",
        ),
        (
            "{:path 5}",
            "`:path` cannot be a number: expected a string at 5",
        ),
        (
            "{:path a :names [a true]}",
            "`:names` cannot contain a boolean: expected a string at true",
        ),
        (
            "{:path a :topics #r\"a(b\"}",
            "invalid regular expression: unclosed group at a(b",
        ),
        (
            "{:path a :begins \"a(b\"}",
            "invalid regular expression: unclosed group at a(b",
        ),
        (
            "{:path a :begins 5}",
            "`:begins` cannot be a number: expected a regular expression, such as #r\"^[0-9]\" at 5",
        ),
        (
            "{:path a :n -1}",
            "`:n` cannot be a number: expected an integer at -1",
        ),
        (
            "{:path a :mode :PLAYN}",
            "`:mode` cannot be `PLAYN`: expected :a or :long-name or :PLAIN \
             (did you mean `:PLAIN`?) at :PLAYN",
        ),
        (
            "{:path a :size \"many\"}",
            "invalid value for `:size`: `many` does not start with a number; expected a size such as \"128MB\" at \"many\"",
        ),
        (
            "{:path a :limits 1}",
            "`:limits` cannot be a number: expected a map at 1",
        ),
        (
            "{:path a :limits {:max-tim 1}}",
            "`:limits` has no option `:max-tim`: unknown option (did you mean `:max-time`?) at \
             :max-tim",
        ),
    ] {
        assert_eq!(errors(text), [expected], "{text}");
    }
}

#[test]
fn all_errors_are_reported_in_the_order_of_the_file() {
    assert_eq!(
        errors("{:verify 1 :colums \"a\" 5 6 :size [] :xyzzy 1}"),
        [
            "`:verify` cannot be a number: expected true or false at 1",
            "`test` has no option `:colums`: unknown option (did you mean `:columns`?) at :colums",
            "this is not an option name: expected a keyword at 5",
            "`:size` cannot be a vector: expected a size, such as \"128MB\" at []",
            "`test` has no option `:xyzzy`: unknown option (available options: :path :user :n \
             :mode :parts :size :age :rate :verify :names :topics :begins :properties :key :headers \
             :columns :folder :schema :limits :on-error) at :xyzzy",
            "missing required option `:path` of `test`: expected `:path` with a string at \
             {:verify 1 :colums \"a\" 5 6 :size [] :xyzzy 1}",
        ]
    );
}

#[test]
fn a_duplicate_is_an_error() {
    let duplicate = "duplicate option `:path`: second occurrence at b";
    assert_eq!(errors("a {:path b}"), [duplicate]);
    assert_eq!(errors("{:path a \"path\" b}"), [duplicate]);
}

#[test]
fn other_arguments_are_an_error() {
    for (text, place) in [
        ("a b", "a b"),
        ("{:path a} {:path b}", "{:path a} {:path b}"),
        ("a {} {}", "a {} {}"),
    ] {
        let expected = format!(
            "`test` does not accept these arguments: expected one value, a map of options, or \
             both (for example: (test \"a\")) at {place}"
        );
        assert_eq!(errors(text), [expected], "{text}");
    }
}

#[test]
fn an_integer_in_a_range_is_checked() {
    for parts in ["1", "\"3\""] {
        let options = parse(&format!("a {{:parts {parts}}}")).unwrap();
        assert!(matches!(options.parts.map(IntegerIn::get), Some(1 | 3)));
    }
    for parts in ["0", "4", "\"4\""] {
        let expected =
            format!("`:parts` is out of range: expected an integer from 1 to 3 at {parts}");
        assert_eq!(errors(&format!("a {{:parts {parts}}}")), [expected]);
    }
    let kind = <PositiveInteger as super::OptionValue>::KIND;
    assert_eq!(kind.describe(), "an integer of at least 1");
}

#[test]
fn declarations_follow_from_fields() {
    let names: Vec<&str> = TestOptions::DECLARED.iter().map(|spec| spec.name).collect();
    assert_eq!(names[..4], ["path", "user", "n", "mode"]);
    let [path, user, count, ..] = TestOptions::DECLARED else {
        panic!("{names:?}")
    };
    assert_eq!(path.doc, "Where it is, in two lines.");
    assert_eq!(path.default, OptionDefault::Required);
    assert_eq!(user.default, OptionDefault::None);
    assert_eq!(count.default, OptionDefault::Value("1_000"));
    assert_eq!(TestOptions::POSITIONAL, ["path"]);
    assert_eq!(Mode::NAMES, ["a", "long-name", "PLAIN"]);
    assert_eq!(Mode::Plain.name(), "PLAIN");
}

#[test]
fn the_identity_has_neither_free_options_nor_numbers() {
    let options = parse(
        r#"a {:user "u" :n 7 :age "2s" :names [a b] :key "k  +1" :headers {:h "a"}
             :columns "* except (x), y as z" :folder "out/{c}" :on-error :noop}"#,
    )
    .unwrap();
    let mut parts = Vec::new();
    options.identity(&mut parts);
    let parts: Vec<_> = parts
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    assert_eq!(
        parts,
        [
            ("path", "a"),
            ("mode", "a"),
            ("names", "a\u{1}b"),
            ("key", "k + 1"),
            ("headers", "h\u{1}a\u{1}"),
            ("columns", "*\u{1}xy\u{1}z"),
            ("folder", "\u{1}out/\u{2}c\u{1}"),
        ]
    );
}

#[test]
fn expressions_are_found_everywhere() {
    let options = parse(
        r#"a {:key "k" :headers {:h "a"} :columns "*, b + 1 as c" :folder "{d}"
             :limits {:when "w"}}"#,
    )
    .unwrap();
    let mut found = Vec::new();
    options.exprs(&mut found);
    let found: Vec<String> = found.into_iter().map(Expr::to_string).collect();
    assert_eq!(found, ["k", "a", "b + 1", "d", "w"]);
}

#[test]
fn only_an_optional_list_of_columns_may_be_empty() {
    let options = parse("a {:columns \"\"}").unwrap();
    assert_eq!(options.columns, Some(Vec::new()));
    let map = edn::read_all(":columns \"\"").unwrap();
    let [key, value] = map.try_into().unwrap();
    assert!(RequiredColumns::parse_map("test", &[(key, value)], Span::default()).is_err());
}

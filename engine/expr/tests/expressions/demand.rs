//! The types that expressions require of payload paths.

use arrow::datatypes::DataType;
use pseidon_dsl::expr::Path;
use pseidon_dsl::node::Text;
use pseidon_expr::demand::{Demand, collect};
use pseidon_expr::types::type_name;

/// Each path with the required type, if any: `a int64, b`.
pub(crate) fn wanted(text: &str, wanted: Option<DataType>) -> String {
    let expr = pseidon_dsl::expr::parse(&Text::plain(text, 0))
        .unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    let known = |path: &Path| match path.to_string().as_str() {
        "known_text" => Some(DataType::Utf8),
        "known_int" => Some(DataType::Int32),
        _ => None,
    };
    let mut demands = Vec::new();
    collect(&expr, wanted.as_ref(), &known, &mut demands);
    for demand in &demands {
        assert_eq!(
            &text[demand.span.start as usize..demand.span.end as usize],
            demand.path.to_string()
        );
    }
    let shown = |demand: &Demand| match &demand.wanted {
        Some(data_type) => format!("{} {}", demand.path, type_name(data_type)),
        None => demand.path.to_string(),
    };
    demands.iter().map(shown).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_use_determines_the_type_unless_any_value_can_be_used() {
    let cases = [
        ("a", "a"),
        ("1", ""),
        ("@topic = 'x'", ""),
        ("a = 1", "a"),
        ("1.5 < a", "a"),
        ("a <> 'x'", "a"),
        ("a = true", "a"),
        ("a = null", "a"),
        ("a = b", "a, b"),
        ("a = known_int", "a, known_int"),
        ("a = @offset", "a"),
        ("a = @timestamp", "a"),
        ("a between 1 and 2.5", "a"),
        ("a between b and 2", "a, b"),
        ("a in (1, b)", "a, b"),
        ("a in ('x')", "a"),
        ("a like 'x%'", "a"),
        ("a ~ b", "a, b"),
        ("a || b", "a, b"),
        ("a + 1", "a"),
        ("a * 1.5", "a float64"),
        ("a * b", "a, b"),
        ("a + known_int", "a, known_int"),
        ("(a + 1) * b > 3", "a, b"),
        ("-a", "a"),
        ("-a > 3", "a"),
        ("at - '1 day'", "at"),
        ("a and not b or c", "a boolean, b boolean, c boolean"),
        ("a is null", "a"),
        ("a is true", "a boolean"),
        ("cast(a as bigint)", "a"),
        ("cast(a as bigint) = b", "a, b"),
        ("a::text like b", "a, b"),
        ("user.tags[0].x = 1", "user.tags[0].x"),
        ("case when a then b else 1 end", "a boolean, b"),
        ("case when a then b else 1.5 end", "a boolean, b"),
        ("case a when 1 then 'x' when b then c end", "a, b, c utf8"),
        ("case when a = 1 then b end", "a, b"),
        ("lower(a) = b", "a utf8, b"),
        ("length(a) > b", "a utf8, b"),
        ("substr(a, b)", "a utf8, b int64"),
        ("round(a, 2)", "a"),
        ("to_timestamp_millis(a)", "a int64"),
        ("to_timestamp(a)", "a utf8"),
        ("to_timestamp_millis(a) > b", "a int64, b"),
        ("a + interval '1 day'", "a"),
        ("concat(a, b)", "a, b"),
        ("no_such_function(a)", "a"),
        ("a = 1 or a = 'x'", "a, a"),
        ("known_text = 5", "known_text"),
    ];
    check(&cases);
}

fn check(cases: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (text, expected) in cases {
        let found = wanted(text, None);
        if found != *expected {
            wrong.push(format!("{text}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Alternatives require the type of the others, unless the values decide.
#[test]
fn alternatives_have_one_type() {
    check(&[
        ("greatest(a, 1)", "a"),
        ("coalesce(a, 0)", "a"),
        ("coalesce(a, b) = 'x'", "a, b"),
        ("coalesce(a, b) || 'x'", "a, b"),
        ("case coalesce(a, b) when 'x' then c end", "a, b, c"),
        ("coalesce(a + interval '1 day', b)", "a, b timestamp_us"),
        ("coalesce(a, '2024-01-01'::date + interval '36 hours')", "a"),
        ("nullif(a, '')", "a utf8"),
        ("if(a, b, 1)", "a boolean, b"),
        ("nvl2(a, b, 'x')", "a, b utf8"),
    ]);
}

#[test]
fn a_type_required_of_an_expression_is_required_of_its_parts() {
    let cases = [
        ("a", DataType::Boolean, "a boolean"),
        (
            "case when a then b end",
            DataType::Utf8,
            "a boolean, b utf8",
        ),
        ("coalesce(a, b)", DataType::Utf8, "a utf8, b utf8"),
        ("-a", DataType::Int64, "a int64"),
        ("a + b", DataType::Int64, "a int64, b int64"),
        ("a + 1", DataType::Float64, "a float64"),
        ("a + b", DataType::Float32, "a float32, b float32"),
        ("a = b", DataType::Boolean, "a, b"),
        ("cast(a as text)", DataType::Utf8, "a"),
    ];
    for (text, data_type, expected) in cases {
        assert_eq!(wanted(text, Some(data_type)), expected, "{text}");
    }
}

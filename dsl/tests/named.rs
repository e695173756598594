//! Named expressions: definitions, their expansion, and the limits.

use std::sync::Arc;

use pseidon_dsl::document::{fragment_from_edn, from_edn, from_toml};
use pseidon_dsl::expr::{
    Expr, NamedExpressions, SelectItem, parse, parse_assignments, parse_select,
};
use pseidon_dsl::node::Text;
use pseidon_dsl::{Diagnostic, Document, interpolate, template};

const FUNCTIONS: [&str; 4] = ["lower", "count", "sum", "date_part"];

/// A file with these entries of `:expressions`.
fn file(entries: &str) -> String {
    format!("{{:expressions {{{entries}}} pipeline (-> a b)}}")
}

fn names(document: &Document) -> (Arc<NamedExpressions>, Vec<Diagnostic>) {
    let (names, errors) = NamedExpressions::new(&document.expressions, FUNCTIONS);
    (Arc::new(names), errors)
}

/// The named expressions of a file with these entries, which are valid.
fn defined(entries: &str) -> Arc<NamedExpressions> {
    let (names, errors) = names(&from_edn(&file(entries)).expect(entries));
    assert_eq!(errors, [], "{entries}");
    names
}

/// A string that begins behind the text of the file.
fn text(names: &Arc<NamedExpressions>, text: &str) -> Text {
    Text {
        names: Some(names.clone()),
        ..Text::plain(text, 10_000)
    }
}

fn expanded(names: &Arc<NamedExpressions>, expr: &str) -> Result<Expr, Vec<String>> {
    parse(&text(names, expr)).map_err(|errors| messages(&errors))
}

fn messages(errors: &[Diagnostic]) -> Vec<String> {
    let message = |error: &Diagnostic| format!("{}; {}", error.message, error.label);
    errors.iter().map(message).collect()
}

#[test]
fn a_call_stands_for_its_definition() {
    let names = defined(
        r#"is_error "status >= 500"
           :slow "ms > 1000"
           "Share(part, whole)" "part::double / whole"
           "domain(url)" #r"lower(url.host)"
           "bad()" "is_error() or slow()"
           "double(x)" "x + x"
           "hour(x)" "extract(hour from x)"
           "trace(h)" "h.trace""#,
    );
    let cases = [
        ("is_error()", "status >= 500"),
        ("not IS_ERROR()", "not status >= 500"),
        ("is_error() = true", "(status >= 500) = true"),
        (
            "bad() and is_error",
            "(status >= 500 or ms > 1000) and is_error",
        ),
        ("-share(a + 1, b - 1)", "-(cast(a + 1 as double) / (b - 1))"),
        ("share(whole, part)", "cast(whole as double) / part"),
        ("domain(a.b[0])", "lower(a.b[0].host)"),
        ("domain(\"x y\")", "lower(\"x y\".host)"),
        ("double(double(x)) * 2", "(x + x + (x + x)) * 2"),
        ("double(share(x, double(y)))", {
            "cast(x as double) / (y + y) + cast(x as double) / (y + y)"
        }),
        ("hour(at)", "date_part('hour', at)"),
        ("trace(@headers)", "@headers.trace"),
        ("trace(lower) in (double(1))", "lower.trace in (1 + 1)"),
    ];
    for (call, expected) in cases {
        let expanded = expanded(&names, call).unwrap_or_else(|errors| panic!("{call}: {errors:?}"));
        assert_eq!(expanded.to_string(), expected, "{call}");
    }
    // A position is in the definition, and stands for one of its uses; an argument is where it is.
    let sum = expanded(&names, "share(a, 1) + share(b, 2)").expect("valid");
    let parts = sum.parts();
    assert_eq!(
        (parts[0].span.start, parts[0].span.end),
        (parts[1].span.start, parts[1].span.end)
    );
    assert_ne!(parts[0].span.expansion, parts[1].span.expansion);
    assert_eq!(parts[1].parts()[1].span.start, 10_023);
}

#[test]
fn a_column_with_a_secret_of_a_definition_is_named_by_the_call() {
    let mut document = from_edn(&file(r#""at(x)" "concat('${env:SITE}', x)""#)).expect("valid");
    interpolate::document(&mut document, &mut |_, _| Ok("s3cret".to_owned())).expect("known");
    let (names, errors) = names(&document);
    assert_eq!(errors, []);
    let items = parse_select(&text(&names, "upper(at(a)), upper(a), at(a)")).expect("valid");
    let shown = items.iter().map(|item| match item {
        SelectItem::Column { name, .. } => name.as_ref().map(|(name, _)| name.as_str()),
        SelectItem::All { .. } => panic!("a column"),
    });
    let expected = [Some("upper(at(a))"), None, Some("at")];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
}

#[test]
fn all_strings_with_expressions_can_have_calls() {
    let names = defined(r#""twice(x)" "x * 2" "total(x)" "sum(x)""#);
    let items = parse_select(&text(&names, "twice(a), twice(b) as c, a, Total(a)")).expect("valid");
    let shown = items.iter().map(|item| match item {
        SelectItem::Column { expr, name } => (expr.to_string(), name.clone().map(|(name, _)| name)),
        SelectItem::All { .. } => panic!("a column"),
    });
    let expected = [
        ("a * 2", "twice"),
        ("b * 2", "c"),
        ("a", "a"),
        ("sum(a)", "total"),
    ];
    let expected = expected.map(|(expr, name)| (expr.to_owned(), Some(name.to_owned())));
    assert_eq!(shown.collect::<Vec<_>>(), expected);

    let set = parse_assignments(&text(&names, "a = twice(a), b = a")).expect("valid");
    assert_eq!(set[0].value.to_string(), "a * 2");

    let template = template::parse(&text(&names, "out/{twice(a)}/{twice(b):%Y}")).expect("valid");
    assert!(format!("{template:?}").contains("Mul"), "{template:?}");
}

#[test]
fn toml_and_included_files_have_them_too() {
    let toml = "pipeline = '(-> a b)'\n[expressions]\nis_error = 'status >= 500'\n\
                \"share(part, whole)\" = \"part / whole\"\n";
    let mut document = from_toml(toml).expect("valid");
    let fragment = fragment_from_edn(r#"{:expressions {"bad(x)" "is_error() or x"}}"#);
    document
        .include(fragment.expect("valid"))
        .expect("another name");
    let (names, errors) = names(&document);
    assert_eq!(errors, []);
    let both = expanded(&names, "bad(share(1, 2) > 3)").expect("valid");
    assert_eq!(both.to_string(), "status >= 500 or 1 / 2 > 3");
    assert_eq!(names.unused(), None);

    let again = fragment_from_edn(r#"{:expressions {"IS_ERROR(x)" "x"}}"#).expect("valid");
    let errors = document.include(again).expect_err("twice");
    assert_eq!(errors[0].message, "`IS_ERROR` is defined in two files");
}

#[test]
fn an_unused_one_is_found_unless_it_is_included() {
    let mut document = from_edn(&file(r#"a "b()" b "1" c "b()" d "2""#)).expect("valid");
    let fragment = fragment_from_edn(r#"{:expressions {z "1"}}"#).expect("valid");
    document.include(fragment).expect("another name");
    let (names, _) = names(&document);
    assert_eq!(names.unused().map(|(name, _)| name), Some("a"));
    expanded(&names, "a() + d()").expect("valid");
    assert_eq!(names.unused().map(|(name, _)| name), Some("c"));
    expanded(&names, "c()").expect("valid");
    assert_eq!(names.unused(), None);
}

#[test]
fn errors_in_entries() {
    let cases = [
        (r#"is-error "1""#, "`is-error` cannot name an expression"),
        (r#""f(a.b)" "1""#, "`f(a.b)` cannot name an expression"),
        (r#""f(a" "1""#, "`f(a` cannot name an expression"),
        (r#""cast(x)" "1""#, "`cast(x)` cannot name an expression"),
        (r#""f(case)" "1""#, "`f(case)` cannot name an expression"),
        (r#"5 "1""#, "a number cannot name an expression"),
        (r#"f 5"#, "`f` must be a string"),
        (r#""f(a, b, a)" "1""#, "`f` has two parameters `a`"),
        (r#"f "1" "F(a)" "2""#, "`F` is defined twice"),
    ];
    for (entries, expected) in cases {
        let errors = from_edn(&file(entries)).expect_err(entries);
        assert_eq!(errors.len(), 1, "{entries}");
        assert_eq!(errors[0].message, expected, "{entries}");
    }
    let errors = from_edn("{:expressions [] pipeline (-> a b)}").expect_err("a vector");
    assert_eq!(errors[0].message, "`:expressions` must be a map");
}

#[test]
fn errors_in_definitions() {
    let cases = [
        ("f \"1 +\"", "unexpected end of input; expected a value"),
        (
            "lower \"1\"",
            "`lower` is a function; a named expression cannot have its name",
        ),
        (
            "Count \"1\"",
            "`Count` is a function; a named expression cannot have its name",
        ),
        (
            "both \"1\"",
            "`both` is a word of expressions; a named expression cannot have its name",
        ),
        (
            "leading \"1\"",
            "`leading` is a word of expressions; a named expression cannot have its name",
        ),
        (
            "f \"f()\"",
            "the expression `f` contains itself; it is used inside its own definition",
        ),
        (
            "a \"1 + b()\" b \"c()\" c \"lower(a())\"",
            "the expression `a` contains itself; it uses `b`, which uses `c`, which uses `a`",
        ),
        (
            "f \"g()\" \"g(x)\" \"x\"",
            "`g` needs 1 argument, found 0; wrong number of arguments",
        ),
        (
            "is_error \"1\" f \"is_eror()\"",
            "unknown function `is_eror`; not a function",
        ),
    ];
    for (entries, expected) in cases {
        let (names, errors) = names(&from_edn(&file(entries)).expect(entries));
        assert_eq!(messages(&errors), [expected], "{entries}");
        // Its uses have no further errors.
        let first = entries.split(' ').next().unwrap_or_default();
        expanded(&names, &format!("{first}() + 1")).expect(entries);
    }
    let entries = "a \"b()\" b \"a()\" c \"d() + a()\" d \"c()\" e \"a() + c()\"";
    let (_, errors) = names(&from_edn(&file(entries)).expect(entries));
    assert_eq!(errors.len(), 2, "{errors:?}");
}

#[test]
fn a_parameter_that_is_not_used_is_an_error() {
    let cases = [
        (r#""f(a, b)" "a + 1""#, [("b", None)].as_slice()),
        (r#""f(a, b)" "count()""#, &[("a", None), ("b", None)]),
        (r#""f(a)" "lower(a.b)""#, &[]),
        (r#""f(a)" "g(a)" "g(b)" "b""#, &[]),
        // A field of another object, a word and a text are not the parameter.
        (r#""f(\u0061, b)" "b.a or 'a' = b""#, &[("\\u0061", None)]),
        (r#""f(day)" "extract(day from at)""#, &[("day", None)]),
        (
            r#""f(part, whole)" "part / whoel""#,
            &[(
                "whole",
                Some("the field `whoel` is not a parameter; did you mean `whole`?"),
            )],
        ),
    ];
    for (entries, expected) in cases {
        let file = file(entries);
        let (names, errors) = names(&from_edn(&file).expect(entries));
        let found = errors.iter().map(|error| {
            assert_eq!(error.label, "not part of the expression", "{entries}");
            assert!(error.message.starts_with("unused parameter `"), "{entries}");
            let place = error.span.start as usize..error.span.end as usize;
            (&file[place], error.help.as_deref())
        });
        let remove = Some("remove it here and in the calls, or use it in the expression");
        let with_help =
            |(name, help): &(&'static str, Option<&'static str>)| (*name, help.or(remove));
        let expected: Vec<_> = expected.iter().map(with_help).collect();
        assert_eq!(found.collect::<Vec<_>>(), expected, "{entries}");
        // Further errors of the expression are still found.
        expanded(&names, "f(1, 2, 3)").expect_err(entries);
    }
    let toml = "pipeline = '(-> a b)'\n[expressions]\n\"f(part, whole)\" = 'part'\n";
    let (_, errors) = names(&from_toml(toml).expect("valid"));
    assert_eq!(
        messages(&errors),
        ["unused parameter `whole`; not part of the expression"]
    );
    let place = errors[0].span.start as usize..errors[0].span.end as usize;
    assert_eq!(&toml[place], "\"f(part, whole)\"");
    let mut document = from_edn(&file("g \"1\"")).expect("valid");
    let fragment = fragment_from_edn(r#"{:expressions {"h(x)" "1"}}"#);
    document
        .include(fragment.expect("valid"))
        .expect("another name");
    let (_, errors) = names(&document);
    assert_eq!(
        messages(&errors),
        ["unused parameter `x`; not part of the expression"]
    );
}

#[test]
fn errors_in_calls() {
    let names =
        defined(r#"is_error "status >= 500" "share(part, whole)" "part / whole" "f(x)" "x.y""#);
    let cases = [
        (
            "share(1)",
            "`share` needs 2 arguments, found 1; wrong number of arguments",
        ),
        (
            "is_error(1)",
            "`is_error` needs 0 arguments, found 1; wrong number of arguments",
        ),
        (
            "share(distinct 1)",
            "`share` is a named expression; it cannot have `distinct`",
        ),
        (
            "1 + is_erorr()",
            "unknown function `is_erorr`; not a function",
        ),
        (
            "f(1 + 2)",
            "the argument `x` is not a field; only a field has parts",
        ),
    ];
    for (call, expected) in cases {
        assert_eq!(
            expanded(&names, call),
            Err(vec![expected.to_owned()]),
            "{call}"
        );
    }
    let help = |call: &str| parse(&text(&names, call)).expect_err(call)[0].help.clone();
    assert_eq!(
        help("share(1)").as_deref(),
        Some("usage: share(part, whole)")
    );
    assert_eq!(
        help("is_erorr()").as_deref(),
        Some("did you mean `is_error()`?")
    );
    // What is more like a function is an error of the compiler.
    expanded(&names, "lowr(a)").expect("not a named expression");
}

/// The uses of an error in this part of an expanded expression: name, parameter and position.
fn uses(names: &NamedExpressions, part: &Expr) -> Vec<(String, Option<String>, u32)> {
    let error = Diagnostic::new(part.span, "wrong", "");
    let explained = names.explained(vec![error.clone(), error]);
    let uses = explained[0].uses.iter();
    let shown = uses.map(|used| {
        let parameter = used.parameter.as_ref().map(|name| name.to_string());
        (used.name.to_string(), parameter, used.span.start)
    });
    shown.collect()
}

#[test]
fn an_error_in_a_definition_shows_where_it_is_used() {
    let entries = r#""inner(x)" "x + 1" "outer(x)" "inner(x) + inner(x)""#;
    let names = defined(entries);
    let sum = expanded(&names, "1 + outer(5)").expect("valid");
    let inner = sum.parts()[1].parts()[0];
    let file = file(entries);
    let place = inner.span.start as usize..inner.span.end as usize;
    assert_eq!(&file[place], "x + 1");
    let at = file.find("inner(x) + ").expect("it is there") as u32;
    let expected = [
        ("inner".to_owned(), None, at),
        ("outer".to_owned(), None, 10_004),
    ];
    assert_eq!(uses(&names, inner), expected);
    // An error that both uses of `inner` have is shown for the first.
    let errors = sum.parts()[1].parts().into_iter();
    let errors = errors.map(|part| Diagnostic::new(part.span, "wrong", ""));
    let explained = names.explained(errors.collect());
    let [error] = explained.as_slice() else {
        panic!("reported once: {explained:?}")
    };
    let shown = error.with_uses_as_help(|span| span.start.to_string());
    let expected = format!("in `inner`, which is used at {at}\nin `outer`, which is used at 10004");
    assert_eq!(shown.help, Some(expected));
}

#[test]
fn an_error_at_an_argument_is_in_the_call_and_shows_where_the_definition_uses_it() {
    let entries =
        r#""inner(x)" "1 + x" "outer(y)" "inner(lower(y)) || inner(y)" "part(z)" "z.a.b""#;
    let names = defined(entries);
    let file = file(entries);
    let at = |text: &str| file.find(text).expect("it is there") as u32;
    let used = |name: &str, parameter: Option<&str>, place: u32| {
        (name.to_owned(), parameter.map(str::to_owned), place)
    };

    let both = expanded(&names, "outer(field)").expect("valid");
    let (first, second) = (both.parts()[0].parts()[1], both.parts()[1].parts()[1]);
    assert_eq!(first.span.start, at("lower(y)"));
    let x = used("inner", Some("x"), at("1 + x") + 4);
    let expected = [x.clone(), used("outer", None, 10_000)];
    assert_eq!(uses(&names, first), expected);
    assert_eq!((second.span.start, second.span.end), (10_006, 10_011));
    let y = used("outer", Some("y"), at("inner(y)") + 6);
    assert_eq!(uses(&names, second), [x, y]);

    let part = expanded(&names, "part(field)").expect("valid");
    assert_eq!((part.span.start, part.span.end), (10_005, 10_010));
    assert_eq!(uses(&names, &part), [used("part", Some("z"), at("z.a.b"))]);

    let errors = parse(&text(&names, "part(1 + 2)")).expect_err("not a field");
    let explained = names.explained(errors);
    let place = (explained[0].span.start, explained[0].span.end);
    assert_eq!(place, (10_005, 10_010));
    let shown = explained[0].with_uses_as_help(|span| span.start.to_string());
    let expected = format!(
        "this is the argument `z` of `part`, which uses it at {}",
        at("z.a.b")
    );
    assert_eq!(shown.help, Some(expected));
}

#[test]
fn the_bytes_of_texts_and_names_count_towards_the_limit() {
    let large = "named expressions expand to more than 200000 parts; this use exceeds the limit";
    let text = "x".repeat(60_000);
    let doubled = |d: &str| format!("{d}(").repeat(12);
    for (definition, argument) in [
        (r#""d(x)" "x || x""#, format!("'{text}'")),
        (r#""d(x)" "x || x""#, format!("a.{text}")),
        (r#""d(x)" "x || x""#, format!("@headers.{text}")),
    ] {
        let call = format!("{}{argument}{}", doubled("d"), ")".repeat(12));
        assert_eq!(
            expanded(&defined(definition), &call),
            Err(vec![large.to_owned()])
        );
    }
    let part = format!(r#""p(x)" "x.{text}" "q(x)" "p(x) || p(x) || p(x) || p(x)""#);
    expanded(&defined(&part), "p(a)").expect("not too large");
    let many = vec!["q(a)"; 20].join(" || ");
    assert_eq!(
        expanded(&defined(&part), &many),
        Err(vec![large.to_owned()])
    );
    let name = "n".repeat(60_000);
    let uses =
        r#"a "b() + b()" b "c() + c()" c "d() + d()" d "e() + e()" e "f() + f()" f "g() + g()""#;
    let long = defined(&format!("{uses} g \"{name}()\" {name} \"1\""));
    assert_eq!(expanded(&long, "a()"), Err(vec![large.to_owned()]));
}

#[test]
fn what_they_expand_to_is_limited() {
    // Each uses the next one twice.
    let bomb = |count: usize| -> String {
        let of = |at: usize| format!("e{at} \"e{}() + e{}()\" ", at + 1, at + 1);
        (0..count).map(of).collect::<String>() + &format!("e{count} \"1\"")
    };
    let small = defined(&bomb(10));
    expanded(&small, "e0()").expect("1024 constants");
    let large = "named expressions expand to more than 200000 parts; this use exceeds the limit";
    for count in [20, 60, 100] {
        let names = defined(&bomb(count));
        assert_eq!(
            expanded(&names, "e0()"),
            Err(vec![large.to_owned()]),
            "{count}"
        );
    }
    // An argument that is doubled by each use.
    let names = defined(r#""d(x)" "x + x" "f(x)" "d(d(d(d(d(x)))))" "g(x)" "f(f(f(f(f(x)))))""#);
    assert_eq!(expanded(&names, "g(a)"), Err(vec![large.to_owned()]));
    // Many uses together.
    let names = defined(&bomb(12));
    let uses = (0..100).map(|_| expanded(&names, "e0()").is_err() as usize);
    assert_eq!(uses.sum::<usize>(), 1, "it is reported once");
    let long = format!("f \"{}\"", "a in (1,2,3,4,5,6,7,8,9) or ".repeat(200) + "b");
    expanded(&defined(&long), "f() and f() and f()").expect("not too large");

    let deep = "expression nested too deeply (limit: 256 levels); nesting limit exceeded here";
    let chain = |count: usize| -> String {
        let of = |at: usize| format!("e{at} \"e{}()\" ", at + 1);
        (0..count).map(of).collect::<String>() + &format!("e{count} \"1\"")
    };
    expanded(&defined(&chain(200)), "e0()").expect("not too deep");
    for count in [300, 20_000] {
        assert_eq!(
            expanded(&defined(&chain(count)), "e0()"),
            Err(vec![deep.to_owned()])
        );
    }
    expanded(&defined(&bomb(200)), "e0()").expect_err("both limits");
    let names = defined(&format!("\"n(x)\" \"{}x\"", "- ".repeat(60)));
    assert_eq!(
        expanded(&names, "n(n(n(n(n(n(a))))))"),
        Err(vec![deep.to_owned()])
    );
    let ring = |at: usize| format!("e{at} \"e{}()\" ", (at + 1) % 20_000);
    let ring = file(&(0..20_000).map(ring).collect::<String>());
    let (_, errors) = NamedExpressions::new(&from_edn(&ring).expect("valid").expressions, []);
    assert_eq!(errors.len(), 1);
}

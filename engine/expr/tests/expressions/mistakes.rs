//! Mistakes in expressions: what is said, where, and what helps.

use crate::fixture::compiled;
use pseidon_dsl::Diagnostic;

/// The one mistake in an expression.
fn mistake(text: &str) -> Diagnostic {
    let mut mistakes = match compiled(text) {
        Ok(compiled) => panic!("{text} is {}", compiled.field()),
        Err(mistakes) => mistakes,
    };
    assert_eq!(mistakes.len(), 1, "{text}: {mistakes:?}");
    mistakes.remove(0)
}

#[test]
fn mistakes_are_shown_at_their_places() {
    let cases = [
        // The expression, the text that is underlined, the message.
        ("statu = 200", "statu", "there is no column statu"),
        (
            "user.idd",
            "user.idd",
            "user is {id utf8, age int64, more json}, it has no field idd",
        ),
        (
            "user[0] is null",
            "user[0]",
            "user is {id utf8, age int64, more json}, it has no element [0]",
        ),
        (
            "tags.x = 'a'",
            "tags.x",
            "tags is [utf8], it has no field x",
        ),
        (
            "status.x > 1",
            "status.x",
            "status is int64, it has no field x",
        ),
        ("1 + uper(name)", "uper", "there is no function uper"),
        (
            "lower(name, 2)",
            "lower(name, 2)",
            "lower does not take (utf8, int64)",
        ),
        ("lower()", "lower()", "lower does not take ()"),
        ("now(1)", "now(1)", "now does not take (int64)"),
        ("sqrt(ok)", "sqrt(ok)", "sqrt does not take (boolean)"),
        ("nvl(status)", "nvl(status)", "nvl does not take 1 argument"),
        (
            "coalesce()",
            "coalesce()",
            "coalesce does not take 0 arguments",
        ),
        (
            "arrow_cast(status, 'Utf8')",
            "arrow_cast",
            "there is no function arrow_cast",
        ),
        ("status = 'ok'", "'ok'", "'ok' is no int64"),
        (
            "at > 'yesterday'",
            "'yesterday'",
            "'yesterday' is no timestamp_ms",
        ),
        ("status in (200, 'x')", "'x'", "'x' is no int64"),
        ("name = 5", "name = 5", "utf8 and int64 cannot be compared"),
        (
            "status = name",
            "status = name",
            "int64 and utf8 cannot be compared",
        ),
        (
            "at > 5",
            "at > 5",
            "timestamp_ms and int64 cannot be compared",
        ),
        (
            "status between 1 and ok",
            "status between 1 and ok",
            "int64 and boolean cannot be compared",
        ),
        (
            "ok and status",
            "status",
            "a condition is true or false, this is int64",
        ),
        (
            "not name",
            "name",
            "a condition is true or false, this is utf8",
        ),
        (
            "case when status then 1 end",
            "status",
            "a condition is true or false, this is int64",
        ),
        (
            "status is true",
            "status",
            "a condition is true or false, this is int64",
        ),
        (
            "status like '2%'",
            "status",
            "like needs text, this is int64",
        ),
        ("name like 5", "5", "like needs text, this is int64"),
        ("status ~ '2'", "status", "~ needs text, this is int64"),
        ("name ~ '['", "'['", "'[' is no regular expression"),
        (
            "regexp_like(name, '(')",
            "'('",
            "'(' is no regular expression",
        ),
        (
            "name like '5!' escape '!'",
            "'5!'",
            "the pattern ends with its escape character !",
        ),
        (
            "name like name escape '!'",
            "name",
            "escape needs a pattern that is a constant",
        ),
        ("name + 1", "name", "text cannot be computed with"),
        (
            "at + '1 fortnit'",
            "'1 fortnit'",
            "'1 fortnit' is no interval",
        ),
        ("ok + 1", "ok + 1", "boolean + int64 has no meaning"),
        ("-name", "-name", "-utf8 has no meaning"),
        (
            "user + 1",
            "user + 1",
            "{id utf8, age int64, more json} + int64 has no meaning",
        ),
        (
            "cast(status as blop)",
            "blop",
            "there is no type blop, the nearest is blob",
        ),
        ("cast('x' as int)", "'x'", "'x' is no int32"),
        (
            "cast(at as boolean)",
            "at",
            "timestamp_ms cannot be made boolean",
        ),
        (
            "cast(status as json)",
            "cast(status as json)",
            "int64 cannot be made json",
        ),
        (
            "1 / 0",
            "1 / 0",
            "this can never be computed: division by zero",
        ),
        (
            "case when ok then user else 1 end",
            "1",
            "the result is int64 here and {id utf8, age int64, more json} elsewhere",
        ),
    ];
    let mut wrong = Vec::new();
    for (text, place, message) in cases {
        let found = mistake(text);
        let underlined = &text[found.span.start as usize..found.span.end as usize];
        if underlined != place || found.message != message {
            wrong.push(format!("{text}: {underlined}: {}", found.message));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mistakes_come_with_help() {
    let cases = [
        ("statu", "the nearest is status"),
        ("user.idd", "the nearest is id"),
        ("uper(name)", "the nearest is upper"),
        ("coalesc(name)", "the nearest is coalesce"),
        ("substr(name)", "it is substr(str, start_pos[, length])"),
        ("if(ok)", "it is if(condition, then, else)"),
        (
            "name = 5",
            "make one of them the other's type: cast(x as int64)",
        ),
        (
            "small = name",
            "make one of them the other's type: cast(x as int32)",
        ),
        (
            "ok and status",
            "compare it with something, for example: x <> 0",
        ),
        ("status like '2%'", "make it text: cast(x as text)"),
        ("name + 1", "make it a number: cast(x as double)"),
    ];
    for (text, help) in cases {
        assert_eq!(mistake(text).help.as_deref(), Some(help), "{text}");
    }
}

#[test]
fn all_mistakes_are_found_at_once() {
    let text = "statu = 1 and lowr(nam) = 'x' or case when nme then cast(a as blop) end";
    let mistakes = compiled(text).unwrap_err();
    let places: Vec<&str> = mistakes
        .iter()
        .map(|mistake| &text[mistake.span.start as usize..mistake.span.end as usize])
        .collect();
    assert_eq!(places, ["statu", "nam", "lowr", "nme", "a", "blop"]);
}

#[test]
fn without_columns_it_says_so() {
    let mistakes =
        pseidon_expr::compile(&crate::fixture::parse("a"), &pseidon_expr::Scope::default())
            .unwrap_err();
    assert_eq!(
        mistakes[0].help.as_deref(),
        Some("there are no columns here")
    );
}

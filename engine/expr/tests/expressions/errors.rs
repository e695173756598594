//! Errors in expressions: message, position and help.

use crate::fixture::compiled;
use pseidon_dsl::Diagnostic;

/// The only error in an expression.
pub(crate) fn error(text: &str) -> Diagnostic {
    let mut errors = match compiled(text) {
        Ok(compiled) => panic!("{text} compiles to {}", compiled.field()),
        Err(errors) => errors,
    };
    assert_eq!(errors.len(), 1, "{text}: {errors:?}");
    errors.remove(0)
}

/// Checks cases of an expression, the text that its only error underlines, and the message.
pub(crate) fn check(cases: &[(&str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (text, place, message) in cases {
        let found = error(text);
        let underlined = &text[found.span.start as usize..found.span.end as usize];
        if underlined != *place || found.message != *message {
            wrong.push(format!("{text}: {underlined}: {}", found.message));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unknown_names() {
    check(&[
        ("statu = 200", "statu", "unknown column `statu`"),
        ("user.idd", "user.idd", "`user` has no field `idd`"),
        ("user[0] is null", "user[0]", "`user` has no element [0]"),
        ("tags.x = 'a'", "tags.x", "`tags` has no field `x`"),
        ("status.x > 1", "status.x", "`status` has no field `x`"),
        ("1 + uper(name)", "uper", "unknown function `uper`"),
        (
            "arrow_cast(status, 'Utf8')",
            "arrow_cast",
            "unknown function `arrow_cast`",
        ),
    ]);
}

#[test]
fn wrong_arguments_of_functions() {
    check(&[
        (
            "lower(name, 2)",
            "lower(name, 2)",
            "`lower` does not accept (utf8, int64)",
        ),
        ("lower()", "lower()", "`lower` does not accept ()"),
        ("now(1)", "now(1)", "`now` does not accept (int64)"),
        ("sqrt(ok)", "sqrt(ok)", "`sqrt` does not accept (boolean)"),
        (
            "nvl(status)",
            "nvl(status)",
            "`nvl` does not accept 1 argument",
        ),
        (
            "coalesce()",
            "coalesce()",
            "`coalesce` does not accept 0 arguments",
        ),
    ]);
}

/// Calls with the reason why they fail for every record.
const FAILING_CALLS: [(&str, &str); 16] = [
    (
        "extract(decade from at)",
        "Date part 'decade' not supported",
    ),
    ("date_part('bogus', at)", "Date part 'bogus' not supported"),
    (
        "date_trunc('days', at)",
        "Unsupported date_trunc granularity: 'days'. Supported values are: microsecond, \
             millisecond, second, minute, hour, day, week, month, quarter, year",
    ),
    (
        "date_trunc('decade', any)",
        "Unsupported date_trunc granularity: 'decade'. Supported values are: microsecond, \
             millisecond, second, minute, hour, day, week, month, quarter, year",
    ),
    (
        "digest(name, 'sha1')",
        "There is no built-in digest algorithm named 'sha1', currently supported algorithms \
             are: md5, sha224, sha256, sha384, sha512, blake2s, blake2b, blake3",
    ),
    (
        "encode(raw, 'bogus')",
        "There is no built-in encoding named 'bogus', currently supported encodings are: \
             base64, base64pad, hex",
    ),
    (
        "decode(name, 'b64')",
        "There is no built-in encoding named 'b64', currently supported encodings are: \
             base64, base64pad, hex",
    ),
    ("date_bin('0 days', at)", "DATE_BIN stride must be non-zero"),
    (
        "date_bin('1 hour', at, at)",
        "DATE_BIN only supports literal values for the origin argument, not arrays",
    ),
    (
        "to_time(small)",
        "Unsupported data type Int32 for function to_time",
    ),
    (
        "to_time(day)",
        "Unsupported data type Date32 for function to_time",
    ),
    (
        "to_time(name, name)",
        "to_time format argument 2 must be a scalar, not an array",
    ),
    (
        "to_date(name, -1)",
        "to_date function unsupported data type at index 1: Int64",
    ),
    (
        "to_unixtime(ok)",
        "Unsupported data type Boolean for function to_unixtime",
    ),
    (
        "regexp_like(name, 'A', 'bogus')",
        "regexp_like() does not support the \"global\" option",
    ),
    ("to_char(at, '%Q')", "Format error"),
];

#[test]
fn calls_that_fail_for_every_record() {
    let always = |reason: &str| format!("this call always fails: {reason}");
    for (call, reason) in FAILING_CALLS {
        assert_eq!(error(call).message, always(reason), "{call}");
    }
    let flags = error("regexp_replace(name, 'a', 'b', 'q')").message;
    assert!(flags.ends_with("error: unrecognized flag"), "{flags}");
    check(&[(
        "regexp_groups(name, 'abc')",
        "'abc'",
        "the pattern of `regexp_groups` has no named group",
    )]);
}

#[test]
fn values_that_cannot_be_compared() {
    check(&[
        ("status = 'ok'", "'ok'", "'ok' is not a valid int64"),
        (
            "at > 'yesterday'",
            "'yesterday'",
            "'yesterday' is not a valid timestamp_ms",
        ),
        ("status in (200, 'x')", "'x'", "'x' is not a valid int64"),
        (
            "'1e400'::double",
            "'1e400'",
            "'1e400' is not a valid float64",
        ),
        ("'1e39'::real", "'1e39'", "'1e39' is not a valid float32"),
        (
            "price > '1e400'",
            "'1e400'",
            "'1e400' is not a valid float64",
        ),
        ("name = 5", "name = 5", "cannot compare utf8 with int64"),
        (
            "status = name",
            "status = name",
            "cannot compare int64 with utf8",
        ),
        ("at > 5", "at > 5", "cannot compare timestamp_ms with int64"),
        (
            "status between 1 and ok",
            "status between 1 and ok",
            "cannot compare int64 with boolean",
        ),
    ]);
}

#[test]
fn conditions_and_strings_of_another_type() {
    check(&[
        (
            "ok and status",
            "status",
            "expected a condition, found int64",
        ),
        ("not name", "name", "expected a condition, found utf8"),
        (
            "case when status then 1 end",
            "status",
            "expected a condition, found int64",
        ),
        (
            "status is true",
            "status",
            "expected a condition, found int64",
        ),
        (
            "status like '2%'",
            "status",
            "`like` requires a string, found int64",
        ),
        ("name like 5", "5", "`like` requires a string, found int64"),
        (
            "status ~ '2'",
            "status",
            "`~` requires a string, found int64",
        ),
    ]);
}

#[test]
fn what_is_redacted() {
    check(&[
        (
            "redact(name, 'ip, phone')",
            "'ip, phone'",
            "`redact` does not know the kind `phone`",
        ),
        (
            "redact(name, name)",
            "name",
            "this argument of `redact` must be a constant",
        ),
        (
            "redact(name, 'ip', ' ')",
            "' '",
            "the key of `redact` is empty",
        ),
        (
            "redact(name, 'ip', null)",
            "null",
            "the key of `redact` must be a string",
        ),
    ]);
}

#[test]
fn invalid_patterns() {
    check(&[
        ("name ~ '['", "'['", "invalid regular expression '['"),
        (
            "regexp_like(name, '(')",
            "'('",
            "invalid regular expression '('",
        ),
        (
            "name like '5!' escape '!'",
            "'5!'",
            "the pattern ends with its escape character `!`",
        ),
        (
            "name like name escape '!'",
            "name",
            "`escape` requires a constant pattern",
        ),
    ]);
}

#[test]
fn values_that_cannot_be_computed() {
    check(&[
        ("name + 1", "name", "cannot compute with a string"),
        (
            "at + '1 fortnit'",
            "'1 fortnit'",
            "'1 fortnit' is not a valid interval",
        ),
        ("ok + 1", "ok + 1", "cannot compute boolean + int64"),
        ("-name", "-name", "cannot negate utf8"),
        (
            "user + 1",
            "user + 1",
            "cannot compute {id utf8, age int64, more json} + int64",
        ),
        (
            "1 / 0",
            "1 / 0",
            "this expression always fails: division by zero",
        ),
    ]);
}

#[test]
fn casts_and_results_of_case() {
    check(&[
        (
            "cast(status as blop)",
            "blop",
            "unknown type `blop`; did you mean `blob`?",
        ),
        ("cast('x' as int)", "'x'", "'x' is not a valid int32"),
        (
            "cast(at as boolean)",
            "at",
            "cannot cast timestamp_ms to boolean",
        ),
        (
            "cast(status as json)",
            "cast(status as json)",
            "cannot cast int64 to json",
        ),
        (
            "'{'::json",
            "'{'",
            "this expression always fails: '{' is not JSON",
        ),
        (
            "array_length(name)",
            "array_length(name)",
            "`array_length` does not accept (utf8)",
        ),
        (
            "upper(tags)",
            "upper(tags)",
            "`upper` does not accept ([utf8])",
        ),
        (
            "split(name)",
            "split(name)",
            "`split` does not accept (utf8)",
        ),
        (
            "case when ok then user else 1 end",
            "1",
            "the result is int64 here, but {id utf8, age int64, more json} in another branch",
        ),
    ]);
}

#[test]
fn errors_have_help() {
    let cases = [
        ("statu", "did you mean `status`?"),
        ("user.idd", "did you mean `id`?"),
        ("uper(name)", "did you mean `upper`?"),
        ("coalesc(name)", "did you mean `coalesce`?"),
        ("mod(status, 2)", "write `x % y`"),
        ("strftime(name)", "write `to_char(time, '%Y-%m-%d')`"),
        ("cast(status as json)", "write to_json(x)"),
        ("byte_length(name)", "write `octet_length(text)`"),
        ("locate('a', name)", "write `strpos(text, part)`"),
        ("typeof(name)", "write `arrow_typeof(x)`"),
        ("year(at)", "write `date_part('year', time)`"),
        ("list_contains(tags)", "usage: list_contains(list, value)"),
        ("substr(name)", "usage: substr(str, start_pos[, length])"),
        ("if(ok)", "usage: if(condition, then, else)"),
        ("name = 5", "cast one side, for example: cast(x as int64)"),
        (
            "small = name",
            "cast one side, for example: cast(x as int32)",
        ),
        (
            "ok and status",
            "compare it with a value, for example: x <> 0",
        ),
        (
            "status like '2%'",
            "convert it to a string: cast(x as text)",
        ),
        ("name + 1", "convert it to a number: cast(x as double)"),
    ];
    for (text, help) in cases {
        assert_eq!(error(text).help.as_deref(), Some(help), "{text}");
    }
}

#[test]
fn all_errors_are_found_at_once() {
    let text = "statu = 1 and lowr(nam) = 'x' or case when nme then cast(a as blop) end";
    let errors = compiled(text).unwrap_err();
    let places: Vec<&str> = errors
        .iter()
        .map(|error| &text[error.span.start as usize..error.span.end as usize])
        .collect();
    assert_eq!(places, ["statu", "nam", "lowr", "nme", "a", "blop"]);
}

#[test]
fn an_empty_scope_is_reported() {
    let errors =
        pseidon_expr::compile(&crate::fixture::parse("a"), &pseidon_expr::Scope::default())
            .unwrap_err();
    assert_eq!(
        errors[0].help.as_deref(),
        Some("no columns are available here")
    );
}

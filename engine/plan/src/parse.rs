//! `parse`: the parts of a string as columns.
//!
//! A pattern has named groups. The stage is two `select`s: the first finds the groups, once for
//! each record, and the second makes them columns. A format of logs is a pattern, and the items of
//! the second `select`. The pairs of [logfmt](LOGFMT) become one column.

use pseidon_dsl::expr::{Expr, ExprKind, Literal, Path, PathStep, SelectItem, parse_select};
use pseidon_dsl::node::Text;
use pseidon_dsl::{Diagnostic, NodeKind, Span, nearest};
use pseidon_plugin::options::{Argument, OptionValue, ParseResult, SpannedValue};
use pseidon_plugin::spec::OptionKind;

/// The column of the first `select` with the groups. The formats below name it.
const GROUPS: &str = "groups";

/// What a string is parsed by.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsePattern {
    /// What finds the parts.
    finder: PartFinder,
    /// The items of `select` for the parts.
    columns: Vec<SelectItem>,
}

/// What finds the parts of a string.
#[derive(Clone, Debug, PartialEq)]
enum PartFinder {
    /// The named groups of a regular expression.
    Regex(String),
    /// The function `logfmt`, whose parts have the keys that a string has.
    Logfmt,
}

/// The name of the format of pairs `key=value`.
const LOGFMT: &str = "logfmt";

/// A format of logs.
struct LogFormat {
    names: &'static [&'static str],
    regex: &'static str,
    /// The items of `select`, in which the column `groups` has the groups.
    columns: &'static str,
}

const FORMATS: [LogFormat; 3] = [
    // https://nginx.org/en/docs/http/ngx_http_log_module.html#log_format
    // https://httpd.apache.org/docs/2.4/logs.html#combined
    LogFormat {
        names: &["nginx", "apache"],
        regex: concat!(
            // A client with a port is like a host, but `-` follows it: no client behind a host.
            r#"^(?:(?<vhost>[^\s:]+:\d+) (?<client_of_vhost>[^\s-]\S*|-\S+)|(?<client>\S+)) "#,
            r#"\S+ (?<user>.+?) \[(?<time>[^\]]+)\] ""#,
            r#"(?<request>(?<method>[A-Za-z]+) (?<path>\S+)(?: (?<protocol>[A-Z]+/[0-9.]+))?|(?:[^"\\]|\\.)*)" "#,
            r#"(?<status>\d{3}) (?<size>\d+|-)"#,
            r#"(?: "(?<referer>(?:[^"\\]|\\.)*)" "(?<agent>(?:[^"\\]|\\.)*)")?"#,
            r"(?:\s*(?<rest>\S(?s:.*?))\s*$)?",
        ),
        columns: "coalesce(groups.client_of_vhost, groups.client) as client, nullif(groups.user, '-') as user, \
                  to_timestamp(groups.time, '%d/%b/%Y:%H:%M:%S %z')::timestamp as time, \
                  groups.method as method, groups.path as path, groups.protocol as protocol, \
                  groups.request as request, groups.status::int64 as status, \
                  nullif(groups.size, '-')::int64 as size, nullif(groups.referer, '-') as referer, \
                  nullif(groups.agent, '-') as agent, groups.vhost as vhost, \
                  groups.rest as rest",
    },
    // RFC 5424, section 6.
    LogFormat {
        names: &["syslog"],
        regex: concat!(
            r"(?s)^<(?<priority>\d|[1-9]\d|1[0-8]\d|19[01])>1 (?<time>\S+) (?<host>\S+) (?<app>\S+) ",
            r"(?<process>\S+) (?<message_id>\S+) ",
            r"(?<data>-|(?:\[(?:[^\]\\]|\\.)*\])+)(?: (?:\x{FEFF})?(?<message>.*))?$",
        ),
        columns: "groups.priority::int64 / 8 as facility, groups.priority::int64 % 8 as severity, \
                  nullif(groups.time, '-')::timestamp as time, nullif(groups.host, '-') as host, \
                  nullif(groups.app, '-') as app, nullif(groups.process, '-') as process, \
                  nullif(groups.message_id, '-') as message_id, \
                  nullif(groups.data, '-') as data, groups.message as message",
    },
    // RFC 3164, section 4.1, also with the times of RFC 5424, which rsyslog writes to files.
    LogFormat {
        names: &["syslog-bsd"],
        regex: concat!(
            r"(?s)^(?:<(?<priority>\d|[1-9]\d|1[0-8]\d|19[01])>)?",
            r"(?<time>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S+) ",
            r"(?<host>\S+) (?:(?<app>[^\s:\[]+)(?:\[(?<process>[^\]]*)\])?: ?)?(?<message>.*)$",
        ),
        columns: "groups.priority::int64 / 8 as facility, groups.priority::int64 % 8 as severity, \
                  groups.time as time, groups.host as host, groups.app as app, \
                  groups.process as process, groups.message as message",
    },
];

impl ParsePattern {
    fn of_regex(text: &Text) -> Result<ParsePattern, Diagnostic> {
        let regex = text.to_regex()?;
        let names: Vec<&str> = regex.capture_names().flatten().collect();
        if names.is_empty() {
            let error = Diagnostic::new(
                text.span(),
                "the pattern has no named group",
                "expected a group such as (?<name>…)",
            );
            return Err(error);
        }
        let column = |name: &&str| {
            let path = [GROUPS, name].map(|step| PathStep::Field(step.to_owned()));
            column(ExprKind::Path(Path(path.to_vec())), name, text.span())
        };
        Ok(ParsePattern {
            finder: PartFinder::Regex(text.value.clone()),
            columns: names.iter().map(column).collect(),
        })
    }

    fn of_format(name: &str, span: Span) -> Result<ParsePattern, Diagnostic> {
        if name == LOGFMT {
            let groups = Path(vec![PathStep::Field(GROUPS.to_owned())]);
            return Ok(ParsePattern {
                finder: PartFinder::Logfmt,
                columns: vec![column(ExprKind::Path(groups), "fields", span)],
            });
        }
        let Some(format) = FORMATS.iter().find(|format| format.names.contains(&name)) else {
            let names = FORMATS.iter().flat_map(|format| format.names).copied();
            let names = names.chain([LOGFMT]);
            let expected = names.clone().map(|name| format!(":{name}"));
            let expected = expected.collect::<Vec<_>>().join(", ");
            let error = Diagnostic::new(
                span,
                format!("unknown format `{name}`"),
                format!("expected a regular expression, or one of {expected}"),
            );
            return Err(match nearest(name, names) {
                Some(near) => error.with_help(format!("did you mean `:{near}`?")),
                None => error,
            });
        };
        let columns = parse_select(&Text::plain(format.columns, 0)).unwrap_or_default();
        let at = |item| match item {
            SelectItem::Column { expr, name } => SelectItem::Column {
                expr: Expr { span, ..expr },
                name: name.map(|(name, _)| (name, span)),
            },
            other => other,
        };
        Ok(ParsePattern {
            finder: PartFinder::Regex(format.regex.to_owned()),
            columns: columns.into_iter().map(at).collect(),
        })
    }
}

impl OptionValue for ParsePattern {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<ParsePattern> {
        let pattern = match &argument.node().kind {
            NodeKind::Regex(text) => ParsePattern::of_regex(text),
            // TOML has no `#r"…"`.
            NodeKind::Str(text) if text.value.contains("(?<") => ParsePattern::of_regex(text),
            _ => ParsePattern::of_format(&argument.string()?, argument.span()),
        };
        pattern.map_err(|error| vec![error])
    }

    fn identity(&self) -> Option<String> {
        Some(match &self.finder {
            PartFinder::Regex(regex) => regex.clone(),
            PartFinder::Logfmt => LOGFMT.to_owned(),
        })
    }
}

/// The two `select`s of a `parse`. `kept` are further columns of the new record.
///
/// # Errors
/// `:keep` has a `*`.
pub(crate) fn selects(
    text: &Expr,
    pattern: &SpannedValue<ParsePattern>,
    kept: &[SelectItem],
) -> Result<[Vec<SelectItem>; 2], Diagnostic> {
    let (span, pattern) = (pattern.span, &pattern.value);
    let (name, pattern_argument) = match &pattern.finder {
        PartFinder::Regex(regex) => ("regexp_groups", Some(regex.clone())),
        PartFinder::Logfmt => (LOGFMT, None),
    };
    let literal = |text| Expr {
        kind: ExprKind::Literal(Literal::Str(text)),
        span,
    };
    let pattern_argument = pattern_argument.map(literal);
    let groups = ExprKind::Call {
        name: name.to_owned(),
        name_span: span,
        distinct: false,
        args: [text.clone()].into_iter().chain(pattern_argument).collect(),
    };
    let mut first = vec![column(groups, GROUPS, text.span)];
    let mut second = pattern.columns.clone();
    for item in kept {
        let SelectItem::Column { expr, name } = item else {
            let SelectItem::All { span, .. } = item else {
                continue;
            };
            let message = "`:keep` cannot have a `*`";
            return Err(Diagnostic::new(*span, message, "expected columns"));
        };
        let name = expr.column_name(name.as_ref());
        let path = Path(vec![PathStep::Field(name.clone())]);
        second.push(column(ExprKind::Path(path), &name, expr.span));
        first.push(item.clone());
    }
    Ok([first, second])
}

fn column(kind: ExprKind, name: &str, span: Span) -> SelectItem {
    SelectItem::Column {
        expr: Expr { kind, span },
        name: Some((name.to_owned(), span)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_line_of_an_access_log_has_its_parts(
            client in "[0-9a-f.:]{1,9}[0-9a-f]",
            user in "[a-z]{1,4}( [a-z]{1,3})?",
            (path, status, size) in ("/[a-z?=&]{0,8}", "[1-5][0-9]{2}", "[0-9]{1,6}|-"),
            more in prop::option::of((r#"([^"\\\n]|\\["\\]){0,8}"#, r#"([^"\\\n]|\\["\\]){0,8}"#)),
        ) {
            let regex = Text::plain(FORMATS[0].regex, 0).to_regex().unwrap();
            let mut line = format!(
                r#"{client} - {user} [10/Oct/2000:13:55:36 -0700] "GET {path} HTTP/1.1" {status} {size}"#
            );
            if let Some((referer, agent)) = &more {
                line += &format!(r#" "{referer}" "{agent}""#);
            }
            let groups = regex.captures(&line);
            prop_assert!(groups.is_some(), "{}", line);
            let groups = groups.unwrap();
            let (referer, agent) = more.map_or((None, None), |(one, other)| (Some(one), Some(other)));
            for (name, expected) in [
                ("client", Some(client)),
                ("user", Some(user)),
                ("path", Some(path)),
                ("status", Some(status)),
                ("size", Some(size)),
                ("referer", referer),
                ("agent", agent),
                ("rest", None),
            ] {
                let found = groups.name(name).map(|part| part.as_str().to_owned());
                prop_assert_eq!(found, expected, "{} of {}", name, line);
            }
        }

        #[test]
        fn a_line_of_syslog_has_its_parts(
            priority in 0..192_u8,
            words in prop::collection::vec("-|[!-~]{1,6}", 5),
            data in prop::collection::vec(r#"\[[a-z]{1,3}( [a-z]="([^"\\\]]|\\["\\\]]){0,5}")?\]"#, 0..3),
            message in prop::option::of("(?s).{0,9}"),
        ) {
            let regex = Text::plain(FORMATS[1].regex, 0).to_regex().unwrap();
            let data = if data.is_empty() { "-".to_owned() } else { data.concat() };
            let mut line = format!("<{priority}>1 {} {data}", words.join(" "));
            if let Some(message) = &message {
                line += &format!(" {message}");
            }
            let groups = regex.captures(&line);
            prop_assert!(groups.is_some(), "{}", line);
            let groups = groups.unwrap();
            // A byte order mark before the message says that it is UTF-8.
            let message = message.map(|message| match message.strip_prefix('\u{feff}') {
                Some(rest) => rest.to_owned(),
                None => message,
            });
            let names = ["time", "host", "app", "process", "message_id"];
            let mut expected: Vec<_> = names.into_iter().zip(words.into_iter().map(Some)).collect();
            expected.extend([("data", Some(data)), ("message", message)]);
            for (name, expected) in expected {
                let found = groups.name(name).map(|part| part.as_str().to_owned());
                prop_assert_eq!(found, expected, "{} of {:?}", name, line);
            }
        }

        #[test]
        fn any_pattern_has_columns_or_an_error_in_it(
            pattern in r"(\(\?<[ab]>|\(|\)|[ab.]|\*|\[|\]|\\|\{9|é){0,9}",
        ) {
            match ParsePattern::of_regex(&Text::plain(pattern.as_str(), 7)) {
                Ok(found) => {
                    let names = found.columns.iter().map(|item| match item {
                        SelectItem::Column { name: Some((name, _)), .. } => name.as_str(),
                        _ => "",
                    });
                    let is_named = |name: &str| pattern.contains(&format!("?<{name}>"));
                    prop_assert!(names.into_iter().all(is_named), "{pattern}");
                    prop_assert!(!found.columns.is_empty(), "{pattern}");
                }
                Err(error) => {
                    let (start, end) = (error.span.start as usize, error.span.end as usize);
                    prop_assert!(start <= end && end <= 7 + pattern.len() + 1, "{error:?}");
                }
            }
        }
    }

    #[test]
    fn the_columns_of_each_format_can_be_read() {
        for format in &FORMATS {
            let pattern = ParsePattern::of_format(format.names[0], Span::default()).unwrap();
            assert!(pattern.columns.len() > 5, "{}", format.names[0]);
        }
    }

    /// The virtual host, client, user, agent and rest of a line of an access log.
    fn access(start: &str, end: &str) -> [Option<String>; 5] {
        let regex = Text::plain(FORMATS[0].regex, 0).to_regex().unwrap();
        let line = format!(r#"{start} [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 200 5{end}"#);
        let groups = regex.captures(&line).expect(&line);
        let group = |name: &str| groups.name(name).map(|part| part.as_str().to_owned());
        let client = group("client_of_vhost").or_else(|| group("client"));
        let [vhost, user, agent, rest] = ["vhost", "user", "agent", "rest"].map(group);
        [vhost, client, user, agent, rest]
    }

    #[test]
    fn a_client_with_a_port_is_not_a_virtual_host() {
        for (line, expected) in [
            (
                "1.2.3.4:5678 - john smith",
                ["", "1.2.3.4:5678", "john smith"],
            ),
            ("1.2.3.4:5678 - - john", ["", "1.2.3.4:5678", "- john"]),
            ("1.2.3.4:5678 - -", ["", "1.2.3.4:5678", "-"]),
            ("1.2.3.4:5678 id john", ["", "1.2.3.4:5678", "john"]),
            ("e.org:443 1.2.3.4 - -", ["e.org:443", "1.2.3.4", "-"]),
            ("e.org:443 ::1 - a b", ["e.org:443", "::1", "a b"]),
            ("e.org:443 -x - a", ["e.org:443", "-x", "a"]),
            ("- - john", ["", "-", "john"]),
        ] {
            let [vhost, client, user, _, rest] = access(line, "");
            let found = [vhost, client, user].map(Option::unwrap_or_default);
            assert_eq!(found, expected, "{line}");
            assert_eq!(rest, None, "{line}");
        }
    }

    #[test]
    fn what_follows_a_line_is_the_rest() {
        for (end, expected) in [
            (r#" "r" "M""#, ["M", ""]),
            (r#" "r" "M"x"#, ["M", "x"]),
            (
                r#" "r" "M"  "9.9.9.9" rt=0.1 "#,
                ["M", r#""9.9.9.9" rt=0.1"#],
            ),
            (r#" "r" "M" a"#, ["M", "a"]),
            (r#" "r" "M"   "#, ["M", ""]),
            (r#" "r" "open"#, ["", r#""r" "open"#]),
            ("x", ["", "x"]),
            (" 7\r", ["", "7"]),
            (" a\nb\n", ["", "a\nb"]),
            ("", ["", ""]),
        ] {
            let [.., agent, rest] = access("::1 - -", end);
            let found = [agent, rest].map(Option::unwrap_or_default);
            assert_eq!(found, expected, "{end}");
        }
    }
}

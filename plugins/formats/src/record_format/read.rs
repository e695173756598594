//! Parses a layout from a string.

use pest::Parser;
use pest::iterators::Pair;
use pest_derive::Parser;
use pseidon_dsl::expr::{ExprKind, Path, PathStep};
use pseidon_dsl::nearest;
use pseidon_dsl::node::Text;
use pseidon_plugin::Secret;

use super::{
    AvroLayout, EventLayout, EventTime, EventUnit, FieldRange, JsonLayout, JsonTime, RecordLayout,
    TxtLayout,
};

#[derive(Parser)]
#[grammar = "record_format.pest"]
struct Grammar;

/// The separator of `txt` without the setting `sep`.
const DEFAULT_SEPARATOR: u8 = 1;
const KINDS: [&str; 4] = ["txt", "avro-txt", "json", "raw"];
const TXT: [&str; 8] = [
    "sep", "empty", "ts", "ts_ms", "ts_sec", "msg", "fields", "bytes",
];
const AVRO: [&str; 7] = [
    "ts", "ts_ms", "ts_sec", "msg", "fields", "bytes", "registry",
];
const JSON: [&str; 3] = ["ts", "ts_ms", "ts_sec"];
/// The names of the separators and their bytes.
pub(crate) const SEPARATORS: [(&str, u8); 6] = [
    ("byte1", 1),
    ("tab", b'\t'),
    ("space", b' '),
    ("semicolon", b';'),
    ("pipe", b'|'),
    ("comma", b','),
];

/// Parses `type` or `type:key=value;key=value`. The error names the setting and says what was
/// expected.
pub fn parse(text: &str) -> Result<RecordLayout, String> {
    let mut pairs = Grammar::parse(Rule::format, text).map_err(|error| malformed(text, &error))?;
    let mut parts = pairs.next().into_iter().flat_map(Pair::into_inner);
    let kind = parts.next().map_or("", |kind| kind.as_str());
    let settings = parts.filter(|part| part.as_rule() == Rule::setting);
    let settings = Settings::new(kind, known_settings(kind)?, settings)?;
    let layout = match kind {
        "txt" if settings.is_empty() => RecordLayout::Line,
        "txt" => RecordLayout::Txt(TxtLayout {
            separator: settings.separator()?.unwrap_or(DEFAULT_SEPARATOR),
            keeps_empty: settings.keeps_empty()?,
            event: settings.event()?,
        }),
        "avro-txt" => {
            let layout = AvroLayout {
                registry: settings.registry()?,
                event: settings.event()?,
            };
            settings.require_whole_or_single(layout.event.message)?;
            RecordLayout::AvroTxt(layout)
        }
        "json" => RecordLayout::Json(JsonLayout {
            time: settings.json_time()?,
        }),
        _ => RecordLayout::Raw,
    };
    Ok(layout)
}

fn malformed(text: &str, error: &pest::error::Error<Rule>) -> String {
    let at = match error.location {
        pest::error::InputLocation::Pos(at) | pest::error::InputLocation::Span((at, _)) => at,
    };
    match text.get(at..).filter(|rest| !rest.is_empty()) {
        Some(rest) => format!(
            "unexpected `{}`; a format is `type` or `type:key=value;key=value`",
            crate::abbreviate(rest)
        ),
        None if text.trim().is_empty() => {
            format!("the format is empty; expected {}", listed(KINDS))
        }
        None => "incomplete format; expected `type` or `type:key=value;key=value`".to_owned(),
    }
}

/// The names of the settings of a format.
fn known_settings(kind: &str) -> Result<&'static [&'static str], String> {
    match kind {
        "txt" => Ok(&TXT),
        "avro-txt" => Ok(&AVRO),
        "json" => Ok(&JSON),
        "raw" => Ok(&[]),
        _ => Err(format!(
            "unknown format `{kind}`; {}",
            suggestion(kind, &KINDS)
        )),
    }
}

/// The settings of one format.
pub(crate) struct Settings<'a> {
    kind: &'a str,
    found: Vec<(&'a str, &'a str)>,
}

impl<'a> Settings<'a> {
    /// Parses the settings of a format, `key=value;key=value`. Returns an error for an unknown
    /// setting and a duplicate setting.
    pub(crate) fn parse(kind: &'a str, known: &[&str], text: &'a str) -> Result<Self, String> {
        let pairs = Grammar::parse(Rule::all_settings, text);
        let pairs = pairs.map_err(|error| malformed(text, &error))?;
        let settings = pairs.flat_map(Pair::into_inner);
        let settings = settings.filter(|part| part.as_rule() == Rule::setting);
        Settings::new(kind, known, settings)
    }

    fn new(
        kind: &'a str,
        known: &[&str],
        settings: impl Iterator<Item = Pair<'a, Rule>>,
    ) -> Result<Self, String> {
        let mut found: Vec<(&str, &str)> = Vec::new();
        for setting in settings {
            let mut inner = setting.into_inner();
            let mut next = || inner.next().map_or("", |part| part.as_str().trim());
            let (key, value) = (next(), next());
            if known.is_empty() {
                return Err(format!(
                    "unexpected setting `{key}`; {kind} has no settings"
                ));
            }
            if !known.contains(&key) {
                return Err(format!(
                    "unknown setting `{key}` of {kind}; {}",
                    suggestion(key, known)
                ));
            }
            if found.iter().any(|(other, _)| *other == key) {
                return Err(format!("duplicate setting `{key}`"));
            }
            found.push((key, value));
        }
        Ok(Settings { kind, found })
    }

    fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The value of a setting.
    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        self.found
            .iter()
            .find(|(found, _)| *found == key)
            .map(|(_, value)| *value)
    }

    /// The byte that the setting `sep` names.
    pub(crate) fn separator(&self) -> Result<Option<u8>, String> {
        let Some(name) = self.get("sep") else {
            return Ok(None);
        };
        if let Some((_, byte)) = SEPARATORS.iter().find(|(separator, _)| *separator == name) {
            return Ok(Some(*byte));
        }
        Err(format!(
            "invalid `sep` value `{}`; {}",
            crate::abbreviate(name),
            suggestion(name, &SEPARATORS.map(|(name, _)| name))
        ))
    }

    fn keeps_empty(&self) -> Result<bool, String> {
        match self.get("empty") {
            None | Some("skip") => Ok(false),
            Some("keep") => Ok(true),
            Some(other) => Err(format!(
                "invalid `empty` value `{}`; expected keep or skip",
                crate::abbreviate(other)
            )),
        }
    }

    fn registry(&self) -> Result<Option<Secret>, String> {
        match self.get("registry") {
            Some(address)
                if !(address.starts_with("http://") || address.starts_with("https://")) =>
            {
                Err(format!(
                    "invalid `registry` value `{}`; expected an address such as \
                     http://registry:8081",
                    crate::abbreviate(address)
                ))
            }
            address => Ok(address.map(|address| Secret::new(address.trim_end_matches('/')))),
        }
    }

    fn event(&self) -> Result<EventLayout, String> {
        let Some((key, value, unit)) = self.time()? else {
            return Err(format!(
                "missing setting `ts`, `ts_ms` or `ts_sec` of {}; expected the index of the \
                 event-time field, or -1",
                self.kind
            ));
        };
        let index = number(value).ok_or_else(|| {
            format!(
                "invalid `{key}` value `{}`; expected the index of a field, starting at 0, or -1",
                crate::abbreviate(value)
            )
        })?;
        let time = usize::try_from(index)
            .ok()
            .map(|field| EventTime { field, unit });
        Ok(EventLayout {
            time,
            message: self.message()?,
            bytes: self.bytes()?,
            fields: self.fields()?,
        })
    }

    /// The setting with the event time, as name, value and unit; `None` if it is not set.
    fn time(&self) -> Result<Option<(&'static str, &'a str, EventUnit)>, String> {
        let units = [
            ("ts", EventUnit::Milliseconds),
            ("ts_ms", EventUnit::Milliseconds),
            ("ts_sec", EventUnit::Seconds),
        ];
        let mut given = units
            .iter()
            .filter_map(|(key, unit)| self.get(key).map(|value| (*key, value, *unit)));
        let first = given.next();
        match (&first, given.next()) {
            (Some((one, ..)), Some((other, ..))) => Err(format!(
                "conflicting settings `{one}` and `{other}`; keep one"
            )),
            _ => Ok(first),
        }
    }

    fn message(&self) -> Result<FieldRange, String> {
        self.get("msg").map_or(Ok(FieldRange::ALL), |value| {
            field_range(value).ok_or_else(|| {
                format!(
                    "invalid `msg` value `{}`; expected the index of a field, starting at 0, a \
                    slice `a:b`, `a:`, `:b` or `:`, or -1",
                    crate::abbreviate(value)
                )
            })
        })
    }

    /// Avro has no separator that could join several fields, so the message is one field or all.
    fn require_whole_or_single(&self, message: FieldRange) -> Result<(), String> {
        if message.is_all() || message.single().is_some() {
            return Ok(());
        }
        let given = self.get("msg").unwrap_or_default();
        Err(format!(
            "invalid `msg` value `{given}` of {}; expected the index of a field, starting at 0, or \
             -1 for the whole record",
            self.kind
        ))
    }

    fn bytes(&self) -> Result<bool, String> {
        match self.get("bytes") {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(format!(
                "invalid `bytes` value `{}`; expected true or false",
                crate::abbreviate(other)
            )),
        }
    }

    /// The names in the value of a setting; none if it is not set.
    pub(crate) fn names(&self, key: &str) -> Result<Vec<String>, String> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let wrong = || {
            format!(
                "invalid `{key}` value `{}`; expected a list of names such as `a,b,c`",
                crate::abbreviate(value)
            )
        };
        let pairs = Grammar::parse(Rule::names, value).map_err(|_| wrong())?;
        let names = pairs
            .flat_map(Pair::into_inner)
            .filter(|part| part.as_rule() == Rule::name);
        let mut fields: Vec<String> = Vec::new();
        for name in names.map(|name| name.as_str().to_owned()) {
            if fields.contains(&name) {
                return Err(format!("duplicate name `{name}` in `{key}`"));
            }
            fields.push(name);
        }
        Ok(fields)
    }

    fn fields(&self) -> Result<Vec<String>, String> {
        let fields = self.names("fields")?;
        for (name, own) in [("event_ts", "ts"), ("event_msg", "msg")] {
            if fields.iter().any(|field| field == name) && fields.iter().any(|field| field == own) {
                return Err(format!(
                    "`fields` cannot name both `{own}` and `{name}`: one of them is the name of a \
                     field that the format adds"
                ));
            }
        }
        Ok(fields)
    }

    fn json_time(&self) -> Result<Option<JsonTime>, String> {
        let Some((key, value, unit)) = self.time()? else {
            return Ok(None);
        };
        if number(value).is_some_and(|number| number < 0) {
            return Ok(None);
        }
        let path = path(value).ok_or_else(|| {
            format!(
                "invalid `{key}` value `{}`; expected a path such as user.seen, or -1",
                crate::abbreviate(value)
            )
        })?;
        Ok(Some(JsonTime { path, unit }))
    }
}

/// Parses an integer. One that does not fit 64 bits saturates.
fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(if text.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    }))
}

fn field_range(text: &str) -> Option<FieldRange> {
    let field_range = Grammar::parse(Rule::range, text)
        .ok()?
        .next()?
        .into_inner()
        .next()?;
    if field_range.as_rule() == Rule::number {
        return number(field_range.as_str())
            .map(|index| usize::try_from(index).map_or(FieldRange::ALL, FieldRange::one));
    }
    let (start, end) = field_range.as_str().split_once(':')?;
    let bound = |text: &str| {
        if text.trim().is_empty() {
            Some(-1)
        } else {
            number(text.trim())
        }
    };
    Some(FieldRange::slice(bound(start)?, bound(end)?))
}

/// Parses a path as expressions write it; otherwise names separated by dots, whatever characters
/// the names have.
fn path(text: &str) -> Option<Path> {
    if let Ok(expr) = pseidon_dsl::expr::parse(&Text::plain(text, 0))
        && let ExprKind::Path(path) = expr.kind
    {
        return Some(path);
    }
    let names: Vec<_> = text
        .split('.')
        .map(|name| PathStep::Field(name.to_owned()))
        .collect();
    (!text.split('.').any(|name| name.trim().is_empty())).then_some(Path(names))
}

/// A suggestion for an unknown name: the nearest known name, or the list of all.
fn suggestion(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("expected {}", listed(known.iter().copied())),
    }
}

/// `a, b or c`
fn listed<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let mut names: Vec<_> = names.into_iter().collect();
    match names.pop() {
        Some(last) if !names.is_empty() => format!("{} or {last}", names.join(", ")),
        last => last.unwrap_or_default().to_owned(),
    }
}

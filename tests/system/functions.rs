//! Every documented function, through `check` and `run`: with the constants of its example, and
//! with fields that have these values, are NULL, or are missing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use pseidon_dsl::expr::{Expr, ExprKind, Literal, Path, PathStep, parse};
use pseidon_dsl::node::Text;
use pseidon_expr::aggregate::is_aggregate;
use pseidon_expr::types::json_field;
use pseidon_expr::{Column, Scope, compile, functions};

use crate::harness::Site;

/// A call of a documented example, with its value.
struct Call {
    /// With [`FIELD`] in the place of one of its constants.
    text: String,
    value: String,
    /// The constant in JSON. `None` for a call of constants.
    field: Option<String>,
}

const FIELD: &str = "the_field";

/// A constant as JSON; `None` for what is not a number or a string.
fn in_json(constant: &Expr) -> Option<String> {
    match &constant.kind {
        ExprKind::Literal(Literal::Str(text)) => Some(format!("{text:?}")),
        ExprKind::Literal(Literal::Int(_) | Literal::Float(_)) => Some(constant.to_string()),
        _ => None,
    }
}

/// Whether `check` accepts the call with a field without a type.
fn is_accepted(text: &str) -> bool {
    let column = Column {
        path: Path(vec![PathStep::Field(FIELD.to_owned())]),
        field: Arc::new(json_field(FIELD)),
    };
    let columns = vec![column];
    let expr = parse(&Text::plain(text, 0)).expect("a call");
    compile(&expr, &Scope { columns }).is_ok()
}

/// The call with a field in the place of the argument at `at`. `None` if that must be a constant.
fn with_field(name: &str, args: &[Expr], at: usize, value: &str) -> Option<Call> {
    let json = in_json(args.get(at)?)?;
    let mut texts: Vec<String> = args.iter().map(Expr::to_string).collect();
    texts[at] = FIELD.to_owned();
    let text = format!("{name}({})", texts.join(", "));
    is_accepted(&text).then(|| Call {
        text,
        value: value.to_owned(),
        field: Some(json),
    })
}

/// All calls: the examples, and those with one of their arguments as a field.
fn calls() -> Vec<Call> {
    let all = functions().into_iter();
    let scalar = all.filter(|function| !is_aggregate(&function.name));
    let examples = scalar.flat_map(|function| function.examples);
    let variants = examples.flat_map(|example| {
        let call = parse(&Text::plain(example.call.as_str(), 0)).expect("an example");
        let fields = match &call.kind {
            ExprKind::Call { name, args, .. } => (0..args.len())
                .filter_map(|at| with_field(name, args, at, &example.value))
                .collect(),
            _ => Vec::new(),
        };
        let constants = Call {
            text: example.call.clone(),
            value: example.value.clone(),
            field: None,
        };
        std::iter::once(constants).chain(fields)
    });
    variants.collect()
}

/// Whether a value of JSON is the documented one, apart from how values are printed: bytes are
/// base64 and not hexadecimal, times have all digits of their unit, strings in lists have quotes,
/// and the page shows no spaces at the ends.
fn is_value(found: &str, expected: &str) -> bool {
    let plain = |text: &str| {
        let text = text.trim().replace(", ", ",").replace(": ", ":");
        let text = text.replace('"', "").replace("NULL", "null");
        let is_time = text
            .get(..4)
            .is_some_and(|year| year.bytes().all(|c| c.is_ascii_digit()));
        match is_time && text.contains(':') {
            true => {
                let text = text.replace('T', " ").replace('Z', "");
                text.replace(".000000000", "").replace(".000000", "")
            }
            false => text,
        }
    };
    let text = found.trim_matches('"');
    if plain(text) == plain(expected) {
        return true;
    }
    if let (Ok(found), Ok(expected)) = (text.parse::<f64>(), expected.parse::<f64>()) {
        return (found - expected).abs() <= 1e-4 * expected.abs();
    }
    let bytes = BASE64_STANDARD.decode(text).unwrap_or_default();
    let hex = bytes.iter().map(|byte| format!("{byte:02x}"));
    hex.collect::<String>() == expected
}

/// The pipeline with a branch for each call, and the lines of its input: the fields of each call
/// have the documented values, then NULL, and are missing in the last record.
fn pipeline(calls: &[Call]) -> (String, String) {
    let (mut branches, mut values, mut nulls) = (String::new(), String::new(), String::new());
    for (number, call) in calls.iter().enumerate() {
        let text = call.text.replace(FIELD, &format!("f{number}"));
        if let Some(json) = &call.field {
            let _ = write!(values, "\"f{number}\":{json},");
            let _ = write!(nulls, "\"f{number}\":null,");
        }
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(
            branches,
            "(-> (select \"{text} as v\" {{:on-error :noop}}) (files {{:path \"out/{number}\" :codec :json}}))"
        );
    }
    let edn = format!("{{in (files \"in.ndjson\")\n pipeline (-> in (all {branches}))}}");
    let end = "\"end\":0}\n";
    (edn, format!("{{{values}{end}{{{nulls}{end}{{{end}"))
}

#[test]
fn documented_functions_are_checked_and_run() {
    let calls = calls();
    assert!(calls.len() > 250, "{}", calls.len());
    let site = Site::new("functions");
    let (edn, input) = pipeline(&calls);
    site.write("in.ndjson", &input);
    let file = site.write("p.edn", &edn);
    for command in ["check", "run"] {
        let result = site.pseidon().arg(command).arg(&file).output();
        let result = result.expect("the binary starts");
        let log = String::from_utf8_lossy(&result.stderr).into_owned();
        assert!(result.status.success(), "{command}: {log}");
    }
    let mut lines: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for number in 0..calls.len() {
        let files = crate::harness::output::files(&site.path(&format!("out/{number}")));
        let found = files
            .iter()
            .flat_map(|path| crate::harness::output::lines(path));
        lines.insert(number, found.collect());
    }
    let mut wrong = Vec::new();
    for (call, lines) in calls.iter().zip(lines.values()) {
        let value = lines.first().and_then(|line| line.strip_prefix("{\"v\":"));
        let value = value
            .and_then(|line| line.strip_suffix('}'))
            .unwrap_or_default();
        if !is_value(value, &call.value) {
            wrong.push(format!("{} is {value}, not {}", call.text, call.value));
        }
        if call.field.is_none() && lines.len() != 3 {
            wrong.push(format!("{} has {} records", call.text, lines.len()));
        }
        // NULL and a missing field are the same.
        if let [_, null, missing] = &lines[..]
            && null != missing
            && !call.text.contains("random()")
        {
            wrong.push(format!("{} is {null} and {missing}", call.text));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! An EDN printer.
//!
//! edn-rs is not used for this: it sorts maps and sets, prints `1.0` as `1`, prints control
//! characters as Rust escapes that no EDN reader accepts, and has no exact numbers. A test checks
//! that its reader and ours agree, and that it reads what is printed here.

mod pretty;

use std::fmt::Write;

use crate::printable::is_printable;
use crate::{Node, NodeKind};
pub use pretty::pretty;

/// The form on one line. Reading the output returns the same value, except that a string that
/// contains a secret is printed as `…`.
pub fn print(node: &Node) -> String {
    let mut out = String::new();
    write_node(&mut out, node, ", ");
    out
}

/// A list as it can be written in a file. Of a long one, the last forms are left out.
pub fn list(mut items: Vec<Node>) -> String {
    const LONGEST: usize = 100;

    let mut end = ")";
    loop {
        let shown: Vec<String> = items.iter().map(print).collect();
        let text = format!("({}{end}", shown.join(" "));
        if text.chars().count() <= LONGEST || items.len() <= 1 {
            return text;
        }
        items.pop();
        end = " …)";
    }
}

/// Writes a form on one line; `between` separates the entries of a map.
fn write_node(out: &mut String, node: &Node, between: &str) {
    match &node.kind {
        NodeKind::Nil => out.push_str("nil"),
        NodeKind::Bool(value) => write_display(out, value),
        NodeKind::Int(value) => write_display(out, value),
        NodeKind::BigInt(digits) => {
            out.push_str(digits);
            // Without the suffix, a number that fits in 64 bits would be read as an `Int`.
            if digits.parse::<i64>().is_ok() {
                out.push('N');
            }
        }
        // `Debug` keeps the point of `1.0` and uses an exponent where that is shorter.
        NodeKind::Float(value) => write_display(out, format_args!("{value:?}")),
        NodeKind::Decimal(digits) => {
            out.push_str(digits);
            out.push('M');
        }
        NodeKind::Char(value) => write_char(out, *value),
        NodeKind::Str(text) => write_str(out, &text.shown()),
        NodeKind::Symbol(name) => write_display(out, name),
        NodeKind::Keyword(name) => write_display(out, format_args!(":{name}")),
        NodeKind::List(items) => write_items(out, ("(", items, ')'), between),
        NodeKind::Vector(items) => write_items(out, ("[", items, ']'), between),
        NodeKind::Set(items) => write_items(out, ("#{", items, '}'), between),
        NodeKind::Map(entries) => {
            out.push('{');
            for (at, (key, value)) in entries.iter().enumerate() {
                if at > 0 {
                    out.push_str(between);
                }
                write_node(out, key, between);
                out.push(' ');
                write_node(out, value, between);
            }
            out.push('}');
        }
        NodeKind::Regex(text) => write_display(out, format_args!("#r\"{}\"", text.shown())),
        NodeKind::Tagged(tag, value) => {
            write_display(out, format_args!("#{tag} "));
            write_node(out, value, between);
        }
    }
}

fn write_display(out: &mut String, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("writing to a String cannot fail");
}

fn write_items(out: &mut String, (open, items, close): (&str, &[Node], char), between: &str) {
    out.push_str(open);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        write_node(out, item, between);
    }
    out.push(close);
}

fn write_char(out: &mut String, value: char) {
    match value {
        '\n' => out.push_str("\\newline"),
        '\r' => out.push_str("\\return"),
        '\t' => out.push_str("\\tab"),
        ' ' => out.push_str("\\space"),
        '\u{8}' => out.push_str("\\backspace"),
        '\u{c}' => out.push_str("\\formfeed"),
        other if !is_printable(other) || other.is_whitespace() => {
            write_display(out, format_args!("\\u{:04x}", u32::from(other)))
        }
        other => write_display(out, format_args!("\\{other}")),
    }
}

fn write_str(out: &mut String, value: &str) {
    out.push('"');
    for next in value.chars() {
        match next {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            other if !is_printable(other) => {
                write_display(out, format_args!("\\u{:04x}", u32::from(other)))
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

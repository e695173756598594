//! A pretty-printer for EDN.

use super::write_node;
use crate::{Node, NodeKind};

/// The maximum line width in characters, not counting closing delimiters.
const WIDTH: usize = 116;

/// The form in a readable layout: each entry of the outermost map on its own line, everything else
/// on as few lines as possible. Reading the output returns the same value, except that a string
/// that contains a secret is printed as `…`.
pub fn pretty(node: &Node) -> String {
    let mut printer = Printer {
        out: String::new(),
        line: 0,
    };
    match &node.kind {
        NodeKind::Map(entries) => printer.entries(entries, false),
        _ => printer.node(node),
    }
    printer.out
}

struct Printer {
    out: String,
    /// The byte offset in `out` at which the current line begins.
    line: usize,
}

impl Printer {
    fn node(&mut self, node: &Node) {
        let flat = flat(node);
        if self.fits(&flat) {
            self.out.push_str(&flat);
            return;
        }
        match &node.kind {
            NodeKind::Map(entries) => self.entries(entries, true),
            NodeKind::Vector(items) => self.items("[", items, ']'),
            NodeKind::Set(items) => self.items("#{", items, '}'),
            NodeKind::List(items) => self.list(items),
            NodeKind::Tagged(tag, value) => {
                self.out.push_str(&format!("#{tag} "));
                self.node(value);
            }
            _ => self.out.push_str(&flat),
        }
    }

    /// Prints a map. With `fill`, several entries may share a line.
    fn entries(&mut self, entries: &[(Node, Node)], fill: bool) {
        self.out.push('{');
        let indent = self.column();
        for (at, (key, value)) in entries.iter().enumerate() {
            let (key, flat_value) = (flat(key), flat(value));
            if at > 0 {
                self.separate(indent, fill && self.fits(&format!(" {key} {flat_value}")));
            }
            self.out.push_str(&key);
            self.out.push(' ');
            self.node(value);
        }
        self.out.push('}');
    }

    fn items(&mut self, open: &str, items: &[Node], close: char) {
        self.out.push_str(open);
        self.filled(items);
        self.out.push(close);
    }

    /// Prints a list. Continuation lines are indented to its first argument.
    fn list(&mut self, items: &[Node]) {
        self.out.push('(');
        if let Some((head, rest)) = items.split_first() {
            self.node(head);
            if !rest.is_empty() {
                self.out.push(' ');
            }
            self.filled(rest);
        }
        self.out.push(')');
    }

    fn filled(&mut self, items: &[Node]) {
        let indent = self.column();
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.separate(indent, self.fits(&format!(" {}", flat(item))));
            }
            self.node(item);
        }
    }

    fn separate(&mut self, indent: usize, same_line: bool) {
        if same_line {
            self.out.push(' ');
            return;
        }
        self.out.push('\n');
        self.line = self.out.len();
        self.out.push_str(&" ".repeat(indent));
    }

    fn fits(&self, more: &str) -> bool {
        self.column() + more.chars().count() <= WIDTH
    }

    fn column(&self) -> usize {
        self.out
            .get(self.line..)
            .unwrap_or_default()
            .chars()
            .count()
    }
}

fn flat(node: &Node) -> String {
    let mut out = String::new();
    write_node(&mut out, node, " ");
    out
}

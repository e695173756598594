//! `pseidon functions`: the functions of expressions, with examples that the tests run.

use pseidon_expr::{FunctionReference, functions};

use crate::cli::Exit;
use crate::{output, stderr_line};

/// The width of the column with the names.
const NAME_WIDTH: usize = 24;

/// Prints the list of functions, or what is known of the function `name`.
pub(crate) fn show(name: Option<&str>) -> Exit {
    let all = functions();
    let Some(name) = name else {
        return output::print(&list(all));
    };
    let name = name.to_lowercase();
    let is_named = |function: &&FunctionReference| {
        function.name == name || function.other_names.contains(&name)
    };
    if let Some(function) = all.iter().find(is_named) {
        return output::print(&page(function));
    }
    stderr_line!("error: unknown function `{name}`");
    let other_names = all.iter().flat_map(|function| &function.other_names);
    let names = all.iter().map(|function| &function.name).chain(other_names);
    match pseidon_dsl::nearest(&name, names.map(String::as_str)) {
        Some(near) => stderr_line!("  help: did you mean `{near}`?"),
        None => stderr_line!("  help: `pseidon functions` lists them"),
    }
    Exit::WrongFile
}

/// The functions by section, each with the beginning of its description.
fn list(mut all: Vec<FunctionReference>) -> String {
    all.sort_by(|one, other| (&one.section, &one.name).cmp(&(&other.section, &other.name)));
    let mut text = String::new();
    let mut section = "";
    for function in &all {
        if function.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            text += &format!("{gap}{}\n", function.section);
            section = &function.section;
        }
        let line = first_sentence(&function.description);
        text += &format!("  {:<NAME_WIDTH$} {line}\n", function.name);
    }
    text
}

fn first_sentence(description: &str) -> &str {
    let paragraph = description.lines().next().unwrap_or_default();
    let end = paragraph.find(". ").map_or(paragraph.len(), |end| end + 1);
    &paragraph[..end]
}

fn page(function: &FunctionReference) -> String {
    let mut text = format!("{}\n\n", function.syntax);
    text += &function.description;
    text.push('\n');
    if !function.other_names.is_empty() {
        text += &format!("\nAlso called {}.\n", function.other_names.join(", "));
    }
    if !function.arguments.is_empty() {
        text.push('\n');
    }
    for (name, description) in &function.arguments {
        text += &format!("  {name}: {description}\n");
    }
    text.push('\n');
    for example in &function.examples {
        text += &format!("  {} = {}\n", example.call, example.value);
    }
    text
}

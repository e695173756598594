//! `pseidon plugins`: the reference pages, made from the plugins' own declarations.

use std::fmt::Write;

use pseidon_plan::settings::SETTINGS;
use pseidon_plan::transforms::TRANSFORMS;
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec};

use crate::Exit;
use crate::plugins::registry;

/// Prints the list, one page, or all pages.
pub(crate) fn show(name: Option<&str>, markdown: bool) -> Exit {
    let registry = registry();
    let specs: Vec<&PluginSpec> = registry.specs().chain(TRANSFORMS).collect();
    if markdown {
        print!("{}", pages());
        return Exit::Done;
    }
    let Some(name) = name else {
        for spec in &specs {
            println!(
                "{:<10} {:<10} {}",
                spec.role.as_str(),
                spec.name,
                spec.summary
            );
        }
        for format in &registry.formats {
            println!(
                "{:<10} {:<10} {}",
                "format",
                format.name(),
                format.summary()
            );
        }
        return Exit::Done;
    };
    let found: Vec<&&PluginSpec> = specs.iter().filter(|spec| spec.name == name).collect();
    if found.is_empty() {
        eprintln!("error: there is no plugin `{name}`");
        if let Some(near) = pseidon_dsl::nearest(name, specs.iter().map(|spec| spec.name)) {
            eprintln!("  did you mean `{near}`?");
        }
        return Exit::WrongFile;
    }
    found.iter().for_each(|spec| print!("{}", page(spec)));
    Exit::Done
}

/// All reference pages as one Markdown text.
pub(crate) fn pages() -> String {
    let registry = registry();
    let mut text = String::from("# Plugins\n\n");
    text.push_str(
        "Printed by `pseidon plugins --markdown` from the plugins' own declarations.\n\n",
    );
    registry
        .specs()
        .chain(TRANSFORMS)
        .for_each(|spec| text.push_str(&page(spec)));
    text.push_str("## Formats\n\n");
    for format in &registry.formats {
        let _ = writeln!(text, "- `{}`: {}", format.name(), format.summary());
    }
    text.push('\n');
    text.push_str("## `:settings`\n\n");
    let _ = writeln!(
        text,
        "{}\n\n```clojure\n:settings {}\n```\n",
        SETTINGS.summary, SETTINGS.example
    );
    options(&mut text, SETTINGS.options, "");
    text
}

fn page(spec: &PluginSpec) -> String {
    let mut text = format!(
        "## {} `{}`\n\n{}\n\n",
        spec.role.as_str(),
        spec.name,
        spec.summary
    );
    if !spec.details.is_empty() {
        let _ = writeln!(text, "{}\n", spec.details);
    }
    let _ = writeln!(text, "```clojure\n{}\n```\n", spec.example);
    if let Some(first) = spec.positional {
        let _ = writeln!(
            text,
            "The first argument, where it is not a map, is `:{first}`.\n"
        );
    }
    options(&mut text, spec.options, "");
    text
}

fn options(text: &mut String, declared: &[OptionSpec], indent: &str) {
    for option in declared {
        let default = match option.default {
            OptionDefault::Required => "required".to_owned(),
            OptionDefault::None => "optional".to_owned(),
            OptionDefault::Value("") => "optional".to_owned(),
            OptionDefault::Value(value) => format!("default `{value}`"),
        };
        let _ = writeln!(
            text,
            "{indent}- `:{}` ({}; {default}). {}",
            option.name,
            option.kind.describe(),
            option.doc
        );
        if let OptionKind::Map(inner) = option.kind {
            options(text, inner, &format!("{indent}  "));
        }
    }
    if indent.is_empty() {
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    /// The page in the repository is what the binary prints. `UPDATE_DOCS=1 cargo test` writes it
    /// anew.
    #[test]
    fn the_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plugins.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, super::pages()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            page,
            super::pages(),
            "docs/plugins.md is out of date: run the tests once with UPDATE_DOCS=1"
        );
    }
}

//! Tests of the pages of documentation: what a reader can copy from them works.
//!
//! 1. [`page`]: a page as its code blocks, its text and its headings.
//! 2. [`block`]: a code block of a pipeline file, completed to a file and checked by the commands.
//! 3. [`shell`]: the `pseidon` commands in a block of shell commands, or in the text.

mod block;
mod page;
mod shell;

use std::collections::BTreeMap;
use std::path::Path;

use block::Files;
use page::Page;

/// Every code block is checked. `docs/STYLE.md` says by what its info string says.
#[test]
fn every_code_block_is_valid() {
    let mut problems = Vec::new();
    let (mut pipelines, mut commands) = (0, 0);
    let pages = page::all();
    let tables: Vec<_> = pages.iter().flat_map(|page| &page.blocks).collect();
    for page in &pages {
        let mut files = Files::new(&tables);
        for block in &page.blocks {
            let (language, words) = block.info.split_once(' ').unwrap_or((&block.info, ""));
            let checked = match (language, words) {
                // A file that the pipelines of all pages can read.
                ("csv" | "clojure", _) if block.file().is_some() => Ok(()),
                ("clojure" | "edn" | "toml", _) => {
                    pipelines += 1;
                    files.check(block)
                }
                ("sh" | "console", "") => shell::check(block).map(|count| commands += count),
                // tests/system/recipe_commands.rs runs them with the files that they read.
                ("sh", "run") if page.name.ends_with("recipes.md") => Ok(()),
                // Output, or a drawing.
                ("text", "") => Ok(()),
                // The end-to-end tests create their tables with it.
                ("sql", "table") => Ok(()),
                _ => Err(format!("the info string `{}` is unknown", block.info)),
            };
            if let Err(reason) = checked {
                problems.push(format!("{}:{}: {reason}", page.name, block.line));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    // The pages are found, and their blocks.
    assert!(pipelines > 15, "{pipelines} blocks of pipelines");
    assert!(commands > 8, "{commands} commands in blocks");
}

/// The commands in the text, such as `pseidon run --previous FILE`, have subcommands and flags that
/// exist.
#[test]
fn every_command_in_the_text_exists() {
    let mut problems = Vec::new();
    for page in page::all() {
        for command in page.commands_in_text() {
            if let Err(reason) = shell::check_names(&command) {
                problems.push(format!("{}: `{command}`: {reason}", page.name));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// A link to a file or a heading of this repository leads there.
#[test]
fn every_link_leads_somewhere() {
    let pages: BTreeMap<_, _> = page::all()
        .into_iter()
        .map(|page| (page.path.clone(), page))
        .collect();
    let mut problems = Vec::new();
    for page in pages.values() {
        for link in page.links() {
            if !leads_somewhere(page, &link, &pages) {
                problems.push(format!("{}: `{link}` leads nowhere", page.name));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn leads_somewhere(page: &Page, link: &str, pages: &BTreeMap<std::path::PathBuf, Page>) -> bool {
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() {
        Some(page.path.clone())
    } else {
        let folder = page.path.parent().unwrap_or(Path::new("."));
        folder.join(path).canonicalize().ok()
    };
    target.is_some_and(|target| {
        heading.is_empty()
            || pages
                .get(&target)
                .is_some_and(|page| page.headings.iter().any(|found| found == heading))
    })
}

//! The calls of `pseidon` among shell commands: parsed by the command line's own parser.

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command, FileArgs};

use super::block;
use super::page::Block;

/// Parses the calls of `pseidon` in a block, and checks the flow of `-e`. Returns how many calls
/// there are. In a `console` block, lines that begin with `$` are commands.
pub(super) fn check(block: &Block) -> Result<usize, String> {
    let code = if block.info == "console" {
        let typed = block
            .code
            .lines()
            .filter_map(|line| line.strip_prefix("$ "));
        typed.map(|line| format!("{line}\n")).collect()
    } else {
        block.code.clone()
    };
    let calls = calls_of_pseidon(&code);
    for call in &calls {
        parse(call).map_err(|error| error.to_string())?;
        check_flow(call)?;
    }
    Ok(calls.len())
}

/// Checks the names of the subcommands and flags in `command`, and the flow of `-e`. Arguments may
/// be omitted or stand for others, such as FILE.
pub(super) fn check_names(command: &str) -> Result<(), String> {
    let calls = calls_of_pseidon(command);
    for call in &calls {
        match parse(call) {
            Err(error) if is_about_names(error.kind()) => return Err(error.to_string()),
            _ => check_flow(call)?,
        }
    }
    if calls.is_empty() {
        return Err("the command is not understood".to_owned());
    }
    Ok(())
}

fn is_about_names(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand
    )
}

/// `None` if the call asks for the help or the version.
fn parse(call: &[String]) -> Result<Option<Cli>, clap::Error> {
    match Cli::try_parse_from(call) {
        Err(error) if !error.use_stderr() => Ok(None),
        parsed => parsed.map(Some),
    }
}

fn check_flow(call: &[String]) -> Result<(), String> {
    let from: FileArgs = match parse(call) {
        Ok(Some(Cli {
            command: Command::Run(args),
            ..
        })) => args.from,
        Ok(Some(Cli {
            command: Command::Check(from),
            ..
        })) => from,
        _ => return Ok(()),
    };
    match from.expression {
        Some(_) => block::plan(&from),
        None => Ok(()),
    }
}

/// The calls of `pseidon` in `code`, each as its words.
fn calls_of_pseidon(code: &str) -> Vec<Vec<String>> {
    let is_assignment = |word: &String| {
        word.split_once('=')
            .is_some_and(|(name, _)| !name.starts_with('-'))
    };
    simple_commands(code)
        .into_iter()
        .map(|words| words.into_iter().skip_while(is_assignment).collect())
        .filter(|words: &Vec<String>| {
            words
                .first()
                .is_some_and(|program| program.rsplit('/').next() == Some("pseidon"))
        })
        .collect()
}

/// Splits shell code into commands and their words. Redirections and comments are omitted.
/// Substitutions are not understood: they count as words.
fn simple_commands(code: &str) -> Vec<Vec<String>> {
    let mut parsed = Commands::default();
    let mut characters = code.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\'' | '"' => {
                let mut quoted = String::new();
                while let Some(inner) = characters.next_if(|inner| *inner != character) {
                    let is_escape = inner == '\\' && character == '"';
                    quoted.extend(if is_escape {
                        characters.next()
                    } else {
                        Some(inner)
                    });
                }
                characters.next();
                parsed.append(&quoted);
            }
            '\\' if characters.next_if_eq(&'\n').is_some() => parsed.end_word(),
            '\\' => parsed.append(&characters.next().into_iter().collect::<String>()),
            '#' if parsed.word.is_none() => {
                while characters.next_if(|rest| *rest != '\n').is_some() {}
            }
            '>' | '<' => parsed.redirect(),
            '&' if parsed.is_redirection && parsed.word.is_none() => {}
            ';' | '|' | '&' | '\n' | '(' | ')' => parsed.end_command(),
            ' ' | '\t' => parsed.end_word(),
            _ => parsed.append(character.encode_utf8(&mut [0; 4])),
        }
    }
    parsed.end_command();
    parsed.commands
}

/// The commands that were found so far.
#[derive(Default)]
struct Commands {
    commands: Vec<Vec<String>>,
    words: Vec<String>,
    word: Option<String>,
    /// Whether the next word is the file of a redirection.
    is_redirection: bool,
}

impl Commands {
    fn append(&mut self, text: &str) {
        self.word.get_or_insert_default().push_str(text);
    }

    fn end_word(&mut self) {
        if let Some(word) = self.word.take()
            && !std::mem::take(&mut self.is_redirection)
        {
            self.words.push(word);
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        self.is_redirection = false;
        let words = std::mem::take(&mut self.words);
        if !words.is_empty() {
            self.commands.push(words);
        }
    }

    /// A number before the redirection is the number of a file, and not a word.
    fn redirect(&mut self) {
        self.word
            .take_if(|word| word.chars().all(|digit| digit.is_ascii_digit()));
        self.end_word();
        self.is_redirection = true;
    }
}

#[test]
fn calls_are_found_among_shell_commands() {
    let cases: [(&str, &[&[&str]]); 5] = [
        ("ls | wc", &[]),
        (
            "A=1 pseidon run 'a b' \"c\\\"d\" 2> x.log &\nls",
            &[&["pseidon", "run", "a b", "c\"d"]],
        ),
        (
            "x/pseidon man a >> b 2>&1 c # d",
            &[&["x/pseidon", "man", "a", "c"]],
        ),
        (
            "pseidon a \\\n  b; pseidon c",
            &[&["pseidon", "a", "b"], &["pseidon", "c"]],
        ),
        ("echo 'pseidon a\npseidon b'", &[]),
    ];
    for (code, expected) in cases {
        assert_eq!(calls_of_pseidon(code), expected, "{code}");
    }
}

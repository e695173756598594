//! `pseidon import`: the pipeline file that the configuration of an older system means.
//!
//! The same conversion stands before everything that takes a pipeline file, so such a configuration
//! runs as it is.

use std::path::Path;

use pseidon_dsl::legacy::pseidon_etl;

use crate::Exit;
use crate::load::{self, Kind, Text};

/// Prints the pipeline file that `file` means, and on standard error what there is to say of its
/// keys.
pub(crate) fn import(file: &Path) -> Exit {
    match try_import(file) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_import(file: &Path) -> Result<Exit, Exit> {
    let old = load::read(file)?;
    if !is_old(&old) {
        eprintln!(
            "error: {} is none of the files that can be imported: expected pseidon.edn, the configuration of pseidon-etl",
            old.name
        );
        return Ok(Exit::WrongFile);
    }
    let converted = pseidon_etl::convert(&old.text).map_err(|mistakes| old.show(&mistakes))?;
    print!("{}", converted.text);
    for note in &converted.notes {
        eprintln!("{}:{}: {note}", old.name, note.line_in(&old.text));
    }
    Ok(Exit::Done)
}

/// Puts the pipeline file that an older system's file means in its place; any other text stays as
/// it is. What there is to say of the old keys is logged. Mistakes are printed.
pub(crate) fn pipeline(text: Text) -> Result<Text, Exit> {
    if !is_old(&text) {
        return Ok(text);
    }
    let converted = pseidon_etl::convert(&text.text).map_err(|mistakes| text.show(&mistakes))?;
    for note in &converted.notes {
        tracing::warn!(file = text.name, line = note.line_in(&text.text), "{note}");
    }
    Ok(Text {
        text: converted.text,
        ..text
    })
}

fn is_old(text: &Text) -> bool {
    text.kind == Kind::Edn && pseidon_etl::is_one(&text.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edn(text: &str) -> Text {
        Text {
            name: "x.edn".into(),
            text: text.into(),
            kind: Kind::Edn,
            base: ".".into(),
            default_name: "x".into(),
        }
    }

    #[test]
    fn old_files_become_pipelines_and_others_stay_as_they_are() {
        let old = edn("{:etl-db-host \"//h/d\" :kafka-brokers [{:host \"b\"}] :data-dir \"/d\"}");
        let pipeline_text = pipeline(old).ok().expect("it has all it needs");
        assert!(
            pipeline_text.text.contains("(mysql-logs "),
            "{}",
            pipeline_text.text
        );
        assert!(!is_old(&pipeline_text));

        let ours = "{a (stdin) pipeline (-> a (stdout))}";
        assert_eq!(pipeline(edn(ours)).ok().expect("nothing to do").text, ours);
        assert!(pipeline(edn("{:etl-db-host 5}")).is_err());
    }
}

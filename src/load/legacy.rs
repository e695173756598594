//! Legacy configurations: `pseidon.edn` of pseidon-etl is converted to a pipeline file before it is
//! parsed, so that such a file can be passed to any command that takes a pipeline file.

use pseidon_legacy::pseidon_etl;

use super::{PipelineText, TextKind};
use crate::cli::Exit;

/// Converts a legacy configuration to a pipeline file; any other text is returned unchanged. The
/// notes on its keys are logged as warnings. Errors are printed.
pub(super) fn convert(text: PipelineText) -> Result<PipelineText, Exit> {
    if !is_legacy(&text) {
        return Ok(text);
    }
    let converted = pseidon_etl::convert(&text.text).map_err(|errors| text.show(&errors))?;
    for note in &converted.notes {
        tracing::warn!(file = text.name, line = note.line_in(&text.text), "{note}");
    }
    Ok(PipelineText {
        text: converted.text,
        ..text
    })
}

/// Whether the text is a configuration of pseidon-etl.
pub(crate) fn is_legacy(text: &PipelineText) -> bool {
    text.kind == TextKind::Edn && pseidon_etl::is_config(&text.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edn(text: &str) -> PipelineText {
        PipelineText {
            name: "x.edn".into(),
            text: text.into(),
            kind: TextKind::Edn,
            base: ".".into(),
            default_name: "x".into(),
            parameters: crate::load::Parameters::default(),
            tables: Default::default(),
        }
    }

    #[test]
    fn legacy_files_are_converted_and_others_are_unchanged() {
        let legacy =
            edn("{:etl-db-host \"//h/d\" :kafka-brokers [{:host \"b\"}] :data-dir \"/d\"}");
        let converted = convert(legacy).ok().expect("no required key is missing");
        assert!(
            converted.text.contains("(mysql-logs "),
            "{}",
            converted.text
        );
        assert!(!is_legacy(&converted));

        let ours = "{a (stdin) pipeline (-> a (stdout))}";
        assert_eq!(
            convert(edn(ours)).ok().expect("nothing to convert").text,
            ours
        );
        assert!(convert(edn("{:etl-db-host 5}")).is_err());
    }
}

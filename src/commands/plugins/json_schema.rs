//! JSON Schemas of options, for editors and other programs.
//!
//! The schemas describe values as they are in TOML and JSON. Keywords are strings there. Any scalar
//! can be a string, because `${env:NAME}` is only allowed in strings.

use pseidon_plan::settings::SETTINGS;
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec};
use serde_json::{Map, Value, json};

/// A schema with a definition for each plugin, such as `sink files`, and with `:settings` if the
/// schema is for `all` options.
pub(super) fn schema(specs: &[&PluginSpec], all: bool) -> Value {
    let mut definitions = Map::new();
    for spec in specs {
        let name = format!("{} {}", spec.role.as_str(), spec.name);
        definitions.insert(name, described(spec.summary, group(spec.options)));
    }
    if all {
        let settings = described(SETTINGS.summary, group(SETTINGS.options));
        definitions.insert(SETTINGS.name.to_owned(), settings);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": definitions,
    })
}

fn described(description: &str, mut schema: Value) -> Value {
    schema["description"] = description.into();
    schema
}

/// The schema of a map of options.
fn group(options: &[OptionSpec]) -> Value {
    let is_required = |option: &&OptionSpec| option.default == OptionDefault::Required;
    let required: Vec<&str> = options
        .iter()
        .filter(is_required)
        .map(|option| option.name)
        .collect();
    let properties: Map<String, Value> = options
        .iter()
        .map(|option| (option.name.to_owned(), property(option)))
        .collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(option: &OptionSpec) -> Value {
    let mut property = described(option.doc, value(option.kind));
    match option.default {
        // A group has the defaults of its options.
        OptionDefault::Value("") | OptionDefault::None | OptionDefault::Required => {}
        OptionDefault::Value(default) => property["default"] = default.into(),
    }
    property
}

/// The schema of the values of this kind.
fn value(kind: OptionKind) -> Value {
    let scalar = json!({"type": ["string", "number", "boolean"]});
    match kind {
        OptionKind::String => scalar,
        OptionKind::Choice(names) => json!({"enum": names}),
        OptionKind::Bool => json!({"type": ["boolean", "string"]}),
        OptionKind::Integer => json!({"type": ["integer", "string"], "minimum": 0}),
        OptionKind::IntegerIn { min, max: u64::MAX } => {
            json!({"type": ["integer", "string"], "minimum": min})
        }
        OptionKind::IntegerIn { min, max } => {
            json!({"type": ["integer", "string"], "minimum": min, "maximum": max})
        }
        OptionKind::Number => json!({"type": ["number", "string"]}),
        OptionKind::Bytes | OptionKind::Duration => {
            json!({"type": ["integer", "string"], "minimum": 0})
        }
        OptionKind::Strings | OptionKind::StringsOrRegex => {
            json!({"anyOf": [scalar, {"type": "array", "items": scalar}]})
        }
        OptionKind::Properties => json!({"type": "object", "additionalProperties": scalar}),
        OptionKind::Expr
        | OptionKind::Select
        | OptionKind::Assignments
        | OptionKind::Paths
        | OptionKind::Renamings
        | OptionKind::Regex
        | OptionKind::Template => json!({"type": "string"}),
        OptionKind::Exprs => {
            json!({"type": "object", "additionalProperties": {"type": "string"}})
        }
        OptionKind::Schema => json!({"anyOf": [{"const": "infer"}, {"type": "object"}]}),
        OptionKind::OnError => json!({
            "anyOf": [
                {"enum": ["throw", "noop", "retry", "quarantine"]},
                {"type": "object", "minProperties": 1, "maxProperties": 1},
            ],
        }),
        OptionKind::Map(options) => group(options),
    }
}

#[cfg(test)]
mod tests {
    use pseidon_plugin::sink::SinkPlugin;

    use super::*;

    #[test]
    fn a_schema_describes_every_option_of_a_plugin() {
        let schema = schema(&[pseidon_files::FilesSink.spec()], false);
        let files = &schema["$defs"]["sink files"];
        let properties = &files["properties"];
        assert_eq!(files["additionalProperties"], json!(false));
        assert_eq!(properties["codec"]["default"], json!("json"));
        assert_eq!(
            properties["codec"]["enum"],
            json!(["json", "csv", "tsv", "txt", "raw", "parquet", "avro"])
        );
        assert_eq!(properties["max-open-files"]["minimum"], json!(1));
        assert_eq!(properties["max-open-files"].get("maximum"), None);
        assert_eq!(properties["move-to"]["required"], json!(["path"]));
        assert_eq!(
            properties["rollover"]["properties"]["age"]["default"],
            json!("10m")
        );
        let properties = properties.as_object().unwrap();
        assert_eq!(
            properties.len(),
            pseidon_files::FilesSink.spec().options.len()
        );
        for (name, property) in properties {
            assert_ne!(property["description"], json!(""), "{name}");
        }
    }

    #[test]
    fn the_settings_of_a_pipeline_are_described() {
        let schema = schema(&[], true);
        let settings = &schema["$defs"][":settings"];
        assert_eq!(settings["required"], json!([]));
        let properties = &settings["properties"];
        assert_eq!(properties["memory"]["default"], json!("512MB"));
        let threads = &properties["etl-threads"];
        assert_eq!(
            (&threads["minimum"], &threads["maximum"]),
            (&json!(1), &json!(1024))
        );
    }
}

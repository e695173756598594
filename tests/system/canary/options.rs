//! Pipelines with a secret in each option.

use pseidon_dsl::node::Node;
use pseidon_dsl::{NodeKind, edn, print};
use serde_json::Value;

/// A pipeline with a secret.
pub(super) struct Scene {
    /// What the secret is in, such as `sink files :move-to :prefix`.
    pub(super) option: String,
    /// The pipeline file, with `SERVICE` for the ports.
    pub(super) text: String,
}

const PLAIN: &str = r#""${env:CANARY}""#;

/// Values of an option that is a string.
const STRINGS: &[&str] = &[
    PLAIN,
    r#""${env:SHORT_CANARY}""#,
    r#""a${env:ODD_CANARY}z""#,
    r#""http://user:${env:CANARY}@127.0.0.1:9/${env:CANARY}?q=${env:CANARY}""#,
];

/// Values of an option that is a path, a pattern, an expression or a list of them.
const EXPRESSIONS: &[&str] = &[
    PLAIN,
    r#""'${env:SHORT_CANARY}x' + 1""#,
    r#""'${env:CANARY}'""#,
    r#""n <> '${env:CANARY}'""#,
    r#""concat('${env:CANARY}', n)""#,
    r#""cast(concat('${env:CANARY}', n) as int64) as c""#,
    r#""c = cast(concat('${env:CANARY}', n) as int64)""#,
    r#""cast(concat('${env:CANARY}', n) as int64) > 0""#,
    r#""out/${env:CANARY}/{cast(concat('${env:ODD_CANARY}', n) as int64)}""#,
];

/// Values of an option that is a list of strings, such as a command.
const LISTS: &[&str] = &[
    PLAIN,
    r#"["${env:CANARY}" "${env:ODD_CANARY}"]"#,
    r#"["sh" "-c" "echo ${env:CANARY} >&2; exit 3"]"#,
];

const MAPS: &[&str] = &[
    r#"{:a "${env:CANARY}"}"#,
    r#"{"a" "'${env:CANARY}'"}"#,
    r#"{"a" "cast(concat('${env:CANARY}', n) as int64)"}"#,
];

/// The pipelines for all options in a JSON Schema. `page` returns the page of a plugin.
pub(super) fn scenes(schema: &str, page: impl Fn(&str) -> String) -> Vec<Scene> {
    let schema: Value = serde_json::from_str(schema).expect("JSON");
    let mut scenes = extra();
    for (definition, properties) in schema["$defs"].as_object().expect("definitions") {
        let (role, name) = definition
            .split_once(' ')
            .unwrap_or(("settings", "settings"));
        let found = values(properties);
        if role == "settings" {
            let pipelines = found.into_iter().map(|(path, value)| Scene {
                option: format!(":settings {}", path.join(" ")),
                text: settings(&print(&with(None, &path, &value))),
            });
            scenes.extend(pipelines);
            continue;
        }
        let example = Example::read(&page(name), role, name);
        for (number, argument) in example.arguments.iter().enumerate() {
            if let NodeKind::Map(_) = argument.kind {
                continue;
            }
            for value in EXPRESSIONS.iter().chain(STRINGS) {
                scenes.push(Scene {
                    option: format!("{definition}, argument {number}"),
                    text: pipeline(role, &example.with_argument(number, value)),
                });
            }
        }
        let pipelines = found.into_iter().map(|(path, value)| Scene {
            option: format!("{definition} {}", path.join(" ")),
            text: pipeline(role, &example.with_option(&path, &value)),
        });
        scenes.extend(pipelines);
    }
    scenes
}

/// The names that lead to an option, and its value.
type OptionValue = (Vec<String>, String);

/// Values for each of the options in an object of a schema. An option in a map comes with those that
/// the map requires.
fn values(schema: &Value) -> Vec<OptionValue> {
    let mut found = Vec::new();
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (name, property) in properties {
        let key = format!(":{name}");
        if property["properties"].is_object() {
            let required = required(property);
            for (path, value) in values(property) {
                let path: Vec<_> = std::iter::once(key.clone()).chain(path).collect();
                found.push((path, format!("{value} {required}")));
            }
            continue;
        }
        let of_kind = if property["type"] == "string" {
            EXPRESSIONS
        } else if property["type"] == "object" {
            MAPS
        } else if property["anyOf"][1]["type"] == "array" {
            LISTS
        } else if property["type"]
            .as_array()
            .is_some_and(|types| types.len() == 3)
        {
            STRINGS
        } else {
            &[PLAIN, STRINGS[1], MAPS[0]]
        };
        found.extend(
            of_kind
                .iter()
                .map(|value| (vec![key.clone()], (*value).to_owned())),
        );
    }
    found
}

/// The options that a map requires, with a value.
fn required(schema: &Value) -> String {
    let names = schema["required"].as_array().into_iter().flatten();
    let entries = names
        .filter_map(Value::as_str)
        .map(|name| format!(":{name} \"x\""));
    entries.collect::<Vec<_>>().join(" ")
}

/// The example of a plugin: its arguments.
struct Example {
    plugin: String,
    arguments: Vec<Node>,
}

impl Example {
    /// Reads it from the page of the plugins with this name.
    fn read(page: &str, role: &str, name: &str) -> Example {
        let section = page.split("## ").find(|section| section.starts_with(role));
        let section = section.unwrap_or_else(|| panic!("no {role} in {page}"));
        let code = section
            .split_once("```clojure\n")
            .and_then(|(_, rest)| rest.split_once("```"));
        let (code, _) = code.unwrap_or_else(|| panic!("no example in {section}"));
        let NodeKind::List(mut items) = edn::read(code).expect("EDN").kind else {
            panic!("not a stage: {code}");
        };
        items.remove(0);
        Example {
            plugin: name.to_owned(),
            arguments: items,
        }
    }

    /// The stage with another argument.
    fn with_argument(&self, number: usize, value: &str) -> String {
        let mut arguments = self.arguments.clone();
        arguments[number] = edn::read(value).expect(value);
        self.stage(&arguments)
    }

    /// The stage with an option.
    fn with_option(&self, path: &[String], value: &str) -> String {
        let mut arguments = self.arguments.clone();
        let is_map = |node: &Node| matches!(node.kind, NodeKind::Map(_));
        let options = arguments.pop_if(|last| is_map(last));
        arguments.push(with(options, path, value));
        self.stage(&arguments)
    }

    fn stage(&self, arguments: &[Node]) -> String {
        let shown: Vec<_> = arguments.iter().map(print).collect();
        format!("({} {})", self.plugin, shown.join(" "))
    }
}

fn print(node: &Node) -> String {
    print::print(node)
}

/// A map with a value at a path. Behind the value can be further entries of the map that it is in.
fn with(map: Option<Node>, path: &[String], value: &str) -> Node {
    let map = map.unwrap_or_else(|| edn::read("{}").expect("a map"));
    let NodeKind::Map(mut entries) = map.kind else {
        panic!("not a map");
    };
    let [key, rest @ ..] = path else {
        panic!("no path");
    };
    let position = entries.iter().position(|(name, _)| print(name) == *key);
    let earlier = position.map(|at| entries.remove(at).1);
    if rest.is_empty() {
        let added = edn::read(&format!("[{key} {value}]")).expect(value);
        let NodeKind::Vector(items) = added.kind else {
            panic!("a vector");
        };
        for pair in items.chunks_exact(2) {
            let is_new = |(name, _): &(Node, Node)| print(name) != print(&pair[0]);
            if entries.iter().all(is_new) {
                entries.push((pair[0].clone(), pair[1].clone()));
            }
        }
    } else {
        let earlier = earlier.filter(|node| matches!(node.kind, NodeKind::Map(_)));
        let name = edn::read(key).expect("a keyword");
        entries.push((name, with(earlier, rest, value)));
    }
    Node {
        kind: NodeKind::Map(entries),
        span: map.span,
    }
}

const INPUT: &str =
    r#"in (files {:path "in/*.json" :format :json :on-error {:quarantine "quarantine"}})"#;

/// A pipeline with a stage.
fn pipeline(role: &str, stage: &str) -> String {
    let flow = match role {
        "source" => format!("(-> {stage} (drop))"),
        "sink" => format!("(-> in {stage})"),
        _ => format!("(-> in {stage} (files {{:path \"out\" :codec :json}}))"),
    };
    let input = if role == "source" { "" } else { INPUT };
    format!("{{:name \"canary\" :settings {{SERVICE}}\n {input}\n pipeline {flow}}}\n")
}

/// A pipeline with settings.
fn settings(settings: &str) -> String {
    let inner = settings.trim_start_matches('{').trim_end_matches('}');
    format!(
        "{{:name \"canary\" :settings {{SERVICE {inner}}}\n {INPUT}\n \
         pipeline (-> in (files {{:path \"out\" :codec :json}}))}}\n"
    )
}

/// What is not an option: other places of a file, and errors during a run.
fn extra() -> Vec<Scene> {
    let texts = [
        // A program repeats its argument.
        r#"(-> in (files {:path "out" :codec :json :on-close {:command ["sh" "-c" "echo \"$A$0\" >&2; exit 3" "${env:CANARY}"] :env {"A" "${env:ODD_CANARY}"}}}))"#,
        r#"(-> in (files {:path "out" :codec :json :on-close {:command ["/nonexistent/${env:CANARY}"]}}))"#,
        r#"(-> in (route "cast(concat('${env:CANARY}', n) as int64) > 1" (files "out") :else (drop)))"#,
        r#"(-> in (match "${env:CANARY}" (drop) #r"a" (drop)) (drop))"#,
        r#"(-> in (where "cast(concat('${env:CANARY}', n) as int64) > 1" {:on-error :throw}) (drop))"#,
        r#"(-> in (where "named(n) > 1") (select "n, named(n)") (files "out"))"#,
    ];
    let scenes = texts.into_iter().map(|flow| Scene {
        option: format!("flow {flow}"),
        text: format!(
            "{{:name \"canary\" :settings {{SERVICE :fatal-errors \"fatal\"}}\n {INPUT}\n \
             :expressions {{\"named(x)\" \"cast(concat('${{env:CANARY}}', x) as int64)\"}}\n \
             pipeline {flow}}}\n"
        ),
    });
    scenes.collect()
}

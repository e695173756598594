//! The values of `${kind:name}` in a pipeline text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pseidon_dsl::interpolate::LookupError;
use pseidon_dsl::{conceal, encoding, nearest};
use pseidon_logs::Log;

/// The values of `${set:NAME}`: those of `--set NAME=VALUE`.
#[derive(Clone, Default)]
pub(crate) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Of several values of a name, the last counts.
    pub(crate) fn new(values: &[(String, String)]) -> Parameters {
        Parameters(values.iter().cloned().collect())
    }
}

/// Looks up the variables of one text.
pub(super) struct Variables<'a> {
    parameters: &'a Parameters,
    /// The folder at which the paths of files begin.
    base: &'a Path,
    /// The row of the table of logs, in a template.
    log: Option<&'a Log>,
    /// The names of the parameters that the text has.
    used: BTreeSet<String>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(parameters: &'a Parameters, base: &'a Path, log: Option<&'a Log>) -> Self {
        Variables {
            parameters,
            base,
            log,
            used: BTreeSet::new(),
        }
    }

    /// The value of `${kind:name}`. A value from outside of the file and of the command line can be
    /// a secret, so nothing that is printed shows it from now on.
    pub(super) fn look_up(&mut self, kind: &str, name: &str) -> Result<String, LookupError> {
        let value = self.value(kind, name)?;
        if let "env" | "file" = kind {
            conceal::register(&format!("${{{kind}:{name}}}"), &value)
                .map_err(|reason| LookupError::Failed(format!("`{kind}:{name}`: {reason}")))?;
        }
        Ok(value)
    }

    fn value(&mut self, kind: &str, name: &str) -> Result<String, LookupError> {
        match (kind, self.log) {
            ("set", _) => {
                self.used.insert(name.to_owned());
                let unset = || LookupError::Unset(format!("no value; add --set {name}=VALUE"));
                self.parameters.0.get(name).cloned().ok_or_else(unset)
            }
            ("env", _) => std::env::var(name).map_err(|_| {
                LookupError::Unset(format!("the environment variable {name} is not set"))
            }),
            ("file", _) => {
                let bytes = std::fs::read(self.base.join(name)).map_err(|error| error.to_string());
                let content = bytes.and_then(encoding::decode).map_err(|reason| {
                    LookupError::Failed(format!("cannot read {name}: {reason}"))
                })?;
                Ok(content.trim_end_matches(['\n', '\r']).to_owned())
            }
            ("host", _) if name == "name" => Ok(host_name()),
            ("host", _) => Err(LookupError::Failed(format!(
                "unknown variable `host:{name}`; expected `host:name`"
            ))),
            ("log", Some(log)) => log.variable(name).map_err(LookupError::Failed),
            ("log", None) => Err(LookupError::Failed(
                "`log` is only available in a pipeline with a source `mysql-logs`".to_owned(),
            )),
            (other, _) => Err(LookupError::Failed(format!(
                "unknown kind of variable `{other}`; expected `env`, `set`, `file`, `host` or `log`"
            ))),
        }
    }

    /// Checks that the text has each of the parameters.
    ///
    /// # Errors
    /// The name of one that it does not have, and what it has.
    pub(super) fn check_used(&self) -> Result<(), String> {
        let mut names = self.parameters.0.keys();
        let Some(unused) = names.find(|name| !self.used.contains(*name)) else {
            return Ok(());
        };
        let used = || self.used.iter().map(String::as_str);
        Err(match nearest(unused, used()) {
            Some(near) => format!("it has no `${{set:{unused}}}`; did you mean `--set {near}=…`?"),
            None => format!("it has no `${{set:{unused}}}`, so `--set {unused}=…` has no effect"),
        })
    }
}

/// The host name, or `localhost` if the kernel does not report one.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_from_outside_is_concealed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "of-file-s3cret\n").unwrap();
        let parameters = Parameters::new(&[("name".to_owned(), "of-set-s3cret".to_owned())]);
        let mut variables = Variables::new(&parameters, folder.path(), None);
        for (kind, name, shown) in [
            ("file", "secret", "${file:secret}"),
            ("set", "name", "of-set-s3cret"),
        ] {
            let value = variables.look_up(kind, name).expect("a value");
            assert_eq!(conceal::conceal(&value), shown);
        }
    }

    #[test]
    fn the_value_of_a_file_is_its_text_without_mark_and_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let look_up = |content: &[u8]| {
            std::fs::write(folder.path().join("secret"), content).unwrap();
            let parameters = Parameters::default();
            Variables::new(&parameters, folder.path(), None).look_up("file", "secret")
        };
        for content in ["a b\n", "\u{feff}a b\r\n", "a b"] {
            assert_eq!(look_up(content.as_bytes()).ok().as_deref(), Some("a b"));
        }
        let Err(LookupError::Failed(reason)) = look_up(b"caf\xe9\n") else {
            panic!("it is not UTF-8");
        };
        assert!(reason.starts_with("cannot read secret: "), "{reason}");
        assert!(reason.ends_with("save it as UTF-8"), "{reason}");
    }
}

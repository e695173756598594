//! The source `spool`: the lines of the files in a folder.
//!
//! Each file is a split, and the position of a line is the byte at which it starts. A run reads the
//! files that exist when it starts, and ends. Instances that read the same folder share its files.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use pseidon_delivery::Reason;
use pseidon_dsl::Diagnostic;
use pseidon_plugin::format::SourceFormat;
use pseidon_plugin::options::{OnError, Options, SchemaOption, SpannedValue};
use pseidon_plugin::source::{
    Reread, Source, SourceError, SourceExit, SourceFacts, SourceHandle, SourcePlugin, SourceSetup,
};
use pseidon_plugin::spec::{PluginSpec, Role};
use pseidon_plugin::{Payloads, Split};

mod lines;
mod reading;

use lines::LineReader;
use reading::Reading;

static SPEC: PluginSpec = PluginSpec {
    name: "spool",
    role: Role::Source,
    summary: "Reads the lines of the files in a folder.",
    details: "Each line is a record. A file is complete when it appears under a name that does not \
        begin with `.`, and must not change afterwards: write it under another name first, and \
        rename it. A run reads the files that exist when it starts. Files may be deleted once they \
        are read; their names must not be used again.\n\n\
        `@topic` is the file's name, `@partition` is 0, and `@offset` is the byte at which the line \
        starts.",
    positional: SpoolSourceOptions::POSITIONAL,
    options: SpoolSourceOptions::DECLARED,
    example: r#"(spool "incoming")"#,
};

/// The options of the source `spool`.
#[derive(Clone, Debug, Options)]
pub struct SpoolSourceOptions {
    /// The folder. A relative path starts at the pipeline file's folder.
    #[option(positional)]
    folder: PathBuf,
    /// The format of a line: the name of a format, optionally with settings after a colon.
    #[option(default = "json")]
    format: SpannedValue<SourceFormat>,
    /// The records' fields and their types, or `:infer` to infer them from the first records.
    schema: Option<SpannedValue<SchemaOption>>,
    /// What happens to a line that does not match the format.
    #[option(default = "quarantine")]
    on_error: OnError,
}

/// The plugin of the source `spool`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpoolSourcePlugin;

impl SourcePlugin for SpoolSourcePlugin {
    type Options = SpoolSourceOptions;

    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn on_error(&self, options: &SpoolSourceOptions) -> OnError {
        options.on_error.clone()
    }

    fn prepare(&self, options: &SpoolSourceOptions) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
        Ok(Arc::new(SpoolSource {
            options: options.clone(),
        }))
    }
}

struct SpoolSource {
    options: SpoolSourceOptions,
}

impl Source for SpoolSource {
    fn facts(&self) -> SourceFacts {
        let schema = &self.options.schema;
        SourceFacts {
            format: self.options.format.value.clone(),
            format_span: Some(self.options.format.span),
            schema: schema.as_ref().and_then(SpannedValue::fields),
            infer: schema.as_ref().and_then(SpannedValue::infer),
            splits_bytes: false,
            reads_columns: false,
            reread: Reread::Exact,
            finite: true,
            topic_may_change: false,
        }
    }

    fn sample(&self, setup: &SourceSetup, count: usize) -> Result<Vec<Payloads>, SourceError> {
        let (mut samples, mut found) = (Vec::new(), 0);
        for split in self.find_files(setup)? {
            let mut lines = LineReader::new(self.path_of(setup, &split.topic), split, 0);
            while let Some(batch) = lines.next_batch(setup.wanted)? {
                let some = batch.len().min(count - found);
                found += some;
                samples.push(batch.payloads.part(0..some));
                if found == count {
                    return Ok(samples);
                }
            }
        }
        if found == 0 {
            let folder = self.options.folder.display();
            return Err(SourceError::Fatal(
                format!("no records yet in {folder}").into(),
            ));
        }
        Ok(samples)
    }

    fn run(&self, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceExit> {
        let files = self.find_files(setup)?;
        let path_of = |name: &str| self.path_of(setup, name);
        Reading::new(&handle, setup.wanted, files).read_all(&path_of)
    }
}

impl SpoolSource {
    fn path_of(&self, setup: &SourceSetup, name: &str) -> PathBuf {
        setup.base.join(&self.options.folder).join(name)
    }

    /// The complete files, in order of their names.
    fn find_files(&self, setup: &SourceSetup) -> Result<Vec<Arc<Split>>, SourceError> {
        let folder = setup.base.join(&self.options.folder);
        let failed = |error: io::Error| {
            let what = format!("cannot read the folder {}", folder.display());
            SourceError::Fatal(Reason::caused_by(what, error))
        };
        let mut names = Vec::new();
        for entry in folder.read_dir().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // A split's name is stored, and the state store holds strings.
            let name = entry.file_name().into_string().map_err(|name| {
                let name = name.display();
                let what = format!("the file name {name} is not UTF-8; rename the file");
                SourceError::Fatal(what.into())
            })?;
            if !name.starts_with('.') && entry.file_type().map_err(failed)?.is_file() {
                names.push(name);
            }
        }
        names.sort();
        let split = |name: String| {
            Arc::new(Split {
                id: format!("{}:{name}", setup.stage).into(),
                topic: name,
                partition: 0,
            })
        };
        Ok(names.into_iter().map(split).collect())
    }
}

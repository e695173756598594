//! A folder with a spool and a state store, in which pipelines run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::never;
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{StateStore, WithCauses};
use pseidon_dsl::{Diagnostic, document};
use pseidon_example_connector::{SpoolSinkPlugin, SpoolSourcePlugin};
use pseidon_exec::{Finished, Pools, Run, View};
use pseidon_plan::{Plan, PlanContext, plan};
use pseidon_plugin::PluginRegistry;
use pseidon_plugin::format::Format;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::source::Source;
use tempfile::TempDir;

/// Settings for small runs. One writer, so that nothing else is written during a commit.
const SETTINGS: &str = r#"{:etl-threads 1 :writer-threads 1 :memory "32MiB"}"#;

/// A folder that outlives runs.
pub(crate) struct Folder {
    path: PathBuf,
    pub(crate) metrics: Metrics,
    view: Arc<View>,
    /// Deletes the folder, if it was created here.
    _dir: Option<TempDir>,
}

impl Folder {
    pub(crate) fn new() -> Folder {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path());
        Folder {
            _dir: Some(dir),
            ..folder
        }
    }

    /// A folder that exists.
    pub(crate) fn at(path: &Path) -> Folder {
        Folder {
            path: path.to_owned(),
            metrics: Metrics::new(),
            view: Arc::default(),
            _dir: None,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file of records; `a 1` is the record 1 for the queue `a`.
    pub(crate) fn write(&self, name: &str, records: &[&str]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let line = |record: &&str| {
            let (queue, number) = record.split_once(' ').unwrap();
            format!("{{\"n\":{number},\"queue\":\"{queue}\"}}\n")
        };
        fs::write(path, records.iter().map(line).collect::<String>()).unwrap();
    }

    /// The records in all queues of the spool `out`, sorted.
    pub(crate) fn delivered(&self) -> Vec<String> {
        self.records_in("out")
    }

    /// The records in all queues of a spool, sorted. Each is in the queue that it names.
    pub(crate) fn records_in(&self, spool: &str) -> Vec<String> {
        let mut records = Vec::new();
        for (file, text) in visible_files(&self.path(spool)) {
            let queue = file.parent().and_then(Path::file_name).unwrap();
            let queue = queue.to_str().unwrap();
            for line in text.lines() {
                let start = "{\"n\":";
                let (number, of) = line
                    .strip_prefix(start)
                    .and_then(|rest| rest.split_once(",\"queue\":"))
                    .unwrap();
                assert_eq!(of, format!("\"{queue}\"}}"));
                records.push(format!("{queue} {number}"));
            }
        }
        records.sort();
        records
    }

    /// How many files of the spool `out` are not published.
    pub(crate) fn hidden_files(&self) -> usize {
        let folders = fs::read_dir(self.path("out/.open")).unwrap();
        let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        files
            .filter(|file| file.as_ref().unwrap().file_name() != "lock")
            .count()
    }

    /// The reasons of the invalid records, in their order.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let bad = self.view.last_bad().into_iter();
        bad.map(|bad| bad.reason).collect()
    }

    /// Runs a flow until it ends.
    pub(crate) fn run(&self, flow: &str) -> Result<Finished, String> {
        self.run_as("test", flow)
    }

    /// Runs a flow under this name until it ends.
    pub(crate) fn run_as(&self, name: &str, flow: &str) -> Result<Finished, String> {
        let store = EmbeddedStore::open(&self.path("state"), name).unwrap();
        self.run_on(Arc::new(store), name, flow)
    }

    /// Runs a flow with this state until it ends.
    pub(crate) fn run_on(
        &self,
        store: Arc<dyn StateStore>,
        name: &str,
        flow: &str,
    ) -> Result<Finished, String> {
        let plan = self
            .plan(name, flow)
            .map_err(|errors| format!("{errors:?}"))?;
        let run = Run {
            pools: Arc::new(Pools::start(&plan.settings).unwrap()),
            plan: Arc::new(plan),
            store,
            metrics: self.metrics.clone(),
            accept_changed_plan: false,
            catch_up: None,
            was_open: false,
            control: never(),
            view: self.view.clone(),
        };
        run.run().map_err(|error| WithCauses(&error).to_string())
    }

    fn plan(&self, name: &str, flow: &str) -> Result<Plan, Vec<Diagnostic>> {
        let text = format!("{{:name \"{name}\" :settings {SETTINGS} pipeline {flow}}}");
        let registry = PluginRegistry {
            sources: vec![Arc::new(SpoolSourcePlugin)],
            sinks: vec![Arc::new(SpoolSinkPlugin)],
            formats: pseidon_formats::formats(),
            quarantine: pseidon_files::sink::quarantine,
            group: pseidon_group::group,
            synonyms: &[],
        };
        let infer = |_: &str, _: &dyn Source, _: &dyn Format| Err("not in this test".to_owned());
        let context = PlanContext {
            registry: &registry,
            default_name: name.into(),
            base: self.path.clone(),
            text: text.as_str().into(),
            infer: &infer,
            tables: &|_| Err("no table can be read here".to_owned()),
            keeps_state: true,
        };
        plan(&document::from_edn(&text)?, context)
    }
}

/// The messages of the errors in a flow.
pub(crate) fn plan_errors(flow: &str) -> Vec<String> {
    let errors = Folder::new().plan("test", flow).err().unwrap_or_default();
    errors.into_iter().map(|error| error.message).collect()
}

/// The files below a folder that are not hidden, with their text.
fn visible_files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_hidden = path
            .file_name()
            .unwrap()
            .as_encoded_bytes()
            .starts_with(b".");
        if path.is_dir() && !is_hidden {
            files.extend(visible_files(&path));
        } else if !is_hidden && let Ok(text) = fs::read_to_string(&path) {
            files.push((path, text));
        }
    }
    files
}

//! The groups of a `group`: a sink that collects them, and a source that reads their results.
//!
//! The sink keeps the groups in a database file beside the state ([`table`]). It computes the groups
//! of some records in memory, and a commit adds them to those of the file, in the transaction that
//! also stores the positions up to which the splits are in it. So a record is in its group exactly
//! once, whenever the process crashes, and there may be more groups than fit into memory.
//!
//! When everything in front of the sink has been read, the source closes the groups: they become a
//! generation, to which nothing is added any more. Its results are in the order of the keys, so the
//! source can read them again from any position after a crash. When all of them are durable behind
//! it, the generation is removed. Records that are read before that belong to the next one.

mod sink;
mod source;
mod table;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use pseidon_delivery::StoreError;
use pseidon_delivery::embedded::STATE_FOLDER;
use pseidon_plugin::group::GroupStage;
use pseidon_plugin::options::OnError;
use pseidon_plugin::sink::{NeedsColumns, Protocol, SinkFacts};
use pseidon_plugin::spec::{PluginSpec, Role};
use pseidon_plugin::stage::{SinkStage, SourceStage, StageOptions};

use self::sink::GroupSink;
use self::source::GroupSource;
use self::table::GroupTable;

/// What a plan shows as the plugin of both halves. A pipeline file names the transform `group`.
static SPEC: PluginSpec = PluginSpec {
    name: "group",
    role: Role::Transform,
    summary: "Collects groups and reads their results.",
    details: "",
    positional: &[],
    options: &[],
    example: "",
};

/// Creates the sink that collects the groups of a stage, and the source that reads their results.
pub fn group(stage: &Arc<GroupStage>) -> (SinkStage, SourceStage) {
    let open = Arc::new(OpenTable::default());
    let options = || StageOptions {
        spec: &SPEC,
        span: stage.span,
        on_error: OnError::default(),
        identity: vec![("aggregates", stage.describe())],
        exprs: Vec::new(),
    };
    let facts = SinkFacts {
        needs_columns: NeedsColumns::Always,
        copies_meta: false,
        protocol: Protocol::Transactional,
        folder: None,
    };
    let (in_front, behind) = (stage.clone(), stage.clone());
    let shared = open.clone();
    let sink = SinkStage::new(options(), facts, move |input| {
        let sink = GroupSink::new(&in_front, input, shared.clone())?;
        Ok(Arc::new(sink))
    });
    let source = SourceStage::new(options(), move || {
        // Without a grouping, the errors of the sink say why.
        let grouping = behind.grouping().ok_or_else(Vec::new)?.clone();
        Ok(Arc::new(GroupSource::new(grouping, open.clone())))
    });
    (sink, source)
}

/// The table that the sink of a run has open, for the source.
#[derive(Default)]
struct OpenTable(Mutex<Option<Arc<GroupTable>>>);

/// The memory for pages of a table's file, in bytes.
const CACHE_BYTES: usize = 32 << 20;

impl OpenTable {
    /// Opens the table of a stage of this pipeline. Without a `base`, it is in memory, and outlives
    /// the attempts of a run.
    fn open(
        &self,
        base: Option<&Path>,
        pipeline: &str,
        stage: &str,
    ) -> Result<Arc<GroupTable>, StoreError> {
        let mut open = self.0.lock();
        let Some(base) = base else {
            if let Some(table) = &*open {
                return Ok(table.clone());
            }
            let table = Arc::new(GroupTable::in_memory()?);
            *open = Some(table.clone());
            return Ok(table);
        };
        // An earlier attempt has left it, and a file is opened once at a time.
        *open = None;
        let name = format!("{pipeline}.{stage}.groups");
        let folder = base.join(STATE_FOLDER);
        let table = Arc::new(GroupTable::open(&folder, &name, CACHE_BYTES)?);
        *open = Some(table.clone());
        Ok(table)
    }

    fn get(&self) -> Option<Arc<GroupTable>> {
        self.0.lock().clone()
    }
}

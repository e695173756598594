//! The groups of a `group` or a `dedupe`: a sink that collects them, and a source that reads their
//! results.
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

#![forbid(unsafe_code)]

mod input;
mod sink;
mod source;
mod table;

use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use pseidon_delivery::embedded::STATE_FOLDER;
use pseidon_delivery::{SinkId, StoreError};
use pseidon_plugin::group::{GroupContent, GroupStage};
use pseidon_plugin::options::OnError;
use pseidon_plugin::sink::{NeedsColumns, Protocol, SinkFacts};
use pseidon_plugin::spec::{PluginSpec, Role};
use pseidon_plugin::stage::{SinkStage, SourceStage, StageOptions};

use self::input::GroupPlan;
use self::sink::GroupSink;
use self::source::GroupSource;
use self::table::GroupTable;

/// What a plan shows as the plugin of both halves. A pipeline file names the transform: `group` or
/// `dedupe`.
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
    let shared = Arc::new(SharedGroups::default());
    let (needs_columns, exprs) = match &stage.content {
        GroupContent::Results { .. } => (NeedsColumns::Always, Vec::new()),
        GroupContent::Record { keys, .. } => (NeedsColumns::UnlessJson, keys.clone()),
    };
    let facts = SinkFacts {
        needs_columns,
        copies_meta: false,
        protocol: Protocol::Transactional,
        folder: None,
    };
    let options = |exprs| StageOptions {
        spec: &SPEC,
        span: stage.span,
        on_error: OnError::default(),
        identity: vec![("group", stage.written.clone())],
        exprs,
    };
    let (in_front, of_sink) = (stage.clone(), shared.clone());
    let sink = SinkStage::new(options(exprs), facts, move |input| {
        let sink = GroupSink::new(&in_front, input, of_sink.clone())?;
        Ok(Arc::new(sink))
    });
    let source = SourceStage::new(options(Vec::new()), move || {
        // Without a plan, the errors of the sink say why.
        let plan = shared.plan.get().ok_or_else(Vec::new)?.clone();
        Ok(Arc::new(GroupSource::new(plan, shared.clone())))
    });
    (sink, source)
}

/// What the sink and the source of a stage share.
#[derive(Default)]
struct SharedGroups {
    /// Set when the columns of the sink's input are known.
    plan: OnceLock<Arc<GroupPlan>>,
    /// The table that the sink of an attempt has open. It is closed with the attempt: another plan
    /// of the pipeline may open its file then, while this one still exists.
    table: Mutex<Weak<GroupTable>>,
    /// The table of a run without state, which outlives the attempts of the run.
    in_memory: Mutex<Option<Arc<GroupTable>>>,
}

/// The memory for pages of a table's file, in bytes.
const CACHE_BYTES: usize = 32 << 20;

impl SharedGroups {
    /// Opens the table of a stage of this pipeline. Without a `base`, it is in memory.
    fn open(
        &self,
        base: Option<&Path>,
        pipeline: &str,
        stage: &str,
    ) -> Result<Arc<GroupTable>, StoreError> {
        let table = match base {
            None => self.in_memory()?,
            Some(base) => {
                let (folder, stage) = (base.join(STATE_FOLDER), SinkId::from(stage));
                Arc::new(GroupTable::open(&folder, pipeline, &stage, CACHE_BYTES)?)
            }
        };
        *self.table.lock() = Arc::downgrade(&table);
        Ok(table)
    }

    fn in_memory(&self) -> Result<Arc<GroupTable>, StoreError> {
        let mut known = self.in_memory.lock();
        if let Some(table) = &*known {
            return Ok(table.clone());
        }
        let table = Arc::new(GroupTable::in_memory()?);
        *known = Some(table.clone());
        Ok(table)
    }

    fn open_table(&self) -> Option<Arc<GroupTable>> {
        self.table.lock().upgrade()
    }
}

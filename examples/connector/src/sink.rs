//! The sink `spool`: files of lines, in a subfolder for each queue.
//!
//! A queue is a lane. The rows of a lane are written to a hidden file ([`lane`]). When the lane is
//! sealed, the file is synced; the engine commits it in the state store; then it is renamed into
//! the subfolder of its queue ([`hidden`]). This is the staged protocol.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use arrow::datatypes::DataType;
use pseidon_delivery::{LaneId, Reason, StagedEntry, StagedId};
use pseidon_dsl::Diagnostic;
use pseidon_formats::{OutputFormat, RecordEncoder};
use pseidon_plugin::Rows;
use pseidon_plugin::lane::{Lane, LaneRules};
use pseidon_plugin::options::kinds::ByteSize;
use pseidon_plugin::options::{Expr, OnError, Options, SpannedValue};
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::sink::{
    NeedsColumns, PreparedSink, Protocol, PublishProgress, RoutedRows, Sink, SinkError, SinkFacts,
    SinkInput, SinkPlugin, SinkSetup, TakenSplit, TakeoverResult,
};
use pseidon_plugin::spec::{PluginSpec, Role};

mod hidden;
mod lane;
mod route;

use hidden::HiddenFolder;
use lane::SpoolLane;
use route::Router;

/// How many files all writers together may have open.
const MAX_OPEN: usize = 256;
/// How often the engine checks whether a file is complete because of its age.
const CHECK_EVERY: Duration = Duration::from_millis(250);

static SPEC: PluginSpec = PluginSpec {
    name: "spool",
    role: Role::Sink,
    summary: "Writes records to the files of a spool, in a subfolder for each queue.",
    details: "A file appears when all of its records are delivered, and never changes afterwards, \
        so a consumer may read, move and delete every file that it sees. Delivery is \
        exactly-once.\n\n\
        One instance of a pipeline writes at a time. Others wait until it exits.",
    positional: SpoolSinkOptions::POSITIONAL,
    options: SpoolSinkOptions::DECLARED,
    example: r#"(spool {:folder "outgoing" :queue "region"})"#,
};

/// The options of the sink `spool`.
#[derive(Clone, Debug, Options)]
pub struct SpoolSinkOptions {
    /// The folder of the spool. A relative path starts at the pipeline file's folder.
    #[option(positional)]
    folder: PathBuf,
    /// The queue of a record: an SQL expression for a string, which is the name of the subfolder.
    queue: SpannedValue<Expr>,
    /// The format of a record: `:json` writes one object, `:txt` the record as text, `:raw` the
    /// original bytes. Each record is followed by a line feed.
    #[option(default = "json")]
    format: SpannedValue<OutputFormat>,
    /// The age at which a file is completed.
    #[option(default = "60s")]
    max_age: Duration,
    /// The size at which a file is completed.
    #[option(default = "64MB")]
    max_size: ByteSize,
    /// What happens to a record that has no queue or cannot be written in the format.
    #[option(default = "quarantine")]
    on_error: OnError,
}

/// The plugin of the sink `spool`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpoolSinkPlugin;

impl SinkPlugin for SpoolSinkPlugin {
    type Options = SpoolSinkOptions;

    fn spec(&self) -> &'static PluginSpec {
        &SPEC
    }

    fn on_error(&self, options: &SpoolSinkOptions) -> OnError {
        options.on_error.clone()
    }

    fn facts(&self, options: &SpoolSinkOptions) -> SinkFacts {
        SinkFacts {
            needs_columns: NeedsColumns::UnlessBytes,
            copies_meta: false,
            protocol: Protocol::Staged,
            folder: Some(options.folder.display().to_string()),
        }
    }

    fn prepare(
        &self,
        options: &SpoolSinkOptions,
        input: &SinkInput,
    ) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let encoder = RecordEncoder::new(options.format.value, input).map_err(|reason| {
            let message = "this format cannot represent these records";
            errors.push(options.format.error(message, reason));
        });
        let queue = pseidon_expr::compile(&options.queue.value, &input.scope)
            .map_err(|more| errors.extend(more));
        if let Ok(queue) = &queue
            && *queue.field().data_type() != DataType::Utf8
        {
            let error = options.queue.error(
                "the queue is not a string",
                "expected an expression for a string",
            );
            errors.push(error.with_help("cast it, such as :queue \"cast(region as string)\""));
        }
        match (encoder, queue) {
            (Ok(encoder), Ok(queue)) if errors.is_empty() => Ok(Arc::new(PreparedSpool {
                folder: options.folder.clone(),
                rollover: Rollover {
                    size: options.max_size.0,
                    ..Rollover::every(options.max_age)
                },
                router: Arc::new(Router { encoder, queue }),
            })),
            _ => Err(errors),
        }
    }
}

struct PreparedSpool {
    folder: PathBuf,
    rollover: Rollover,
    router: Arc<Router>,
}

impl PreparedSink for PreparedSpool {
    fn nondeterminism(&self) -> Option<String> {
        let queue = &self.router.queue;
        (!queue.is_deterministic()).then(|| queue.field().name().clone())
    }

    fn open(&self, setup: SinkSetup) -> Result<Arc<dyn Sink>, SinkError> {
        let hidden = HiddenFolder::open(&setup.base.join(&self.folder), &setup)?;
        Ok(Arc::new(SpoolSink {
            rollover: self.rollover.clone(),
            router: self.router.clone(),
            hidden: Arc::new(hidden),
            setup,
        }))
    }
}

struct SpoolSink {
    rollover: Rollover,
    router: Arc<Router>,
    hidden: Arc<HiddenFolder>,
    setup: SinkSetup,
}

impl Sink for SpoolSink {
    fn rules(&self) -> LaneRules {
        LaneRules {
            single_writer: false,
            rollover: self.rollover.clone(),
            check_every: CHECK_EVERY,
            most_open: MAX_OPEN,
        }
    }

    fn take_over(
        &self,
        _splits: &[TakenSplit],
        staged: &[StagedEntry],
    ) -> Result<TakeoverResult, SinkError> {
        self.hidden.publish(staged).map_err(|error| {
            SinkError::Transient(Reason::caused_by("cannot publish committed files", error))
        })?;
        Ok(TakeoverResult {
            published: staged.iter().map(|entry| entry.id.clone()).collect(),
            ..TakeoverResult::default()
        })
    }

    fn route(&self, rows: Rows) -> RoutedRows {
        self.router.route(&rows)
    }

    fn lane(&self, lane: &LaneId, _waker: &Waker) -> Result<Box<dyn Lane>, SinkError> {
        let (hidden, router) = (self.hidden.clone(), self.router.clone());
        Ok(Box::new(SpoolLane::new(lane.clone(), hidden, router)))
    }

    fn publish(&self, staged: &[StagedEntry]) -> Result<PublishProgress, SinkError> {
        if let Err(error) = self.hidden.publish(staged) {
            return Ok(PublishProgress::Blocked(error.to_string()));
        }
        let ids: BTreeSet<StagedId> = staged.iter().map(|entry| entry.id.clone()).collect();
        let (stage, _) = self.setup.committer.sink().stage_and_place();
        let files = self.setup.metrics.files.with_label_values(&[stage]);
        files.inc_by(ids.len() as u64);
        Ok(PublishProgress::Done(ids.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests;

//! What all runs share: it has no state that a run could change, and takes long to create.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pseidon_delivery::Position;
use pseidon_dsl::expr::ExprKind;
use pseidon_dsl::node::Text;
use pseidon_expr::{Column, Scope};
use pseidon_files::FilesSink;
use pseidon_files::sink::FilesSinkOptions;
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::options::Options;
use pseidon_plugin::sink::{PreparedSink, RecordShape, SinkInput, SinkPlugin};
use pseidon_plugin::{BatchBuilder, LaneMemory, Rows, Split};

use crate::disk::{LAKE, MOUNT_POINT};
use crate::names::split_id;

/// What all processes of all runs share.
pub(crate) struct Fixture {
    /// The sinks of each version of the pipeline: one that leaves files where they are published,
    /// and one that moves them.
    files: [[Arc<dyn PreparedSink>; 2]; PLANS],
    schema: SchemaRef,
    pub(crate) metrics: Metrics,
    pub(crate) memory: Arc<LaneMemory>,
}

impl Fixture {
    /// The sink of a version of the pipeline.
    pub(crate) fn files(&self, plan: usize, are_moved: bool) -> &dyn PreparedSink {
        &*self.files[plan][usize::from(are_moved)]
    }
}

/// The number of versions of the pipeline. They write to buckets of different names.
pub(crate) const PLANS: usize = 2;

pub(crate) static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let field = Arc::new(Field::new("k", DataType::Utf8, true));
    let ExprKind::Path(path) = pseidon_dsl::expr::parse(&Text::plain("k", 0))
        .expect("`k` is an expression")
        .kind
    else {
        unreachable!("`k` is a path")
    };
    let scope = Scope {
        columns: vec![Column {
            path,
            field: field.clone(),
        }],
    };
    let input = SinkInput {
        scope,
        record: RecordShape::AsCame {
            format: "raw".into(),
        },
    };
    let files = std::array::from_fn(|plan| [sink(plan, false, &input), sink(plan, true, &input)]);
    Fixture {
        files,
        schema: Arc::new(Schema::new(vec![field])),
        metrics: Metrics::new(),
        memory: LaneMemory::new(1 << 30),
    }
});

/// Files are closed by each rule: the number of records, and three rules on time. Steps take a
/// tenth of a second, so that none of them always comes first.
fn sink(plan: usize, are_moved: bool, input: &SinkInput) -> Arc<dyn PreparedSink> {
    let folder = format!("v{}-{{k}}", plan + 1);
    let move_to = if are_moved {
        format!(":move-to {{:path \"{MOUNT_POINT}/{LAKE}/{folder}\"}}")
    } else {
        String::new()
    };
    let rollover = "{:records 3 :idle \"4s\" :age \"7s\" :cron \"* * * * *\"}";
    let text = format!(
        "{{:base-dir \"{MOUNT_POINT}\" :path \"{folder}\" :codec :raw \
         :rollover {rollover} {move_to}}}"
    );
    let nodes = pseidon_dsl::edn::read_all(&text).expect("the options are well-formed");
    let options =
        FilesSinkOptions::parse_stage(FilesSink.spec(), &nodes, pseidon_dsl::Span::default())
            .expect("the options are valid");
    FilesSink
        .prepare(&options, input)
        .expect("the sink is valid")
}

/// Creates what all runs share. The parser of options needs more stack than a simulated process
/// has.
pub(crate) fn prepare() {
    LazyLock::force(&FIXTURE);
}

/// The prefix of the records of a partition, in this generation of the topic.
pub(crate) fn record_prefix(partition: usize, generation: u32) -> String {
    format!("{}#{generation}", split_id(partition))
}

/// The records as rows with their key as a column.
pub(crate) fn rows(
    partition: usize,
    generation: u32,
    records: &[(Position, u8)],
    next: Position,
) -> Rows {
    let split = Arc::new(Split {
        id: split_id(partition),
        topic: "clicks".into(),
        partition: partition as i32,
    });
    let mut builder = BatchBuilder::new(split, WantedMetadata::default(), 0);
    for (position, _) in records {
        builder.push(
            *position,
            Some(format!("{}@{position}", record_prefix(partition, generation)).as_bytes()),
            Default::default(),
        );
    }
    let keys: ArrayRef = Arc::new(
        records
            .iter()
            .map(|(_, key)| Some(format!("k{key}")))
            .collect::<StringArray>(),
    );
    let columns = RecordBatch::try_new(FIXTURE.schema.clone(), vec![keys])
        .expect("one column of the schema's type");
    Rows::new(Arc::new(builder.finish(next)), columns)
}

//! A sample of records, read without joining the group.

use std::time::{Duration, Instant};

use pseidon_delivery::Reason;
use pseidon_plugin::Payloads;
use pseidon_plugin::source::{SourceError, SourceSetup};
use rdkafka::Offset;

use super::KafkaSource;
use super::start::{self, StartOption, list_of};
use crate::logs::ClientLogs;
use crate::native::{Consumer, MessageBatch};

/// How long to wait for the first record, and for more after some have arrived.
const FIRST_RECORD_TIMEOUT: Duration = Duration::from_secs(10);
const NEXT_RECORD_TIMEOUT: Duration = Duration::from_millis(500);

/// At most `count` records: the first ones for `:start :earliest`, the last ones otherwise.
pub(super) fn sample(
    source: &KafkaSource,
    setup: &SourceSetup,
    count: usize,
) -> Result<Vec<Payloads>, SourceError> {
    let failed = |cause: Reason| {
        let what = format!(
            "cannot read sample records of {}",
            source.topics.subscription().join(", ")
        );
        SourceError::Fatal(Reason::caused_by(what, cause))
    };
    let mut config = source.config(setup);
    config
        .remove("group.instance.id")
        .set("auto.offset.reset", "earliest");
    let consumer = Consumer::new(&config, ClientLogs::new(&setup.stage)).map_err(failed)?;
    let partitions =
        start::partitions(&consumer, &source.topics).map_err(|error| failed(Reason::of(error)))?;
    let partitions: Vec<_> = partitions.into_iter().map(|found| found.at).collect();
    if partitions.is_empty() {
        return Err(failed("the topic does not exist".into()));
    }
    let from = match source.start {
        StartOption::Earliest => Offset::Beginning,
        StartOption::Latest | StartOption::At(_) => {
            Offset::OffsetTail(i64::try_from(count.max(1)).unwrap_or(i64::MAX))
        }
    };
    consumer
        .assign(&list_of(&partitions, |_| from))
        .map_err(|error| failed(Reason::of(error)))?;
    let mut records = Vec::new();
    let mut fetched = MessageBatch::with_capacity(count.clamp(1, 1024));
    let mut deadline = Instant::now() + FIRST_RECORD_TIMEOUT;
    while records.len() < count && Instant::now() < deadline {
        consumer.fetch(
            &mut fetched,
            deadline
                .saturating_duration_since(Instant::now())
                .min(NEXT_RECORD_TIMEOUT),
        );
        let payloads = fetched
            .iter_from(0)
            .filter(|message| message.error().is_none())
            .filter_map(|message| message.payload());
        let before = records.len();
        records.extend(payloads.map(<[u8]>::to_vec));
        if records.len() > before {
            deadline = Instant::now() + NEXT_RECORD_TIMEOUT;
        }
    }
    if records.is_empty() {
        return Err(failed(
            "the topics have no records yet; set :schema to a map".into(),
        ));
    }
    records.truncate(count);
    Ok(vec![Payloads::copied(records.iter().map(Vec::as_slice))])
}

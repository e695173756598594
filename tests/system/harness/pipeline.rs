//! Pipeline files for records of [`feed`](super::feed).

use super::{Site, brokers, server};

/// The state store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Embedded,
    Redis,
    Cluster,
}

/// The format and the rollover of output files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Compressed JSON, rolled by size and idle time.
    GzipBySize,
    /// Compressed JSON, rolled by record count and idle time.
    GzipByRecords,
    /// Parquet, rolled by age and record count.
    Parquet,
}

/// The kind of membership in a Kafka group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// Each member gets an id when it joins: the group waits for a dead member until its session
    /// times out.
    Dynamic,
    /// Each member has a permanent id: one that restarts gets its partitions immediately.
    Static,
}

/// The session timeout: the broker removes a silent member from the group after this time.
pub(crate) const SESSION_MILLIS: u64 = 1500;

/// Settings that suit a debug build on a small machine, with state in this store. The namespace is
/// the name of the site.
pub(crate) fn settings(site: &Site, store: Store) -> String {
    let state = match store {
        Store::Embedded => String::new(),
        Store::Redis => state_in(site, &server("PSEIDON_TEST_REDIS")),
        Store::Cluster => state_in(site, &server("PSEIDON_TEST_REDIS_CLUSTER")),
    };
    format!(
        "{{:etl-threads 2 :io-threads 2 :writer-threads 2 :memory \"64MB\" :commit-interval \"200ms\" :shutdown-grace \"5m\" {state}}}"
    )
}

/// The settings for state on a Redis server.
pub(crate) fn state_in(site: &Site, url: &str) -> String {
    format!(":state \"{url}\" :namespace \"{}\"", site.name)
}

/// A `kafka` source of this topic.
pub(crate) fn kafka_source(topic: &str, membership: Membership, more: &str) -> String {
    let instance = if membership == Membership::Static {
        ":instance-id \"one\""
    } else {
        ""
    };
    format!(
        "(kafka {{:brokers \"{}\" :topics [\"{topic}\"] {instance} {more}\n   \
         :schema {{:p :int64 :n :int64 :bucket :utf8 :pad :utf8}}\n   \
         :properties {{\"session.timeout.ms\" \"{SESSION_MILLIS}\" \"heartbeat.interval.ms\" \"300\"}}}})",
        brokers()
    )
}

/// A `files` sink with a folder in `out` for each bucket.
pub(crate) fn files_sink(layout: Layout) -> String {
    let options = match layout {
        Layout::GzipBySize => {
            ":codec :json :compression :gzip :rollover {:size \"8KB\" :idle \"300ms\"}"
        }
        Layout::GzipByRecords => {
            ":codec :json :compression :gzip :rollover {:records 150 :idle \"300ms\"}"
        }
        Layout::Parquet => ":codec :parquet :rollover {:age \"700ms\" :records 400}",
    };
    format!("(files {{:path \"out/{{bucket}}\" {options} :check-freq \"50ms\"}})")
}

/// A pipeline with this name, settings, source and sink.
pub(crate) fn pipeline(name: &str, settings: &str, source: &str, sink: &str) -> String {
    format!(
        "{{:name \"{name}\"\n :settings {settings}\n in {source}\n out {sink}\n pipeline (-> in out)}}\n"
    )
}

/// A pipeline from the site's topic to files.
pub(crate) fn kafka_to_files(
    site: &Site,
    store: Store,
    membership: Membership,
    layout: Layout,
) -> String {
    pipeline(
        &site.name,
        &settings(site, store),
        &kafka_source(&site.name, membership, ""),
        &files_sink(layout),
    )
}

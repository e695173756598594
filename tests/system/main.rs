//! The real binary on real servers: crashes, take-overs, and everything end to end.
//!
//! One test binary, so that it links once. Servers are told by the environment: see `tests/run`,
//! which starts them. Each test prints its seed; `PSEIDON_TEST_SEED` repeats it. A test that fails
//! keeps its folder and shows the ends of its logs.
//!
//! - [`fail_points`], [`kills`]: killed at each step of the protocol, and at random.
//! - [`instances`]: several instances that freeze, come and go.
//! - [`logs`]: files that are read once and logs that are followed while they rotate, with kills.
//! - [`log_table`], [`log_faults`]: logs that a MySQL table names, while its rows change and while
//!   servers fail.
//! - [`many_logs`]: hundreds of logs in one process, and what they take of it.
//! - [`legacy_files`]: configuration of pseidon-etl that runs as it is; [`old_offsets`]: what a
//!   pseidon-etl has left in Redis.
//! - [`typed_logs`], [`registry_logs`], [`moved_logs`]: logs with columns, logs of Avro records,
//!   files that are moved when they are closed.
//! - [`kafka_sink`]: exactly once into Kafka. [`kafka_sink_faults`]: what a topic refuses, and
//!   topics that lose what they held.
//! - [`kafka_source`]: topics that go, come again or never were, and a group's offsets as evidence.
//! - [`flows`], [`bad_records`], [`command_line`]: what a pipeline does with records, and what the
//!   command line does.
//! - [`secure`]: brokers behind TLS and a login. [`service`]: what a run shows of itself, and does
//!   when it is told.
//! - [`under_load`]: sources that are faster than their sinks.
//! - [`shared_files`]: instances that read one folder.
//! - [`dead_runs`]: what a dead run has left on another disk, and its commit that is still under
//!   way.
//! - [`memory`]: how much memory hostile pipelines take. [`restarts`]: what a run says and does
//!   between attempts.
//! - [`state`], [`outages`]: what happens when state is lost, changed or held by another, and when
//!   disks and servers fail.

mod bad_records;
mod command_line;
mod dead_runs;
mod fail_points;
mod flows;
mod harness;
mod instances;
mod kafka_sink;
mod kafka_sink_faults;
mod kafka_source;
mod kills;
mod legacy_files;
mod log_faults;
mod log_table;
mod logs;
mod many_logs;
mod memory;
mod moved_logs;
mod old_offsets;
mod outages;
mod registry_logs;
mod restarts;
mod secure;
mod service;
mod shared_files;
mod state;
mod typed_logs;
mod under_load;

//! End-to-end tests of the real binary with real servers, including crashes and take-overs.
//!
//! They are one test binary, so that it is linked once. The addresses of the servers are in the
//! environment: `tests/run` starts them. Each test prints its seed; `PSEIDON_TEST_SEED` repeats it.
//! A test that fails keeps its folder and prints the ends of its logs.
//!
//! - [`fail_points`], [`kills`]: kills at each step of the protocol, and at random times.
//! - [`instances`]: several instances that freeze, start and stop.
//! - [`logs`]: log files that are read once or followed while they rotate, with kills.
//! - [`log_table`], [`log_faults`]: logs of a MySQL table, while its rows change and while servers
//!   fail.
//! - [`many_logs`]: hundreds of logs in one process, and the resources they use.
//! - [`legacy_files`]: unchanged configurations of pseidon-etl; [`old_offsets`]: offsets that
//!   pseidon-etl left in Redis.
//! - [`typed_logs`], [`registry_logs`], [`moved_logs`]: logs with columns, logs of Avro records,
//!   files that are moved when they are closed.
//! - [`kafka_sink`]: exactly-once delivery to Kafka. [`kafka_sink_faults`]: records that a topic
//!   refuses, and topics that lose data.
//! - [`kafka_source`]: the offsets of a group as evidence of lost state, and invalid headers.
//!   [`kafka_topics`]: topics that are deleted, recreated or missing.
//! - [`flows`], [`edits`], [`parse`], [`unnest`], [`sample`], [`limit`], [`bad_records`],
//!   [`command_line`]: the output of flows, changed fields, invalid records, and the commands.
//! - [`canary`]: secrets in each option, which nothing prints.
//! - [`closed_streams`]: output whose reader has gone, or that cannot be written.
//! - [`expressions`]: named expressions, in EDN, TOML and included files.
//! - [`arrow`], [`avro`], [`parquet`]: files of columns that are read, with kills
//!   ([`column_files`]).
//! - [`replay`]: quarantined records that pass the repaired pipeline, with kills.
//! - [`broken_files`]: files that cannot be read further, with kills.
//! - [`csv`]: CSV that other programs wrote, and kills while it is read.
//! - [`group`]: groups of bounded runs, with kills.
//! - [`golden`]: what a person reads, compared with files.
//! - [`secure`]: brokers with TLS and authentication. [`service`]: the HTTP endpoints and the REPL.
//!   [`access`]: who may use them.
//! - [`under_load`]: sources that are faster than their sinks.
//! - [`shared_files`]: instances that read the same folder. [`refused_folders`]: folders that may
//!   not be read for a while.
//! - [`dead_runs`]: work that a dead run left on another disk, or on one that is lost, and a commit
//!   that arrives after its sender died.
//! - [`positions`]: the positions of a pipeline, shown also while it runs. [`moved_positions`]:
//!   positions that are moved and state that is forgotten, with kills.
//! - [`last_lines`], [`multi_line`]: lines without an end, and records of several lines, with
//!   kills.
//! - [`memory`]: the memory use of hostile pipelines. [`restarts`]: a run between its attempts.
//! - [`unreachable`]: servers that do not answer when a run starts.
//! - [`sandbox`]: what a process in the sandbox cannot do.
//! - [`signed_state`]: state that another program has written.
//! - [`state`], [`outages`]: state that is lost, changed or in use by another process, and disks
//!   and servers that fail.

mod access;
mod arrow;
mod avro;
mod bad_records;
mod broken_files;
mod canary;
mod changed;
mod closed_streams;
mod column_files;
mod command_line;
mod csv;
mod dead_runs;
mod edits;
mod expressions;
mod fail_points;
mod flows;
mod functions;
mod golden;
mod group;
mod harness;
mod instances;
mod kafka_sink;
mod kafka_sink_faults;
mod kafka_source;
mod kafka_topics;
mod kills;
mod last_lines;
mod legacy_files;
mod limit;
mod log_faults;
mod log_instances;
mod log_table;
mod logs;
mod lookup;
mod lookup_reload;
mod many_logs;
mod memory;
mod moved_logs;
mod moved_positions;
mod multi_line;
mod old_offsets;
mod outages;
mod parquet;
mod parse;
mod positions;
mod recipe_commands;
mod recipes;
mod refused_folders;
mod registry_logs;
mod replay;
mod restarts;
mod resumed_files;
mod route;
mod sample;
mod sandbox;
mod secure;
mod service;
mod shared_files;
mod shared_state;
mod signed_state;
mod state;
mod typed_logs;
mod under_load;
mod unnest;
mod unreachable;
mod unwritable;

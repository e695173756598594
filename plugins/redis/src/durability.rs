//! How durable an acknowledged write is, judged by the server's persistence and replication.

use std::collections::HashMap;

use pseidon_delivery::StoreError;
use redis::cmd;

use crate::link::{Acknowledgement, Link, unless_forbidden};
use crate::replicas::Replicas;

/// What a server reports about its durability. A part that it may not report is empty.
#[derive(Debug, Default)]
pub(crate) struct DurabilityReport {
    /// `CONFIG GET`: `appendonly`, `appendfsync`, `min-replicas-to-write`, `maxmemory-policy` and
    /// so on.
    pub(crate) config: HashMap<String, String>,
    /// `INFO persistence`, `replication` and `memory`.
    pub(crate) info: HashMap<String, String>,
    /// Whether another server takes over when this one fails.
    pub(crate) fails_over: bool,
    /// How many replicas acknowledge each step, and how; `None` if the server answers without them.
    pub(crate) acknowledged: Option<(u32, Acknowledgement)>,
}

impl DurabilityReport {
    /// Asks the server that holds `key`.
    pub(crate) fn query(
        link: &Link,
        replicas: Option<&Replicas>,
        key: &str,
    ) -> Result<DurabilityReport, StoreError> {
        link.request(|connection| {
            let mut report = DurabilityReport {
                fails_over: link.fails_over(),
                ..DurabilityReport::default()
            };
            if let Some(replicas) = replicas {
                report.acknowledged =
                    Some((replicas.count(), replicas.acknowledgement(connection)?));
            }
            for setting in ["*append*", "save", "maxmemory*"] {
                let settings: Option<HashMap<String, String>> = unless_forbidden(
                    connection.query_holder(key, cmd("CONFIG").arg("GET").arg(setting)),
                )?;
                report.config.extend(settings.unwrap_or_default());
            }
            for section in ["persistence", "replication", "memory"] {
                report.info.extend(connection.info(key, section)?);
            }
            Ok(report)
        })
    }

    /// One sentence for each way in which an acknowledged write could be lost.
    pub(crate) fn weaknesses(&self) -> Vec<String> {
        [
            self.crash(),
            self.rewrites(),
            self.failover(),
            self.eviction(),
            self.log_errors(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Whether each step is on the server's disk when it is answered, regardless of `appendfsync`.
    fn is_synced(&self) -> bool {
        matches!(self.acknowledged, Some((_, Acknowledgement::Synced)))
    }

    /// The writes that a crash of the server's machine could lose.
    fn crash(&self) -> Option<String> {
        if self.is_synced() {
            return None;
        }
        let setting = |name: &str| self.config.get(name).map(String::as_str);
        let append_only = setting("appendonly").or_else(|| {
            match self.info.get("aof_enabled").map(String::as_str) {
                Some("1") => Some("yes"),
                Some("0") => Some("no"),
                _ => None,
            }
        });
        let sentence = match (append_only, setting("appendfsync")) {
            (Some("yes"), Some("always")) => return None,
            (Some("yes"), Some("everysec")) => {
                "appendfsync is everysec: up to two seconds of commits may be lost when the Redis \
                 machine crashes; set it to always"
                    .to_owned()
            }
            (Some("yes"), Some(other)) => format!(
                "appendfsync is {other}: what the operating system has not written yet may be lost \
                 when the Redis machine crashes; set it to always"
            ),
            (Some("no"), _) if setting("save") == Some("") => {
                "Redis keeps nothing on disk (appendonly no, save \"\"): all commits are lost when \
                 it stops; set appendonly yes and appendfsync always"
                    .to_owned()
            }
            (Some("no"), _) => "Redis writes snapshots only (appendonly no): every commit since \
                                the last one is lost when it crashes; set appendonly yes and \
                                appendfsync always"
                .to_owned(),
            (Some(_), None) => {
                "Redis keeps a log, but does not report how often it is synced (CONFIG GET is not \
                 allowed): if not at every write, commits may be lost when its machine crashes"
                    .to_owned()
            }
            (None | Some(_), _) => {
                "Redis does not report how it persists (CONFIG GET and INFO are not allowed): \
                 commits may be lost when its machine crashes unless it has appendonly yes and \
                 appendfsync always"
                    .to_owned()
            }
        };
        Some(sentence)
    }

    /// With this setting, `always` is suspended while the log is rewritten or a snapshot is taken.
    fn rewrites(&self) -> Option<String> {
        let setting = |name: &str| self.config.get(name).map(String::as_str);
        let voids = !self.is_synced()
            && setting("appendfsync") == Some("always")
            && setting("no-appendfsync-on-rewrite") == Some("yes");
        voids.then(|| {
            "no-appendfsync-on-rewrite is yes: while Redis rewrites its log or takes a snapshot, \
             commits are not synced and may be lost when its machine crashes; set it to no"
                .to_owned()
        })
    }

    fn failover(&self) -> Option<String> {
        let replicas = self
            .info
            .get("connected_slaves")
            .and_then(|count| count.parse::<u32>().ok());
        if let Some((count, _)) = self.acknowledged {
            return Self::replicas_left_behind(count, replicas);
        }
        if self.fails_over {
            return Some(
                "replication is asynchronous: commits that a replica has not received may be lost \
                 when it is made master; a pipeline that finds the store behind stops with an \
                 error; add ?wait-replicas=N to the URL, with N the number of replicas"
                    .to_owned(),
            );
        }
        let replicas = replicas.filter(|count| *count > 0)?;
        Some(format!(
            "Redis has {replicas} replica(s): if one is made master, commits that it has not \
             received are lost; add ?wait-replicas={replicas} to the URL"
        ))
    }

    /// Replicas that may lack a commit, and one of which may be made master. With too few replicas
    /// nothing is committed, so nothing is lost.
    fn replicas_left_behind(count: u32, replicas: Option<u32>) -> Option<String> {
        match replicas {
            Some(replicas) if replicas <= count => None,
            Some(replicas) => Some(format!(
                "Redis has {replicas} replicas and wait-replicas is {count}: a commit that {count} \
                 of them acknowledged is lost if another one is made master; set it to {replicas}"
            )),
            None => Some(format!(
                "Redis does not report how many replicas it has (INFO is not allowed): if there \
                 are more than {count} (wait-replicas), a commit is lost if one that has not \
                 acknowledged it is made master"
            )),
        }
    }

    fn eviction(&self) -> Option<String> {
        let limited = self
            .config
            .get("maxmemory")
            .is_none_or(|limit| limit != "0");
        let policy = self
            .config
            .get("maxmemory-policy")
            .or_else(|| self.info.get("maxmemory_policy"))?;
        // The store's keys never expire, so the volatile policies do not evict them.
        (limited && policy.starts_with("allkeys")).then(|| {
            format!(
                "maxmemory-policy is {policy}: commit records may be evicted when memory is short; \
                 set it to noeviction"
            )
        })
    }

    fn log_errors(&self) -> Option<String> {
        let failed = self
            .info
            .get("aof_last_write_status")
            .is_some_and(|status| status == "err");
        failed.then(|| {
            "the last write of Redis to its log failed (aof_last_write_status is err): check its \
             disk"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use Acknowledgement::{Received, Synced};

    use super::*;
    use crate::link::parse_info;

    type Settings = &'static [(&'static str, &'static str)];

    /// Settings, `INFO`, whether there is a failover, and a part of each sentence.
    type Case = (Settings, &'static str, bool, &'static [&'static str]);

    const SAFE: Settings = &[
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("maxmemory", "0"),
        ("maxmemory-policy", "allkeys-lru"),
    ];

    const WEAKNESSES: &[Case] = &[
        (SAFE, "aof_enabled:1\r\nconnected_slaves:0\r\n", false, &[]),
        (SAFE, "", true, &["replication is asynchronous"]),
        (
            SAFE,
            "# Replication\r\nconnected_slaves:2\r\n",
            false,
            &["has 2 replica(s)"],
        ),
        (
            SAFE,
            "aof_last_write_status:err\r\n",
            false,
            &["its log failed"],
        ),
        (
            &[("appendonly", "yes"), ("appendfsync", "everysec")],
            "",
            false,
            &["two seconds"],
        ),
        (
            &[
                ("appendonly", "yes"),
                ("appendfsync", "always"),
                ("no-appendfsync-on-rewrite", "yes"),
            ],
            "",
            false,
            &["while Redis rewrites its log"],
        ),
        (
            &[
                ("appendonly", "yes"),
                ("appendfsync", "always"),
                ("no-appendfsync-on-rewrite", "no"),
            ],
            "",
            false,
            &[],
        ),
        (
            &[("appendonly", "yes"), ("appendfsync", "no")],
            "",
            false,
            &["appendfsync is no"],
        ),
        (
            &[("appendonly", "no"), ("save", "3600 1")],
            "",
            false,
            &["snapshots only"],
        ),
        (
            &[
                ("appendonly", "no"),
                ("appendfsync", "always"),
                ("save", ""),
            ],
            "",
            false,
            &["nothing on disk"],
        ),
        (
            &[],
            "aof_enabled:1\r\n",
            false,
            &["does not report how often"],
        ),
        (&[], "aof_enabled:0\r\n", false, &["snapshots only"]),
        (&[], "", false, &["does not report how it persists"]),
        (
            &[
                ("appendonly", "yes"),
                ("appendfsync", "always"),
                ("maxmemory", "9"),
                ("maxmemory-policy", "allkeys-lru"),
            ],
            "",
            false,
            &["evicted"],
        ),
        (
            &[
                ("appendonly", "yes"),
                ("appendfsync", "always"),
                ("maxmemory", "9"),
                ("maxmemory-policy", "volatile-lru"),
            ],
            "",
            false,
            &[],
        ),
    ];

    #[test]
    fn each_weakness_is_one_sentence() {
        for (config, info, fails_over, expected) in WEAKNESSES {
            check(config, info, *fails_over, None, expected);
        }
    }

    const SYNCED_ON_REWRITE: Settings = &[
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("no-appendfsync-on-rewrite", "no"),
    ];

    const UNSYNCED_ON_REWRITE: Settings = &[
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("no-appendfsync-on-rewrite", "yes"),
    ];

    const SYNCED_EVERY_SECOND: Settings = &[
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("no-appendfsync-on-rewrite", "yes"),
    ];

    /// Settings, `INFO`, how many replicas acknowledge and how, and a part of each sentence.
    type ReplicationCase = (
        Settings,
        &'static str,
        (u32, Acknowledgement),
        &'static [&'static str],
    );

    const ACKNOWLEDGED: &[ReplicationCase] = &[
        (
            SYNCED_ON_REWRITE,
            "connected_slaves:1\n",
            (1, Received),
            &[],
        ),
        // Nothing is acknowledged, so nothing is lost.
        (
            SYNCED_ON_REWRITE,
            "connected_slaves:0\n",
            (1, Received),
            &[],
        ),
        (
            SYNCED_ON_REWRITE,
            "connected_slaves:2\n",
            (1, Received),
            &["set it to 2"],
        ),
        (
            SYNCED_ON_REWRITE,
            "",
            (1, Received),
            &["does not report how many replicas"],
        ),
        (
            SYNCED_EVERY_SECOND,
            "connected_slaves:1\n",
            (1, Received),
            &["two seconds"],
        ),
        (
            UNSYNCED_ON_REWRITE,
            "connected_slaves:1\n",
            (1, Received),
            &["while Redis rewrites its log"],
        ),
        // The server answers only when its own disk has the step.
        (
            SYNCED_EVERY_SECOND,
            "connected_slaves:1\n",
            (1, Synced),
            &[],
        ),
        (
            UNSYNCED_ON_REWRITE,
            "connected_slaves:1\n",
            (1, Synced),
            &[],
        ),
        (
            UNSYNCED_ON_REWRITE,
            "connected_slaves:3\n",
            (2, Synced),
            &["set it to 3"],
        ),
    ];

    #[test]
    fn replicas_that_acknowledge_are_not_a_weakness() {
        for (config, info, acknowledged, expected) in ACKNOWLEDGED {
            for fails_over in [false, true] {
                check(config, info, fails_over, Some(*acknowledged), expected);
            }
        }
    }

    fn check(
        config: Settings,
        info: &str,
        fails_over: bool,
        acknowledged: Option<(u32, Acknowledgement)>,
        expected: &[&str],
    ) {
        let config = config
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let report = DurabilityReport {
            config,
            info: parse_info(info).collect(),
            fails_over,
            acknowledged,
        };
        let found = report.weaknesses();
        assert_eq!(found.len(), expected.len(), "{report:?}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    }
}

//! The state store in Redis.

use std::collections::{BTreeSet, HashMap};

use pseidon_delivery::store::new_identity;
use pseidon_delivery::{
    ClaimRound, Claimant, Claims, Commit, CommitError, CommitRecord, LaneId, Position, ResumeToken,
    SinkId, SplitCommit, SplitId, StagedEntry, StateStore, StoreError, StoredPlan,
};
use redis::{Cmd, FromRedisValue, RedisResult, cmd};
use serde_json::{Value, json};

use crate::address;
use crate::durability::{self, DurabilityReport};
use crate::link::{Link, OpenConnection, unless_forbidden};
use crate::migration;
use crate::replicas::Replicas;
use crate::scripts::{ScriptCall, Scripts};

/// The namespace of pipelines that do not set one.
pub const DEFAULT_NAMESPACE: &str = "pseidon";

/// The format of the keys. A store with another format was written by another version.
pub(crate) const FORMAT: &str = "2";
/// How many splits one script takes over: each record may have thousands of lanes, and a script
/// blocks the server.
const SPLITS_PER_TAKE: usize = 16;
/// How many elements of a hash or a set one command reads or removes, for the same reason.
const ELEMENTS_PER_COMMAND: usize = 256;
/// The prefix of the fields of a record that are lanes.
const LANE_FIELD: &str = "a:";
/// The number of marks of fenced owners above which those are removed that no record names.
const MAX_FENCED: usize = 64;

/// The state of one pipeline in Redis.
pub struct RedisStore {
    link: Link,
    /// The replicas to wait for; with `None` a step is done once the server has answered it.
    replicas: Option<Replicas>,
    /// `{namespace:pipeline}`: the prefix of all keys.
    tag: String,
    scripts: Scripts,
}

impl RedisStore {
    /// Connects to the server of the URL. Pipelines with different names, or in different
    /// namespaces, do not affect each other.
    pub fn connect(url: &str, namespace: &str, pipeline: &str) -> Result<RedisStore, StoreError> {
        let url = address::parse(url).map_err(StoreError::Failed)?;
        let tag = format!("{{{}:{}}}", encoded(namespace), encoded(pipeline));
        let store = RedisStore {
            link: Link::open(url.address)?,
            replicas: url
                .wait_replicas
                .map(|count| Replicas::new(count, format!("{tag}:replicated"))),
            tag,
            scripts: Scripts::new(),
        };
        match store.hash_field("meta", "format")?.as_deref() {
            None | Some(FORMAT) => Ok(store),
            Some("1") => migration::from_format_1(&store).map(|()| store),
            Some(found) => Err(other_format(found)),
        }
    }

    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.tag)
    }

    pub(crate) fn splits_key(&self, sink: &SinkId) -> String {
        self.key(&format!("splits:{}", encoded(sink.as_str())))
    }

    pub(crate) fn split_key(&self, sink: &SinkId, split: &SplitId) -> String {
        self.key(&format!("split:{}:{split}", encoded(sink.as_str())))
    }

    fn staged_key(&self, sink: &SinkId) -> String {
        self.key(&format!("staged:{}", encoded(sink.as_str())))
    }

    pub(crate) fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        self.link
            .request(|connection| command.query(connection.keyed()))
    }

    /// Like [`RedisStore::query`], but waits for the replicas, because other instances or systems
    /// rely on the result.
    fn query_confirmed<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        self.link
            .request(|connection| self.query_replicated(connection, command))?
    }

    fn call_script<T: FromRedisValue>(&self, call: &ScriptCall<'_>) -> Result<T, StoreError> {
        self.link
            .request(|connection| call.send(|command| command.query(connection.keyed())))
    }

    /// Like [`RedisStore::query_confirmed`], for a script.
    fn call_confirmed<T: FromRedisValue>(&self, call: &ScriptCall<'_>) -> Result<T, StoreError> {
        self.link
            .request(|connection| call.send(|command| self.query_replicated(connection, command)))?
    }

    fn query_replicated<T: FromRedisValue>(
        &self,
        connection: &mut OpenConnection,
        command: &Cmd,
    ) -> RedisResult<Result<T, StoreError>> {
        match &self.replicas {
            None => command.query(connection.keyed()).map(Ok),
            Some(replicas) => Ok(replicas
                .query(connection, command)?
                .map_err(StoreError::Unavailable)),
        }
    }

    pub(crate) fn hash_field(&self, hash: &str, field: &str) -> Result<Option<String>, StoreError> {
        self.query(cmd("HGET").arg(self.key(hash)).arg(field))
    }

    fn members_key(&self, source: &str) -> String {
        self.key(&format!("members:{}", encoded(source)))
    }

    fn claim_key(&self, source: &str, split: &SplitId) -> String {
        self.key(&format!("claim:{}:{split}", encoded(source)))
    }

    fn fenced_key(&self, sink: &SinkId) -> String {
        self.key(&format!("fenced:{}", encoded(sink.as_str())))
    }

    pub(crate) fn splits(&self, sink: &SinkId) -> Result<Vec<SplitId>, StoreError> {
        let splits: Vec<String> = self.query(cmd("SMEMBERS").arg(self.splits_key(sink)))?;
        Ok(splits.into_iter().map(SplitId::from).collect())
    }

    fn take_chunk(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
        claimant: &Claimant,
    ) -> Result<Vec<CommitRecord>, CommitError> {
        let Claimant {
            owner,
            plan,
            accepts_other_plans,
        } = claimant;
        let mut call = self.scripts.take.call();
        call.key(self.key("meta"))
            .key(self.key("sinks"))
            .key(self.splits_key(sink))
            .key(self.fenced_key(sink));
        call.arg(FORMAT)
            .arg(owner)
            .arg(plan)
            .arg(u8::from(*accepts_other_plans))
            .arg(sink.as_str());
        for split in splits {
            call.key(self.split_key(sink, split)).arg(split.as_str());
        }
        let taken: Result<Vec<HashMap<String, String>>, _> = self.call_confirmed(&call);
        let taken = taken.map_err(|error| match error {
            StoreError::Failed(reason) if reason.contains("PSEIDONFORMAT") => {
                other_format("another number").into()
            }
            StoreError::Failed(reason) if reason.contains("PSEIDONFENCED") => {
                CommitError::OwnerFenced(owner.clone())
            }
            other => other.into(),
        })?;
        let mut records = taken
            .into_iter()
            .map(record)
            .collect::<Result<Vec<_>, _>>()?;
        records
            .iter_mut()
            .for_each(|record| record.owners.retain(|other| other != owner));
        Ok(records)
    }

    fn commit_steps(&self, steps: &[(&SinkId, &Commit)]) -> Result<Vec<Vec<String>>, StoreError> {
        let mut call = self.scripts.commit.call();
        for (sink, commit) in steps {
            call.key(self.staged_key(sink)).key(self.fenced_key(sink));
            for step in &commit.splits {
                call.key(self.split_key(sink, &step.split));
            }
        }
        call.arg(Value::from_iter(steps.iter().map(|(_, commit)| step_json(commit))).to_string());
        self.call_confirmed(&call)
    }
}

impl StateStore for RedisStore {
    fn identity(&self) -> Result<String, StoreError> {
        if let Some(known) = self.hash_field("meta", "identity")? {
            return Ok(known);
        }
        // Of several instances that start at the same time, the first one wins.
        let _: i64 = self.query_confirmed(
            cmd("HSETNX")
                .arg(self.key("meta"))
                .arg("identity")
                .arg(new_identity()?),
        )?;
        let decided = self.hash_field("meta", "identity")?;
        decided.ok_or_else(|| StoreError::Failed("redis lost what was just written to it".into()))
    }

    fn weaknesses(&self) -> Result<Vec<String>, StoreError> {
        let key = self.key("meta");
        let report = self.link.request(|connection| {
            let mut report = DurabilityReport {
                fails_over: self.link.fails_over(),
                ..DurabilityReport::default()
            };
            if let Some(replicas) = &self.replicas {
                report.acknowledged =
                    Some((replicas.count(), replicas.acknowledgement(connection)?));
            }
            for setting in ["*append*", "save", "maxmemory*"] {
                let settings: Option<HashMap<String, String>> = unless_forbidden(
                    connection.query_holder(&key, cmd("CONFIG").arg("GET").arg(setting)),
                )?;
                report.config.extend(settings.unwrap_or_default());
            }
            for section in ["persistence", "replication", "memory"] {
                let text: Option<String> =
                    unless_forbidden(connection.query_holder(&key, cmd("INFO").arg(section)))?;
                report
                    .info
                    .extend(durability::parse_info(&text.unwrap_or_default()));
            }
            Ok(report)
        })?;
        Ok(report.weaknesses())
    }

    fn take(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
        claimant: &Claimant,
    ) -> Result<Vec<CommitRecord>, CommitError> {
        let mut records = Vec::with_capacity(splits.len());
        for some in splits.chunks(SPLITS_PER_TAKE) {
            records.extend(self.take_chunk(sink, some, claimant)?);
        }
        Ok(records)
    }

    fn claim(&self, source: &str, round: &ClaimRound<'_>) -> Result<Claims, StoreError> {
        let mut call = self.scripts.claim.call();
        call.key(self.members_key(source));
        round
            .held
            .iter()
            .chain(round.wanted)
            .for_each(|split| _ = call.key(self.claim_key(source, split)));
        call.arg(round.owner)
            .arg(round.lease.as_millis() as u64)
            .arg(round.total)
            .arg(round.held.len());
        let answer: Vec<usize> = self.call_script(&call)?;
        let [fair_share, flags @ ..] = answer.as_slice() else {
            return Err(unexpected_answer(&answer));
        };
        if flags.len() != round.held.len() + round.wanted.len() {
            return Err(unexpected_answer(&answer));
        }
        let (held, wanted) = flags.split_at(round.held.len());
        let lost = round
            .held
            .iter()
            .zip(held)
            .filter(|(_, is_ours)| **is_ours == 0)
            .map(|(split, _)| split.clone());
        let granted = round
            .wanted
            .iter()
            .zip(wanted)
            .filter(|(_, is_ours)| **is_ours == 1)
            .map(|(split, _)| split.clone());
        Ok(Claims {
            fair_share: *fair_share,
            granted: granted.collect(),
            lost: lost.collect(),
        })
    }

    fn unclaim(
        &self,
        source: &str,
        splits: &[SplitId],
        owner: &str,
        leaves: bool,
    ) -> Result<(), StoreError> {
        let mut call = self.scripts.unclaim.call();
        call.key(self.members_key(source));
        splits
            .iter()
            .for_each(|split| _ = call.key(self.claim_key(source, split)));
        call.arg(owner).arg(u8::from(leaves));
        self.call_script(&call)
    }

    fn set_owner(
        &self,
        sink: &SinkId,
        splits: &[(SplitId, u64)],
        owner: Option<&str>,
    ) -> Result<(), StoreError> {
        if splits.is_empty() {
            return Ok(());
        }
        let mut call = self.scripts.set_owner.call();
        call.arg(owner.unwrap_or_default());
        for (split, epoch) in splits {
            call.key(self.split_key(sink, split)).arg(*epoch);
        }
        self.call_confirmed(&call)
    }

    fn fence(&self, sink: &SinkId, owner: &str) -> Result<(), StoreError> {
        let key = self.fenced_key(sink);
        self.query_confirmed::<i64>(cmd("SADD").arg(&key).arg(owner))?;
        if self.query::<usize>(cmd("SCARD").arg(&key))? <= MAX_FENCED {
            return Ok(());
        }
        let fenced: Vec<String> = self.query(cmd("SMEMBERS").arg(&key))?;
        let owners = self.owners(sink)?;
        // An owner without a record has lost all its epochs, so its mark has no effect any more.
        let useless: Vec<String> = fenced
            .into_iter()
            .filter(|other| other != owner && !owners.contains(other))
            .collect();
        useless
            .chunks(ELEMENTS_PER_COMMAND)
            .try_for_each(|some| self.query::<i64>(cmd("SREM").arg(&key).arg(some)).map(drop))
    }

    fn owners(&self, sink: &SinkId) -> Result<BTreeSet<String>, StoreError> {
        let mut owners = BTreeSet::new();
        for some in self.splits(sink)?.chunks(ELEMENTS_PER_COMMAND) {
            let mut call = self.scripts.owners.call();
            some.iter()
                .for_each(|split| _ = call.key(self.split_key(sink, split)));
            let of_splits: Vec<String> = self.call_script(&call)?;
            owners.extend(of_splits.iter().flat_map(|of_split| names(of_split)));
        }
        Ok(owners)
    }

    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        if steps.is_empty() {
            return Vec::new();
        }
        match self.commit_steps(steps) {
            Ok(answers) if answers.len() == steps.len() => answers
                .iter()
                .zip(steps)
                .map(|(answer, (_, commit))| read_answer(answer, commit))
                .collect(),
            Ok(answers) => steps
                .iter()
                .map(|_| Err(unexpected_answer(&answers).into()))
                .collect(),
            Err(error) => steps.iter().map(|_| Err(error.clone().into())).collect(),
        }
    }

    fn staged(&self, sink: &SinkId) -> Result<Vec<StagedEntry>, StoreError> {
        // The caller publishes these entries, which cannot be undone: a replica must have them too,
        // whichever instance has staged them.
        let entries: Vec<(String, String)> =
            self.query_confirmed(cmd("HGETALL").arg(self.staged_key(sink)))?;
        Ok(entries
            .into_iter()
            .map(|(id, detail)| StagedEntry { id, detail })
            .collect())
    }

    fn forget(&self, sink: &SinkId, ids: &[String]) -> Result<(), StoreError> {
        ids.chunks(ELEMENTS_PER_COMMAND)
            .try_for_each(|some| self.query(cmd("HDEL").arg(self.staged_key(sink)).arg(some)))
    }

    fn records(&self, sink: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError> {
        let read = |split: SplitId| {
            let fields = self.query(cmd("HGETALL").arg(self.split_key(sink, &split)))?;
            Ok((split, record(fields)?))
        };
        self.splits(sink)?.into_iter().map(read).collect()
    }

    fn forget_splits(&self, sink: &SinkId, splits: &[SplitId]) -> Result<(), StoreError> {
        splits.chunks(ELEMENTS_PER_COMMAND).try_for_each(|some| {
            let mut call = self.scripts.forget_splits.call();
            call.key(self.splits_key(sink));
            for split in some {
                call.key(self.split_key(sink, split)).arg(split.as_str());
            }
            self.call_script(&call)
        })
    }

    fn sinks(&self) -> Result<Vec<SinkId>, StoreError> {
        let sinks: Vec<String> = self.query(cmd("SMEMBERS").arg(self.key("sinks")))?;
        Ok(sinks.into_iter().map(SinkId::from).collect())
    }

    fn plans(&self) -> Result<Vec<String>, StoreError> {
        self.query(cmd("HKEYS").arg(self.key("plans")))
    }

    fn plan(&self, fingerprint: &str) -> Result<Option<String>, StoreError> {
        self.hash_field("plans", fingerprint)
    }

    fn add_plan(&self, plan: &StoredPlan) -> Result<(), StoreError> {
        self.query_confirmed::<i64>(
            cmd("HSET")
                .arg(self.key("plans"))
                .arg(&plan.fingerprint)
                .arg(&plan.text),
        )
        .map(drop)
    }

    fn forget_plans(&self, fingerprints: &[String]) -> Result<(), StoreError> {
        fingerprints
            .chunks(ELEMENTS_PER_COMMAND)
            .try_for_each(|some| {
                self.query::<i64>(cmd("HDEL").arg(self.key("plans")).arg(some))
                    .map(drop)
            })
    }

    fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.hash_field("notes", key)
    }

    fn set_note(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.query_confirmed::<i64>(cmd("HSET").arg(self.key("notes")).arg(key).arg(value))
            .map(drop)
    }
}

/// A name as a part of a key: percent-encodes the separator of parts and the bounds of the hash
/// tag.
fn encoded(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '%' | ':' | '{' | '}' => encoded.push_str(&format!("%{:02X}", u32::from(character))),
            other => encoded.push(other),
        }
    }
    encoded
}

/// A step as `commit.lua` parses it. Numbers are strings, and a list of pairs is one flat list.
fn step_json(commit: &Commit) -> Value {
    let split = |step: &SplitCommit| {
        let ahead: Vec<String> = step
            .ahead
            .iter()
            .flat_map(|(lane, upto)| [format!("{LANE_FIELD}{lane}"), upto.to_string()])
            .collect();
        let caught_up: Vec<String> = step
            .caught_up
            .iter()
            .map(|lane| format!("{LANE_FIELD}{lane}"))
            .collect();
        let mut split = json!({
            "epoch": step.epoch.to_string(),
            "seq": step.sequence.to_string(),
            "next": (step.sequence + 1).to_string(),
            "low": step.low.to_string(),
            "ahead": ahead,
            "caught_up": caught_up,
            // An empty string stands for none, so that the field can be written with the others.
            "finished": step.finished.map_or_else(String::new, |at| at.to_string()),
        });
        if let Some(resume) = &step.resume {
            split["resume"] = resume.as_str().into();
        }
        split
    };
    let splits: Vec<_> = commit.splits.iter().map(split).collect();
    let staged: Vec<&str> = commit
        .staged
        .iter()
        .flat_map(|entry| [entry.id.as_str(), entry.detail.as_str()])
        .collect();
    json!({ "owner": commit.owner, "splits": splits, "staged": staged, "published": commit.published })
}

fn read_answer(answer: &[String], commit: &Commit) -> Result<(), CommitError> {
    let step = |index: &String| {
        index
            .parse::<usize>()
            .ok()
            .and_then(|index| commit.splits.get(index.checked_sub(1)?))
    };
    match answer {
        [done] if done == "done" => return Ok(()),
        [owner] if owner == "owner" => return Err(CommitError::OwnerFenced(commit.owner.clone())),
        [fenced, indices @ ..] if fenced == "fenced" => {
            return Err(CommitError::Fenced(
                indices
                    .iter()
                    .filter_map(step)
                    .map(|step| step.split.clone())
                    .collect(),
            ));
        }
        [kind, index, found] => {
            if let (Some(step), Ok(found)) = (step(index), found.parse()) {
                let split = step.split.clone();
                return Err(match kind.as_str() {
                    "epoch" => CommitError::Epoch {
                        split,
                        expected: step.epoch,
                        found,
                    },
                    _ => CommitError::Sequence {
                        split,
                        expected: step.sequence,
                        found,
                    },
                });
            }
        }
        _ => {}
    }
    Err(unexpected_answer(&answer).into())
}

fn unexpected_answer(answer: &dyn std::fmt::Debug) -> StoreError {
    StoreError::Failed(format!(
        "unexpected answer of a script in redis: {answer:?}"
    ))
}

/// The owners in the field of a record.
fn names(owners: &str) -> impl Iterator<Item = String> + '_ {
    owners
        .split('\n')
        .filter(|owner| !owner.is_empty())
        .map(str::to_owned)
}

/// Parses the hash of a record.
fn record(fields: HashMap<String, String>) -> Result<CommitRecord, StoreError> {
    let mut record = CommitRecord::default();
    for (field, value) in fields {
        let number = || -> Result<Position, StoreError> {
            value.parse().map_err(|_| {
                StoreError::Failed(format!(
                    "redis holds a commit record whose {field} is {value:?}, not a number"
                ))
            })
        };
        match field.as_str() {
            "epoch" => record.epoch = number()?,
            "seq" => record.sequence = number()?,
            "low" => record.low = Some(number()?),
            "owner" => record.owners = names(&value).collect(),
            "plan" => record.plan = Some(value),
            "resume" => record.resume = Some(ResumeToken::from(value)),
            "finished" if value.is_empty() => {}
            "finished" => record.finished = Some(number()?),
            other => {
                if let Some(lane) = other.strip_prefix(LANE_FIELD) {
                    record.ahead.insert(LaneId::from(lane), number()?);
                }
            }
        }
    }
    Ok(record)
}

fn other_format(found: &str) -> StoreError {
    StoreError::Failed(format!(
        "the state in redis has format {found}, but this version reads {FORMAT}: use the version \
         that wrote it, or another namespace"
    ))
}

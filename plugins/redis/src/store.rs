//! The state store in Redis.

use std::collections::{BTreeSet, HashMap};

use pseidon_delivery::store::new_identity;
use pseidon_delivery::{
    ClaimRound, Claimant, Claims, Commit, CommitError, CommitRecord, InstanceId, Reason, SinkId,
    SplitId, StagedEntry, StagedId, StateStore, StoreError, StoredPlan, WithCauses,
};
use redis::cmd;
use serde_json::Value;

use crate::address;
use crate::encoding::{parse_owners, parse_record, read_answer, step_json, unexpected_answer};
use crate::keyspace::{FORMAT, Keyspace};
use crate::migration;
use crate::scripts::{ScriptCall, Scripts};

/// The namespace of pipelines that do not set one.
pub const DEFAULT_NAMESPACE: &str = "pseidon";

/// How many records one script takes over or reads: each may have thousands of lanes, and a script
/// blocks the server.
const SPLITS_PER_CALL: usize = 16;
/// How many elements of a hash or a set one command reads or removes, for the same reason.
const ELEMENTS_PER_COMMAND: usize = 256;
/// The number of marks of fenced owners above which those are removed that no record names.
const MAX_FENCED: usize = 64;

/// The state of one pipeline in Redis.
pub struct RedisStore {
    pub(crate) keyspace: Keyspace,
    pub(crate) scripts: Scripts,
}

impl RedisStore {
    /// Connects to the server of the URL. Pipelines with different names, or in different
    /// namespaces, do not affect each other.
    pub fn connect(url: &str, namespace: &str, pipeline: &str) -> Result<RedisStore, StoreError> {
        let url = address::parse(url).map_err(|reason| StoreError::Failed(reason.into()))?;
        url.address.warn_of_unchecked();
        let keyspace = Keyspace::connect(url, namespace, pipeline)?;
        match keyspace.hash_field("meta", "format")?.as_deref() {
            None | Some(FORMAT) => {}
            Some("1") => migration::from_format_1(&keyspace)?,
            Some(found) => return Err(other_format(found)),
        }
        Ok(RedisStore {
            keyspace,
            scripts: Scripts::new(),
        })
    }

    fn take_chunk(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
        owner: &InstanceId,
    ) -> Result<Vec<CommitRecord>, CommitError> {
        let mut call = self.scripts.take.call();
        call.key(self.keyspace.key("meta"))
            .key(self.keyspace.key("sinks"))
            .key(self.keyspace.splits_key(sink))
            .key(self.keyspace.fenced_key(sink));
        call.arg(FORMAT).arg(owner.as_str()).arg(sink.as_str());
        for split in splits {
            call.key(self.keyspace.split_key(sink, split))
                .arg(split.as_str());
        }
        let taken: Result<Vec<HashMap<String, String>>, _> = self.keyspace.call_confirmed(&call);
        let taken = taken.map_err(|error| match error {
            StoreError::Failed(reason) if is_from_script(&reason, "PSEIDONFORMAT") => {
                other_format("another number").into()
            }
            StoreError::Failed(reason) if is_from_script(&reason, "PSEIDONFENCED") => {
                CommitError::OwnerFenced(owner.clone())
            }
            other => other.into(),
        })?;
        let mut records = taken
            .into_iter()
            .map(parse_record)
            .collect::<Result<Vec<_>, _>>()?;
        records
            .iter_mut()
            .for_each(|record| record.owners.retain(|other| other != owner));
        Ok(records)
    }

    /// Adds splits and their epochs to a call.
    fn add_held(&self, call: &mut ScriptCall<'_>, sink: &SinkId, splits: &[(SplitId, u64)]) {
        for (split, epoch) in splits {
            call.key(self.keyspace.split_key(sink, split)).arg(*epoch);
        }
    }

    fn commit_steps(&self, steps: &[(&SinkId, &Commit)]) -> Result<Vec<Vec<String>>, StoreError> {
        let mut call = self.scripts.commit.call();
        for (sink, commit) in steps {
            call.key(self.keyspace.staged_key(sink))
                .key(self.keyspace.fenced_key(sink));
            for step in &commit.splits {
                call.key(self.keyspace.split_key(sink, &step.split));
            }
        }
        call.arg(Value::from_iter(steps.iter().map(|(_, commit)| step_json(commit))).to_string());
        self.keyspace.call_confirmed(&call)
    }
}

impl StateStore for RedisStore {
    fn identity(&self) -> Result<String, StoreError> {
        if let Some(known) = self.keyspace.hash_field("meta", "identity")? {
            return Ok(known);
        }
        // Of several instances that start at the same time, the first one wins.
        let _: i64 = self.keyspace.query_confirmed(
            cmd("HSETNX")
                .arg(self.keyspace.key("meta"))
                .arg("identity")
                .arg(new_identity()?),
        )?;
        let decided = self.keyspace.hash_field("meta", "identity")?;
        decided.ok_or_else(|| StoreError::Failed("redis lost what was just written to it".into()))
    }

    fn weaknesses(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.keyspace.durability()?.weaknesses())
    }

    fn take(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
        owner: &InstanceId,
    ) -> Result<Vec<CommitRecord>, CommitError> {
        let mut records = Vec::with_capacity(splits.len());
        for some in splits.chunks(SPLITS_PER_CALL) {
            records.extend(self.take_chunk(sink, some, owner)?);
        }
        Ok(records)
    }

    fn hold(
        &self,
        sink: &SinkId,
        splits: &[(SplitId, u64)],
        claimant: &Claimant,
    ) -> Result<(), CommitError> {
        let mut taken_since = Vec::new();
        for some in splits.chunks(ELEMENTS_PER_COMMAND) {
            let mut call = self.scripts.hold.call();
            call.arg(claimant.owner.as_str()).arg(&claimant.plan);
            self.add_held(&mut call, sink, some);
            let others: Vec<usize> = self.keyspace.call_confirmed(&call)?;
            for number in others {
                let (split, _) = some
                    .get(number.wrapping_sub(1))
                    .ok_or_else(|| unexpected_answer(&number))?;
                taken_since.push(split.clone());
            }
        }
        if taken_since.is_empty() {
            Ok(())
        } else {
            Err(CommitError::Fenced(taken_since))
        }
    }

    fn release(&self, sink: &SinkId, splits: &[(SplitId, u64)]) -> Result<(), StoreError> {
        splits.chunks(ELEMENTS_PER_COMMAND).try_for_each(|some| {
            let mut call = self.scripts.release.call();
            self.add_held(&mut call, sink, some);
            self.keyspace.call_confirmed(&call)
        })
    }

    fn claim(&self, source: &str, round: &ClaimRound<'_>) -> Result<Claims, StoreError> {
        let mut call = self.scripts.claim.call();
        call.key(self.keyspace.members_key(source));
        round
            .held
            .iter()
            .chain(round.wanted)
            .for_each(|split| _ = call.key(self.keyspace.claim_key(source, split)));
        call.arg(round.owner.as_str())
            .arg(round.lease.as_millis() as u64)
            .arg(round.total)
            .arg(round.held.len());
        let answer: Vec<usize> = self.keyspace.call_script(&call)?;
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
        owner: &InstanceId,
        leaves: bool,
    ) -> Result<(), StoreError> {
        let mut call = self.scripts.unclaim.call();
        call.key(self.keyspace.members_key(source));
        splits
            .iter()
            .for_each(|split| _ = call.key(self.keyspace.claim_key(source, split)));
        call.arg(owner.as_str()).arg(u8::from(leaves));
        self.keyspace.call_script(&call)
    }

    fn fence(&self, sink: &SinkId, owner: &InstanceId) -> Result<(), StoreError> {
        let key = self.keyspace.fenced_key(sink);
        self.keyspace
            .query_confirmed::<i64>(cmd("SADD").arg(&key).arg(owner.as_str()))?;
        if self.keyspace.query::<usize>(cmd("SCARD").arg(&key))? <= MAX_FENCED {
            return Ok(());
        }
        let fenced: Vec<String> = self.keyspace.query(cmd("SMEMBERS").arg(&key))?;
        let owners = self.owners(sink)?;
        // An owner without a record has lost all its epochs, so its mark has no effect any more.
        let useless: Vec<String> = fenced
            .into_iter()
            .filter(|other| {
                let other = InstanceId::from(other.as_str());
                other != *owner && !owners.contains(&other)
            })
            .collect();
        useless.chunks(ELEMENTS_PER_COMMAND).try_for_each(|some| {
            self.keyspace
                .query::<i64>(cmd("SREM").arg(&key).arg(some))
                .map(drop)
        })
    }

    fn owners(&self, sink: &SinkId) -> Result<BTreeSet<InstanceId>, StoreError> {
        let mut owners = BTreeSet::new();
        for some in self.keyspace.splits(sink)?.chunks(ELEMENTS_PER_COMMAND) {
            let mut call = self.scripts.owners.call();
            some.iter()
                .for_each(|split| _ = call.key(self.keyspace.split_key(sink, split)));
            let of_splits: Vec<String> = self.keyspace.call_script(&call)?;
            owners.extend(of_splits.iter().flat_map(|of_split| parse_owners(of_split)));
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
        let entries: Vec<(String, String)> = self
            .keyspace
            .query_confirmed(cmd("HGETALL").arg(self.keyspace.staged_key(sink)))?;
        Ok(entries
            .into_iter()
            .map(|(id, detail)| StagedEntry {
                id: id.into(),
                detail,
            })
            .collect())
    }

    fn forget(&self, sink: &SinkId, ids: &[StagedId]) -> Result<(), StoreError> {
        let ids: Vec<&str> = ids.iter().map(StagedId::as_str).collect();
        ids.chunks(ELEMENTS_PER_COMMAND).try_for_each(|some| {
            self.keyspace
                .query(cmd("HDEL").arg(self.keyspace.staged_key(sink)).arg(some))
        })
    }

    fn records(&self, sink: &SinkId) -> Result<Vec<(SplitId, CommitRecord)>, StoreError> {
        let splits = self.keyspace.splits(sink)?;
        let records = self.records_of(sink, &splits)?;
        Ok(splits.into_iter().zip(records).collect())
    }

    fn records_of(
        &self,
        sink: &SinkId,
        splits: &[SplitId],
    ) -> Result<Vec<CommitRecord>, StoreError> {
        let mut records = Vec::with_capacity(splits.len());
        for some in splits.chunks(SPLITS_PER_CALL) {
            let mut call = self.scripts.records.call();
            some.iter()
                .for_each(|split| _ = call.key(self.keyspace.split_key(sink, split)));
            let read: Vec<HashMap<String, String>> = self.keyspace.call_script(&call)?;
            if read.len() != some.len() {
                return Err(unexpected_answer(&read));
            }
            for fields in read {
                records.push(parse_record(fields)?);
            }
        }
        Ok(records)
    }

    fn forget_splits(&self, sink: &SinkId, splits: &[SplitId]) -> Result<(), StoreError> {
        splits.chunks(ELEMENTS_PER_COMMAND).try_for_each(|some| {
            let mut call = self.scripts.forget_splits.call();
            call.key(self.keyspace.splits_key(sink));
            for split in some {
                call.key(self.keyspace.split_key(sink, split))
                    .arg(split.as_str());
            }
            self.keyspace.call_script(&call)
        })
    }

    fn sinks(&self) -> Result<Vec<SinkId>, StoreError> {
        self.keyspace.sinks()
    }

    fn plans(&self) -> Result<Vec<String>, StoreError> {
        self.keyspace
            .query(cmd("HKEYS").arg(self.keyspace.key("plans")))
    }

    fn plan(&self, fingerprint: &str) -> Result<Option<String>, StoreError> {
        self.keyspace.hash_field("plans", fingerprint)
    }

    fn has_plan(&self, fingerprint: &str) -> Result<bool, StoreError> {
        let plans = self.keyspace.key("plans");
        self.keyspace
            .query(cmd("HEXISTS").arg(plans).arg(fingerprint))
    }

    fn add_plan(&self, plan: &StoredPlan) -> Result<(), StoreError> {
        self.keyspace.add_plan(plan)
    }

    fn forget_plans(&self, fingerprints: &[String]) -> Result<(), StoreError> {
        fingerprints
            .chunks(ELEMENTS_PER_COMMAND)
            .try_for_each(|some| {
                self.keyspace
                    .query::<i64>(cmd("HDEL").arg(self.keyspace.key("plans")).arg(some))
                    .map(drop)
            })
    }

    fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.keyspace.hash_field("notes", key)
    }

    fn set_note(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.keyspace
            .query_confirmed::<i64>(
                cmd("HSET")
                    .arg(self.keyspace.key("notes"))
                    .arg(key)
                    .arg(value),
            )
            .map(drop)
    }
}

/// Whether it is the error with this code, which a script returns. The code is searched in the text:
/// servers put `ERR` before a code that no message follows.
fn is_from_script(reason: &Reason, code: &str) -> bool {
    WithCauses(reason).to_string().contains(code)
}

fn other_format(found: &str) -> StoreError {
    let what = format!(
        "the state in redis has format {found}, but this version reads {FORMAT}: use the version \
         that wrote it, or another namespace"
    );
    StoreError::Failed(what.into())
}

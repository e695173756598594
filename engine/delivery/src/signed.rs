//! Signed state: what is executed from a store that others may be able to write to.
//!
//! The text of a plan is run, a staged entry renames files, and a note is a schema or a table. A
//! program that can write to the store could run commands with them. With a key, which is not in
//! the store, each of them is stored with its digest (HMAC-SHA256, RFC 2104), and one whose digest
//! is wrong is refused. The digest covers the place as well: the pipeline, and the fingerprint, the
//! sink and the id, or the key of the note. So a text that is valid in one place is not in another.
//!
//! ```text
//! signed:1:<64 hexadecimal digits>:<the text>
//! ```
//!
//! Commit records are not signed: a position in them is a number that every step changes, and an
//! earlier one would be as valid. A program that can write to the store can make the pipeline lose
//! or repeat records.

use std::collections::BTreeSet;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::store::CommitError;
use crate::{
    ClaimRound, Claimant, Claims, Commit, CommitRecord, InstanceId, SinkId, SplitId, StagedEntry,
    StagedId, StateStore, StoreError, StoredPlan, forward_to_store,
};

/// The beginning of a signed text.
const MARK: &str = "signed:1:";
/// The number of hexadecimal digits of a digest.
const DIGITS: usize = 64;

/// A store of which the plans, staged entries and notes are signed.
pub struct SignedStore {
    inner: Arc<dyn StateStore>,
    pipeline: String,
    signing: Signing,
}

/// What is expected of the texts in a store.
enum Signing {
    /// None is signed.
    Off,
    /// Each is signed.
    With(StateKey),
    /// Nothing: they are shown, and not run.
    Unchecked,
}

/// The key of signed state.
#[derive(Clone)]
pub struct StateKey {
    /// The secret of all instances of the pipeline.
    pub secret: String,
    /// Earlier secrets. What is signed with one of them is valid; a plan or a note is signed again
    /// when it is read.
    pub earlier: Vec<String>,
    /// Whether texts without a digest are accepted, which were stored before there was a key; a
    /// plan or a note is signed when it is read. A wrong digest never is accepted.
    pub accepts_unsigned: bool,
}

/// A text that may be used.
struct FoundText {
    text: String,
    /// Whether it is stored as this store would store it.
    is_current: bool,
}

/// The place of a text: what it is, the sink it is of, and its name there.
#[derive(Clone, Copy)]
struct Place<'a> {
    kind: &'a str,
    sink: &'a str,
    name: &'a str,
}

impl SignedStore {
    /// Signs what is stored for this pipeline. Without a key nothing is signed, and what is signed
    /// is refused.
    pub fn new(inner: Arc<dyn StateStore>, pipeline: &str, key: Option<StateKey>) -> SignedStore {
        SignedStore {
            inner,
            pipeline: pipeline.to_owned(),
            signing: key.map_or(Signing::Off, Signing::With),
        }
    }

    /// A store whose texts are shown to a person, whatever their signatures are. Nothing may be run
    /// from it.
    pub fn unchecked(inner: Arc<dyn StateStore>) -> SignedStore {
        SignedStore {
            inner,
            pipeline: String::new(),
            signing: Signing::Unchecked,
        }
    }

    fn sign(&self, place: Place<'_>, text: &str) -> String {
        let Signing::With(key) = &self.signing else {
            return text.to_owned();
        };
        let digest = self.mac(&key.secret, place, text).finalize().into_bytes();
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{MARK}{digits}:{text}")
    }

    /// The text without its digest, which is checked.
    fn verified(&self, place: Place<'_>, stored: String) -> Result<FoundText, StoreError> {
        let signed = stored.strip_prefix(MARK).and_then(|rest| {
            let (digits, text) = rest.split_at_checked(DIGITS)?;
            Some((digits, text.strip_prefix(':')?))
        });
        let refused = |why: &str| {
            let (kind, name) = (place.kind, place.name);
            Err(StoreError::Failed(
                format!("the {kind} `{name}` in the state {why}").into(),
            ))
        };
        match (&self.signing, signed) {
            (Signing::Unchecked, Some((_, text))) => Ok(FoundText {
                text: text.to_owned(),
                is_current: true,
            }),
            (Signing::Off | Signing::Unchecked, None) => Ok(FoundText {
                text: stored,
                is_current: true,
            }),
            (Signing::Off, Some(_)) => {
                refused("is signed: set `:state-key` to the key of its pipeline")
            }
            (Signing::With(key), None) if key.accepts_unsigned => Ok(FoundText {
                text: stored,
                is_current: false,
            }),
            (Signing::With(_), None) => refused(
                "is not signed: another program has written it, or the pipeline before it had a \
                 `:state-key`. If only the pipeline can have, start it once with \
                 `:accept-unsigned-state true`",
            ),
            (Signing::With(key), Some((digits, text))) => {
                let digest = digest_of(digits).unwrap_or_default();
                let is_of =
                    |secret: &String| self.mac(secret, place, text).verify_slice(&digest).is_ok();
                let is_current = is_of(&key.secret);
                if !is_current && !key.earlier.iter().any(is_of) {
                    return refused(
                        "has a wrong signature: it was changed, or the pipeline has another \
                         `:state-key` now",
                    );
                }
                Ok(FoundText {
                    text: text.to_owned(),
                    is_current,
                })
            }
        }
    }

    /// The digest of a text in its place. Each part is preceded by its length, so that no two
    /// places are the same.
    fn mac(&self, secret: &str, place: Place<'_>, text: &str) -> Hmac<Sha256> {
        // HMAC takes a key of any length.
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret.as_bytes())
            .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
        for part in [&*self.pipeline, place.kind, place.sink, place.name, text] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }

    fn signed_commit(&self, sink: &SinkId, commit: &Commit) -> Commit {
        let sign = |entry: &StagedEntry| StagedEntry {
            id: entry.id.clone(),
            detail: self.sign(staged(sink, entry), &entry.detail),
        };
        Commit {
            staged: commit.staged.iter().map(sign).collect(),
            ..commit.clone()
        }
    }
}

fn plan(fingerprint: &str) -> Place<'_> {
    Place {
        kind: "plan",
        sink: "",
        name: fingerprint,
    }
}

fn note(key: &str) -> Place<'_> {
    Place {
        kind: "note",
        sink: "",
        name: key,
    }
}

fn staged<'a>(sink: &'a SinkId, entry: &'a StagedEntry) -> Place<'a> {
    Place {
        kind: "staged entry",
        sink: sink.as_str(),
        name: entry.id.as_str(),
    }
}

/// The bytes of a digest in hexadecimal.
fn digest_of(digits: &str) -> Option<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    digits.as_bytes().chunks(2).map(byte).collect()
}

impl StateStore for SignedStore {
    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        if !matches!(self.signing, Signing::With(_)) {
            return self.inner.commit_many(steps);
        }
        let signed: Vec<Commit> = steps
            .iter()
            .map(|(sink, commit)| self.signed_commit(sink, commit))
            .collect();
        let steps: Vec<_> = steps
            .iter()
            .zip(&signed)
            .map(|((sink, _), commit)| (*sink, commit))
            .collect();
        self.inner.commit_many(&steps)
    }

    fn staged(&self, sink: &SinkId) -> Result<Vec<StagedEntry>, StoreError> {
        let verified = |entry: StagedEntry| {
            Ok(StagedEntry {
                detail: self
                    .verified(staged(sink, &entry), entry.detail.clone())?
                    .text,
                id: entry.id,
            })
        };
        self.inner.staged(sink)?.into_iter().map(verified).collect()
    }

    /// A plan that is accepted without the signature of the key is signed.
    fn plan(&self, fingerprint: &str) -> Result<Option<String>, StoreError> {
        let Some(stored) = self.inner.plan(fingerprint)? else {
            return Ok(None);
        };
        let found = self.verified(plan(fingerprint), stored)?;
        if !found.is_current {
            self.add_plan(&StoredPlan {
                fingerprint: fingerprint.to_owned(),
                text: found.text.clone(),
            })?;
        }
        Ok(Some(found.text))
    }

    /// A plan whose signature is missing or wrong does not count, so that it is stored again.
    fn has_plan(&self, fingerprint: &str) -> Result<bool, StoreError> {
        if !matches!(self.signing, Signing::With(_)) {
            return self.inner.has_plan(fingerprint);
        }
        match self.plan(fingerprint) {
            Err(StoreError::Failed(_)) => Ok(false),
            found => Ok(found?.is_some()),
        }
    }

    fn add_plan(&self, stored: &StoredPlan) -> Result<(), StoreError> {
        self.inner.add_plan(&StoredPlan {
            fingerprint: stored.fingerprint.clone(),
            text: self.sign(plan(&stored.fingerprint), &stored.text),
        })
    }

    /// A note that is accepted without the signature of the key is signed.
    fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        let Some(stored) = self.inner.note(key)? else {
            return Ok(None);
        };
        let found = self.verified(note(key), stored)?;
        if !found.is_current {
            self.set_note(key, &found.text)?;
        }
        Ok(Some(found.text))
    }

    fn set_note(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.inner.set_note(key, &self.sign(note(key), value))
    }

    forward_to_store! { inner:
        identity() -> String, StoreError;
        weaknesses() -> Vec<String>, StoreError;
        take(sink: &SinkId, splits: &[SplitId], owner: &InstanceId) -> Vec<CommitRecord>, CommitError;
        hold(sink: &SinkId, splits: &[(SplitId, u64)], claimant: &Claimant) -> (), CommitError;
        release(sink: &SinkId, splits: &[(SplitId, u64)]) -> (), StoreError;
        claim(source: &str, round: &ClaimRound<'_>) -> Claims, StoreError;
        unclaim(
            source: &str,
            splits: &[SplitId],
            owner: &InstanceId,
            leaves: bool
        ) -> (), StoreError;
        fence(sink: &SinkId, owner: &InstanceId) -> (), StoreError;
        owners(sink: &SinkId) -> BTreeSet<InstanceId>, StoreError;
        forget(sink: &SinkId, ids: &[StagedId]) -> (), StoreError;
        records(sink: &SinkId) -> Vec<(SplitId, CommitRecord)>, StoreError;
        records_of(sink: &SinkId, splits: &[SplitId]) -> Vec<CommitRecord>, StoreError;
        forget_splits(sink: &SinkId, splits: &[SplitId]) -> (), StoreError;
        sinks() -> Vec<SinkId>, StoreError;
        plans() -> Vec<String>, StoreError;
        forget_plans(fingerprints: &[String]) -> (), StoreError;
    }
}

//! Signed state: the conformance suite, and what another program has written.

use std::sync::Arc;

use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{
    Commit, SignedStore, SinkId, StagedEntry, StateKey, StateStore, StoreError, StoredPlan,
    conformance,
};

fn key(secret: &str) -> Option<StateKey> {
    Some(StateKey {
        secret: secret.to_owned(),
        earlier: Vec::new(),
        accepts_unsigned: false,
    })
}

fn open(dir: &tempfile::TempDir, pipeline: &str) -> Arc<EmbeddedStore> {
    Arc::new(EmbeddedStore::open(dir.path(), pipeline).unwrap())
}

fn reason<T>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(StoreError::Failed(reason)) => reason.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was accepted"),
    }
}

fn plan(text: &str) -> StoredPlan {
    StoredPlan {
        fingerprint: "f".into(),
        text: text.into(),
    }
}

fn stage(store: &dyn StateStore, id: &str, detail: &str) {
    let commit = Commit {
        staged: vec![StagedEntry {
            id: id.into(),
            detail: detail.into(),
        }],
        ..Commit::of("a".into())
    };
    store.commit(&SinkId::from("lake"), &commit).unwrap();
}

#[test]
fn passes_the_conformance_suite_with_and_without_a_key() {
    for key in [None, key("a secret of the pipeline")] {
        let dir = tempfile::tempdir().unwrap();
        conformance::check(&|pipeline| {
            let inner = open(&dir, pipeline);
            Box::new(SignedStore::new(inner, pipeline, key.clone()))
        });
    }
}

#[test]
fn what_another_program_has_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let inner = open(&dir, "p");
    let store = SignedStore::new(inner.clone(), "p", key("secret"));
    inner
        .add_plan(&plan("{:on-close {:command [\"evil\"]}}"))
        .unwrap();
    inner.set_note("schema:in", "evil").unwrap();
    stage(&*inner, "x/1.open", "evil");
    for refused in [
        reason(store.plan("f")),
        reason(store.note("schema:in")),
        reason(store.staged(&"lake".into())),
    ] {
        assert!(refused.contains("is not signed"), "{refused}");
    }
    assert!(!store.has_plan("f").unwrap(), "so it is stored again");
    store.add_plan(&plan("good")).unwrap();
    assert_eq!(store.plan("f").unwrap().as_deref(), Some("good"));
}

#[test]
fn a_signature_is_valid_for_one_text_in_one_place() {
    let dir = tempfile::tempdir().unwrap();
    let inner = open(&dir, "p");
    let store = SignedStore::new(inner.clone(), "p", key("secret"));
    store.set_note("a", "text").unwrap();
    let signed = inner.note("a").unwrap().unwrap();
    let refused = |what: &str, answer: Result<Option<String>, StoreError>| {
        let reason = reason(answer);
        assert!(reason.contains("has a wrong signature"), "{what}: {reason}");
    };
    inner
        .set_note("a", &signed.replace("text", "evil"))
        .unwrap();
    refused("another text", store.note("a"));
    inner.set_note("a", &signed).unwrap();
    assert_eq!(store.note("a").unwrap().as_deref(), Some("text"));
    inner.set_note("b", &signed).unwrap();
    refused("another note", store.note("b"));
    inner
        .add_plan(&StoredPlan {
            fingerprint: "a".into(),
            text: signed.clone(),
        })
        .unwrap();
    refused("a plan", store.plan("a"));
    let other = |pipeline, secret| SignedStore::new(inner.clone(), pipeline, key(secret)).note("a");
    refused("another pipeline", other("q", "secret"));
    refused("another key", other("p", "other"));
    stage(&store, "1", "entry");
    let entry = inner.staged(&"lake".into()).unwrap().remove(0);
    stage(&*inner, "2", &entry.detail);
    assert!(reason(store.staged(&"lake".into())).contains("`2`"));
}

#[test]
fn unsigned_state_is_accepted_only_if_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let inner = open(&dir, "p");
    inner.set_note("a", "text").unwrap();
    inner.add_plan(&plan("text")).unwrap();
    let accepting = StateKey {
        secret: "secret".into(),
        earlier: Vec::new(),
        accepts_unsigned: true,
    };
    let store = SignedStore::new(inner.clone(), "p", Some(accepting));
    assert_eq!(store.note("a").unwrap().as_deref(), Some("text"));
    assert_eq!(store.plan("f").unwrap().as_deref(), Some("text"));
    let strict = SignedStore::new(inner.clone(), "p", key("secret"));
    assert_eq!(strict.plan("f").unwrap().as_deref(), Some("text"));
    assert_eq!(strict.note("a").unwrap().as_deref(), Some("text"));
    // A wrong signature is never accepted.
    let signed = inner.note("a").unwrap().unwrap();
    inner
        .set_note("a", &signed.replace("text", "evil"))
        .unwrap();
    assert!(reason(store.note("a")).contains("has a wrong signature"));
}

#[test]
fn signed_state_needs_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let inner = open(&dir, "p");
    let signed = SignedStore::new(inner.clone(), "p", key("secret"));
    signed.set_note("a", "text").unwrap();
    let without = SignedStore::new(inner.clone(), "p", None);
    assert!(reason(without.note("a")).contains("set `:state-key`"));
    stage(&signed, "1", "entry");
    let unchecked = SignedStore::unchecked(inner);
    assert_eq!(unchecked.staged(&"lake".into()).unwrap()[0].detail, "entry");
}

#[test]
fn a_key_is_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    let inner = open(&dir, "p");
    let store = |secret, earlier: &[&str]| {
        let key = StateKey {
            secret: String::from(secret),
            earlier: earlier.iter().map(ToString::to_string).collect(),
            accepts_unsigned: false,
        };
        SignedStore::new(inner.clone(), "p", Some(key))
    };
    store("old", &[]).set_note("a", "text").unwrap();
    store("old", &[]).add_plan(&plan("text")).unwrap();
    stage(&store("old", &[]), "1", "entry");
    let both = store("new", &["older", "old"]);
    assert_eq!(both.note("a").unwrap().as_deref(), Some("text"));
    assert_eq!(both.plan("f").unwrap().as_deref(), Some("text"));
    assert_eq!(both.staged(&"lake".into()).unwrap()[0].detail, "entry");
    let new = store("new", &[]);
    assert_eq!(
        new.note("a").unwrap().as_deref(),
        Some("text"),
        "signed again"
    );
    assert_eq!(new.plan("f").unwrap().as_deref(), Some("text"));
    assert!(reason(store("old", &[]).note("a")).contains("has a wrong signature"));
}

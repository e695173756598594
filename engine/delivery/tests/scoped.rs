//! A store in a store: the common tests, and that scopes do not see one another.

use std::sync::Arc;

use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{Claimant, ScopedStore, SinkId, StateStore, conformance};

#[test]
fn does_what_every_store_has_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let whole: Arc<dyn StateStore> = Arc::new(EmbeddedStore::open(dir.path(), "p").unwrap());
    conformance::check(&|name| Box::new(ScopedStore::new(whole.clone(), name)));
}

#[test]
fn scopes_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let whole: Arc<dyn StateStore> = Arc::new(EmbeddedStore::open(dir.path(), "p").unwrap());
    let (one, other) = (
        ScopedStore::new(whole.clone(), "a"),
        ScopedStore::new(whole.clone(), "ab"),
    );
    let identities = [
        whole.identity().unwrap(),
        one.identity().unwrap(),
        other.identity().unwrap(),
    ];
    assert!(
        identities[0] != identities[1]
            && identities[1] != identities[2]
            && identities[0] != identities[2]
    );
    assert_eq!(
        one.identity().unwrap(),
        ScopedStore::new(whole.clone(), "a").identity().unwrap()
    );
    let sink = SinkId::from("lake");
    let claimant = Claimant {
        owner: "me".into(),
        plan: "p".into(),
        accepts_other_plans: false,
    };
    one.take(&sink, &["s/0".into()], &claimant).unwrap();
    assert_eq!(one.sinks().unwrap(), std::slice::from_ref(&sink));
    assert!(other.sinks().unwrap().is_empty());
    assert_eq!(whole.sinks().unwrap(), [SinkId::from("a/lake")]);
}

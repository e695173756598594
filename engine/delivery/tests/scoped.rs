//! Scoped stores: the conformance suite, and that scopes are isolated.

use std::sync::Arc;

use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{ScopedStore, SinkId, StateStore, conformance};

#[test]
fn passes_the_conformance_suite() {
    let dir = tempfile::tempdir().unwrap();
    let whole: Arc<dyn StateStore> = Arc::new(EmbeddedStore::open(dir.path(), "p").unwrap());
    conformance::check(&|name| Box::new(ScopedStore::new(whole.clone(), name)));
}

#[test]
fn scopes_are_isolated() {
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
    one.take(&sink, &["s/0".into()], &"me".into()).unwrap();
    assert_eq!(one.sinks().unwrap(), std::slice::from_ref(&sink));
    assert!(other.sinks().unwrap().is_empty());
    assert_eq!(whole.sinks().unwrap(), [SinkId::from("a/lake")]);
}

//! The simulated store passes the conformance suite.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use pseidon_delivery::{ClaimRound, InstanceId, SplitId, conformance};
use pseidon_simulation::store::{DirectStore, SharedSource};

#[test]
fn the_simulated_store_passes_the_conformance_suite() {
    let stores: Mutex<HashMap<String, DirectStore>> = Mutex::default();
    conformance::check(&|pipeline| {
        Box::new(stores.lock().entry(pipeline.into()).or_default().clone())
    });
}

/// As in the tests of the Redis store.
#[test]
fn each_instance_claims_its_fair_share_until_its_lease_expires() {
    let splits: Vec<SplitId> = (0..5)
        .map(|number| SplitId::from(format!("in:{number}")))
        .collect();
    let lease = Duration::from_millis(50);
    let round = |owner, held, wanted| ClaimRound {
        owner,
        lease,
        held,
        wanted,
        total: 5,
    };
    let (a, b) = (InstanceId::from("a"), InstanceId::from("b"));
    let mut source = SharedSource::default();

    let first = source.claim(&round(&a, &[], &splits), 100);
    assert_eq!((first.fair_share, first.granted.len()), (5, 5));
    let none_is_free = source.claim(&round(&b, &[], &splits), 110);
    assert_eq!(
        (none_is_free.fair_share, none_is_free.granted.len()),
        (3, 0)
    );
    source.unclaim(&splits, &b, false);
    source.unclaim(&splits[3..], &a, false);
    assert_eq!(
        source.claim(&round(&b, &[], &splits), 110).granted,
        splits[3..],
        "claims of other instances are not released"
    );

    // The claims of `a` expire at 150, those of `b` at 160.
    assert_eq!(
        source
            .claim(&round(&b, &splits[3..], &splits[..1]), 149)
            .granted,
        []
    );
    let alone = source.claim(&round(&b, &splits[3..], &splits[..1]), 150);
    assert_eq!(
        (alone.fair_share, alone.granted.as_slice()),
        (5, &splits[..1])
    );
    let late = source.claim(&round(&a, &splits[..3], &[]), 151);
    assert_eq!(late.lost, splits[..1]);
    source.unclaim(&splits[1..3], &a, true);
    assert_eq!(source.claim(&round(&b, &[], &splits), 152).granted, splits);
}

//! Tests of instances that share the splits of a source.

use std::time::Duration;

use pseidon_delivery::{ClaimRound, Claims, InstanceId, SplitId, StateStore};

use super::server::{Server, wait_until};

pub(super) fn round<'a>(
    owner: &'a InstanceId,
    held: &'a [SplitId],
    wanted: &'a [SplitId],
    total: usize,
) -> ClaimRound<'a> {
    ClaimRound {
        owner,
        lease: Duration::from_secs(60),
        held,
        wanted,
        total,
    }
}

#[test]
fn instances_share_splits_fairly() {
    let server = Server::durable(&[]);
    let store = server.connect();
    let splits: Vec<SplitId> = (0..5)
        .map(|number| SplitId::from(format!("in:{number}")))
        .collect();
    let [a, b, c] = ["a", "b", "c"].map(InstanceId::from);
    let claim = |round: &ClaimRound<'_>| store.claim("in", round).unwrap();
    let alone = claim(&round(&a, &[], &splits, 5));
    assert_eq!((alone.fair_share, alone.granted.len()), (5, 5));
    // Another instance joins: nothing is free yet, and both get the new fair share.
    let second = claim(&round(&b, &[], &splits, 5));
    assert_eq!(
        second,
        Claims {
            fair_share: 3,
            granted: vec![],
            lost: vec![]
        }
    );
    assert_eq!(
        claim(&round(&a, &splits, &[], 5)),
        Claims {
            fair_share: 3,
            granted: vec![],
            lost: vec![]
        },
        "what is held is renewed"
    );
    store.unclaim("in", &splits[3..], &a, false).unwrap();
    assert_eq!(claim(&round(&b, &[], &splits, 5)).granted, splits[3..]);
    // Claims belong to one source, and only the holder can release a claim.
    store.unclaim("in", &splits, &c, false).unwrap();
    assert_eq!(claim(&round(&c, &[], &splits, 5)).granted, []);
    assert_eq!(
        store
            .claim("other", &round(&c, &[], &splits, 5))
            .unwrap()
            .granted
            .len(),
        5
    );
    // One instance leaves, and its splits are shared again.
    store.unclaim("in", &[], &c, true).unwrap();
    store.unclaim("in", &splits[..3], &a, true).unwrap();
    let rest = claim(&round(&b, &splits[3..], &splits[..3], 5));
    assert_eq!((rest.fair_share, rest.granted.len()), (5, 3));
}

#[test]
fn a_claim_with_an_expired_lease_is_free_and_its_holder_learns_of_it() {
    let server = Server::durable(&[]);
    let store = server.connect();
    let splits: Vec<SplitId> = (0..2)
        .map(|number| SplitId::from(format!("in:{number}")))
        .collect();
    let frozen = InstanceId::from("frozen");
    let short = ClaimRound {
        lease: Duration::from_millis(50),
        ..round(&frozen, &[], &splits, 2)
    };
    assert_eq!(store.claim("in", &short).unwrap().granted.len(), 2);
    wait_until("the lease has run out", || {
        store
            .claim("in", &round(&"b".into(), &[], &splits[..1], 2))
            .unwrap()
            .granted
            .len()
            == 1
    });
    let late = store.claim("in", &round(&frozen, &splits, &[], 2)).unwrap();
    assert_eq!(late.lost, splits[..1]);
}

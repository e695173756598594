//! The delivery protocol as a pure state machine: several instances with their own committers over
//! one store, in random orders of steps. Whatever happens on the way, readers finally see every
//! record once, in order.

mod rare_cases;
mod store;
mod world;

use proptest::prelude::*;

use self::store::Fate;
use self::world::{Input, InstanceStep, World};

fn input() -> impl Strategy<Value = Input> {
    let record = (1u64..4, proptest::option::weighted(0.7, 0u8..4));
    proptest::collection::vec(record, 0..30).prop_map(|records| {
        let mut next = 0;
        let place = |(gap, lane)| {
            next += gap;
            (next - 1, lane)
        };
        records.into_iter().map(place).collect()
    })
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        Just(Fate::Answered),
        Just(Fate::Unheard),
        Just(Fate::AnswerLost)
    ];
    prop_oneof![3 => Just(Vec::new()), 2 => proptest::collection::vec(fate, 1..4)]
}

fn step() -> impl Strategy<Value = InstanceStep> {
    // Most steps happen to one instance, so that what it began has a chance to continue.
    let by = || prop_oneof![5 => Just(0usize), 2 => Just(1), 1 => Just(2)];
    prop_oneof![
        3 => (by(), any::<u8>(), prop_oneof![3 => Just(0), 1 => 0u64..20])
            .prop_map(|(by, splits, start)| InstanceStep::Take { by, splits, start }),
        9 => (by(), 0usize..4, 1usize..9)
            .prop_map(|(by, split, records)| InstanceStep::Read { by, split, records }),
        3 => (by(), any::<u8>()).prop_map(|(by, lanes)| InstanceStep::Roll { by, lanes }),
        6 => (by(), any::<u8>(), 1usize..3, fates(), proptest::bool::weighted(0.2))
            .prop_map(|(by, lanes, files, fates, leave)| {
                InstanceStep::Commit { by, lanes, files, fates, leave }
            }),
        3 => (by(), fates()).prop_map(|(by, fates)| InstanceStep::Idle { by, fates }),
        3 => (by(), 1usize..4).prop_map(|(by, count)| InstanceStep::Publish { by, count }),
        1 => (by(), any::<u8>()).prop_map(|(by, splits)| InstanceStep::Release { by, splits }),
        1 => by().prop_map(|by| InstanceStep::LookForDead { by }),
        1 => by().prop_map(|by| InstanceStep::RemoveDead { by }),
        1 => by().prop_map(|by| InstanceStep::Crash { by }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_record_is_seen_once_and_in_order(
        inputs in proptest::collection::vec(input(), 1..4),
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new(inputs);
        for step in &steps {
            world.act(step);
        }
        world.finish();
        world.check();
    }
}

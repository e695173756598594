//! The delivery protocol as a pure state machine: several instances with their own committers over
//! one store, in random orders of steps. Whatever happens on the way, readers finally see every
//! record once, in order.

mod store;
mod world;

use proptest::prelude::*;

use self::store::Fate;
use self::world::{Input, InstanceStep, World};

/// Cases that random runs seldom find, each with the error that it would show.
#[test]
fn rare_cases() {
    use InstanceStep::{Commit, Crash, Idle, LookForDead, Publish, Read, RemoveDead, Roll, Take};
    let take = |by, splits| Take {
        by,
        splits,
        start: 0,
    };
    let read = |by, split, records| Read { by, split, records };
    let commit = |by, files, fates: &[Fate], leave| Commit {
        by,
        lanes: u8::MAX,
        files,
        fates: fates.to_vec(),
        leave,
    };
    let roll = |by| Roll { by, lanes: u8::MAX };
    let idle = |by| Idle { by, fates: vec![] };
    let publish = |by| Publish { by, count: 9 };
    let one_lane: Vec<Input> = vec![(0..12).map(|position| (position, Some(0))).collect()];
    let two_splits: Vec<Input> = vec![one_lane[0].clone(), one_lane[0].clone()];
    let filtered: Vec<Input> = vec![vec![(0, Some(0)), (1, None), (2, Some(1)), (3, None)]];
    let cases: Vec<(&str, &[Input], Vec<InstanceStep>)> = vec![
        (
            "records that wait behind a committed file hold the low position back",
            &one_lane,
            vec![
                take(0, 1),
                read(0, 0, 3),
                roll(0),
                read(0, 0, 3),
                commit(0, 1, &[], false),
                idle(0),
                publish(0),
                Crash { by: 0 },
            ],
        ),
        (
            "the same with a third file",
            &one_lane,
            vec![
                take(0, 1),
                read(0, 0, 1),
                roll(0),
                read(0, 0, 4),
                roll(0),
                read(0, 0, 4),
                commit(0, 1, &[], false),
                idle(0),
                Crash { by: 0 },
                take(1, 1),
                read(1, 0, 2),
                commit(1, 1, &[], false),
            ],
        ),
        (
            "a committed file of a dead owner stays, although no instance has published it",
            &two_splits,
            vec![
                take(1, 2),
                take(0, 1),
                read(0, 0, 5),
                commit(0, 1, &[], false),
                Crash { by: 0 },
                take(2, 1),
                LookForDead { by: 1 },
                RemoveDead { by: 1 },
            ],
        ),
        (
            "a fenced instance does not remove what it committed without an answer",
            &one_lane,
            vec![
                take(0, 1),
                read(0, 0, 5),
                commit(0, 1, &[Fate::AnswerLost], true),
                take(2, 1),
                take(0, 1),
                read(0, 0, 5),
                take(2, 1),
                commit(0, 1, &[], false),
            ],
        ),
        (
            "a lost answer between others is recognized, and the next step follows it",
            &one_lane,
            vec![
                take(0, 1),
                read(0, 0, 2),
                commit(
                    0,
                    1,
                    &[Fate::Unheard, Fate::AnswerLost, Fate::Unheard],
                    false,
                ),
                read(0, 0, 2),
                commit(0, 1, &[Fate::AnswerLost], false),
            ],
        ),
        (
            "a lane of two splits is lost as a whole if one of them is lost",
            &two_splits,
            vec![
                take(0, 3),
                read(0, 0, 3),
                read(0, 1, 3),
                take(1, 1),
                commit(0, 1, &[], false),
                take(0, 2),
                read(1, 0, 9),
            ],
        ),
        (
            "filtered records move the low position, but not past waiting records",
            &filtered,
            vec![
                take(0, 1),
                read(0, 0, 2),
                idle(0),
                read(0, 0, 2),
                idle(0),
                Crash { by: 0 },
                take(1, 1),
                read(1, 0, 4),
                idle(1),
                Crash { by: 1 },
            ],
        ),
        (
            "where a split begins is decided once",
            &one_lane,
            vec![
                Take {
                    by: 0,
                    splits: 1,
                    start: 3,
                },
                read(0, 0, 2),
                Crash { by: 0 },
                Take {
                    by: 0,
                    splits: 1,
                    start: 8,
                },
            ],
        ),
    ];
    for (name, inputs, steps) in cases {
        println!("{name}");
        let mut world = World::new(inputs.to_vec());
        steps.iter().for_each(|step| world.act(step));
        world.finish();
        world.check();
    }
}

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

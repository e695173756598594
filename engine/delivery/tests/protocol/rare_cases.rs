//! Cases that random runs seldom find, each with the error that it would show.

use pseidon_delivery::Position;

use crate::store::Fate;
use crate::world::InstanceStep::{
    Commit, Crash, Idle, LookForDead, Publish, Read, RemoveDead, Roll, Take,
};
use crate::world::{Input, InstanceStep, World};

fn take(by: usize, splits: u8) -> InstanceStep {
    take_from(by, splits, 0)
}

/// `start` is the current meaning of "the latest".
fn take_from(by: usize, splits: u8, start: Position) -> InstanceStep {
    Take { by, splits, start }
}

fn read(by: usize, split: usize, records: usize) -> InstanceStep {
    Read { by, split, records }
}

/// Commits one file of every lane.
fn commit(by: usize, fates: &[Fate], leave: bool) -> InstanceStep {
    Commit {
        by,
        lanes: u8::MAX,
        files: 1,
        fates: fates.to_vec(),
        leave,
    }
}

fn roll(by: usize) -> InstanceStep {
    Roll { by, lanes: u8::MAX }
}

fn idle(by: usize) -> InstanceStep {
    Idle { by, fates: vec![] }
}

fn publish(by: usize) -> InstanceStep {
    Publish { by, count: 9 }
}

/// A split whose records all go to one lane.
fn one_lane() -> Input {
    (0..12).map(|position| (position, Some(0))).collect()
}

/// Takes the steps; then readers must see every record once and in order.
fn run(inputs: &[Input], steps: &[InstanceStep]) {
    let mut world = World::new(inputs.to_vec());
    steps.iter().for_each(|step| world.act(step));
    world.finish();
    world.check();
}

/// Records that wait behind a committed file hold the low position back.
#[test]
fn records_behind_a_committed_file_hold_the_low_position_back() {
    run(
        &[one_lane()],
        &[
            take(0, 1),
            read(0, 0, 3),
            roll(0),
            read(0, 0, 3),
            commit(0, &[], false),
            idle(0),
            publish(0),
            Crash { by: 0 },
        ],
    );
}

/// Records that wait behind a committed file hold the low position back, also with a third file.
#[test]
fn a_third_file_holds_the_low_position_back() {
    run(
        &[one_lane()],
        &[
            take(0, 1),
            read(0, 0, 1),
            roll(0),
            read(0, 0, 4),
            roll(0),
            read(0, 0, 4),
            commit(0, &[], false),
            idle(0),
            Crash { by: 0 },
            take(1, 1),
            read(1, 0, 2),
            commit(1, &[], false),
        ],
    );
}

/// A committed file of a dead owner stays, although no instance has published it.
#[test]
fn a_committed_file_of_a_dead_owner_stays() {
    run(
        &[one_lane(), one_lane()],
        &[
            take(1, 2),
            take(0, 1),
            read(0, 0, 5),
            commit(0, &[], false),
            Crash { by: 0 },
            take(2, 1),
            LookForDead { by: 1 },
            RemoveDead { by: 1 },
        ],
    );
}

/// A fenced instance does not remove what it committed without an answer.
#[test]
fn a_fenced_instance_keeps_what_it_committed_without_an_answer() {
    run(
        &[one_lane()],
        &[
            take(0, 1),
            read(0, 0, 5),
            commit(0, &[Fate::AnswerLost], true),
            take(2, 1),
            take(0, 1),
            read(0, 0, 5),
            take(2, 1),
            commit(0, &[], false),
        ],
    );
}

/// A lost answer between others is recognized, and the next step follows it.
#[test]
fn a_lost_answer_between_others_is_recognized() {
    run(
        &[one_lane()],
        &[
            take(0, 1),
            read(0, 0, 2),
            commit(0, &[Fate::Unheard, Fate::AnswerLost, Fate::Unheard], false),
            read(0, 0, 2),
            commit(0, &[Fate::AnswerLost], false),
        ],
    );
}

/// A lane of two splits is lost as a whole if one of them is lost.
#[test]
fn a_lane_of_two_splits_is_lost_as_a_whole() {
    run(
        &[one_lane(), one_lane()],
        &[
            take(0, 3),
            read(0, 0, 3),
            read(0, 1, 3),
            take(1, 1),
            commit(0, &[], false),
            take(0, 2),
            read(1, 0, 9),
        ],
    );
}

/// Filtered records move the low position, but not past waiting records.
#[test]
fn filtered_records_move_the_low_position() {
    run(
        &[vec![(0, Some(0)), (1, None), (2, Some(1)), (3, None)]],
        &[
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
    );
}

/// Where a split begins is decided once.
#[test]
fn where_a_split_begins_is_decided_once() {
    run(
        &[one_lane()],
        &[
            take_from(0, 1, 3),
            read(0, 0, 2),
            Crash { by: 0 },
            take_from(0, 1, 8),
        ],
    );
}

//! The ways in which a disk is full, and how often calls fail then.

use std::cell::Cell;

use fastrand::Rng;

thread_local! {
    static FULL: Cell<Option<Fullness>> = const { Cell::new(None) };
}

/// The ways in which a disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fullness {
    /// There is hardly any room.
    Nearly,
    /// The disk reports it when something is written.
    AtWrites,
    /// The disk reports it when something is synced.
    AtSyncs,
}

/// How many of nine calls fail.
pub(crate) struct FailureOdds {
    pub(crate) making: u32,
    pub(crate) writing: u32,
    pub(crate) syncing: u32,
}

impl Fullness {
    /// Chooses a way at random.
    pub(crate) fn any(rng: &mut Rng) -> Fullness {
        match rng.u32(0..3) {
            0 => Fullness::Nearly,
            1 => Fullness::AtWrites,
            _ => Fullness::AtSyncs,
        }
    }

    /// How often calls fail.
    pub(crate) fn odds(self) -> FailureOdds {
        match self {
            Fullness::Nearly => FailureOdds {
                making: 1,
                writing: 2,
                syncing: 2,
            },
            Fullness::AtWrites => FailureOdds {
                making: 6,
                writing: 8,
                syncing: 2,
            },
            Fullness::AtSyncs => FailureOdds {
                making: 1,
                writing: 0,
                syncing: 5,
            },
        }
    }
}

/// Sets whether calls of this thread find a full disk from now on.
pub(crate) fn set_full(full: Option<Fullness>) {
    FULL.set(full);
}

/// How full the disk is that calls of this thread find.
pub(crate) fn fullness() -> Option<Fullness> {
    FULL.try_with(Cell::get).ok().flatten()
}

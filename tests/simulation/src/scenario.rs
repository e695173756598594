//! The kinds of faults in a run, and the safeguards that can be removed to see that the simulation
//! notices.

use std::fmt;

use clap::ValueEnum;

/// A kind of fault. Crashes, frozen processes, moving partitions, lost messages and lost answers
/// are in every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Messages to the store are applied late, repeatedly, or after their sender's death
    LateMessages,
    /// Machines have disks of their own, which are swapped or not mounted
    Disks,
    /// Instances run different versions of the pipeline
    Plans,
    /// The state store is replaced by an older copy of it
    OlderStore,
    /// Topics are deleted and created again
    Topics,
    /// Files that are followed are truncated and written again
    RewrittenFiles,
    /// Instances share the splits by claims with leases, instead of a consumer group
    Leases,
    /// Files are moved after they are published
    Moves,
    /// Disks get full, for a while or until the end
    FullDisks,
    /// A target that holds the positions, beside the files or alone; it may lose them
    Target,
}

/// A set of [`Kind`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u32);

impl Kinds {
    /// The empty set.
    pub fn none() -> Kinds {
        Kinds(0)
    }

    /// The set of all kinds.
    pub fn all() -> Kinds {
        Kind::value_variants()
            .iter()
            .fold(Kinds::none(), |kinds, kind| kinds.with(*kind))
    }

    /// The set with this kind added.
    #[must_use]
    pub fn with(self, kind: Kind) -> Kinds {
        Kinds(self.0 | 1 << kind as u32)
    }

    /// The set with this kind removed.
    #[must_use]
    pub fn without(self, kind: Kind) -> Kinds {
        Kinds(self.0 & !(1 << kind as u32))
    }

    /// Whether the kind is in the set.
    pub fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u32) != 0
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Kind::value_variants()
            .iter()
            .filter(|kind| self.has(**kind))
            .filter_map(ValueEnum::to_possible_value);
        f.write_str(
            &names
                .map(|value| value.get_name().to_owned())
                .collect::<Vec<_>>()
                .join(" "),
        )
    }
}

/// A safeguard that is removed. Each is removed outside the code under test, by the store, the
/// disks or the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mutation {
    /// The store does not fence the owner of a folder before the folder is cleaned up
    UnfencedOwners,
    /// All disks have the same id
    EqualDisks,
    /// The store does not know under which version of the pipeline a position was reached: each
    /// version takes it for its own
    ForgottenPlans,
    /// The store accepts that an instance holds splits that another one has taken since
    UncheckedHolds,
    /// The source does not compare the state with the offsets of the consumer group
    UncheckedOffsets,
    /// The store has no copies of the positions that the target holds
    UncheckedTarget,
    /// The source does not check whether a topic is the one that it has read before
    UncheckedTopics,
    /// The source does not check whether a file still has the content that it has read before
    UncheckedFiles,
    /// The store treats an unexpired claim as the right to commit, and does not check the epochs of
    /// shared splits
    TrustedClaims,
    /// The store keeps what an instance has staged until its next step, and not until the file is
    /// moved
    ForgottenMoves,
    /// A full disk accepts writes as if it had room
    UnnoticedWrites,
    /// A disk without room for what was written reports that it is synced
    UnnoticedSyncs,
    /// Owner names are derived from the wall-clock time
    EqualNames,
    /// A batch that ends inside a position says that the position is complete
    CutPositions,
}

impl Mutation {
    /// All mutations.
    pub fn all() -> &'static [Mutation] {
        Mutation::value_variants()
    }
}

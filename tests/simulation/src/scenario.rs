//! What may go wrong in a run.

use std::fmt;

use clap::ValueEnum;

/// A kind of fault. Crashes, frozen processes, moving partitions, lost messages and lost answers are in every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Messages to the store are applied late, repeatedly, or after their sender's death
    LateMessages,
    /// Machines have disks of their own
    Disks,
    /// Instances run different versions of the pipeline
    Plans,
}

/// A set of [`Kind`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u32);

impl Kinds {
    /// No kind.
    pub fn none() -> Kinds {
        Kinds(0)
    }

    /// Every kind.
    pub fn all() -> Kinds {
        Kind::value_variants().iter().fold(Kinds::none(), |kinds, kind| kinds.with(*kind))
    }

    /// The same with this kind.
    #[must_use]
    pub fn with(self, kind: Kind) -> Kinds {
        Kinds(self.0 | 1 << kind as u32)
    }

    /// The same without this kind.
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
        let names = Kind::value_variants().iter().filter(|kind| self.has(**kind)).filter_map(ValueEnum::to_possible_value);
        f.write_str(&names.map(|value| value.get_name().to_owned()).collect::<Vec<_>>().join(" "))
    }
}

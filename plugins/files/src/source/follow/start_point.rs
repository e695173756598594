//! Where reading of a followed file begins.

use std::sync::Arc;

use pseidon_delivery::Position;
use pseidon_plugin::Split;
use pseidon_plugin::source::SplitStart;

use super::super::progress::read_to_end;
use super::super::snapshot::Snapshot;
use super::super::tail::Tail;

/// Where reading of a followed file begins.
#[derive(Clone, Debug)]
pub(super) enum StartPoint {
    /// After these bytes, at [`Tail::upto`].
    After(Tail),
    /// At its end, at this position: an earlier run has read what is before, or it existed at the
    /// first start. The snapshot shows what it was on disk.
    End(Position, Snapshot),
}

impl StartPoint {
    /// Converts to the engine's type.
    pub(super) fn to_start(&self, split: Arc<Split>) -> SplitStart {
        match self {
            StartPoint::After(tail) => SplitStart {
                split,
                position: tail.upto(),
                resume: (tail.upto() > 0).then(|| tail.mark().to_resume()),
            },
            StartPoint::End(position, snapshot) => SplitStart {
                split,
                position: *position,
                resume: Some(read_to_end(*snapshot)),
            },
        }
    }
}

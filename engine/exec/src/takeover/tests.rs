//! Takeovers of sinks that contradict their protocol.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{Claimant, LaneId, StagedEntry};
use pseidon_plugin::lane::{Lane, LaneRules};
use pseidon_plugin::rollover::Rollover;
use pseidon_plugin::rows::Rows;
use pseidon_plugin::sink::{RoutedRows, TakeoverResult};

use super::*;

/// A sink whose target has no position yet, if it holds positions.
struct EmptySink {
    holds_positions: bool,
}

impl Sink for EmptySink {
    fn rules(&self) -> LaneRules {
        LaneRules {
            single_writer: true,
            rollover: Rollover::every(Duration::ZERO),
            check_every: Duration::from_secs(1),
            most_open: usize::MAX,
        }
    }

    fn take_over(&self, _: &[TakenSplit], _: &[StagedEntry]) -> Result<TakeoverResult, SinkError> {
        Ok(TakeoverResult {
            published: Vec::new(),
            held: self.holds_positions.then(TargetPositions::default),
        })
    }

    fn route(&self, _: Rows) -> RoutedRows {
        RoutedRows::default()
    }

    fn lane(&self, _: &LaneId, _: &Waker) -> Result<Box<dyn Lane>, SinkError> {
        Err(SinkError::Fatal("no lane is opened".into()))
    }
}

#[test]
fn a_sink_that_contradicts_its_protocol_ends_the_run() {
    let cases = [
        (Positions::InStore, false, None),
        (Positions::InTarget, true, None),
        (
            Positions::InStore,
            true,
            Some(
                "internal error: by its protocol the sink `out` leaves its positions to the state \
                 store, but at the takeover it did not",
            ),
        ),
        (
            Positions::InTarget,
            false,
            Some(
                "internal error: by its protocol the sink `out` holds its positions in its target, \
                 but at the takeover it did not",
            ),
        ),
    ];
    for (positions, holds_positions, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let committer = Committer::new(
            "out".into(),
            Arc::new(EmbeddedStore::open(dir.path(), "p").unwrap()),
            Claimant {
                owner: "one".into(),
                plan: "p".into(),
                accepts_other_plans: false,
            },
            positions,
            Arc::default(),
        );
        let sinks = [TakeoverSink {
            committer: &committer,
            sink: &EmptySink { holds_positions },
        }];
        let taken = take_over(&sinks, &["in:0".into()]);
        assert_eq!(
            taken.err().map(|of| of.error.to_string()).as_deref(),
            expected
        );
        // A sink may not look at its target if nothing is taken over.
        assert!(take_over(&sinks, &[]).is_ok());
    }
}

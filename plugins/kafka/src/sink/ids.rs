//! Transactional ids: one for each sink of a process.
//!
//! Brokers keep an id for days after its last use. So all attempts of a process at running a plan
//! write under one id, and opening it again cuts off the attempt before. Other instances derive it
//! from an owner's name in the state store, to fence that owner off.

/// The ids of one sink.
#[derive(Clone, Debug)]
pub(super) struct TransactionalIds {
    pipeline: String,
    sink: String,
    /// Tells apart runs of one process that have their state in parts of one store under the same
    /// names.
    store: String,
}

impl TransactionalIds {
    /// Those of this sink, whose pipeline has its state in this store.
    pub(super) fn new(pipeline: &str, sink: &str, store: &str) -> TransactionalIds {
        TransactionalIds {
            pipeline: pipeline.to_owned(),
            sink: sink.to_owned(),
            store: store.to_owned(),
        }
    }

    /// The id under which an instance writes.
    pub(super) fn of(&self, instance: &str) -> String {
        let TransactionalIds {
            pipeline,
            sink,
            store,
        } = self;
        match instance.rsplit_once('.') {
            Some((process, _)) => format!("{pipeline}-{sink}-{store}-{process}"),
            // An owner that an earlier version has left in the store: each attempt had an id of its
            // own.
            None => format!("{pipeline}-{sink}-{instance}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attempts_of_a_process_share_an_id() {
        let ids = TransactionalIds::new("p", "out", "s1");
        assert_eq!(ids.of("host-7-ab.0"), ids.of("host-7-ab.12"));
        for (ids, instance) in [
            (&ids, "host-7-ac.0"),
            (&TransactionalIds::new("p", "out", "s2"), "host-7-ab.0"),
            (&TransactionalIds::new("p", "out#2", "s1"), "host-7-ab.0"),
        ] {
            assert_ne!(
                ids.of(instance),
                TransactionalIds::new("p", "out", "s1").of("host-7-ab.0"),
                "{instance}"
            );
        }
        assert_eq!(ids.of("host-7-1a2b-0"), "p-out-host-7-1a2b-0");
    }
}

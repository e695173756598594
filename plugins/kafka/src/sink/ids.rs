//! Transactional ids: one for each sink of a process.
//!
//! Brokers keep an id for days after its last use. Therefore all attempts of a process to run a
//! plan use one id, and opening its producer fences off the attempt before. Other instances derive
//! the id from an owner's name in the state store, to fence that owner off.

use pseidon_delivery::InstanceId;

/// The transactional ids of one sink.
#[derive(Clone, Debug)]
pub(super) struct TransactionalIds {
    pipeline: String,
    sink: String,
    /// Distinguishes runs of one process that have the same names but their state in different
    /// parts of one store.
    store: String,
}

impl TransactionalIds {
    /// The ids of this sink, whose pipeline has its state in this store.
    pub(super) fn new(pipeline: &str, sink: &str, store: &str) -> TransactionalIds {
        TransactionalIds {
            pipeline: pipeline.to_owned(),
            sink: sink.to_owned(),
            store: store.to_owned(),
        }
    }

    /// The transactional id of an instance.
    pub(super) fn id_of(&self, instance: &InstanceId) -> String {
        let TransactionalIds {
            pipeline,
            sink,
            store,
        } = self;
        match instance.as_str().rsplit_once('.') {
            Some((process, _)) => format!("{pipeline}-{sink}-{store}-{process}"),
            // An owner that an earlier version left in the store: each attempt had its own id.
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
        let id_of = |ids: &TransactionalIds, name: &str| ids.id_of(&name.into());
        assert_eq!(id_of(&ids, "host-7-ab.0"), id_of(&ids, "host-7-ab.12"));
        for (other, instance) in [
            (&ids, "host-7-ac.0"),
            (&TransactionalIds::new("p", "out", "s2"), "host-7-ab.0"),
            (&TransactionalIds::new("p", "out#2", "s1"), "host-7-ab.0"),
        ] {
            assert_ne!(
                id_of(other, instance),
                id_of(&ids, "host-7-ab.0"),
                "{instance}"
            );
        }
        assert_eq!(id_of(&ids, "host-7-1a2b-0"), "p-out-host-7-1a2b-0");
    }
}

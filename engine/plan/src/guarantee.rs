//! The delivery guarantee of every path from a source to a sink, with reasons.

use pseidon_plugin::sink::{KeyConditions, Protocol};
use pseidon_plugin::source::Reread;

/// A delivery guarantee, in increasing strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarantee {
    /// A record can be lost, but is not duplicated.
    AtMostOnce,
    /// A record can be duplicated, but is not lost.
    AtLeastOnce,
    /// A record is neither lost nor duplicated.
    ExactlyOnce,
}

impl Guarantee {
    /// The guarantee for users, such as `exactly once`.
    pub fn as_str(self) -> &'static str {
        match self {
            Guarantee::AtMostOnce => "at most once",
            Guarantee::AtLeastOnce => "at least once",
            Guarantee::ExactlyOnce => "exactly once",
        }
    }
}

/// The guarantee of one path, with reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathGuarantee {
    /// The stage of the source.
    pub source: String,
    /// The stage of the sink.
    pub sink: String,
    /// The guarantee of the path.
    pub guarantee: Guarantee,
    /// The reasons: one sentence for each property that determines the guarantee.
    pub reasons: Vec<String>,
}

/// The guarantee of a sink that writes records under keys, if the rest of the path is exactly once.
fn keyed_guarantee(sink: &str, keyed: KeyConditions, reasons: &mut Vec<String>) -> Guarantee {
    reasons.push(format!(
        "`{sink}` writes each record under its key, so a repeated write changes nothing"
    ));
    let mut guarantee = Guarantee::ExactlyOnce;
    if !keyed.key_names_one_record {
        guarantee = Guarantee::AtLeastOnce;
        reasons.push(format!(
            "several records can have the same key in `{sink}`, and a repeated \
            write can replace a newer record"
        ));
    }
    if !keyed.late_writes_lose {
        guarantee = Guarantee::AtLeastOnce;
        reasons.push(format!(
            "a late write of a fenced instance can replace a newer record in `{sink}`"
        ));
    }
    guarantee
}

/// Computes the guarantee of a path. `source` is the stage and what a re-read returns;
/// `nondeterminism` lists the expressions that are not deterministic; `sink` is the stage and its
/// protocol.
pub fn path_guarantee(
    source: (&str, Reread),
    nondeterminism: &[String],
    sink: (&str, Protocol),
) -> PathGuarantee {
    let (source, reread) = source;
    let (sink, protocol) = sink;
    let mut guarantee = Guarantee::ExactlyOnce;
    let mut reasons = Vec::new();
    match protocol {
        Protocol::Staged => reasons.push(format!(
            "`{sink}` publishes only committed output, and each output once"
        )),
        Protocol::Transactional => reasons.push(format!(
            "`{sink}` writes records and positions in one transaction"
        )),
        Protocol::Discard => reasons.push(format!("`{sink}` stores nothing")),
        Protocol::AtLeastOnce(why) => {
            guarantee = Guarantee::AtLeastOnce;
            reasons.push(format!("`{sink}`: {why}"));
        }
        Protocol::Keyed(keyed) => {
            guarantee = keyed_guarantee(sink, keyed, &mut reasons);
        }
    }
    for expr in nondeterminism {
        guarantee = guarantee.min(Guarantee::AtLeastOnce);
        reasons.push(format!(
            "`{expr}` can return another value when a record is re-read, which \
            can then be written to another place"
        ));
    }
    match reread {
        Reread::Exact => reasons.push(format!(
            "`{source}` is re-read from the committed position after a crash"
        )),
        Reread::Inexact { reason } => {
            guarantee = Guarantee::AtMostOnce;
            reasons.push(format!("`{source}`: {reason}"));
        }
    }
    PathGuarantee {
        source: source.to_owned(),
        sink: sink.to_owned(),
        guarantee,
        reasons,
    }
}

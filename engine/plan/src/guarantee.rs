//! What every path from a source to a sink delivers, and why.

use pseidon_plugin::sink::{Keyed, Protocol};

/// What a path delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarantee {
    /// A record may be lost, none is doubled.
    AtMostOnce,
    /// A record may be doubled, none is lost.
    AtLeastOnce,
    /// Neither.
    ExactlyOnce,
}

impl Guarantee {
    /// As users say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Guarantee::AtMostOnce => "at most once",
            Guarantee::AtLeastOnce => "at least once",
            Guarantee::ExactlyOnce => "exactly once",
        }
    }
}

/// The guarantee of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathGuarantee {
    /// The source's stage.
    pub source: String,
    /// The sink's stage.
    pub sink: String,
    /// What it delivers.
    pub guarantee: Guarantee,
    /// Why: one sentence for each thing that decides.
    pub reasons: Vec<String>,
}

/// The guarantee of a sink that writes under keys, where the rest of the path is exactly once.
fn of_keyed(sink: &str, keyed: Keyed, reasons: &mut Vec<String>) -> Guarantee {
    reasons.push(format!(
        "`{sink}` writes each record under its key, so writing it again changes nothing"
    ));
    let mut guarantee = Guarantee::ExactlyOnce;
    if !keyed.key_names_one_record {
        guarantee = Guarantee::AtLeastOnce;
        reasons.push(format!("several records may have one key in `{sink}`, and one that is written again may replace a newer one"));
    }
    if !keyed.late_writes_lose {
        guarantee = Guarantee::AtLeastOnce;
        reasons.push(format!(
            "a late write of an instance that was cut off may replace a newer record in `{sink}`"
        ));
    }
    guarantee
}

/// Computes a path's guarantee from what its source, its expressions and its sink are.
pub fn of_path(
    source: (&str, Option<&str>),
    nondeterminism: &[String],
    sink: (&str, Protocol),
) -> PathGuarantee {
    let (source, not_rereadable) = source;
    let (sink, protocol) = sink;
    let mut guarantee = Guarantee::ExactlyOnce;
    let mut reasons = Vec::new();
    match protocol {
        Protocol::Staged => reasons.push(format!(
            "`{sink}` publishes only what is committed, and each thing once"
        )),
        Protocol::Transactional => reasons.push(format!(
            "`{sink}` writes records and positions in one transaction"
        )),
        Protocol::Discard => reasons.push(format!("`{sink}` keeps nothing")),
        Protocol::AtLeastOnce(why) => {
            guarantee = Guarantee::AtLeastOnce;
            reasons.push(format!("`{sink}`: {why}"));
        }
        Protocol::Keyed(keyed) => {
            guarantee = of_keyed(sink, keyed, &mut reasons);
        }
    }
    for expr in nondeterminism {
        guarantee = guarantee.min(Guarantee::AtLeastOnce);
        reasons.push(format!("`{expr}` gives another value when a record is read again, which can then land in another place"));
    }
    match not_rereadable {
        None => reasons.push(format!(
            "`{source}` is read again from the committed position after a crash"
        )),
        Some(why) => {
            guarantee = Guarantee::AtMostOnce;
            reasons.push(format!("`{source}`: {why}"));
        }
    }
    PathGuarantee {
        source: source.to_owned(),
        sink: sink.to_owned(),
        guarantee,
        reasons,
    }
}

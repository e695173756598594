//! What every path from a source to a sink delivers, and why.

use pseidon_plugin::sink::Protocol;

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

/// Computes a path's guarantee from what its source, its expressions and its sink are.
pub fn of_path(source: (&str, Option<&str>), nondeterminism: &[String], sink: (&str, Protocol)) -> PathGuarantee {
    let (source, not_rereadable) = source;
    let (sink, protocol) = sink;
    let mut guarantee = Guarantee::ExactlyOnce;
    let mut reasons = Vec::new();
    match protocol {
        Protocol::Staged => reasons.push(format!("`{sink}` publishes only what is committed, and each thing once")),
        Protocol::Transactional => reasons.push(format!("`{sink}` writes records and positions in one transaction")),
        Protocol::Nothing => reasons.push(format!("`{sink}` keeps nothing")),
        Protocol::Unfenced(why) => {
            guarantee = Guarantee::AtLeastOnce;
            reasons.push(format!("`{sink}`: {why}"));
        }
    }
    for expr in nondeterminism {
        guarantee = guarantee.min(Guarantee::AtLeastOnce);
        reasons.push(format!("`{expr}` gives another value when a record is read again, which can then land in another place"));
    }
    match not_rereadable {
        None => reasons.push(format!("`{source}` is read again from the committed position after a crash")),
        Some(why) => {
            guarantee = Guarantee::AtMostOnce;
            reasons.push(format!("`{source}`: {why}"));
        }
    }
    PathGuarantee { source: source.to_owned(), sink: sink.to_owned(), guarantee, reasons }
}

//! The errors for records that were read and are not in the topic any more: no offset of it can be
//! trusted then.

use pseidon_delivery::Position;
use pseidon_plugin::source::SourceError;

/// The error for a partition that ends below the position up to which it was read.
pub(super) fn too_short(name: &str, end: Position, known: Position) -> SourceError {
    let what = format!(
        "{name} ends at offset {end}, but was read up to offset {known}: it has lost records, or \
         its topic was deleted and created again. To read what is there now, and to resume all \
         other topics where they are, rename the source's stage and set :on-missing-state :group"
    );
    SourceError::Fatal(what.into())
}

/// The error for a partition whose topic is not the one that was read.
pub(super) fn recreated_topic(topic: &str, name: &str, known: Position) -> SourceError {
    let what = format!(
        "topic {topic} was deleted and created again (its id has changed) after {name} was read up \
         to offset {known}. To read the new topic from its beginning, and to resume all other \
         topics where they are, rename the source's stage and set :on-missing-state :group"
    );
    SourceError::Fatal(what.into())
}

/// The error for a partition whose records differ from those that were read.
pub(super) fn truncated(name: &str, known: Position) -> SourceError {
    let what = format!(
        "{name} has lost records below offset {known}, up to which it was read, and has others in \
         their place: its log was truncated, as after the election of a leader that was not in \
         sync. To resume with what is there now, rename the source's stage and set \
         :on-missing-state :group"
    );
    SourceError::Fatal(what.into())
}

//! The changed entries of an object of which the decoder knows the places.

use pseidon_plugin::places::{FieldPlace, RecordPlaces};

use super::super::scan::{after_open, key_start};
use super::entries::Entry;

/// The changed entries of one record after the other.
pub(super) struct LocatedChanges {
    /// For each change of the record its field's number among the places.
    fields: Vec<usize>,
    /// The changes whose fields the record has, with their places, in the order of the record.
    found: Vec<(usize, FieldPlace)>,
    /// The end of the last entry of the record.
    end: usize,
}

impl LocatedChanges {
    /// The changes, by the numbers of their fields. `None` if the places of one are not known.
    pub(super) fn new(fields: impl Iterator<Item = Option<usize>>) -> Option<LocatedChanges> {
        Some(LocatedChanges {
            fields: fields.collect::<Option<_>>()?,
            found: Vec::new(),
            end: 0,
        })
    }

    /// Continues with the next record.
    #[inline]
    pub(super) fn of(&mut self, record: &RecordPlaces<'_>) -> &LocatedChanges {
        self.found.clear();
        for (change, field) in self.fields.iter().enumerate() {
            if let Some(place) = record.get(*field) {
                let is_before = |(_, other): &(usize, FieldPlace)| other.start < place.start;
                let at = self.found.iter().rposition(is_before);
                self.found
                    .insert(at.map_or(0, |at| at + 1), (change, place));
            }
        }
        self.end = record.end.get() as usize;
        self
    }

    /// The entries of the record in their order, each with the number of its change. What is between
    /// changed entries is one entry without a change.
    pub(super) fn entries<'t>(&self, text: &'t str) -> LocatedEntries<'t, '_> {
        LocatedEntries {
            text,
            at: after_open(text.as_bytes()).unwrap_or(self.end),
            is_first: true,
            changed: &self.found,
            end: self.end,
        }
    }

    /// The value that a change of the record is of, if the record has it.
    pub(super) fn value<'t>(&self, change: usize, text: &'t str) -> Option<&'t str> {
        let (_, place) = self.found.iter().find(|(found, _)| *found == change)?;
        Some(&text[place.value as usize..place.end.get() as usize])
    }

    /// The text after the last entry.
    pub(super) fn closing<'t>(&self, text: &'t str) -> &'t str {
        &text[self.end..]
    }
}

/// The entries of a record, changed ones and what is between them.
pub(super) struct LocatedEntries<'t, 'c> {
    text: &'t str,
    /// The end of the last entry.
    at: usize,
    is_first: bool,
    /// The changed entries from here on.
    changed: &'c [(usize, FieldPlace)],
    /// The end of the last entry of all.
    end: usize,
}

impl<'t> Iterator for LocatedEntries<'t, '_> {
    type Item = (Entry<'t>, Option<usize>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        let next = self.changed.first();
        let next_start = next.map_or(self.end, |(_, place)| place.start as usize);
        if start < next_start {
            let key = key_start(self.text.as_bytes(), start, self.is_first)?;
            (self.at, self.is_first) = (next_start, false);
            return Some((Entry::between(self.text, start, key, next_start), None));
        }
        let (change, place) = next?;
        self.changed = &self.changed[1..];
        (self.at, self.is_first) = (place.end.get() as usize, false);
        Some((Entry::at(self.text, place), Some(*change)))
    }
}

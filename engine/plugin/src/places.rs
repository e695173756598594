//! Places of fields: where a decoder has found fields in the bytes of records.
//!
//! A decoder reads whole records anyway, so it can tell an editor of the same format where the
//! fields are that it changes, and the editor need not look for them again.

use std::num::NonZeroU32;

/// Where a field is in the bytes of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPlace {
    /// The end of the field before it, or of what opens the record.
    pub start: u32,
    /// The beginning of the name.
    pub name: u32,
    /// The end of the name.
    pub name_end: u32,
    /// The beginning of the value.
    pub value: u32,
    /// The end of the value.
    pub end: NonZeroU32,
}

/// The places of some fields in each record of a batch.
#[derive(Debug, Default)]
pub struct FieldPlaces {
    names: Vec<String>,
    /// For each record, the places of the fields in the order of their names; `None` for a field
    /// that it does not have.
    places: Vec<Option<FieldPlace>>,
    /// For each record the end of its last field; `None` if its fields are not known.
    ends: Vec<Option<NonZeroU32>>,
}

/// The places of fields in one record.
#[derive(Clone, Copy, Debug)]
pub struct RecordPlaces<'p> {
    places: &'p [Option<FieldPlace>],
    /// The end of the last field of the record, whether or not its place is known.
    pub end: NonZeroU32,
}

impl RecordPlaces<'_> {
    /// The place of the field with this number; `None` if the record does not have it.
    #[inline]
    pub fn get(&self, field: usize) -> Option<FieldPlace> {
        self.places[field]
    }
}

impl FieldPlaces {
    /// No records yet. The names are those of fields of the record itself.
    pub fn new(names: Vec<String>) -> FieldPlaces {
        FieldPlaces {
            names,
            ..FieldPlaces::default()
        }
    }

    /// The number of a field, if its places are known.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// Adds a record. Its fields are not known before [`FieldPlaces::end`].
    pub fn begin(&mut self) {
        self.places
            .resize(self.places.len() + self.names.len(), None);
        self.ends.push(None);
    }

    /// Adds a field of the last record. Returns whether it is the first one of this name.
    #[inline]
    pub fn add(&mut self, field: usize, place: FieldPlace) -> bool {
        let at = self.places.len() - self.names.len() + field;
        self.places[at].replace(place).is_none()
    }

    /// Says that all fields of the last record are known, and where the last one of them ends.
    #[inline]
    pub fn end(&mut self, end: NonZeroU32) {
        if let Some(last) = self.ends.last_mut() {
            *last = Some(end);
        }
    }

    /// The places in a record, by its number among those that were added; `None` if they are not
    /// known.
    #[inline]
    pub fn of(&self, record: usize) -> Option<RecordPlaces<'_>> {
        let end = (*self.ends.get(record)?)?;
        let first = record * self.names.len();
        Some(RecordPlaces {
            places: &self.places[first..first + self.names.len()],
            end,
        })
    }

    /// The memory that the places take, in bytes.
    pub fn memory(&self) -> usize {
        self.places.capacity() * size_of::<Option<FieldPlace>>()
            + self.ends.capacity() * size_of::<Option<NonZeroU32>>()
    }

    /// Returns the places of all records, and has none then, but room for as many.
    pub fn take(&mut self) -> FieldPlaces {
        let (names, places, ends) = (
            self.names.clone(),
            Vec::with_capacity(self.places.len()),
            Vec::with_capacity(self.ends.len()),
        );
        let empty = FieldPlaces {
            names,
            places,
            ends,
        };
        std::mem::replace(self, empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(end: u32) -> FieldPlace {
        FieldPlace {
            start: 1,
            name: 1,
            name_end: 4,
            value: 5,
            end: NonZeroU32::new(end).unwrap(),
        }
    }

    #[test]
    fn places_belong_to_their_record_and_field() {
        let mut places = FieldPlaces::new(vec!["a".to_owned(), "b".to_owned()]);
        let end = |end| NonZeroU32::new(end).unwrap();
        places.begin();
        assert!(places.add(1, place(7)));
        places.end(end(9));
        // A record that ends before its fields are known.
        places.begin();
        assert!(places.add(0, place(8)));
        assert!(!places.add(0, place(12)), "the second field of a name");
        places.begin();
        places.end(end(1));
        let taken = places.take();
        assert_eq!(taken.number("b"), Some(1));
        assert_eq!(taken.number("c"), None);
        let first = taken.of(0).unwrap();
        assert_eq!((first.get(0), first.get(1)), (None, Some(place(7))));
        assert_eq!(first.end, end(9));
        assert!(taken.of(1).is_none());
        let last = taken.of(2).unwrap();
        assert_eq!((last.get(0), last.get(1)), (None, None));
        assert!(taken.of(3).is_none());
        assert!(taken.memory() >= 6 * 20 + 3 * 4);
        assert!(places.of(0).is_none(), "nothing is left");
        assert_eq!(places.number("b"), Some(1));
    }
}

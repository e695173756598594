//! Copies an object with its changes.
//!
//! What lies between two changes is copied at once. If the first entries are left out, the next one
//! gets the white space before the first key. So removing an entry removes one comma. An entry that
//! is added gets this white space too if what is left out is left out by a later change, as if the
//! changes were made one after the other.

use arrow::json::writer::NullableEncoder;

use super::entries::{Entries, Entry};
use super::located::LocatedChanges;
use super::tree::{ChangedKey, KeyChange, ObjectChanges};

/// The values that are set in one record, as JSON.
#[derive(Default)]
pub(super) struct Values {
    bytes: Vec<u8>,
    /// The end of each value.
    ends: Vec<usize>,
}

impl Values {
    /// Encodes the values of a row.
    pub(super) fn encode(&mut self, encoders: &mut [NullableEncoder<'_>], row: usize) {
        self.bytes.clear();
        self.ends.clear();
        for encoder in encoders {
            match encoder.is_null(row) {
                true => self.bytes.extend_from_slice(b"null"),
                false => encoder.encode(row, &mut self.bytes),
            }
            self.ends.push(self.bytes.len());
        }
    }

    fn get(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[number]]
    }
}

/// The changes that were made in an object, by their numbers.
#[derive(Default)]
struct MadeChanges {
    /// A bit for each of the first 64 changes.
    first: u64,
    others: Vec<usize>,
}

impl MadeChanges {
    /// Adds a change. Returns whether it was made before.
    fn add(&mut self, number: usize) -> bool {
        let is_known = self.contains(number);
        match u32::try_from(number)
            .ok()
            .and_then(|bit| 1_u64.checked_shl(bit))
        {
            Some(bit) => self.first |= bit,
            None if is_known => {}
            None => self.others.push(number),
        }
        is_known
    }

    fn contains(&self, number: usize) -> bool {
        match u32::try_from(number)
            .ok()
            .and_then(|bit| 1_u64.checked_shl(bit))
        {
            Some(bit) => self.first & bit != 0,
            None => self.others.contains(&number),
        }
    }
}

/// The edit of one record.
pub(super) struct ObjectEdit<'e> {
    pub(super) values: &'e Values,
    /// The values of the fields that are renamed.
    pub(super) moved: &'e [Option<&'e str>],
}

/// An object as it is copied.
struct ObjectCopy<'o> {
    /// The original.
    text: &'o str,
    out: &'o mut Vec<u8>,
    /// Up to here the original is copied or left out.
    at: usize,
    /// Whether an entry is kept or added.
    has_entries: bool,
    /// The white space before the first key, if the first entry is left out.
    first_gap: Option<&'o str>,
    /// The number of the last of the changes that leave an entry out.
    last_left_out: Option<usize>,
}

impl<'o> ObjectCopy<'o> {
    fn new(text: &'o str, out: &'o mut Vec<u8>) -> ObjectCopy<'o> {
        ObjectCopy {
            text,
            out,
            at: 0,
            has_entries: false,
            first_gap: None,
            last_left_out: None,
        }
    }

    /// Copies the original up to `end`.
    fn copy_to(&mut self, end: usize) {
        self.out
            .extend_from_slice(&self.text.as_bytes()[self.at..end]);
        self.at = end;
    }

    /// Decides that an entry is kept. It is copied with what follows.
    fn keep(&mut self, entry: &Entry<'o>) {
        if !self.has_entries
            && let Some(gap) = self.first_gap
        {
            self.out.extend_from_slice(gap.as_bytes());
            self.at = entry.key;
        }
        self.has_entries = true;
    }

    /// Leaves out an entry because of the change with this number.
    fn leave_out(&mut self, entry: &Entry<'o>, number: usize) {
        self.copy_to(entry.start);
        self.at = entry.end;
        if !self.has_entries {
            self.first_gap.get_or_insert(entry.gap());
        }
        self.last_left_out = self.last_left_out.max(Some(number));
    }

    /// Copies an entry up to its value, which is left out.
    fn leave_out_value(&mut self, entry: &Entry<'o>) {
        self.keep(entry);
        self.copy_to(entry.value);
        self.at = entry.end;
    }

    /// Copies an entry with another key, which is in quotes.
    fn rename(&mut self, entry: &Entry<'o>, key: &str) {
        self.keep(entry);
        self.copy_to(entry.key);
        self.out.extend_from_slice(key.as_bytes());
        self.at = entry.colon;
    }

    /// Adds the key, in quotes, of an entry that the original does not have, and that the change
    /// with this number adds.
    fn add_key(&mut self, key: &str, number: usize) {
        if self.has_entries {
            self.out.push(b',');
        } else if let Some(gap) = self.first_gap
            && self.last_left_out > Some(number)
        {
            self.out.extend_from_slice(gap.as_bytes());
        }
        self.has_entries = true;
        self.out.extend_from_slice(key.as_bytes());
        self.out.push(b':');
    }
}

impl<'e> ObjectEdit<'e> {
    /// Appends the object `text` with its changes. An error says why it is not an object, or why a
    /// change does not fit.
    pub(super) fn copy(
        &self,
        changes: &ObjectChanges,
        text: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let mut entries = Entries::new(text)?;
        let mut made = MadeChanges::default();
        let mut copy = ObjectCopy::new(text, out);
        while let Some(entry) = entries.next()? {
            let is_changed = |key: &ChangedKey| entry.is_named(&key.name);
            let number = changes.keys.iter().position(is_changed);
            self.pass(changes, number, &entry, &mut made, &mut copy)?;
        }
        self.close(changes, entries.closing()?, &made, &mut copy);
        Ok(())
    }

    /// Appends the record `text` with its changes, like [`ObjectEdit::copy`].
    pub(super) fn copy_located(
        &self,
        changes: &ObjectChanges,
        text: &str,
        located: &LocatedChanges,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let mut made = MadeChanges::default();
        let mut copy = ObjectCopy::new(text, out);
        for (entry, number) in located.entries(text) {
            self.pass(changes, number, &entry, &mut made, &mut copy)?;
        }
        self.close(changes, located.closing(text), &made, &mut copy);
        Ok(())
    }

    /// Copies an entry with the change that has this number.
    #[inline]
    fn pass<'t>(
        &self,
        changes: &ObjectChanges,
        number: Option<usize>,
        entry: &Entry<'t>,
        made: &mut MadeChanges,
        copy: &mut ObjectCopy<'t>,
    ) -> Result<(), String> {
        let Some(number) = number else {
            copy.keep(entry);
            return Ok(());
        };
        let is_repeated = made.add(number);
        self.change(number, &changes.keys[number], entry, is_repeated, copy)
    }

    /// Copies the rest of an object, with the entries that it did not have. `closing` is the text
    /// after its last entry.
    fn close<'t>(
        &self,
        changes: &ObjectChanges,
        closing: &'t str,
        made: &MadeChanges,
        copy: &mut ObjectCopy<'t>,
    ) {
        copy.copy_to(copy.text.len() - closing.len());
        for (number, key) in changes.keys.iter().enumerate() {
            if !made.contains(number) {
                self.append(number, key, copy);
            }
        }
        copy.out.extend_from_slice(closing.as_bytes());
    }

    /// Copies an entry with its change.
    fn change<'t>(
        &self,
        number: usize,
        key: &ChangedKey,
        entry: &Entry<'t>,
        is_repeated: bool,
        copy: &mut ObjectCopy<'t>,
    ) -> Result<(), String> {
        let name = &key.name;
        if matches!(key.change, KeyChange::Remove | KeyChange::MoveAway(_)) {
            key.note_found();
        }
        let value = match &key.change {
            KeyChange::Inside(inside) => return self.change_inside(name, inside, entry, copy),
            KeyChange::Remove | KeyChange::MoveAway(None) => {
                copy.leave_out(entry, number);
                return Ok(());
            }
            _ if is_repeated => {
                copy.leave_out(entry, number);
                return Ok(());
            }
            KeyChange::MoveAway(Some(new_key)) => {
                copy.rename(entry, new_key);
                return Ok(());
            }
            KeyChange::Set(value) => self.values.get(*value),
            // Later stages would see NULL, which is not what the record has.
            KeyChange::Replaced(renaming) | KeyChange::MoveHere(renaming)
                if self.moved[*renaming].is_none() =>
            {
                return Err(format!(
                    "`{name}` exists, but the field that is renamed to it does not"
                ));
            }
            KeyChange::Replaced(_) => {
                copy.leave_out(entry, number);
                return Ok(());
            }
            KeyChange::MoveHere(renaming) => self.moved[*renaming].unwrap_or_default().as_bytes(),
        };
        copy.leave_out_value(entry);
        copy.out.extend_from_slice(value);
        Ok(())
    }

    fn change_inside<'t>(
        &self,
        name: &str,
        inside: &ObjectChanges,
        entry: &Entry<'t>,
        copy: &mut ObjectCopy<'t>,
    ) -> Result<(), String> {
        copy.leave_out_value(entry);
        let adds = self.adds(inside);
        match entry.value().as_bytes().first() {
            Some(b'{') => return self.copy(inside, entry.value(), copy.out),
            Some(b'n') if adds => self.create(inside, copy.out),
            Some(first) if adds => {
                let what = match first {
                    b'"' => "a string",
                    b'[' => "a list",
                    b't' | b'f' => "a boolean",
                    _ => "a number",
                };
                return Err(format!("`{name}` is {what}; expected an object"));
            }
            _ => copy.out.extend_from_slice(entry.value().as_bytes()),
        }
        Ok(())
    }

    /// Appends a field that the object does not have.
    fn append(&self, number: usize, key: &ChangedKey, copy: &mut ObjectCopy<'_>) {
        match &key.change {
            KeyChange::Set(value) => {
                copy.add_key(&key.quoted, number);
                copy.out.extend_from_slice(self.values.get(*value));
            }
            KeyChange::MoveHere(renaming) => {
                if let Some(moved) = &self.moved[*renaming] {
                    copy.add_key(&key.quoted, number);
                    copy.out.extend_from_slice(moved.as_bytes());
                }
            }
            KeyChange::Inside(inside) if self.adds(inside) => {
                copy.add_key(&key.quoted, number);
                self.create(inside, copy.out);
            }
            KeyChange::Inside(_)
            | KeyChange::Remove
            | KeyChange::MoveAway(..)
            | KeyChange::Replaced(_) => {}
        }
    }

    /// Appends an object that has only the added fields.
    fn create(&self, changes: &ObjectChanges, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut copy = ObjectCopy::new("", out);
        for (number, key) in changes.keys.iter().enumerate() {
            self.append(number, key, &mut copy);
        }
        copy.out.push(b'}');
    }

    /// Whether the changes add a field to an object that has none.
    fn adds(&self, changes: &ObjectChanges) -> bool {
        changes.keys.iter().any(|key| match &key.change {
            KeyChange::Set(_) => true,
            KeyChange::MoveHere(number) => self.moved[*number].is_some(),
            KeyChange::Inside(inside) => self.adds(inside),
            KeyChange::Remove | KeyChange::MoveAway(..) | KeyChange::Replaced(_) => false,
        })
    }
}

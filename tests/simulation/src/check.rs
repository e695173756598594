//! Checks of what must be true after a run.

use std::collections::BTreeMap;

use pseidon_delivery::CommitRecord;

use crate::disk::records;
use crate::fixture::record_prefix;
use crate::names::SinkKind;
use crate::world::World;
use crate::world::source::{KEYS, rows_of};

/// A split's records in one bucket: lists of positions, one for each file.
type SeenRecords = BTreeMap<(String, String), Vec<Vec<u64>>>;

impl World {
    /// Every record is visible once, in order, in its bucket; nothing is left over. Records may be
    /// missing after an alarm, and from the generations before a topic or a file began again.
    pub(crate) fn check_end(&mut self) {
        let mut violations = Vec::new();
        self.check_sinks(&mut violations);
        if !self.is_alarmed {
            let unmoved = if self.are_moved {
                self.disks.unmoved()
            } else {
                Vec::new()
            };
            violations.extend(
                unmoved
                    .iter()
                    .map(|path| format!("{} was not moved", self.disks.name_of(path))),
            );
            violations.extend(
                self.store
                    .all_staged()
                    .map(|(_, id)| format!("{id} is still staged in the store")),
            );
            let is_open =
                |record: &CommitRecord| !record.ahead.is_empty() || !record.owners.is_empty();
            let open = self
                .store
                .all_records()
                .filter(|(_, _, record)| is_open(record));
            violations.extend(open.map(|(sink, split, record)| {
                format!("a graceful stop left {split} in {sink} as {record:?}")
            }));
            let unfinished = (0..self.partitions.len()).filter_map(|number| self.left_of(number));
            violations
                .extend(unfinished.map(|left| format!("a graceful stop left unfinished: {left}")));
        }
        for violation in violations {
            self.violate(violation);
        }
    }

    /// Checks the records of every sink, or of all of them together if each record belongs to one
    /// of them.
    fn check_sinks(&self, violations: &mut Vec<String>) {
        let mut together = SeenRecords::new();
        for (sink, kind) in &self.sinks {
            let mut seen = match kind {
                SinkKind::Files => self.seen_in_files(violations),
                SinkKind::Target => self.seen_in_target(),
            };
            for files in seen.values_mut() {
                files.sort_by_key(|positions| positions.first().copied());
            }
            if !self.is_routed {
                self.check_records(sink.as_str(), seen, violations);
                continue;
            }
            for (of, files) in seen {
                let positions = files.concat();
                if let Some(wrong) = describe_order(&positions) {
                    violations.push(format!("{sink} {}: of {} {wrong}", of.0, of.1));
                }
                together.entry(of).or_default().push(positions);
            }
        }
        if self.is_routed {
            // There is no order between the sinks.
            for of_sinks in together.values_mut() {
                let mut positions = of_sinks.concat();
                positions.sort_unstable();
                *of_sinks = vec![positions];
            }
            self.check_records("both sinks", together, violations);
        }
    }

    fn seen_in_files(&self, violations: &mut Vec<String>) -> SeenRecords {
        let found = self.disks.find_all();
        if !self.is_alarmed {
            violations.extend(
                found
                    .hidden
                    .iter()
                    .map(|path| format!("a hidden file is left: {}", self.disks.name_of(path))),
            );
        }
        let mut seen = SeenRecords::new();
        for file in &found.visible {
            for (split, positions) in records(&file.content) {
                // It does not matter which version of the pipeline has written a record.
                let lane = file
                    .folder
                    .split_once('-')
                    .map_or(file.folder.as_str(), |(_, key)| key);
                seen.entry((lane.to_owned(), split))
                    .or_default()
                    .push(positions);
            }
        }
        seen
    }

    fn seen_in_target(&self) -> SeenRecords {
        let mut seen = SeenRecords::new();
        for (lane, record) in &self.target.records {
            for (split, positions) in records(record) {
                let in_order = seen
                    .entry((lane.clone(), split))
                    .or_insert_with(|| vec![Vec::new()]);
                in_order[0].extend(positions);
            }
        }
        seen
    }

    /// `seen` has the files of each bucket in the order of their first positions.
    fn check_records(&self, sink: &str, mut seen: SeenRecords, violations: &mut Vec<String>) {
        for (number, partition) in self.partitions.iter().enumerate() {
            for (at, generation) in partition.generations.iter().enumerate() {
                let is_last = at + 1 == partition.generations.len();
                let begun = partition
                    .begun
                    .filter(|(generation, _)| *generation as usize == at + 1)
                    .map_or(0, |(_, begun)| begun);
                for key in 0..KEYS {
                    let (lane, split) = (format!("k{key}"), record_prefix(number, at as u32 + 1));
                    let rows = generation
                        .iter()
                        .filter(|(position, _)| *position >= begun)
                        .flat_map(rows_of);
                    let expected: Vec<u64> = rows
                        .filter(|(_, of)| *of == Some(key))
                        .map(|(position, _)| position)
                        .collect();
                    let files = seen
                        .remove(&(lane.clone(), split.clone()))
                        .unwrap_or_default();
                    let wrong = describe(&files.concat(), &expected, is_last && !self.is_alarmed);
                    violations
                        .extend(wrong.map(|wrong| format!("{sink} {lane}: of {split} {wrong}")));
                }
            }
        }
        violations.extend(seen.into_iter().map(|((lane, split), files)| {
            format!("{sink} {lane}: has records of {split}: {files:?}")
        }));
    }
}

/// Describes what is wrong about the records of a split in a bucket, if anything is. `is_complete`
/// says whether none may be missing.
fn describe(seen: &[u64], expected: &[u64], is_complete: bool) -> Option<String> {
    let count = |position: &u64, of: &[u64]| of.iter().filter(|other| *other == position).count();
    let lost: Vec<u64> = expected
        .iter()
        .filter(|position| is_complete && count(position, seen) < count(position, expected))
        .copied()
        .collect();
    let doubled: Vec<u64> = expected
        .iter()
        .filter(|position| count(position, seen) > count(position, expected))
        .copied()
        .collect();
    let foreign: Vec<u64> = seen
        .iter()
        .filter(|position| count(position, expected) == 0)
        .copied()
        .collect();
    let named = [
        ("are lost", lost),
        ("are duplicated", doubled),
        ("do not belong here", foreign),
    ];
    let wrong: Vec<String> = named
        .iter()
        .filter(|(_, some)| !some.is_empty())
        .map(|(what, some)| format!("{some:?} {what}"))
        .collect();
    if !wrong.is_empty() {
        return Some(wrong.join(", "));
    }
    describe_order(seen)
}

fn describe_order(seen: &[u64]) -> Option<String> {
    (!seen.is_sorted()).then(|| format!("the records are out of order: {seen:?}"))
}

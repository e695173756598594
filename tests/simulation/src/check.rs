//! What must be true after a run.

use std::collections::BTreeMap;

use crate::disk::records;
use crate::process::sink_id;
use crate::world::{World, split_id};

/// A split's records in one bucket: lists of positions, one for each file.
type ByLane = BTreeMap<(String, String), Vec<Vec<u64>>>;

impl World {
    /// Every record is visible once, in order, in its bucket; nothing is left over.
    pub(crate) fn check_end(&mut self) {
        let found = self.disks.find_all();
        let mut violations: Vec<String> = found.hidden.iter().map(|path| format!("a hidden file is left: {}", path.display())).collect();
        violations.extend(self.store.all_staged().map(|(_, id)| format!("{id} is still staged in the store")));
        for (_, split, record) in self.store.all_records() {
            if !record.ahead.is_empty() || !record.owners.is_empty() {
                violations.push(format!("a graceful stop left {split} as {record:?}"));
            }
        }
        let mut seen = ByLane::new();
        for file in &found.visible {
            for (split, positions) in records(&file.content) {
                // Which version of the pipeline has written a record does not matter.
                let lane = file.folder.split_once('-').map_or(file.folder.as_str(), |(_, key)| key);
                seen.entry((lane.to_owned(), split)).or_default().push(positions);
            }
        }
        for ((lane, split), files) in self.expected().iter().map(|(key, expected)| (key.clone(), (seen.remove(key), expected))) {
            let (mut files, expected) = (files.0.unwrap_or_default(), files.1);
            files.sort_by_key(|positions| positions.first().copied());
            let concatenated = files.concat();
            if concatenated != *expected {
                violations.push(describe(&lane, &split, &concatenated, expected));
            }
        }
        violations.extend(
            seen.into_iter().map(|((lane, split), files)| format!("{lane} holds records of {split} that are not its own: {files:?}")),
        );
        for violation in violations {
            self.violate(violation);
        }
    }

    /// For each bucket and split the positions that readers have to see.
    fn expected(&self) -> BTreeMap<(String, String), Vec<u64>> {
        let mut expected: BTreeMap<(String, String), Vec<u64>> = BTreeMap::new();
        for (number, partition) in self.partitions.iter().enumerate() {
            let begun = partition.begun.unwrap_or_default();
            for (position, key) in partition.records.iter().filter(|(position, _)| *position >= begun) {
                let Some(key) = key else { continue };
                expected.entry((format!("k{key}"), split_id(number).to_string())).or_default().push(*position);
            }
        }
        expected
    }

    /// Where a partition is begun of which nothing is known.
    pub(crate) fn first_start(&mut self, partition: usize) -> u64 {
        let end = self.partitions[partition].end;
        if self.store.record(&sink_id(), &split_id(partition)).low.is_none() && self.rng.u32(0..4) == 0 { end } else { 0 }
    }
}

/// Says what is wrong about a bucket.
fn describe(lane: &str, split: &str, seen: &[u64], expected: &[u64]) -> String {
    let count = |position: &u64, of: &[u64]| of.iter().filter(|other| *other == position).count();
    let lost: Vec<u64> = expected.iter().filter(|position| count(position, seen) == 0).copied().collect();
    let mut doubled: Vec<u64> = expected.iter().filter(|position| count(position, seen) > 1).copied().collect();
    doubled.dedup();
    let foreign: Vec<u64> = seen.iter().filter(|position| count(position, expected) == 0).copied().collect();
    match (lost.is_empty(), doubled.is_empty(), foreign.is_empty()) {
        (true, true, true) => format!("{lane}: records of {split} are out of order: {seen:?}"),
        _ => format!("{lane}: of {split} are lost {lost:?}, doubled {doubled:?}, unexpected {foreign:?}"),
    }
}

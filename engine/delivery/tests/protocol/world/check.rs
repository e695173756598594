//! What readers finally see, and what may be left behind.

use std::collections::BTreeMap;

use pseidon_delivery::{LaneId, Position, StateStore};

use super::{World, sink};

impl World {
    /// Checks a world that has [finished](World::finish).
    pub(crate) fn check(&self) {
        let hidden: Vec<_> = self
            .files
            .iter()
            .filter(|(_, file)| !file.visible)
            .collect();
        assert!(hidden.is_empty(), "hidden files are left: {hidden:?}");
        assert_eq!(
            self.store.staged(&sink()).unwrap(),
            [],
            "entries are left in the store"
        );

        let mut seen: BTreeMap<(LaneId, usize), Vec<Vec<Position>>> = BTreeMap::new();
        for file in self.files.values() {
            let mut of_split: BTreeMap<usize, Vec<Position>> = BTreeMap::new();
            for (split, position) in &file.records {
                of_split.entry(*split).or_default().push(*position);
            }
            for (split, positions) in of_split {
                seen.entry((file.lane.clone(), split))
                    .or_default()
                    .push(positions);
            }
        }
        let mut expected: BTreeMap<(LaneId, usize), Vec<Position>> = BTreeMap::new();
        for (split, input) in self.inputs.iter().enumerate() {
            let from = self.starts.get(&split).copied().unwrap_or(0);
            let begun = input.iter().filter(|(position, _)| *position >= from);
            for (position, lane) in begun.filter_map(|(position, lane)| Some((*position, (*lane)?)))
            {
                expected
                    .entry((LaneId::from(format!("lane{lane}")), split))
                    .or_default()
                    .push(position);
            }
        }
        // Files in the order of their first position, laid end to end, are the split's records of
        // that lane: none is missing, none is there twice, and no file's range overlaps another's.
        let seen: BTreeMap<_, Vec<Position>> = seen
            .into_iter()
            .map(|(key, mut files)| {
                files.sort_by_key(|positions| positions[0]);
                (key, files.concat())
            })
            .collect();
        assert_eq!(seen, expected);

        for (split, record) in self.store.records(&sink()).unwrap() {
            assert!(
                record.ahead.is_empty(),
                "a graceful stop leaves nothing ahead in {split}: {record:?}"
            );
            assert!(record.owners.is_empty());
        }
    }
}

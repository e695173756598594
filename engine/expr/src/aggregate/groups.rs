//! Groups in memory.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::error::ArrowError;
use datafusion_expr::{EmitTo, GroupsAccumulator};

use super::grouping::{Group, Grouping};

/// The groups of some rows, and what has been computed for each of them.
pub struct Groups {
    grouping: Arc<Grouping>,
    /// The number of each group, by its key.
    numbers: HashMap<Box<[u8]>, usize>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    key_bytes: usize,
}

/// What an entry of the map of groups takes beside its key.
const ENTRY_BYTES: usize = 48;

impl Groups {
    /// No groups yet.
    ///
    /// # Errors
    /// The functions cannot be computed.
    pub fn new(grouping: Arc<Grouping>) -> Result<Groups, ArrowError> {
        Ok(Groups {
            accumulators: grouping.accumulators()?,
            grouping,
            numbers: HashMap::new(),
            key_bytes: 0,
        })
    }

    /// The number of groups.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// An estimate of the memory that the groups use, in bytes.
    pub fn memory(&self) -> usize {
        let accumulators = self.accumulators.iter();
        self.key_bytes
            + self.numbers.capacity() * ENTRY_BYTES
            + accumulators
                .map(|accumulator| accumulator.size())
                .sum::<usize>()
    }

    /// Adds rows with the columns of the input.
    ///
    /// # Errors
    /// The values are not those of the grouping.
    pub fn update(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        let keys = self.grouping.keys(rows)?;
        let numbers: Vec<usize> = match self.grouping.has_keys() {
            true => keys.iter().map(|key| self.number(key.as_ref())).collect(),
            false => {
                let only = self.number(&[]);
                vec![only; rows.num_rows()]
            }
        };
        let total = self.numbers.len();
        let functions = self.grouping.functions().iter();
        for (function, accumulator) in functions.zip(&mut self.accumulators) {
            let arguments = function.arguments(rows)?;
            accumulator.update_batch(&arguments, &numbers, None, total)?;
        }
        Ok(())
    }

    /// Adds what was stored of some groups.
    ///
    /// # Errors
    /// The bytes are of another grouping.
    pub fn merge(&mut self, stored: &[Group]) -> Result<(), ArrowError> {
        if stored.is_empty() {
            return Ok(());
        }
        let states = self.grouping.state_columns(stored)?;
        let numbers: Vec<usize> = stored.iter().map(|group| self.number(&group.key)).collect();
        let total = self.numbers.len();
        let grouping = self.grouping.clone();
        grouping.merge(&mut self.accumulators, &states, &numbers, total)
    }

    /// Removes all groups and returns them, ordered by their keys.
    ///
    /// # Errors
    /// The states cannot be stored.
    pub fn take(&mut self) -> Result<Vec<Group>, ArrowError> {
        let mut states: Vec<ArrayRef> = Vec::new();
        for accumulator in &mut self.accumulators {
            states.extend(accumulator.state(EmitTo::All)?);
        }
        self.accumulators = self.grouping.accumulators()?;
        self.key_bytes = 0;
        let mut numbered: Vec<(Box<[u8]>, usize)> = self.numbers.drain().collect();
        if numbered.is_empty() {
            return Ok(Vec::new());
        }
        numbered.sort_unstable();
        let states = self.grouping.states(&states)?;
        let group = |(key, number): (Box<[u8]>, usize)| Group {
            key: key.into_vec(),
            state: states.row(number).as_ref().to_vec(),
        };
        Ok(numbered.into_iter().map(group).collect())
    }

    /// The results of rows that fit into memory, ordered by their keys.
    ///
    /// # Errors
    /// Like [`Groups::update`] and [`Grouping::results`].
    pub fn results_of(
        grouping: &Arc<Grouping>,
        rows: &RecordBatch,
    ) -> Result<RecordBatch, ArrowError> {
        let mut groups = Groups::new(grouping.clone())?;
        groups.update(rows)?;
        grouping.results(&groups.take()?)
    }

    fn number(&mut self, key: &[u8]) -> usize {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        let number = self.numbers.len();
        self.numbers.insert(key.into(), number);
        self.key_bytes += key.len();
        number
    }
}

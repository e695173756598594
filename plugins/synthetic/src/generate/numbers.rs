//! The inputs of a generated record: its number, and random values that depend on it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field};
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_expr::{Column, Scope};

/// The columns that a record's expressions can use. [`RandomValues::column`] depends on their order.
const COLUMNS: [(&str, DataType); 3] = [
    ("n", DataType::Int64),
    ("r", DataType::Float64),
    ("h", DataType::Int64),
];
/// The fractional part of the golden ratio, times 2^64. It spreads consecutive numbers.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

pub(super) fn scope() -> Scope {
    let column = |(name, data_type): (&str, DataType)| Column {
        path: Path(vec![PathStep::Field(name.to_owned())]),
        field: Arc::new(Field::new(name, data_type, false)),
    };
    Scope {
        columns: COLUMNS.into_iter().map(column).collect(),
    }
}

/// Generates random values that depend only on the seed and the record's number, in this and every
/// later version: a record that is generated again after a crash must be the same. That is why the
/// mixing function is written here and not taken from a library.
#[derive(Clone, Copy, Debug)]
pub(super) struct RandomValues {
    seed: u64,
}

impl RandomValues {
    pub(super) fn new(seed: u64) -> RandomValues {
        // Mixed, so that adjacent seeds do not have adjacent sequences.
        RandomValues { seed: mix(seed) }
    }

    /// Returns column number `column` of the scope for these numbers; `None` if there is no column
    /// with this number.
    pub(super) fn column(self, column: usize, numbers: &[u64]) -> Option<ArrayRef> {
        let numbers = numbers.iter().copied();
        let column: ArrayRef = match column {
            0 => Arc::new(Int64Array::from_iter_values(
                numbers.map(|number| number as i64),
            )),
            1 => Arc::new(Float64Array::from_iter_values(
                numbers.map(|number| self.uniform(number)),
            )),
            2 => Arc::new(Int64Array::from_iter_values(
                numbers.map(|number| self.hash(number)),
            )),
            _ => return None,
        };
        Some(column)
    }

    /// A number in [0, 1) with 53 random bits.
    fn uniform(self, number: u64) -> f64 {
        const STEPS: f64 = (1u64 << 53) as f64;
        (self.bits(number, 1) >> 11) as f64 / STEPS
    }

    /// A number from 0 to 2^63 - 1. It is not negative, so that `h % 100` is never negative either.
    fn hash(self, number: u64) -> i64 {
        (self.bits(number, 2) >> 1) as i64
    }

    /// The output of SplitMix64 at an index of its sequence. Each stream uses every other index.
    fn bits(self, number: u64, stream: u64) -> u64 {
        let place = number.wrapping_mul(2).wrapping_add(stream);
        mix(self.seed.wrapping_add(place.wrapping_mul(GOLDEN)))
    }
}

/// SplitMix64's finalizer: a bijection in which each input bit flips half of the output bits on
/// average.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type};

    use super::*;

    #[test]
    fn a_value_never_changes() {
        // The first outputs of SplitMix64 with seed 0; see its reference implementation.
        assert_eq!(
            [mix(GOLDEN), mix(GOLDEN.wrapping_mul(2))],
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]
        );
        let random = RandomValues::new(0);
        assert_eq!(
            random.uniform(0),
            (0xe220_a839_7b1d_cdaf_u64 >> 11) as f64 / (1u64 << 53) as f64
        );
        assert_eq!(random.hash(0), (0x6e78_9e6a_a1b9_65f4_u64 >> 1) as i64);
    }

    #[test]
    fn values_are_spread_evenly() {
        let numbers: Vec<u64> = (0..100_000).collect();
        for seed in [0, 1, 42, u64::MAX] {
            let random = RandomValues::new(seed);
            let uniform = random.column(1, &numbers).unwrap();
            let hash = random.column(2, &numbers).unwrap();
            let (mut tenths, mut lasts) = ([0u32; 10], [0u32; 10]);
            for value in uniform.as_primitive::<Float64Type>().values() {
                assert!((0.0..1.0).contains(value));
                tenths[(value * 10.0) as usize] += 1;
            }
            for value in hash.as_primitive::<Int64Type>().values() {
                lasts[(value % 10) as usize] += 1;
            }
            // 10 000 are expected in each; the standard deviation is 95.
            assert!(
                tenths
                    .iter()
                    .chain(&lasts)
                    .all(|count| (9_500..10_500).contains(count)),
                "seed {seed}: {tenths:?} {lasts:?}"
            );
        }
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(RandomValues::new(1).hash(0), RandomValues::new(2).hash(0));
        assert_ne!(RandomValues::new(1).hash(1), RandomValues::new(2).hash(0));
    }
}

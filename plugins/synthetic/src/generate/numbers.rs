//! What a record is made from: its number, and values drawn from it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field};
use pseidon_dsl::expr::{Path, Step};
use pseidon_expr::{Column, Scope};

/// The columns that a record's expressions can name. [`Draw::column`] goes by their order.
const COLUMNS: [(&str, DataType); 3] = [
    ("n", DataType::Int64),
    ("r", DataType::Float64),
    ("h", DataType::Int64),
];
/// The golden ratio's fraction of 2^64, which spreads consecutive numbers.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

pub(super) fn scope() -> Scope {
    let column = |(name, data_type): (&str, DataType)| Column {
        path: Path(vec![Step::Field(name.to_owned())]),
        field: Arc::new(Field::new(name, data_type, false)),
    };
    Scope {
        columns: COLUMNS.into_iter().map(column).collect(),
    }
}

/// Draws values that depend on nothing but the seed and the record's number, today and in every
/// later version: a record that is made again after a crash has to be the same. That is why the
/// mixing is written out here and not a library's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    seed: u64,
}

impl Draw {
    pub(super) fn new(seed: u64) -> Draw {
        // Mixed, so that neighbouring seeds do not give neighbouring sequences.
        Draw { seed: mix(seed) }
    }

    /// The column of this place in the scope for these numbers; `None` if there is none such.
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

    /// A number in [0, 1), all of whose 53 bits are drawn.
    fn uniform(self, number: u64) -> f64 {
        const STEPS: f64 = (1u64 << 53) as f64;
        (self.bits(number, 1) >> 11) as f64 / STEPS
    }

    /// A number from 0 to 2^63 - 1. Not negative, so that `h % 100` is what one expects of it.
    fn hash(self, number: u64) -> i64 {
        (self.bits(number, 2) >> 1) as i64
    }

    /// The output of SplitMix64 at a place of its sequence; each stream has every other place.
    fn bits(self, number: u64, stream: u64) -> u64 {
        let place = number.wrapping_mul(2).wrapping_add(stream);
        mix(self.seed.wrapping_add(place.wrapping_mul(GOLDEN)))
    }
}

/// SplitMix64's finalizer: a bijection in which every bit of the input changes half of the
/// output's.
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
        // SplitMix64 seeded with 0 gives these first; see its reference implementation.
        assert_eq!(
            [mix(GOLDEN), mix(GOLDEN.wrapping_mul(2))],
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]
        );
        let draw = Draw::new(0);
        assert_eq!(
            draw.uniform(0),
            (0xe220_a839_7b1d_cdaf_u64 >> 11) as f64 / (1u64 << 53) as f64
        );
        assert_eq!(draw.hash(0), (0x6e78_9e6a_a1b9_65f4_u64 >> 1) as i64);
    }

    #[test]
    fn values_are_spread_evenly() {
        let numbers: Vec<u64> = (0..100_000).collect();
        for seed in [0, 1, 42, u64::MAX] {
            let draw = Draw::new(seed);
            let uniform = draw.column(1, &numbers).unwrap();
            let hash = draw.column(2, &numbers).unwrap();
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
        assert_ne!(Draw::new(1).hash(0), Draw::new(2).hash(0));
        assert_ne!(Draw::new(1).hash(1), Draw::new(2).hash(0));
    }
}

//! `sample`: a share of the records.
//!
//! Whether a record belongs to it is determined by a hash of its key or of its position, so that a
//! record that is read again after a crash has the same fate.

use std::fmt;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::error::ArrowError;
use pseidon_expr::CompiledExpr;
use pseidon_plugin::rows::Rows;
use twox_hash::XxHash64;

use crate::percent::Percent;

/// A compiled `sample`.
#[derive(Clone)]
pub struct Sample {
    /// How many of the records pass.
    pub share: Percent,
    /// The key, a string. Without it, and if it is NULL, a record's position decides.
    pub by: Option<CompiledExpr>,
}

impl Sample {
    /// For each row whether it belongs to the sample.
    ///
    /// # Errors
    /// The key cannot be evaluated for some row.
    pub fn mask(&self, rows: &Rows) -> Result<BooleanArray, ArrowError> {
        let keys = self.by.as_ref().map(|by| rows.evaluate(by)).transpose()?;
        let keys = keys.as_ref().map(|keys| keys.as_string::<i32>());
        let split = XxHash64::oneshot(0, rows.batch().first_split().as_str().as_bytes());
        let hash = |row| match keys.filter(|keys| keys.is_valid(row)) {
            Some(keys) => XxHash64::oneshot(0, keys.value(row).as_bytes()),
            None => XxHash64::oneshot(split, &rows.offset(row).to_le_bytes()),
        };
        Ok((0..rows.len())
            .map(|row| Some(includes(self.share, hash(row))))
            .collect())
    }
}

/// Whether a record with this hash belongs to the share.
fn includes(share: Percent, hash: u64) -> bool {
    // The upper 53 bits are a number from 0 to 1 that a float64 represents exactly.
    let place = (hash >> 11) as f64 / (1_u64 << 53) as f64;
    place * 100.0 < share.number()
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the records", self.share)?;
        match &self.by {
            Some(by) => write!(f, ", by {}", by.field().name()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_part_of_the_hashes() {
        let share = |text| Percent::from_text(text).expect("a percentage");
        assert!(!includes(share("0%"), 0));
        assert!(includes(share("100%"), u64::MAX));
        assert!(includes(share("50%"), u64::MAX / 2));
        assert!(!includes(share("50%"), u64::MAX / 2 + 1));
        let hashes = (0..100_000_u64).map(|key| XxHash64::oneshot(7, &key.to_le_bytes()));
        let included = hashes.filter(|hash| includes(share("1%"), *hash)).count();
        assert!((900..1100).contains(&included), "{included}");
    }
}

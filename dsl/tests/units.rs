//! Properties of sizes and durations.

use std::time::Duration;

use proptest::prelude::*;
use pseidon_dsl::units::{duration, size};

const DURATIONS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];
const SIZES: [(&str, u64); 6] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("gib", 1 << 30),
    ("T", 1_000_000_000_000),
];

proptest! {
    #[test]
    fn a_duration_is_the_sum_of_its_parts(
        parts in prop::collection::vec(
            (any::<u64>(), 0..48_u32, prop::sample::select(DURATIONS.to_vec())),
            1..4,
        ),
        space in prop::sample::select(vec!["", " "]),
    ) {
        let parts: Vec<(u64, &str, u64)> = parts
            .into_iter()
            .map(|(number, shift, (name, unit))| (number >> shift, name, unit))
            .collect();
        let texts = parts.iter().map(|(number, name, _)| format!("{number}{space}{name}"));
        let text = texts.collect::<Vec<_>>().join(space);
        let nanos = parts.iter().map(|(number, _, unit)| u128::from(*number) * u128::from(*unit));
        let expected = u64::try_from(nanos.sum::<u128>()).ok().map(Duration::from_nanos);
        prop_assert_eq!(duration(&text).ok(), expected, "{}", text);
    }

    #[test]
    fn a_size_is_a_number_times_a_unit(
        number in any::<u64>(),
        shift in 0..64_u32,
        thousandths in 0..1000_u64,
        (name, unit) in prop::sample::select(SIZES.to_vec()),
    ) {
        let number = number >> shift;
        let text = format!("{number}.{thousandths:03} {name}");
        let bytes = (u128::from(number) * 1000 + u128::from(thousandths)) * u128::from(unit) / 1000;
        prop_assert_eq!(size(&text).ok(), u64::try_from(bytes).ok(), "{}", text);
    }

    #[test]
    fn any_string_is_a_value_or_refused(text in "[0-9]{0,40}\\.?[0-9]{0,12} ?[a-zA-Z]{0,3}|([0-9.]{0,3}[smhd]? ?){0,5}|\\PC{0,9}") {
        for error in [size(&text).err(), duration(&text).err()].into_iter().flatten() {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

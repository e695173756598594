//! What holds for any message of the positions topic: for the tests, and for the fuzz target.

use super::positions::{PositionKeys, StoredPosition};

/// A value is refused, or it is read as the same after it is printed.
pub fn check_value(value: &[u8]) {
    let Ok(stored) = StoredPosition::parse(value) else {
        return;
    };
    let partitions = stored.partitions.map(i32::try_from);
    if let Some(Ok(partitions)) = partitions {
        let keys = PositionKeys::new("pipeline", &"sink".into(), partitions);
        let printed = keys.value(stored.position);
        let read = StoredPosition::parse(printed.as_bytes());
        assert_eq!(read.ok(), Some(stored), "{printed}");
    }
}

/// The key of a split is found where it is stored, whatever its names are and however many
/// partitions the topic has; a key of another sink or number of partitions changes nothing in that.
pub fn check_key(pipeline: &str, sink: &str, split: &str, partitions: u16) {
    let partitions = i32::from(partitions).max(1);
    let keys = PositionKeys::new(pipeline, &sink.into(), partitions);
    let key = keys.key(&split.into());
    assert!((0..partitions).contains(&keys.partition()));
    let stored = StoredPosition::parse(keys.value(7).as_bytes()).expect("what is printed is valid");
    assert!(keys.is_current(&key, keys.partition(), &stored), "{key}");
    assert!(!keys.is_current(&key, keys.partition() + 1, &stored));
    let other = PositionKeys::new(sink, &pipeline.into(), partitions);
    assert_eq!(other.key(&split.into()) == key, pipeline == sink, "{key}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_value_is_refused_or_read(
            version in 0..3_u8,
            position in "-?[0-9]{1,21}|[0-9.e]{1,4}|null",
            partitions in "-?[0-9]{1,10}|\"[0-9]\"",
            cut in any::<prop::sample::Index>(),
        ) {
            let value = format!(
                r#"{{"version":{version},"position":{position},"partitions":{partitions}}}"#
            );
            check_value(value.as_bytes());
            check_value(&value.as_bytes()[..cut.index(value.len())]);
        }

        #[test]
        fn any_key_is_found(
            pipeline in "[a/%]{0,4}|\\PC{0,4}",
            sink in "[a/%2F]{0,4}",
            split in "(/|\\PC){0,4}",
            partitions in any::<u16>(),
        ) {
            check_key(&pipeline, &sink, &split, partitions);
        }
    }
}

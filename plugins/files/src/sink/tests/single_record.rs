//! Single records of a quarantine that are in no lane.

use super::*;

#[test]
fn a_single_record_is_written_once() {
    let world = World::new();
    for _ in 0..2 {
        let run = world.start(EVERY_5);
        let split = run.splits[0].0.clone();
        for id in ["out 7", "out 7", "other 7"] {
            run.sink
                .write_single(rows(&split, 7, 8, bucket), id)
                .unwrap();
        }
        run.finish();
    }
    let files = world.files("out");
    assert_eq!(files.len(), 2, "{files:?}");
    for (name, content) in files {
        assert!(
            name.starts_with("b2/clicks-0-000000000007.unwritable-"),
            "{name}"
        );
        assert_eq!(content, "{\"p\":0,\"n\":7}\n");
    }
    let staged = world.store.staged(&"lake".into()).unwrap();
    assert_eq!(staged, [], "the state knows nothing of it");
}

//! Tests of files that another instance has read meanwhile, and of files that are given back.

use super::super::tail::Tail;
use super::*;

/// Another instance has read more of a file than there was when this one found it.
#[test]
fn a_file_that_grows_while_it_is_handed_over_is_read_once() {
    let world = World::new();
    world.write("app.log", "one\ntwo\n");
    let run = world.start_following("app.log", false);
    run.until_read(&["app.log: one", "app.log: two"]);
    run.stop();
    let path = world.path("app.log");
    world.seen.lock().at_claim = Some(Box::new(move |seen| {
        let file = OpenOptions::new().append(true).read(true).open(path);
        let mut file = file.unwrap();
        file.write_all(b"three\n").unwrap();
        let stored = seen.stored.values_mut().next().unwrap();
        stored.position = 14;
        stored.resume = Some(Tail::of(&file, 14).unwrap().mark().to_resume());
    }));
    let run = world.start_following("app.log", false);
    run.until(|seen| seen.begun == 2);
    world.append("app.log", "four\n");
    run.until(|seen| seen.records.len() >= 3);
    assert_eq!(run.stop()[2..], ["app.log: four"]);
}

#[test]
fn a_file_with_a_header_only_is_released_when_it_is_gone() {
    let world = World {
        framing: Framing {
            has_header: true,
            ..Framing::default()
        },
        ..World::new()
    };
    world.write("a.csv", "id,name\n");
    world.write("b.csv", "id,name\n1,x\n");
    let run = world.start_following("*.csv", false);
    run.until_read(&["b.csv: 1,x"]);
    for name in ["a.csv", "b.csv"] {
        fs::remove_file(world.path(name)).unwrap();
    }
    run.until(|seen| seen.released == 2);
    run.stop();
}

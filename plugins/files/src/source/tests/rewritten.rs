//! Tests of files that were written again in place: with the same inode, and often with the same
//! size and beginning.

use super::*;

type Packer = fn(&[&str]) -> Vec<u8>;

/// The compressions whose files do not say in their first bytes that they were written again.
const PACKERS: [(&str, Packer); 4] = [("gz", gzip), ("zst", zstd), ("xz", xz), ("lz4", lz4)];

/// Overwrites the file in place.
fn overwrite(world: &World, name: &str, content: impl AsRef<[u8]>) {
    let inode = |path: &PathBuf| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let (path, content) = (world.path(name), content.as_ref());
    let before = inode(&path);
    fs::write(&path, content).unwrap();
    assert_eq!(inode(&path), before);
}

/// Lines of 100 bytes that end alike.
fn long_lines(ids: &[usize]) -> String {
    let line = |id: &usize| format!("{id:<30}{}\n", "x".repeat(69));
    ids.iter().map(line).collect()
}

#[test]
fn a_compressed_file_is_read_again_whatever_its_size_is() {
    for (extension, pack) in PACKERS {
        let world = World::new();
        let name = format!("a.{extension}");
        let first = pack(&["1\n2\n3\n"]);
        world.write(&name, &first);
        let glob = format!("{name:?}");
        assert_eq!(world.read(&glob).unwrap().len(), 3);
        let others = ["4\n5\n6\n", "7\n8\n9\n10\n11\n12\n13\n14\n", "0\n"];
        for content in others {
            let packed = pack(&[content]);
            let is_as_long = packed.len() == first.len();
            assert_eq!(is_as_long, content.len() == 6, "{extension} {content:?}");
            overwrite(&world, &name, packed);
            let read = world.read(&glob).unwrap();
            assert_eq!(
                read.len(),
                content.lines().count(),
                "{extension} {content:?}"
            );
            assert_eq!(world.read(&glob).unwrap(), [""; 0]);
        }
    }
}

#[test]
fn a_followed_compressed_file_is_read_again_whatever_its_size_is() {
    for (extension, pack) in PACKERS {
        let world = World::new();
        let name = format!("a.{extension}");
        world.write(&name, pack(&["1\n2\n3\n"]));
        let run = world.start_following("a.*", false);
        run.until(|seen| seen.records.len() == 3);
        overwrite(&world, &name, pack(&["4\n5\n6\n"]));
        run.until(|seen| seen.records.len() == 6);
        run.stop();
        // Between two runs.
        overwrite(&world, &name, pack(&["7\n8\n9\n"]));
        let run = world.start_following("a.*", false);
        run.until(|seen| seen.records.len() == 9);
        assert_eq!(run.stop()[8], format!("{name}: 9"));
    }
}

#[test]
fn records_that_are_appended_to_a_compressed_file_are_not_lost_silently() {
    for (extension, pack) in PACKERS {
        let world = World::new();
        let name = format!("a.{extension}");
        world.write(&name, pack(&["1\n2\n3\n"]));
        let glob = format!("{name:?}");
        world.read(&glob).unwrap();
        overwrite(&world, &name, pack(&["1\n2\n3\n", "4\n"]));
        let error = world.read(&glob).unwrap_err();
        assert!(error.contains("it was appended to"), "{error}");
    }
}

#[test]
fn a_file_with_the_same_bytes_before_the_position_is_read_again_if_others_differ() {
    for second in [&[1, 5, 6][..], &[1, 5, 3, 7], &[1, 5]] {
        let world = World::new();
        world.write("a.log", long_lines(&[1, 2, 3]));
        assert_eq!(world.read(r#""a.log""#).unwrap().len(), 3);
        overwrite(&world, "a.log", long_lines(second));
        assert_eq!(world.read(r#""a.log""#).unwrap().len(), second.len());
        assert_eq!(world.read(r#""a.log""#).unwrap(), [""; 0]);
        world.append("a.log", &long_lines(&[8]));
        assert_eq!(world.read(r#""a.log""#).unwrap().len(), 1);
    }
}

#[test]
fn a_followed_file_with_the_same_bytes_before_the_position_is_read_again_if_others_differ() {
    for second in [&[1, 5, 3][..], &[1, 5, 3, 7], &[1, 5]] {
        let world = World::new();
        world.write("a.log", long_lines(&[1, 2, 3]));
        let run = world.start_following("a.log", false);
        run.until(|seen| seen.records.len() == 3);
        overwrite(&world, "a.log", long_lines(second));
        run.until(|seen| seen.records.len() == 3 + second.len());
        run.stop();
        // Between two runs.
        overwrite(&world, "a.log", long_lines(&[1, 8, 9]));
        let run = world.start_following("a.log", false);
        run.until(|seen| seen.records.len() == 6 + second.len());
        run.stop();
    }
}

#[test]
fn a_change_in_a_large_file_is_noticed() {
    let ids: Vec<usize> = (0..60_000).collect();
    let world = World::new();
    world.write("a.log", long_lines(&ids));
    assert_eq!(world.read(r#""a.log""#).unwrap().len(), ids.len());
    world.append("a.log", &long_lines(&[60_000]));
    assert_eq!(world.read(r#""a.log""#).unwrap().len(), 1);
    for changed in [20_000, 59_000] {
        let mut others = ids.clone();
        others[changed] += 100_000;
        others.push(60_000);
        overwrite(&world, "a.log", long_lines(&others));
        assert_eq!(world.read(r#""a.log""#).unwrap().len(), others.len());
        assert_eq!(world.read(r#""a.log""#).unwrap(), [""; 0]);
    }
}

#[test]
fn a_file_that_has_not_changed_since_it_was_read_is_not_compared() {
    let world = World::new();
    for (name, content) in [("a.log", b"one\n".to_vec()), ("b.gz", gzip(&["two\n"]))] {
        world.write(name, content);
        let file = fs::File::open(world.path(name)).unwrap();
        // The time of a change is only used when a later one differs from it.
        let tick = std::time::Duration::from_millis(150);
        std::thread::sleep(tick);
        let glob = format!("{name:?}");
        assert_eq!(world.read(&glob).unwrap().len(), 1);
        // Digests that no content has.
        let wrong = |text: &str| -> String {
            let words = text.split(' ').map(|word| match word.len() {
                16 => "0123456789abcdef",
                _ => word,
            });
            words.collect::<Vec<_>>().join(" ")
        };
        let mut seen = world.seen.lock();
        for known in seen.stored.values_mut() {
            known.resume = known.resume.take().map(|it| wrong(it.as_str()).into());
        }
        drop(seen);
        assert_eq!(world.read(&glob).unwrap(), [""; 0], "{name}");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        file.set_permissions(mode).unwrap();
        assert_eq!(world.read(&glob).unwrap().len(), 1, "{name} is compared");
        world.seen.lock().stored.clear();
    }
}

/// Earlier versions stored a digest of the last 64 bytes, and the size of a compressed file.
#[test]
fn files_that_an_earlier_version_has_read_are_not_read_again() {
    let world = World::new();
    world.write("a.log", "one\n");
    world.write("b.gz", gzip(&["two\n"]));
    assert_eq!(world.read(r#"["a.log" "b.gz"]"#).unwrap().len(), 2);
    for known in world.seen.lock().stored.values_mut() {
        let text = known.resume.take().unwrap().as_str().to_owned();
        let words = if text.starts_with("mark") { 4 } else { 2 };
        let old: Vec<&str> = text.split(' ').take(words).collect();
        known.resume = Some(old.join(" ").into());
    }
    assert_eq!(world.read(r#"["a.log" "b.gz"]"#).unwrap(), [""; 0]);
    world.append("a.log", "three\n");
    let read = world.read(r#"["a.log" "b.gz"]"#).unwrap();
    assert_eq!(read, ["a.log: three"]);
}

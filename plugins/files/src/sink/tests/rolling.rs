//! Tests of when files close, and of their names.

use super::*;

#[test]
fn a_run_leaves_finished_files_and_nothing_else() {
    let world = World::new();
    let mut run = world.start(EVERY_5);
    run.deliver(0, 12).unwrap();
    assert!(
        world.names("out").iter().all(|name| name.starts_with(OPEN)),
        "nothing is visible yet"
    );
    run.deliver(1, 3).unwrap();
    run.finish();
    world.assert_exactly_once("out", [12, 3]);
    assert_eq!(
        world.names("out"),
        [
            "NULL/clicks-0-000000000004.json",
            "b0/clicks-0-000000000000.json",
            "b1/clicks-0-000000000001.json",
            "b2/clicks-0-000000000002.json",
            "b3/clicks-0-000000000003.json",
        ]
    );
    assert!(world.store.staged(&"lake".into()).unwrap().is_empty());
    assert!(
        world
            .store
            .records(&"lake".into())
            .unwrap()
            .iter()
            .all(|(_, record)| record.ahead.is_empty())
    );
}

#[test]
fn a_path_without_values_is_the_folder_itself() {
    let world = World::new();
    let mut run = world.start(r#""out/all""#);
    run.deliver(1, 3).unwrap();
    run.finish();
    assert_eq!(world.names("out"), ["all/clicks-1-000000000000.json"]);
}

#[test]
fn a_file_has_exactly_the_maximum_number_of_records() {
    let world = World::new();
    let mut run = world.start(r#"{:path "out" :rollover {:records 10}}"#);
    run.deliver(0, 7).unwrap();
    run.deliver(0, 38).unwrap();
    run.writer.tick().unwrap();
    let counts: Vec<usize> = world
        .files("out")
        .into_iter()
        .filter(|(name, _)| !name.contains(OPEN))
        .map(|(_, text)| text.lines().count())
        .collect();
    assert_eq!(counts, [10, 10, 10, 10]);
    run.finish();
    assert_eq!(world.names("out").len(), 5);
}

#[test]
fn rows_of_one_record_stay_in_one_file() {
    let world = World::new();
    let mut run = world.start(r#"{:path "out" :rollover {:records 2}}"#);
    let split = run.splits[0].0.clone();
    let all = rows(&split, 0, 3, |_| None)
        .take(&UInt32Array::from(vec![0, 1, 1, 1, 2, 2, 2]))
        .unwrap();
    run.deliver_rows(all).unwrap();
    run.finish();
    let counts: Vec<usize> = world
        .files("out")
        .into_values()
        .map(|text| text.lines().count())
        .collect();
    assert_eq!(counts, [4, 3]);
}

#[test]
fn each_rule_closes_files_independently() {
    for (rule, closes) in [
        (":size \"1B\"", true),
        (":idle 0", true),
        (":age 0", true),
        (":records 1", true),
        (":records 1000", false),
    ] {
        let world = World::new();
        let mut run = world.start(&format!(r#"{{:path "out" :rollover {{{rule}}}}}"#));
        run.deliver(0, 3).unwrap();
        run.writer.tick().unwrap();
        let visible = world.names("out").iter().any(|name| !name.contains(OPEN));
        assert_eq!(visible, closes, "{rule}");
    }
}

#[test]
fn a_flush_of_one_split_leaves_the_others_open() {
    let world = World::new();
    let mut run = world.start(r#"{:path "out/{@partition}"}"#);
    run.deliver(0, 3).unwrap();
    run.deliver(1, 3).unwrap();
    run.writer.flush(Some(&["in:clicks/1".into()])).unwrap();
    let visible: Vec<String> = world
        .names("out")
        .into_iter()
        .filter(|name| !name.contains(OPEN))
        .collect();
    assert_eq!(visible, ["1/clicks-1-000000000000.json"]);
    assert_eq!(
        run.setup
            .metrics
            .open_files
            .with_label_values(&["lake"])
            .get(),
        1
    );
    assert_eq!(
        run.setup.metrics.files.with_label_values(&["lake"]).get(),
        1
    );
    run.finish();
}

#[test]
fn a_name_that_is_taken_is_not_replaced() {
    let world = World::new();
    fs::create_dir_all(world.path("out/b0")).unwrap();
    fs::write(world.path("out/b0/clicks-0-000000000000.json.gz"), "other").unwrap();
    let mut run = world.start(r#"{:path "out/{k}" :compression :gzip}"#);
    run.deliver(0, 1).unwrap();
    run.finish();
    assert_eq!(
        world.names("out"),
        [
            "b0/clicks-0-000000000000.json.gz",
            "b0/clicks-0-000000000000~1.json.gz"
        ]
    );
    assert_eq!(
        world.files("out")["b0/clicks-0-000000000000.json.gz"],
        "other"
    );
}

#[test]
fn places_of_one_stage_do_not_collide() {
    let world = World::new();
    for sink in ["lake", "lake#2"] {
        let mut run = world.try_start(sink, r#""out""#, input()).unwrap();
        run.deliver(0, 1).unwrap();
        run.finish();
    }
    assert_eq!(
        world.names("out"),
        ["clicks-0-000000000000.2.json", "clicks-0-000000000000.json"]
    );
}

#[test]
fn base_directories_are_used_in_turn() {
    let world = World::new();
    let mut run = world.start(r#"{:path "x/{k}" :base-dir ["one" "two"] :null-name "NULL"}"#);
    run.deliver(0, 4).unwrap();
    run.finish();
    assert_eq!(world.names("one").len(), 2);
    assert_eq!(world.names("two").len(), 2);
    assert!(
        world
            .names("one")
            .iter()
            .all(|name| name.starts_with("x/b"))
    );
}

#[test]
fn many_buckets_need_few_open_files_and_little_memory() {
    let world = World::new();
    let mut run = world.start(r#"{:path "out/{k}" :max-open-files 8 :compression :gzip}"#);
    let split = run.splits[0].0.clone();
    for turn in 0..3 {
        run.deliver_rows(rows(&split, turn * 100, turn * 100 + 100, |position| {
            Some(format!("{}", position % 100))
        }))
        .unwrap();
        assert!(
            run.setup
                .metrics
                .open_files
                .with_label_values(&["lake"])
                .get()
                <= 8
        );
    }
    run.finish();
    assert_eq!(world.names("out").len(), 300);
}

#[test]
fn parquet_files_list_their_positions() {
    let world = World::new();
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true)]));
    let input = SinkInput {
        record: RecordShape::Columns(schema),
        ..input()
    };
    let mut run = world
        .try_start("lake", r#"{:path "out" :codec :parquet}"#, input)
        .unwrap();
    for partition in [1, 0] {
        let split = run.splits[partition].0.clone();
        let all = rows(&split, 10, 13, bucket);
        let record = all.columns().clone();
        run.deliver_rows(all.with_record(record)).unwrap();
    }
    run.finish();
    let (name, content) = world.files("out").pop_first().unwrap();
    assert_eq!(name, "clicks-1-000000000010.parquet");
    for expected in [
        r#"{"in:clicks/0":{"first":10,"upto":13},"in:clicks/1":{"first":10,"upto":13}}"#,
        "pseidon.positions",
        "my pipeline",
    ] {
        assert!(content.contains(expected), "{expected}");
    }
}

#[test]
fn a_name_is_part_of_the_bucket() {
    let world = World::new();
    let mut run = world.start(r#"{:base-dir "out" :name "{@topic}-{k}" :null-name "NULL"}"#);
    run.deliver(0, 3).unwrap();
    run.finish();
    let names = [
        "clicks-b0-0-000000000000.json",
        "clicks-b1-0-000000000001.json",
        "clicks-b2-0-000000000002.json",
    ];
    assert_eq!(world.names("out"), names);

    let mut run = world
        .start(r#"{:path "out/x-{@partition}" :name "all/{k}"}"#.replace("all/", "all_").as_str());
    let split = run.splits[1].0.clone();
    run.deliver_rows(rows(&split, 0, 2, |position| {
        Some(if position == 0 {
            "a/b".to_owned()
        } else {
            "c".repeat(300)
        })
    }))
    .unwrap();
    run.finish();
    let names: Vec<String> = world
        .names("out")
        .into_iter()
        .filter(|name| name.starts_with("x-1/"))
        .collect();
    assert!(
        names[0].starts_with("x-1/all_a%2Fb-") && names[0].ends_with("-000000000000.json"),
        "{names:?}"
    );
    assert!(
        names[1].starts_with("x-1/all_ccc") && names[1].len() < 180,
        "{names:?}"
    );
}

#[test]
fn a_slash_separates_folders_in_a_time_format_but_not_in_a_value() {
    let world = World::new();
    let mut run = world.start(
        r#""out/{cast('2026-01-31T05:00:00Z' as timestamp):date=%Y%m%d/hour=%Y%m%d%H}/{'a/b'}""#,
    );
    run.deliver(0, 1).unwrap();
    run.finish();
    assert_eq!(
        world.names("out"),
        ["date=20260131/hour=2026013105/a%2Fb/clicks-0-000000000000.json"]
    );
}

#[test]
fn an_empty_name_is_the_default() {
    let world = World::new();
    let mut run = world.start(r#"{:path "out" :name "" :write ""}"#);
    run.deliver(0, 1).unwrap();
    run.finish();
    assert_eq!(world.names("out"), ["clicks-0-000000000000.json"]);
}

#[test]
fn a_bucket_has_the_configured_number_of_lanes() {
    let world = World::new();
    let run = world.start(r#"{:path "out" :lanes 2}"#);
    let lane = |split: &str| {
        let split = Arc::new(Split {
            id: split.into(),
            topic: "clicks".into(),
            partition: 0,
        });
        run.sink
            .route(rows(&split, 0, 3, bucket))
            .chunks
            .into_iter()
            .map(|chunk| chunk.lane.to_string())
            .collect::<Vec<_>>()
    };
    let mut lanes: Vec<Vec<String>> = (0..20)
        .map(|number| lane(&format!("in:clicks/{number}")))
        .collect();
    assert_eq!(
        lane("in:clicks/7"),
        lanes[7],
        "a split always has the same lane"
    );
    lanes.sort();
    lanes.dedup();
    assert_eq!(
        lanes,
        [["out///0"], ["out///1"]].map(|lane| lane.map(|lane| lane.replace("out", ".")))
    );
    let one = world.start(r#"{:path "out/{k}" :lanes 1}"#);
    assert_eq!(
        one.sink.route(rows(&one.splits[0].0, 0, 1, bucket)).chunks[0]
            .lane
            .as_str(),
        "b0",
        "the same id as without `:lanes`"
    );
}

#[test]
fn several_lanes_per_bucket_are_exactly_once() {
    let world = World::new();
    let text = r#"{:path "out/{k}" :null-name "NULL" :lanes 3 :rollover {:records 5}}"#;
    let mut run = world.start(text);
    run.deliver(0, 20).unwrap();
    run.deliver(1, 20).unwrap();
    run.writer.tick().unwrap();
    run.deliver(0, 20).unwrap();
    drop(run);
    let mut run = world.start(text);
    for (partition, from) in run
        .splits
        .iter()
        .map(|(_, from)| *from)
        .collect::<Vec<_>>()
        .into_iter()
        .enumerate()
    {
        run.deliver(partition, 40 - from).unwrap();
    }
    run.finish();
    world.assert_exactly_once("out", [40, 40]);
}

#[test]
fn only_the_selected_columns_are_written() {
    let world = World::new();
    let mut run = world.start(r#"{:path "out/{k}" :write "upper(k) as u, @offset as at"}"#);
    run.deliver(0, 2).unwrap();
    run.finish();
    let contents: Vec<String> = world.files("out").into_values().collect();
    assert_eq!(
        contents,
        ["{\"u\":\"B0\",\"at\":0}\n", "{\"u\":\"B1\",\"at\":1}\n"]
    );

    let mut run = world.start(r#"{:path "txt/{@partition}" :write "k" :codec :txt}"#);
    run.deliver(1, 3).unwrap();
    run.finish();
    assert_eq!(
        world.files("txt").into_values().collect::<Vec<_>>(),
        ["b0\nb1\nb2\n"]
    );
}

//! Sources that are faster than their sinks: files become visible and positions are committed
//! continuously, not only at the end.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::harness::feed::{Feeder, PARTITIONS};
use crate::harness::output::{check, count_gapless, files, hidden};
use crate::harness::{Pseidon, Site, brokers, wait_until};

/// The size at which files are full.
const SIZE: u64 = 20 << 20;
/// Writer threads, each with one open file.
const WRITERS: u64 = 2;
/// How often the number of visible files has to change while more is read.
const STEPS: usize = 6;

fn rollover() -> String {
    format!(":compression :gzip :rollover {{:age \"1s\" :idle \"1s\" :size {SIZE}}}")
}

/// Observes the files of a run while it reads.
struct Observer {
    site: Site,
    pseidon: Pseidon,
    /// The different numbers of visible files that were observed.
    steps: BTreeSet<usize>,
    /// When the last of them was observed first.
    last_step: Instant,
    /// The longest time from one of them to the next, which is shown and not checked.
    longest: Duration,
}

impl Observer {
    fn new(site: Site) -> Observer {
        let pseidon = site.run("pipeline.edn");
        Observer {
            site,
            pseidon,
            steps: BTreeSet::new(),
            last_step: Instant::now(),
            longest: Duration::ZERO,
        }
    }

    /// Stops the run, and prints what was observed.
    fn stop(&mut self) {
        self.pseidon.stop(60);
        println!(
            "{} steps, at most {:.1?} from one to the next",
            self.steps.len(),
            self.longest
        );
    }

    fn observe(&mut self) {
        if self.steps.insert(files(&self.site.path("out")).len()) {
            if self.steps.len() > 2 {
                self.longest = self.longest.max(self.last_step.elapsed());
            }
            self.last_step = Instant::now();
        }
        // A writer has one open file and those that became full since the last check, a second ago.
        // If no more than this is hidden, full files do not wait for anything else.
        let hidden: u64 = hidden(&self.site.path("out"))
            .iter()
            .filter_map(|path| fs::metadata(path).ok())
            .map(|file| file.len())
            .sum();
        assert!(hidden <= WRITERS * SIZE * 6, "{hidden} bytes are hidden");
        assert!(self.pseidon.is_running(), "it has ended");
    }
}

/// Files are due each second, so new ones must become visible as long as records arrive.
#[test]
fn files_of_an_endless_source_become_visible_on_time() {
    let site = Site::new("load-generate");
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:settings {{:writer-threads {WRITERS} :memory "64MB"}}
                src (generate {{:record {{:n "n" :u "'u' || (h % 100)"}}}})
                out (files {{:path "out" :codec :json {}}})
                pipeline (-> src out)}}"#,
            rollover()
        ),
    );
    let mut observer = Observer::new(site);
    wait_until("files become visible one after another", 120, || {
        observer.observe();
        observer.steps.len() > STEPS
    });
    observer.stop();
    assert!(count_gapless(&observer.site.path("out")) > 0);
}

/// A backlog of `PSEIDON_TEST_BACKLOG` records: files become visible and the offsets of the group
/// advance while it is read.
#[test]
fn a_backlog_becomes_visible_while_it_is_read() {
    let records = std::env::var("PSEIDON_TEST_BACKLOG").map_or(600_000, |records| {
        records.parse().expect("a number of records")
    });
    let site = Site::new("load-kafka");
    let mut feed = Feeder::new(&site.name, 1);
    feed.send(records);
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:name "{name}"
                :settings {{:etl-threads 1 :writer-threads {WRITERS} :memory "20MB"}}
                src (kafka {{:brokers "{}" :topics ["{name}"] :group "{name}" :start :earliest}})
                out (files {{:path "out/b0" :codec :raw {}}})
                pipeline (-> src out)}}"#,
            brokers(),
            rollover(),
            name = site.name,
        ),
    );
    let group = group(&site.name);
    let mut offsets = BTreeSet::new();
    let mut observer = Observer::new(site);
    // Steps and offsets count only until everything is committed.
    wait_until("the backlog is read", 60 + records / 10_000, || {
        observer.observe();
        let committed = committed(&group, &observer.site.name);
        offsets.insert(committed);
        committed == records
    });
    assert!(
        observer.steps.len() > 2,
        "visible files while the backlog was read: {:?}",
        observer.steps
    );
    let is_between = |offset: &u64| *offset > 0 && *offset < records;
    assert!(
        offsets.iter().any(is_between),
        "committed offsets while the backlog was read: {offsets:?}"
    );
    observer.stop();
    check(&observer.site.path("out"), &feed.fed());
}

fn group(name: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers())
        .set("group.id", name);
    config.create().expect("a consumer for offsets")
}

/// The sum of the committed offsets of the group.
fn committed(group: &BaseConsumer, topic: &str) -> u64 {
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS as i32 {
        partitions.add_partition(topic, partition);
    }
    let Ok(committed) = group.committed_offsets(partitions, Duration::from_secs(20)) else {
        return 0;
    };
    let offset = |offset: Offset| {
        if let Offset::Offset(offset) = offset {
            offset as u64
        } else {
            0
        }
    };
    committed
        .elements()
        .iter()
        .map(|partition| offset(partition.offset()))
        .sum()
}

//! Hundreds of logs in one process: the resources that idle logs use, and that all of them
//! continue.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::harness::mysql::LogTable;
use crate::harness::{Pseidon, Site, wait_until};
use crate::log_table::{FORMATS, Topics, check_topic, from_environment, is_complete, template};

/// The limits for idle logs: threads in total, and memory for each 200 logs.
const THREADS: usize = 100;
const MEMORY: u64 = 64 << 20;

/// The number of threads with each name.
fn by_name(threads: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    threads
        .iter()
        .for_each(|name| *counts.entry(name.as_str()).or_insert(0) += 1);
    counts
}

fn all_are_read(site: &Site, topics: &Topics, pseidon: &mut Pseidon) {
    for (name, sent) in topics.names.iter().zip(&topics.sent) {
        wait_until(&format!("{name} is read"), 300, || {
            is_complete(site, name, *sent) || !pseidon.is_running()
        });
    }
    assert!(pseidon.is_running());
}

/// `PSEIDON_TEST_MANY` sets the number of logs; the default is 200.
#[test]
fn idle_logs_use_few_threads_and_little_memory() {
    let site = Site::new("logs-many");
    let table = LogTable::new(&site);
    let count = from_environment("PSEIDON_TEST_MANY", 200) as usize;
    let mut topics = Topics::new(&site, count);
    site.write("pipeline.edn", template(&site, &table, ""));
    topics.send_all(4);
    topics
        .names
        .iter()
        .for_each(|name| table.set(name, FORMATS[0], "gzip"));
    let began = Instant::now();
    let mut pseidon = site.run("pipeline.edn");
    all_are_read(&site, &topics, &mut pseidon);
    println!("{count} logs were read after {:.1?}", began.elapsed());
    // Threads that were needed for the start end.
    wait_until("the threads are few", 60, || {
        pseidon.threads().len() < THREADS || !pseidon.is_running()
    });
    let threads = pseidon.threads();
    let memory = pseidon.memory().expect("it runs");
    println!("{} threads: {:?}", threads.len(), by_name(&threads));
    println!(
        "{} MB resident, {} MB at most",
        memory.now >> 20,
        memory.peak >> 20
    );
    // Each of them continues, twice.
    for _ in 0..2 {
        topics.send_all(4);
        all_are_read(&site, &topics, &mut pseidon);
    }
    pseidon.stop(120);
    topics
        .names
        .iter()
        .zip(&topics.sent)
        .for_each(|(name, sent)| check_topic(&site, name, *sent));
    assert!(
        memory.peak < MEMORY * count.div_ceil(200) as u64,
        "{} MB were resident",
        memory.peak >> 20
    );
}

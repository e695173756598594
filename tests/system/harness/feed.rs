//! Records with unique ids: `{"p":2,"n":17,"bucket":"b3","pad":"…"}` is number 17 of partition 2.
//! In a partition they are numbered from 0 without a gap, so what was fed is known by a count for
//! each partition.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::random::mixed;

/// The partitions that the test's broker gives to a topic that is made by using it.
pub(crate) const PARTITIONS: u64 = 4;

/// What was fed.
#[derive(Clone, Debug)]
pub(crate) struct Fed {
    /// The records of each partition.
    pub(crate) counts: Vec<u64>,
    /// The buckets they are spread over.
    pub(crate) buckets: u64,
}

impl Fed {
    /// The bucket of a record.
    pub(crate) fn bucket(&self, partition: u64, number: u64) -> String {
        bucket(self.buckets, partition, number)
    }

    /// All records.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

fn bucket(buckets: u64, partition: u64, number: u64) -> String {
    format!("b{}", mixed(partition << 40 | number) % buckets)
}

/// A record as it was found.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) partition: u64,
    pub(crate) number: u64,
    pub(crate) bucket: String,
}

impl Record {
    /// Reads a line of JSON.
    pub(crate) fn parse(line: &str) -> Record {
        let value: serde_json::Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("not a record: {line}: {error}"));
        let number = |name: &str| {
            value[name]
                .as_u64()
                .unwrap_or_else(|| panic!("not a record: {line}"))
        };
        let bucket = value["bucket"]
            .as_str()
            .unwrap_or_else(|| panic!("not a record: {line}"))
            .to_owned();
        Record {
            partition: number("p"),
            number: number("n"),
            bucket,
        }
    }
}

/// A record as a line of JSON, without the line's end. The padding does not compress well.
pub(crate) fn line(buckets: u64, partition: u64, number: u64) -> String {
    let seed = mixed(partition << 40 | number | 1 << 60);
    let words = (0..seed % 8)
        .map(|word| format!("{:016x}", mixed(seed + word)))
        .collect::<String>();
    format!(
        r#"{{"p":{partition},"n":{number},"bucket":"{}","pad":"{words}"}}"#,
        bucket(buckets, partition, number)
    )
}

/// Produces records to a topic, each once and in order.
pub(crate) struct Feed {
    topic: String,
    producer: ThreadedProducer<Deliveries>,
    fed: Fed,
    sent: u64,
}

struct Deliveries {
    failed: Arc<AtomicU64>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Feed {
    /// Into a new topic.
    pub(crate) fn new(topic: &str, buckets: u64) -> Feed {
        let context = Deliveries {
            failed: Arc::default(),
        };
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", super::brokers())
            .set("enable.idempotence", "true")
            .set("linger.ms", "5");
        let producer = config.create_with_context(context).expect("a producer");
        Feed {
            topic: topic.to_owned(),
            producer,
            fed: Fed {
                counts: vec![0; PARTITIONS as usize],
                buckets,
            },
            sent: 0,
        }
    }

    /// Sends so many records, spread over the partitions, and waits until the broker has them.
    pub(crate) fn send(&mut self, records: u64) -> &mut Feed {
        for _ in 0..records {
            let partition = mixed(self.sent) % PARTITIONS;
            let count = &mut self.fed.counts[partition as usize];
            let payload = line(self.fed.buckets, partition, *count);
            *count += 1;
            self.sent += 1;
            self.send_one(partition, &payload);
        }
        self.flush();
        self
    }

    /// Sends something that is no record of ours.
    pub(crate) fn send_other(&mut self, partition: u64, payload: &str) -> &mut Feed {
        self.send_one(partition, payload);
        self.flush();
        self
    }

    fn send_one(&self, partition: u64, payload: &str) {
        let mut record = BaseRecord::<(), str>::to(&self.topic)
            .partition(partition as i32)
            .payload(payload);
        loop {
            match self.producer.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back
                }
                Err((error, _)) => panic!("cannot produce: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn flush(&self) {
        self.producer
            .flush(Duration::from_secs(60))
            .expect("the broker takes the records");
        assert_eq!(
            self.producer.context().failed.load(Ordering::Relaxed),
            0,
            "the broker refused records"
        );
    }

    /// What was sent.
    pub(crate) fn fed(&self) -> Fed {
        self.fed.clone()
    }

    /// Goes on sending on a thread of its own.
    pub(crate) fn in_background(mut self, per_second: u64) -> Background<Feed> {
        Background::start(move |stopped| {
            paced(per_second, stopped, |records| {
                self.send(records);
            });
            self
        })
    }
}

/// Does something so many times a second, until it is stopped.
fn paced(per_second: u64, stopped: &AtomicBool, mut work: impl FnMut(u64)) {
    let began = Instant::now();
    let mut done = 0;
    while !stopped.load(Ordering::Relaxed) {
        let due = began.elapsed().as_millis() as u64 * per_second / 1000;
        if due > done {
            work(due - done);
            done = due;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Something that is done until it is finished.
pub(crate) struct Background<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Background<T> {
    fn start(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Background<T> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        Background {
            stop,
            thread: Some(std::thread::spawn(move || work(&stopped))),
        }
    }

    /// Ends it, and gives back what did it.
    pub(crate) fn finish(mut self) -> T {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .expect("it was started")
            .join()
            .expect("feeding works")
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Appends records to a log, as a service does. Order is kept within a file, not between a file and
/// the one that follows it; so each file, and each new content of a file, has a partition of its
/// own.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    buckets: u64,
    partition: u64,
    count: u64,
}

impl Log {
    /// A new log file.
    pub(crate) fn create(path: PathBuf, fed: &mut Fed) -> Log {
        let file = open_log(&path);
        fed.counts.push(0);
        Log {
            path,
            file,
            buckets: fed.buckets,
            partition: fed.counts.len() as u64 - 1,
            count: 0,
        }
    }

    /// Appends so many records. Now and then a line is written in two parts.
    pub(crate) fn append(&mut self, records: u64, fed: &mut Fed) {
        for _ in 0..records {
            let line = line(self.buckets, self.partition, self.count) + "\n";
            let (first, second) = line.split_at(if self.count.is_multiple_of(17) {
                line.len() / 2
            } else {
                0
            });
            for part in [first, second] {
                self.file
                    .write_all(part.as_bytes())
                    .expect("the log can be written");
            }
            self.count += 1;
        }
        fed.counts[self.partition as usize] = self.count;
    }

    /// The log goes to another name, and a new file takes its place.
    pub(crate) fn rotate(&mut self, to: &Path, fed: &mut Fed) {
        fs::rename(&self.path, to).expect("the log can be renamed");
        *self = Log::create(self.path.clone(), fed);
    }

    /// The log is emptied in its place (`copytruncate`, without the copy).
    pub(crate) fn truncate(&mut self, fed: &mut Fed) {
        self.file.set_len(0).expect("the log can be truncated");
        *self = Log::create(self.path.clone(), fed);
    }
}

fn open_log(path: &Path) -> File {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .expect("the log can be opened")
}

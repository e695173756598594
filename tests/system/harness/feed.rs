//! Records with unique ids: `{"p":2,"n":17,"bucket":"b3","pad":"…"}` is number 17 of partition 2.
//! They are numbered from 0 without a gap in each partition, so a count for each partition says
//! which records were fed.

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

/// The number of partitions of a topic that the tests' broker creates automatically.
pub(crate) const PARTITIONS: u64 = 4;

/// The records that were fed.
#[derive(Clone, Debug)]
pub(crate) struct FedRecords {
    /// The number of records in each partition.
    pub(crate) counts: Vec<u64>,
    /// The number of buckets over which they are distributed.
    pub(crate) buckets: u64,
}

impl FedRecords {
    /// The bucket of a record.
    pub(crate) fn bucket(&self, partition: u64, number: u64) -> String {
        bucket(self.buckets, partition, number)
    }

    /// The number of all records.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

fn bucket(buckets: u64, partition: u64, number: u64) -> String {
    format!("b{}", mixed(partition << 40 | number) % buckets)
}

/// A record that was found in the output.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) partition: u64,
    pub(crate) number: u64,
    pub(crate) bucket: String,
}

impl Record {
    /// Parses a line of JSON.
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

/// A record as a line of JSON, without a line feed. The padding does not compress well.
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
pub(crate) struct Feeder {
    topic: String,
    producer: ThreadedProducer<Deliveries>,
    fed: FedRecords,
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

impl Feeder {
    /// A producer to a new topic.
    pub(crate) fn new(topic: &str, buckets: u64) -> Feeder {
        let context = Deliveries {
            failed: Arc::default(),
        };
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", super::brokers())
            .set("enable.idempotence", "true")
            .set("linger.ms", "5");
        let producer = config.create_with_context(context).expect("a producer");
        Feeder {
            topic: topic.to_owned(),
            producer,
            fed: FedRecords {
                counts: vec![0; PARTITIONS as usize],
                buckets,
            },
            sent: 0,
        }
    }

    /// Sends this number of records, distributed over the partitions, and waits until the broker
    /// has them.
    pub(crate) fn send(&mut self, records: u64) -> &mut Feeder {
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

    /// Sends a payload that is not counted as fed.
    pub(crate) fn send_other(&mut self, partition: u64, payload: &str) -> &mut Feeder {
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
            .expect("the broker accepts the records");
        assert_eq!(
            self.producer.context().failed.load(Ordering::Relaxed),
            0,
            "the broker refused records"
        );
    }

    /// The records that were sent.
    pub(crate) fn fed(&self) -> FedRecords {
        self.fed.clone()
    }

    /// Continues to send on a separate thread.
    pub(crate) fn in_background(mut self, per_second: u64) -> Background<Feeder> {
        Background::start(move |stopped| {
            paced(per_second, stopped, |records| {
                self.send(records);
            });
            self
        })
    }
}

/// Calls `work` with the number of records that are due, at a rate per second, until it is stopped.
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

/// Work on a separate thread until it is finished.
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

    /// Stops the work, and returns its result.
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

/// Appends records to a log file, as a service does. Order is guaranteed within a file, not between
/// a file and its successor, so each file, and each new content of a file, is a separate partition.
pub(crate) struct LogWriter {
    path: PathBuf,
    file: File,
    buckets: u64,
    partition: u64,
    count: u64,
}

impl LogWriter {
    /// A new log file.
    pub(crate) fn create(path: PathBuf, fed: &mut FedRecords) -> LogWriter {
        let file = open_log(&path);
        fed.counts.push(0);
        LogWriter {
            path,
            file,
            buckets: fed.buckets,
            partition: fed.counts.len() as u64 - 1,
            count: 0,
        }
    }

    /// Appends this number of records. Some lines are written in two parts.
    pub(crate) fn append(&mut self, records: u64, fed: &mut FedRecords) {
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

    /// Renames the log file, and creates a new one in its place.
    pub(crate) fn rotate(&mut self, to: &Path, fed: &mut FedRecords) {
        fs::rename(&self.path, to).expect("the log can be renamed");
        *self = LogWriter::create(self.path.clone(), fed);
    }

    /// Truncates the log file in place (`copytruncate`, without the copy).
    pub(crate) fn truncate(&mut self, fed: &mut FedRecords) {
        self.file.set_len(0).expect("the log can be truncated");
        *self = LogWriter::create(self.path.clone(), fed);
    }
}

fn open_log(path: &Path) -> File {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .expect("the log can be opened")
}

//! Reads the output, and checks that it is exactly what was fed.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_avro::reader::ReaderBuilder;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::feed::{FedRecords, Record};

/// How many differences a failure prints.
const MAX_DIFFERENCES: usize = 12;

/// Collects the files that a reader sees below a folder: names that start with a dot, and
/// everything below them, are left out.
pub(crate) fn visible_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // A directory may disappear meanwhile; if a file does, reading it fails.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visible_files(&entry.path(), found)
        } else {
            found.push(entry.path())
        }
    }
}

/// The visible files below a folder, sorted by name.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    visible_files(folder, &mut found);
    found.sort();
    found
}

/// The hidden files and folders below a folder, with their contents, except for the
/// folder with the id of the disk, which is permanent.
pub(crate) fn hidden(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    find_hidden(folder, false, &mut found);
    found.retain(|path| {
        !path
            .ancestors()
            .any(|above| above.ends_with(".pseidon-open/disk"))
    });
    found.retain(|path| !path.ends_with(".pseidon-open") || !holds_only_the_id(path));
    found
}

/// Whether the folder contains only the id of the disk.
fn holds_only_the_id(folder: &Path) -> bool {
    let names: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names == ["disk"]
}

fn find_hidden(folder: &Path, folder_is_hidden: bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_hidden = folder_is_hidden || entry.file_name().as_encoded_bytes().starts_with(b".");
        if is_hidden {
            found.push(entry.path());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_hidden(&entry.path(), is_hidden, found);
        }
    }
}

/// The lines of a text file, decompressed.
pub(crate) fn lines(path: &Path) -> Vec<String> {
    let content = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = plain(path, &content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8(text)
        .expect("text")
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The lines of all text files below a folder, sorted.
pub(crate) fn all_lines(folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = files(folder).iter().flat_map(|path| lines(path)).collect();
    all.sort();
    all
}

/// The rows of a Parquet or Avro file: the values as strings by column name, without nulls.
pub(crate) fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    batches(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .iter()
        .flat_map(rows_of)
        .collect()
}

fn rows_of(batch: &RecordBatch) -> Vec<BTreeMap<String, String>> {
    let options = FormatOptions::default();
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|column| {
            (
                column,
                ArrayFormatter::try_new(column.as_ref(), &options)
                    .expect("a column that can be shown"),
            )
        })
        .collect();
    let row = |number: usize| {
        let values = batch
            .schema_ref()
            .fields()
            .iter()
            .zip(&columns)
            .filter(|(_, (column, _))| column.is_valid(number));
        values
            .map(|(field, (_, values))| (field.name().clone(), values.value(number).to_string()))
            .collect()
    };
    (0..batch.num_rows()).map(row).collect()
}

/// The key-value metadata of a Parquet file.
pub(crate) fn metadata(path: &Path) -> HashMap<String, String> {
    let file = File::open(path).expect("a file");
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).expect("a parquet file");
    let entries = builder
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .cloned()
        .unwrap_or_default();
    entries
        .into_iter()
        .filter_map(|entry| entry.value.map(|value| (entry.key, value)))
        .collect()
}

/// The columns of a Parquet or Avro file, each as `NAME TYPE` with the name of the Arrow type.
pub(crate) fn columns(path: &Path) -> Vec<String> {
    let batches = batches(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let schema = batches.first().expect("a file with rows").schema();
    schema
        .fields()
        .iter()
        .map(|field| format!("{} {}", field.name(), field.data_type()))
        .collect()
}

fn batches(path: &Path) -> Result<Vec<RecordBatch>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    if path
        .extension()
        .is_some_and(|extension| extension == "avro")
    {
        let reader = ReaderBuilder::new()
            .build(BufReader::new(file))
            .map_err(|error| error.to_string())?;
        return reader
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string());
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| builder.build())
        .map_err(|error| error.to_string())?;
    reader
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

fn is_parquet(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "parquet")
}

fn plain(path: &Path, content: &[u8]) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read = match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => flate2::read::MultiGzDecoder::new(content).read_to_end(&mut text),
        Some("zst") => zstd::stream::read::Decoder::new(content)
            .and_then(|mut decoder| decoder.read_to_end(&mut text)),
        Some("bz2") => bzip2::read::MultiBzDecoder::new(content).read_to_end(&mut text),
        Some("snappy") => {
            return hadoop_snappy(content)
                .ok_or_else(|| "incomplete or invalid Hadoop snappy blocks".to_owned());
        }
        _ => return Ok(content.to_vec()),
    };
    read.map(|_| text).map_err(|error| error.to_string())
}

/// Decodes the format of Hadoop's `SnappyCodec`: blocks, each with the length of its text (4 bytes,
/// big-endian), then pieces up to that length, each with the length of its compressed bytes (the
/// same way) and these bytes in the raw snappy format.
fn hadoop_snappy(mut content: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while !content.is_empty() {
        let end = text.len() + length(&mut content)?;
        while text.len() < end {
            let compressed = length(&mut content)?;
            let (piece, rest) = content.split_at_checked(compressed)?;
            text.extend(snap::raw::Decoder::new().decompress_vec(piece).ok()?);
            content = rest;
        }
        if text.len() > end {
            return None;
        }
    }
    Some(text)
}

fn length(content: &mut &[u8]) -> Option<usize> {
    let (length, rest) = content.split_first_chunk()?;
    *content = rest;
    usize::try_from(u32::from_be_bytes(*length)).ok()
}

/// Checks that a reader can read all of the file, and returns the number of its records. An error
/// says what is missing.
pub(crate) fn must_be_complete(path: &Path, content: &[u8]) -> Result<u64, String> {
    if is_parquet(path) {
        return batches(path)
            .map(|batches| batches.iter().map(|batch| batch.num_rows() as u64).sum());
    }
    let text = plain(path, content)?;
    match text.last() {
        Some(b'\n') => Ok(text.iter().filter(|byte| **byte == b'\n').count() as u64),
        Some(_) => Err("its last line has no line feed".to_owned()),
        None => Err("it is empty".to_owned()),
    }
}

fn records(path: &Path) -> Vec<Record> {
    if is_parquet(path) {
        let record = |row: &BTreeMap<String, String>| Record {
            partition: row["p"].parse().expect("a partition"),
            number: row["n"].parse().expect("a number"),
            bucket: row["bucket"].clone(),
        };
        return rows(path).iter().map(record).collect();
    }
    lines(path).iter().map(|line| Record::parse(line)).collect()
}

/// The range of record numbers of a partition in a file.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct NumberRange<'a> {
    first: u64,
    last: u64,
    file: &'a Path,
}

/// The result of a successful check.
pub(crate) struct CheckResult {
    /// The visible files.
    pub(crate) files: Vec<PathBuf>,
}

/// The complete check: each record that was fed is in exactly one visible file, and no other record
/// is; it is in the folder of its bucket; within a file, the records of each partition ascend, and
/// within a bucket, the ranges of a partition in different files do not overlap; no hidden files
/// are left; the standard tool for its format can open every file.
pub(crate) fn check(folder: &Path, fed: &FedRecords) -> CheckResult {
    assert_eq!(
        hidden(folder),
        Vec::<PathBuf>::new(),
        "hidden files are left"
    );
    let files = files(folder);
    open_in_tools(&files);
    let mut comparison = Comparison::new(folder, fed);
    for file in &files {
        comparison.add_file(file);
    }
    comparison.compare_ranges();
    comparison.compare_times();
    let differences = comparison.differences;
    assert!(
        differences.is_empty(),
        "{} differences in {} files, the first of them:\n{}",
        differences.len(),
        files.len(),
        differences[..differences.len().min(MAX_DIFFERENCES)].join("\n")
    );
    CheckResult { files }
}

/// The records of the files below a folder, compared with what was fed.
struct Comparison<'a> {
    folder: &'a Path,
    fed: &'a FedRecords,
    /// How often each record was found, by partition and number.
    times: Vec<Vec<u32>>,
    /// By bucket and partition.
    ranges: BTreeMap<(String, u64), Vec<NumberRange<'a>>>,
    differences: Vec<String>,
}

impl<'a> Comparison<'a> {
    fn new(folder: &'a Path, fed: &'a FedRecords) -> Comparison<'a> {
        let counts = fed.counts.iter();
        Comparison {
            folder,
            fed,
            times: counts.map(|count| vec![0; *count as usize]).collect(),
            ranges: BTreeMap::new(),
            differences: Vec::new(),
        }
    }

    /// Compares the records of a file one by one, and adds its ranges.
    fn add_file(&mut self, file: &'a Path) {
        let bucket = file
            .strip_prefix(self.folder)
            .ok()
            .and_then(Path::parent)
            .expect("below the folder")
            .display()
            .to_string();
        let mut ranges: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for record in records(file) {
            self.count(&record, file);
            if record.bucket != bucket
                || record.bucket != self.fed.bucket(record.partition, record.number)
            {
                self.differences
                    .push(format!("{record:?} does not belong in {}", file.display()));
            }
            let (_, last) = ranges
                .entry(record.partition)
                .or_insert((record.number, record.number));
            if *last > record.number {
                self.differences.push(format!(
                    "{record:?} comes after number {last} in {}",
                    file.display()
                ));
            }
            *last = (*last).max(record.number);
        }
        for (partition, (first, last)) in ranges {
            self.ranges
                .entry((bucket.clone(), partition))
                .or_default()
                .push(NumberRange { first, last, file });
        }
    }

    fn count(&mut self, record: &Record, file: &Path) {
        let times = self
            .times
            .get_mut(record.partition as usize)
            .and_then(|times| times.get_mut(record.number as usize));
        match times {
            Some(times) => *times += 1,
            None => self.differences.push(format!(
                "{record:?} was never fed; it is in {}",
                file.display()
            )),
        }
    }

    fn compare_ranges(&mut self) {
        for ((bucket, partition), ranges) in &mut self.ranges {
            ranges.sort();
            for pair in ranges.windows(2) {
                let [before, after] = pair else { continue };
                if before.last >= after.first {
                    self.differences.push(format!(
                        "in {bucket} partition {partition}'s ranges overlap: {} ends with {}, {} starts with {}",
                        before.file.display(),
                        before.last,
                        after.file.display(),
                        after.first
                    ));
                }
            }
        }
    }

    fn compare_times(&mut self) {
        for (partition, times) in self.times.iter().enumerate() {
            for (number, times) in times.iter().enumerate().filter(|(_, times)| **times != 1) {
                self.differences.push(format!(
                    "record {number} of partition {partition} occurs {times} times"
                ));
            }
        }
    }
}

/// Checks that standard tools can decompress compressed files. Parquet files are checked by the
/// reader in [`records`].
fn open_in_tools(files: &[PathBuf]) {
    for (extension, tool) in [("gz", "gzip"), ("zst", "zstd")] {
        let of_kind: Vec<&PathBuf> = files
            .iter()
            .filter(|file| file.extension().is_some_and(|found| found == extension))
            .collect();
        for some in of_kind.chunks(500) {
            let output = Command::new(tool)
                .arg("-tq")
                .args(some)
                .output()
                .unwrap_or_else(|error| panic!("{tool}: {error}"));
            assert!(
                output.status.success(),
                "{tool} -t: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
}

/// The field `n` of all records below a folder, sorted.
pub(crate) fn numbers(folder: &Path) -> Vec<u64> {
    let number = |line: &String| {
        let value: serde_json::Value = serde_json::from_str(line).expect("a line of json");
        value["n"].as_u64().expect("a number")
    };
    let mut numbers: Vec<u64> = files(folder)
        .iter()
        .flat_map(|path| lines(path))
        .map(|line| number(&line))
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Checks that each number from 0 up to the largest one occurs once; returns how many there are.
pub(crate) fn count_gapless(folder: &Path) -> u64 {
    let numbers = numbers(folder);
    let wrong = numbers
        .iter()
        .enumerate()
        .find(|(place, number)| *place as u64 != **number);
    assert_eq!(
        wrong,
        None,
        "the first missing or repeated one of {} numbers",
        numbers.len()
    );
    numbers.len() as u64
}

//! What the fuzz targets share: pipelines that are planned and run over records, and decoders.
//!
//! Parsers and decoders that no other crate can name are reached as a user reaches them, through a
//! pipeline file, the name of a format, or a server that answers with the input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::panic;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use pseidon_delivery::SplitId;
use pseidon_dsl::diagnostic::render;
use pseidon_dsl::expr::{self, ExprKind};
use pseidon_dsl::interpolate::{self, LookupError};
use pseidon_dsl::{Diagnostic, Node, NodeKind, Span, document, node::Text, print};
use pseidon_exec::Pools;
use pseidon_exec::process::{Processor, RowReceiver};
use pseidon_expr::panics;
use pseidon_expr::types::parse_field;
use pseidon_formats::{ColumnFormat, UsedValues};
use pseidon_logs::{Log, MysqlLogs};
use pseidon_plan::chain::{ChainStep, PlannedSource};
use pseidon_plan::settings::TokenFor;
use pseidon_plan::{Plan, PlanContext, SinkIndex, Table, plan};
use pseidon_plugin::batch::{BatchBuilder, RecordMeta, Split, WantedMetadata};
use pseidon_plugin::format::{Format, WantedColumn};
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::source::{Source, SourceSetup};
use pseidon_plugin::{BadRow, Payloads, PluginRegistry, Rows};
use pseidon_service::runs::RunRegistry;
use pseidon_service::{ServiceConfig, TokenSource, serve as serve_runs};

/// Lets the program catch the panics of libraries where it does so. Any other panic ends a target.
/// Each target calls it before its first input.
pub fn expect_caught_panics() {
    let end = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !panics::is_expected() {
            end(panic);
        }
    }));
}

/// Separates the parts of an input: a byte that is never part of UTF-8.
const SEPARATOR: u8 = 0xff;

/// The parts of an input.
pub fn parts(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == SEPARATOR)
}

/// Checks that there are errors, that each lies within the text, and that they can be printed.
pub fn check_errors(text: &str, errors: &[Diagnostic]) {
    assert!(!errors.is_empty(), "a failure without an error");
    for error in errors {
        let (start, end) = (error.span.start as usize, error.span.end as usize);
        assert!(start <= end && end <= text.len(), "{error:?}");
    }
    render("file", text, errors, false);
}

/// A string as EDN has it.
pub fn quoted(text: &str) -> String {
    print::print(&Node {
        kind: NodeKind::Str(Text::plain(text, 0)),
        span: Span::new(0, 0),
    })
}

/// All plugins of the program.
pub fn registry() -> PluginRegistry {
    let log = Log::without_consumer(&pseidon_logs::sample()).expect("the sample row is valid");
    registry_with(Arc::new(log))
}

/// All plugins of the program, with the log of a template.
fn registry_with(log: Arc<Log>) -> PluginRegistry {
    PluginRegistry {
        sources: vec![
            Arc::new(pseidon_kafka::KafkaSourcePlugin),
            Arc::new(pseidon_files::FilesSource),
            Arc::new(MysqlLogs::new(log)),
            Arc::new(pseidon_synthetic::GeneratePlugin),
            Arc::new(pseidon_stdio::StdinPlugin),
        ],
        sinks: vec![
            Arc::new(pseidon_kafka::KafkaSinkPlugin),
            Arc::new(pseidon_files::FilesSink),
            Arc::new(pseidon_stdio::StdoutPlugin),
            Arc::new(pseidon_synthetic::DropPlugin),
        ],
        formats: pseidon_formats::formats(),
        quarantine: pseidon_files::sink::quarantine,
        group: pseidon_group::group,
        synonyms: &[],
    }
}

/// The plan of a pipeline file in EDN.
pub fn plan_of(text: &str) -> Result<Plan, Vec<Diagnostic>> {
    plan_document(&document::from_edn(text)?, text, Path::new("/nonexistent"))
}

/// The plan of a document that was read from a text. With `:schema :infer`, the source reads
/// records from the folder.
pub fn plan_document(
    document: &document::Document,
    text: &str,
    folder: &Path,
) -> Result<Plan, Vec<Diagnostic>> {
    let tables: &ReadTable<'_> = &|_| Err("no table can be read here".to_owned());
    plan_with(&registry(), document, text, folder, tables)
}

/// The plan of a pipeline file in EDN, all of whose tables are this one.
pub fn plan_with_table(text: &str, table: &Table) -> Result<Plan, Vec<Diagnostic>> {
    let tables: &ReadTable<'_> = &|_| Ok(table.clone());
    let document = document::from_edn(text)?;
    plan_with(
        &registry(),
        &document,
        text,
        Path::new("/nonexistent"),
        tables,
    )
}

/// The plan of a template in EDN for a log.
pub fn plan_log(text: &str, log: Log) -> Result<Plan, Vec<Diagnostic>> {
    let (mut document, log) = (document::from_edn(text)?, Arc::new(log));
    interpolate::document(&mut document, &mut |_, name| {
        log.variable(name).map_err(LookupError::Failed)
    })?;
    let tables: &ReadTable<'_> = &|_| Err("no table can be read here".to_owned());
    let registry = registry_with(log);
    plan_with(
        &registry,
        &document,
        text,
        Path::new("/nonexistent"),
        tables,
    )
}

/// Reads the table of a `lookup`.
type ReadTable<'a> = dyn Fn(&str) -> Result<Table, String> + 'a;

fn plan_with(
    registry: &PluginRegistry,
    document: &document::Document,
    text: &str,
    folder: &Path,
    tables: &ReadTable<'_>,
) -> Result<Plan, Vec<Diagnostic>> {
    let context = PlanContext {
        registry,
        default_name: "fuzz".to_owned(),
        base: folder.to_owned(),
        text: text.to_owned(),
        infer: &|_, source, format| infer(source, format, folder),
        tables,
        keeps_state: false,
    };
    plan(document, context)
}

fn infer(source: &dyn Source, format: &dyn Format, folder: &Path) -> Result<SchemaRef, String> {
    // No target connects to the servers that an input names.
    if !folder.exists() {
        return Err("no record can be read here".to_owned());
    }
    let setup = setup(folder, format, source);
    let samples = source
        .sample(&setup, 1000)
        .map_err(|error| error.to_string())?;
    format.infer(source.facts().format.settings(), &samples)
}

/// What a source is opened with that reads in this folder.
pub fn setup(folder: &Path, format: &dyn Format, source: &dyn Source) -> SourceSetup {
    SourceSetup {
        pipeline: "fuzz".to_owned(),
        stage: "in".to_owned(),
        base: folder.to_owned(),
        wanted: WantedMetadata::default(),
        fields: Vec::new(),
        takes_new_fields: false,
        bounds: Default::default(),
        framing: format.framing(source.facts().format.settings()),
        io_threads: 1,
        memory: 64 << 20,
        instance: "fuzz".into(),
        state: String::new(),
        keeps_state: false,
        metrics: Metrics::new(),
    }
}

struct Outputs;

impl RowReceiver for Outputs {
    fn decoded(&mut self, _: &PlannedSource, _: &Rows) {}

    fn arrive(&mut self, _: SinkIndex, rows: Rows) -> Vec<BadRow> {
        for row in 0..rows.len() {
            let _ = rows.payload(row);
        }
        Vec::new()
    }

    fn passed(&mut self, _: &ChainStep, _: &Rows) {}
}

/// Passes records through the chain of the plan's first source.
pub fn run<'a>(plan: &Plan, records: impl IntoIterator<Item = &'a [u8]>) {
    let Some(source) = plan.sources.first() else {
        return;
    };
    let split = Split {
        id: SplitId::from("fuzz"),
        topic: "topic".to_owned(),
        partition: 0,
    };
    let mut batch = BatchBuilder::new(Arc::new(split), WantedMetadata::default(), 0);
    for (position, record) in (0..).zip(records) {
        batch.push(position, Some(record), RecordMeta::default());
    }
    let batch = Arc::new(batch.finish(1000));
    let Ok(mut processor) = Processor::new(source, 1 << 20) else {
        return;
    };
    if processor.prepare(&batch, 0..batch.len()).is_ok() {
        let _ = processor.process(source, &batch, 0..batch.len(), &mut Outputs);
    }
}

/// The format with this name.
pub fn format(name: &str) -> Arc<dyn Format> {
    let mut formats = pseidon_formats::formats().into_iter();
    formats
        .find(|format| format.name() == name)
        .expect("the format exists")
}

/// A column with the name of its type.
pub fn column(path: &str, data_type: &str) -> WantedColumn {
    let parsed = expr::parse(&Text::plain(path, 0)).expect("the path is valid");
    let ExprKind::Path(path) = parsed.kind else {
        panic!("{path} is not a path");
    };
    WantedColumn {
        path,
        field: Arc::new(parse_field("column", data_type).expect("the type is valid")),
    }
}

/// Answers every connection on a port of this machine with the current answer, and returns the
/// port. With `is_http`, a request is read before.
pub fn serve(answer: &'static Mutex<Vec<u8>>, is_http: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if is_http {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                lines.take_while(|line| !line.is_empty()).for_each(drop);
            }
            let answer = answer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let _ = stream.write_all(&answer);
            // A connection that is dropped with unread bytes is reset, and the client's next
            // request fails before it reads the answer.
            let _ = stream.shutdown(Shutdown::Write);
            let _ = io::copy(&mut stream, &mut io::sink());
        }
    });
    port
}

/// Starts the service of a pipeline that does not run, so that no command waits for records: its
/// HTTP port, or its REPL. Returns the address.
pub fn service(is_http: bool) -> SocketAddr {
    let plan = plan_of("{in (stdin) even (where \"n > 1\") pipeline (-> in even (stdout))}");
    let plan = Arc::new(plan.expect("the file is valid"));
    let pools = Arc::new(Pools::start(&plan.settings).expect("threads start"));
    let runs = Arc::new(RunRegistry::new(plan, pools, None));
    runs.entry("fuzz");
    // The service does not return the port that it was assigned, so a free one is looked for.
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let config = ServiceConfig {
        host: Ipv4Addr::LOCALHOST.into(),
        monitor_port: is_http.then_some(address.port()),
        repl_port: (!is_http).then_some(address.port()),
        monitor_socket: None,
        repl_socket: None,
        names: Vec::new(),
        tls: None,
        tokens: TokenSource::None,
        token_for: TokenFor::Pages,
    };
    serve_runs(&config, runs, pseidon_formats::json_lines).expect("the port is free");
    address
}

/// Decodes records. There must be a value for each record and column, and NULL for a bad record.
/// Returns how many records are bad.
pub fn decode(
    format: &dyn Format,
    settings: &str,
    columns: &[WantedColumn],
    payloads: &Payloads,
) -> usize {
    let Ok(mut decoder) = format.decoder(settings, columns) else {
        return 0;
    };
    if decoder.prepare(payloads).is_err() {
        return 0;
    }
    let decoded = decoder.decode(payloads);
    assert_eq!(decoded.columns.len(), columns.len());
    for column in &decoded.columns {
        assert_eq!(column.len(), payloads.len());
        for bad in &decoded.bad {
            assert!(column.is_null(bad.row as usize), "{}", bad.reason);
        }
    }
    decoded.bad.len()
}

/// A file with this content.
pub fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(content).expect("space");
    file
}

/// Reads the rows of a file of columns, from its beginning and from its second row, and decodes
/// them to columns of the fields `n`, `s` and `l` and to the whole record.
pub fn read_columns(name: &str, content: ColumnFormat, data: &[u8]) {
    let tables = [
        vec![
            column("n", "utf8"),
            column("s", "int64"),
            column("l", "json"),
        ],
        vec![
            column("n", "timestamp_ms"),
            column("l[0]", "float64"),
            column("u.x", "json"),
        ],
    ];
    let mut file = file(data);
    for from in [0, 1] {
        file.rewind().expect("a file");
        let copy = file.try_clone().expect("a file");
        let Ok(mut reader) = content.open(copy, &UsedValues::default(), from) else {
            return;
        };
        while let Ok(Some(rows)) = reader.next_rows() {
            assert!(rows.num_rows() > 0);
            let payloads = Payloads::of_columns(rows);
            for row in 0..payloads.len().min(3) {
                let _ = payloads.printed(row);
            }
            for columns in &tables {
                decode(format(name).as_ref(), "", columns, &payloads);
            }
        }
    }
}

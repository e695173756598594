//! Tests with a real Hive metastore and a real HiveServer2: those whose addresses are in the
//! environment, otherwise servers that are started for these tests
//! (scripts/servers/hive.bash). Also tests with servers that are neither.

mod tls;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use pseidon_delivery::WithCauses;
use pseidon_hive::{HiveEndpoint, HiveError, columns};
use thrift::protocol::{
    TBinaryInputProtocol, TBinaryOutputProtocol, TFieldIdentifier, TInputProtocol, TListIdentifier,
    TMapIdentifier, TMessageIdentifier, TMessageType, TOutputProtocol, TStructIdentifier, TType,
};
use tls::TestCertificate;

/// Servers that the test started and stops.
struct OwnServers(tempfile::TempDir);

impl OwnServers {
    fn script(&self, name: &str, arguments: &[&str]) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../scripts")
            .join(name);
        let output = Command::new(path)
            .arg("--dir")
            .arg(self.0.path())
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for OwnServers {
    fn drop(&mut self) {
        self.script("local-down", &[]);
    }
}

/// A client that creates databases and tables, which the crate itself never does.
struct Client {
    input: TBinaryInputProtocol<TcpStream>,
    output: TBinaryOutputProtocol<TcpStream>,
}

impl Client {
    fn connect(url: &str) -> Client {
        let stream = TcpStream::connect(url.strip_prefix("thrift://").unwrap()).unwrap();
        Client {
            input: TBinaryInputProtocol::new(stream.try_clone().unwrap(), true),
            output: TBinaryOutputProtocol::new(stream, true),
        }
    }

    /// Sends a call whose only argument is a struct, and which returns nothing.
    fn call(&mut self, name: &str, argument: impl FnOnce(&mut dyn TOutputProtocol)) {
        let output = &mut self.output;
        output
            .write_message_begin(&TMessageIdentifier::new(name, TMessageType::Call, 7))
            .unwrap();
        output
            .write_struct_begin(&TStructIdentifier::new("args"))
            .unwrap();
        begin(output, TType::Struct, 1);
        argument(output);
        end(output);
        output.write_message_end().unwrap();
        output.flush().unwrap();
        let reply = self.input.read_message_begin().unwrap();
        assert_eq!(reply.message_type, TMessageType::Reply, "{name}");
        self.input.read_struct_begin().unwrap();
        assert_eq!(
            self.input.read_field_begin().unwrap().field_type,
            TType::Stop,
            "{name} throws an exception"
        );
        self.input.read_struct_end().unwrap();
        self.input.read_message_end().unwrap();
    }

    fn create_database(&mut self, name: &str) {
        self.call("create_database", |output| {
            output
                .write_struct_begin(&TStructIdentifier::new("Database"))
                .unwrap();
            text(output, 1, name);
            end(output);
        });
    }

    fn create_table(
        &mut self,
        database: &str,
        name: &str,
        columns: &[(&str, &str)],
        partitions: &[(&str, &str)],
    ) {
        self.call("create_table", |output| {
            output
                .write_struct_begin(&TStructIdentifier::new("Table"))
                .unwrap();
            text(output, 1, name);
            text(output, 2, database);
            begin(output, TType::Struct, 7);
            output
                .write_struct_begin(&TStructIdentifier::new("StorageDescriptor"))
                .unwrap();
            fields(output, 1, columns);
            text(
                output,
                3,
                "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            );
            text(
                output,
                4,
                "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
            );
            begin(output, TType::Struct, 7);
            output
                .write_struct_begin(&TStructIdentifier::new("SerDeInfo"))
                .unwrap();
            text(
                output,
                2,
                "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
            );
            end(output);
            end(output);
            fields(output, 8, partitions);
            begin(output, TType::Map, 9);
            output
                .write_map_begin(&TMapIdentifier::new(TType::String, TType::String, 1))
                .unwrap();
            output.write_string("EXTERNAL").unwrap();
            output.write_string("TRUE").unwrap();
            output.write_map_end().unwrap();
            text(output, 12, "EXTERNAL_TABLE");
            end(output);
        });
    }
}

fn begin(output: &mut dyn TOutputProtocol, kind: TType, id: i16) {
    output
        .write_field_begin(&TFieldIdentifier::new("", kind, id))
        .unwrap();
}

fn end(output: &mut dyn TOutputProtocol) {
    output.write_field_stop().unwrap();
    output.write_struct_end().unwrap();
}

fn text(output: &mut dyn TOutputProtocol, id: i16, value: &str) {
    begin(output, TType::String, id);
    output.write_string(value).unwrap();
}

/// A list of `FieldSchema`.
fn fields(output: &mut dyn TOutputProtocol, id: i16, fields: &[(&str, &str)]) {
    begin(output, TType::List, id);
    output
        .write_list_begin(&TListIdentifier::new(TType::Struct, fields.len() as i32))
        .unwrap();
    for (name, hive_type) in fields {
        output
            .write_struct_begin(&TStructIdentifier::new("FieldSchema"))
            .unwrap();
        text(output, 1, name);
        text(output, 2, hive_type);
        text(output, 3, "a comment");
        end(output);
    }
    output.write_list_end().unwrap();
}

fn refused(endpoint: &HiveEndpoint, table: &str) -> String {
    match columns(endpoint, table) {
        Err(HiveError::Refused(reason)) => WithCauses(&reason).to_string(),
        other => panic!("{other:?}"),
    }
}

fn unreachable(url: &str) -> String {
    match columns(&url.parse().unwrap(), "web.clicks") {
        Err(HiveError::Unreachable(reason)) => WithCauses(&reason).to_string(),
        other => panic!("{other:?}"),
    }
}

/// The URLs of the metastore and the HiveServer2, and the guard that stops them.
fn servers() -> (String, String, Option<OwnServers>) {
    let given = |name: &str| std::env::var(name).ok();
    if let (Some(metastore), Some(server)) = (
        given("PSEIDON_TEST_HIVE_METASTORE"),
        given("PSEIDON_TEST_HIVESERVER2"),
    ) {
        return (metastore, server, None);
    }
    let own = OwnServers(tempfile::tempdir().unwrap());
    let env = own.script("local-up", &["hive"]);
    let address = |name: &str| {
        let start = format!("export {name}='");
        env.lines()
            .find_map(|line| line.strip_prefix(&start))
            .unwrap()
            .trim_end_matches('\'')
            .to_owned()
    };
    (
        address("PSEIDON_TEST_HIVE_METASTORE"),
        address("PSEIDON_TEST_HIVESERVER2"),
        Some(own),
    )
}

/// Creates the tables `clicks`, `odd` and `many`.
fn create_tables(metastore_url: &str, database: &str) {
    let mut client = Client::connect(metastore_url);
    client.create_database(database);
    let wide = [
        ("id", "bigint"),
        ("url", "varchar(200)"),
        ("price", "decimal(10,2)"),
        ("tags", "array<string>"),
        ("counts", "map<string,int>"),
        ("user", "struct<name:string,age:smallint>"),
        ("at", "timestamp"),
        ("day", "date"),
        ("body", "binary"),
        ("hr", "int"),
    ];
    client.create_table(
        database,
        "clicks",
        &wide,
        &[("dt", "string"), ("country", "string")],
    );
    client.create_table(database, "odd", &[("u", "uniontype<int,string>")], &[]);
    let many: Vec<String> = (0..1500).map(|n| format!("c{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "int")).collect();
    client.create_table(database, "many", &many, &[]);
}

/// Checks what both kinds of servers respond for the created tables, and for tables that do not
/// exist.
fn check_columns(endpoint: &HiveEndpoint, database: &str) {
    let table = format!("{}.Clicks", database.to_uppercase());
    let schema = columns(endpoint, &table).unwrap();
    let shown: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| format!("{} {}", field.name(), field.data_type()))
        .collect();
    assert_eq!(
        shown[..4],
        [
            "id Int64",
            "url Utf8",
            "price Decimal128(10, 2)",
            "tags List(Utf8)"
        ],
        "{endpoint:?}"
    );
    let names: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    assert_eq!(
        names,
        [
            "id", "url", "price", "tags", "counts", "user", "at", "day", "body"
        ],
        "{endpoint:?}"
    );
    assert_eq!(
        columns(endpoint, &format!("{database}.many"))
            .unwrap()
            .fields()
            .len(),
        1500,
        "{endpoint:?}"
    );
    assert!(refused(endpoint, &format!("{database}.nothing")).contains("not found"));
    assert!(refused(endpoint, "nowhere.clicks").contains("not found"));
}

#[test]
fn columns_are_read_from_hive() {
    let (metastore_url, server_url, own) = servers();
    let database = format!("web_{}", std::process::id());
    create_tables(&metastore_url, &database);
    let table = format!("{}.Clicks", database.to_uppercase());
    let metastore: HiveEndpoint = metastore_url.parse().unwrap();
    let server: HiveEndpoint = server_url.parse().unwrap();
    for endpoint in [&metastore, &server] {
        check_columns(endpoint, &database);
    }
    let schema = columns(&metastore, &table).unwrap();
    assert_eq!(columns(&server, &table).unwrap(), schema);
    assert!(
        refused(&metastore, &format!("{database}.odd"))
            .contains("column u of type uniontype<int,string>")
    );

    // The URL of a HiveServer2 may contain the database and the login.
    let in_database: HiveEndpoint = server_url
        .replace(
            "/default",
            &format!("/{database};user=hive_user;password=secret"),
        )
        .parse()
        .unwrap();
    assert_eq!(columns(&in_database, "clicks").unwrap(), schema);
    assert_eq!(
        columns(
            &server.clone().with_login(Some("hive_user"), Some("secret")),
            &table
        )
        .unwrap(),
        schema
    );

    // The first metastore that responds returns the columns.
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let several: HiveEndpoint = format!("thrift://{dead},{metastore_url}").parse().unwrap();
    assert_eq!(columns(&several, &table).unwrap(), schema);

    let certificate = TestCertificate::new();
    let ca = certificate.ca.display();
    let behind_tls = |url: &str| {
        let address = url.split(['/', ';']).nth(2).unwrap();
        certificate.serve(address)
    };
    let encrypted = format!("thrifts://{}?sslCa={ca}", behind_tls(&metastore_url));
    check_columns(&encrypted.parse().unwrap(), &database);
    let encrypted = format!(
        "jdbc:hive2://{}/default;ssl=true;sslCa={ca}",
        behind_tls(&server_url)
    );
    check_columns(&encrypted.parse().unwrap(), &database);
    // Keeps the servers running until here.
    drop(own);
}

/// Starts a server that reads `request` bytes from one connection, responds with `answer`, and
/// closes the connection. Unread bytes would reset the connection.
fn impostor(request: usize, answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut vec![0; request]).unwrap();
        stream.write_all(answer).unwrap();
    });
    address
}

#[test]
fn unexpected_responses_of_a_metastore_are_reported() {
    let url = |answer| {
        format!(
            "thrift://{}",
            impostor(
                "....get_fields........web.....clicks..........".len(),
                answer
            )
        )
    };
    for (answer, expected) in [
        (&b""[..], "closed the connection; if the metastore requires tls, write thrifts://"),
        // MetaException: the message is field 1 of field 1.
        (
            b"\x80\x01\x00\x02\x00\x00\x00\x0aget_fields\x00\x00\x00\x01\x0c\x00\x01\x0b\x00\x01\x00\x00\x00\x04gone\x00\x00",
            "cannot return the columns of web.clicks: gone",
        ),
        // TApplicationException of kind 6, an internal error.
        (
            b"\x80\x01\x00\x03\x00\x00\x00\x0aget_fields\x00\x00\x00\x01\x0b\x00\x01\x00\x00\x00\x04oops\x08\x00\x02\x00\x00\x00\x06\x00",
            "oops",
        ),
    ] {
        let reason = unreachable(&url(answer));
        assert!(reason.contains(expected), "{reason}");
    }
    for (answer, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "unexpected response from"),
        // TApplicationException of kind 1, an unknown method.
        (
            b"\x80\x01\x00\x03\x00\x00\x00\x0aget_fields\x00\x00\x00\x01\x0b\x00\x01\x00\x00\x00\x04what\x08\x00\x02\x00\x00\x00\x01\x00",
            "what",
        ),
        (b"\x80\x01\x00\x02\x00\x00\x00\x0aget_fields\x00\x00\x00\x01\x00", "the response is empty"),
    ] {
        let reason = refused(&url(answer).parse().unwrap(), "web.clicks");
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn unexpected_responses_of_a_hiveserver2_are_reported() {
    // A status, a length and a content, twice: the mechanism and the login.
    let login = ".....PLAIN......anonymous.anonymous".len();
    let url = |answer| format!("jdbc:hive2://{}/default", impostor(login, answer));
    let reason = refused(
        &url(b"\x03\x00\x00\x00\x05wrong").parse().unwrap(),
        "web.clicks",
    );
    assert!(
        reason.contains("login of anonymous refused: wrong"),
        "{reason}"
    );
    let reason = refused(
        &url(b"HTTP/1.1 400 Bad Request\r\n\r\n").parse().unwrap(),
        "web.clicks",
    );
    assert!(
        reason.contains("unexpected response to the login") && reason.contains("auth=noSasl"),
        "{reason}"
    );
    let reason = unreachable(&url(b""));
    assert!(
        reason.contains("closed the connection") && reason.contains("auth=noSasl"),
        "{reason}"
    );

    // Without a login: field 1 of the response is a status, 3 for an error, with a message in its
    // field 5.
    let open = b"\x80\x01\x00\x02\x00\x00\x00\x0bOpenSession\x00\x00\x00\x01\
        \x0c\x00\x00\x0c\x00\x01\x08\x00\x01\x00\x00\x00\x03\x0b\x00\x05\x00\x00\x00\x04full\x00\x00\x00";
    let reason = unreachable(&format!(
        "jdbc:hive2://{}/default;auth=noSasl",
        impostor(60, open)
    ));
    assert!(
        reason.contains("cannot return the columns of web.clicks: full"),
        "{reason}"
    );
}

#[test]
fn an_unreachable_server_is_a_transient_error() {
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for url in [
        format!("thrift://{dead}"),
        format!("jdbc:hive2://{dead}/default"),
    ] {
        let reason = unreachable(&url);
        assert!(reason.contains("refused"), "{reason}");
    }
}

#[test]
fn a_silent_metastore_times_out() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let reason = unreachable(&format!("thrift://{}", silent.local_addr().unwrap()));
    assert!(reason.contains("no response within 5 s"), "{reason}");
}

"""Readers: each returns a function from a column to a pair of a type's name and the values."""

import bz2
import gzip
import io
import json
import struct

import duckdb
import fastavro
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

import columns as c
from cells import SEPARATORS, is_text


def from_arrow(table):
    def read(column):
        values = table.column(column.name)
        shown = arrow_name(values.type)
        if c.contains(column.type, c.TIMES) and shown != "string":
            values = values.cast(c.stored_type(column.type))
        return shown, values.to_pylist()

    return read


def arrow_name(of):
    return str(of).replace("element: ", "item: ")


TIMES_OF_DAY = ("Time", "List(Time)")


def from_polars(frame):
    def read(column):
        values = frame.get_column(column.name)
        shown = str(values.dtype)
        if c.contains(column.type, c.TIMES):
            values = values.to_physical()
        values = values.to_list()
        return shown, [microseconds(value) for value in values] if shown in TIMES_OF_DAY else values

    return read


def microseconds(value):
    """A time of polars, which counts nanoseconds, or a list of them."""
    if isinstance(value, list):
        return [microseconds(item) for item in value]
    return value and value // 1000


def from_duckdb(query):
    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    types = {row[0]: row[1] for row in connection.execute(f"describe {query}").fetchall()}
    read = from_arrow(connection.execute(query).fetch_arrow_table())
    return lambda column: (types[column.name], read(column)[1])


def declared(reader, codec, column, of):
    """The type with which a reader reads a column of a text."""
    return of("utf8" if is_text(codec, reader, column) else column.type)


def duckdb_columns(codec, columns):
    types = (
        f"'{column.name}': '{declared('duckdb', codec, column, c.duckdb_type)}'"
        for column in columns
    )
    return "columns = {" + ", ".join(types) + "}"


def arrow_schema(codec, columns):
    return pa.schema(
        [(column.name, declared("pyarrow", codec, column, c.arrow_type)) for column in columns]
    )


def polars_schema(codec, columns):
    return {column.name: declared("polars", codec, column, c.polars_type) for column in columns}


def duckdb_json(path, codec, columns):
    return from_duckdb(
        f"from read_json('{path}', format = 'newline_delimited', {duckdb_columns(codec, columns)})"
    )


def duckdb_csv(path, codec, columns):
    options = f"delim = '{SEPARATORS[codec]}', header = true, auto_detect = false"
    nulls = "nullstr = '', allow_quoted_nulls = false"
    quotes = "quote = '\"', escape = '\"'"
    return from_duckdb(
        f"from read_csv('{path}', {options}, {nulls}, {quotes}, {duckdb_columns(codec, columns)})"
    )


def duckdb_parquet(path, _codec, _columns):
    return from_duckdb(f"from read_parquet('{path}')")


def arrow_json(path, codec, columns):
    options = pyarrow.json.ParseOptions(
        explicit_schema=arrow_schema(codec, columns), unexpected_field_behavior="ignore"
    )
    return from_arrow(pyarrow.json.read_json(path, parse_options=options))


def arrow_csv(path, codec, columns):
    parse = pyarrow.csv.ParseOptions(delimiter=SEPARATORS[codec], newlines_in_values=True)
    convert = pyarrow.csv.ConvertOptions(
        column_types=arrow_schema(codec, columns),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    return from_arrow(pyarrow.csv.read_csv(path, parse_options=parse, convert_options=convert))


def arrow_parquet(path, _codec, _columns):
    return from_arrow(pyarrow.parquet.read_table(path))


def polars_json(path, codec, columns):
    return from_polars(pl.read_ndjson(path, schema=polars_schema(codec, columns)))


def polars_csv(path, codec, columns):
    return from_polars(
        pl.read_csv(
            path, separator=SEPARATORS[codec], schema_overrides=polars_schema(codec, columns)
        )
    )


def polars_parquet(path, _codec, columns):
    return from_polars(pl.read_parquet(path, columns=[column.name for column in columns]))


def polars_avro(path, _codec, columns):
    return from_polars(pl.read_avro(path, columns=[column.name for column in columns]))


# Dates and times as numbers.
for logical in (
    "int-date",
    "long-time-micros",
    "long-timestamp-millis",
    "long-timestamp-micros",
    "long-timestamp-nanos",
):
    fastavro.read.LOGICAL_READERS[logical] = lambda number, _writer, _reader: number


def fastavro_avro(path, _codec, _columns):
    with open(path, "rb") as file:
        reader = fastavro.reader(file)
        rows = list(reader)
    types = {
        field["name"]: json.dumps(without_names(field["type"]))
        for field in reader.writer_schema["fields"]
    }
    return lambda column: (types[column.name], [row[column.name] for row in rows])


def without_names(schema):
    """An Avro schema as `columns.avro_type` has it."""
    if isinstance(schema, list):
        return [without_names(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "record":
        fields = [
            {"name": field["name"], "type": without_names(field["type"])}
            for field in schema["fields"]
        ]
        return {"type": "record", "fields": fields}
    kept = ("type", "items", "logicalType", "precision", "scale")
    return {key: without_names(schema[key]) for key in kept if key in schema}


def python_json(path, _codec, columns):
    rows = [c.read_json(line) for line in path.read_text(encoding="utf8").split("\n")[:-1]]
    names = [column.name for column in columns]
    if any(list(row) != names for row in rows):
        raise ValueError("the columns are not in their order")
    return lambda column: ("", [row[column.name] for row in rows])


def python_csv(path, codec, _columns):
    """Fields in quotes are strings, others are values or NULL."""
    header, *rows = split_csv(path.read_bytes().decode(), SEPARATORS[codec])
    places = {name: place for place, (name, _) in enumerate(header)}
    return lambda column: ("", [row[places[column.name]] for row in rows])


def split_csv(text, separator):
    row, rows, at = [], [], 0
    while at < len(text):
        quoted = text[at] == '"'
        if quoted:
            end = at + 1
            while text[end] != '"' or text[end + 1 : end + 2] == '"':
                end += 2 if text[end] == '"' else 1
            field, at = text[at + 1 : end].replace('""', '"'), end + 1
        else:
            end = min(
                place for place in (text.find(separator, at), text.find("\n", at)) if place >= 0
            )
            field, at = text[at:end], end
        row.append((field, quoted))
        if text[at] == "\n":
            rows.append(row)
            row = []
        at += 1
    return rows


READERS = {
    "json": {
        "python": python_json,
        "duckdb": duckdb_json,
        "pyarrow": arrow_json,
        "polars": polars_json,
    },
    "csv": {"python": python_csv, "duckdb": duckdb_csv, "pyarrow": arrow_csv, "polars": polars_csv},
    "tsv": {"python": python_csv, "duckdb": duckdb_csv, "pyarrow": arrow_csv, "polars": polars_csv},
    "parquet": {"duckdb": duckdb_parquet, "pyarrow": arrow_parquet, "polars": polars_parquet},
    "avro": {"fastavro": fastavro_avro, "polars": polars_avro},
}
# The compressions of text that a program reads itself; Python decompresses the others for it.
READ_COMPRESSED = {
    "duckdb": ["gzip", "zstd"],
    "pyarrow": ["gzip", "bzip2", "zstd"],
    "polars": ["gzip", "zstd"],
}


def decompressed(path, compression):
    data = path.read_bytes()
    if compression == "gzip":
        data = gzip.decompress(data)
    elif compression == "bzip2":
        data = bz2.decompress(data)
    elif compression == "zstd":
        data = pa.CompressedInputStream(io.BytesIO(data), "zstd").read()
    elif compression == "snappy":
        data = b"".join(hadoop_blocks(data))
    plain = path.with_name("plain")
    plain.write_bytes(data)
    return plain


def hadoop_blocks(data):
    """The chunks of Hadoop's snappy: the length of a block, and its chunks with their lengths."""
    at = 0
    while at < len(data):
        (left,), at = struct.unpack_from(">I", data, at), at + 4
        while left:
            (size,), at = struct.unpack_from(">I", data, at), at + 4
            whole = read_varint(data, at)
            yield pa.Codec("snappy").decompress(data[at : at + size], whole).to_pybytes()
            left, at = left - whole, at + size


def read_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        if data[at] < 0x80:
            return value
        at, shift = at + 1, shift + 7

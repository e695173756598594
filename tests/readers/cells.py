"""The cells that are not read, or differ: types that a codec or a program does not have."""

import columns as c

TEXTS = ["json", "csv", "tsv"]
SEPARATORS = {"csv": ",", "tsv": "\t"}
# Types that a codec does not have, and what `check` says.
REFUSED = {
    ("parquet", "json"): "parquet needs a type for every column",
    ("parquet", "list_json"): "parquet needs a type for every column",
    ("avro", "json"): "avro needs a type for every column",
    ("avro", "list_json"): "avro needs a type for every column",
    ("parquet", "span"): "parquet has no intervals",
    ("avro", "span"): "avro has no intervals",
    ("avro", "nothing"): "avro needs a type for every column",
    ("avro", "uint64"): "avro has no uint64 type",
    ("avro", "list_uint64"): "avro has no uint64 type",
    ("avro", "struct_uint64"): "avro has no uint64 type",
}
NESTED = [column.name for column in c.COLUMNS if isinstance(column.type, (list, dict))]
DECIMALS = ["decimal9", "decimal18", "decimal38", "decimal76", "list_decimal"]
TEMPORAL = [
    "date32",
    "far_date",
    "timestamp_s",
    "timestamp_ms",
    "timestamp_us",
    "timestamp_ns",
    "far_ms",
    "time64",
]
# Types that other programs do not parse, apart from those of Arrow.
OURS = ["nothing", "elapsed", "span"]
# What a program does not read.
LEFT_OUT = {
    # It reads more than 18 digits as a float, and JSON values with their numbers printed again.
    ("json", "duckdb"): [
        "decimal38",
        "decimal76",
        "json",
        "list_json",
        "list_decimal",
        "list_binary",
        "struct_all",
    ],
    # A field has one of JSON's types: neither values of any type, nor numbers as decimals.
    ("json", "pyarrow"): [
        *("json", "list_json", "list_binary", "list_time64", "struct_all"),
        *DECIMALS,
    ],
    # The same; and its reader panics for small integers.
    ("json", "polars"): [
        *("json", "list_json", "list_binary", "list_time64", "struct_all"),
        *DECIMALS,
        "int8",
        "int16",
        "uint8",
        "uint16",
    ],
    # It reads such decimals as floats.
    ("parquet", "duckdb"): ["decimal76"],
    # Decimals have at most 38 digits.
    ("parquet", "polars"): ["decimal76"],
    ("avro", "polars"): ["decimal76"],
}
# Compressions of blocks that a program does not know.
UNKNOWN_COMPRESSIONS = {("avro", "polars"): ["bzip2", "zstd"]}
# What a program reads as strings: bytes are base64, and some types it does not have or parse.
AS_TEXT = {
    ("json", "duckdb"): ["binary", "far_date", "far_ms", *OURS],
    ("json", "pyarrow"): [
        *("binary", "date32", "far_date", "time64", "timestamp_ns", "far_ms"),
        *OURS,
    ],
    ("json", "polars"): ["binary", *TEMPORAL, *OURS],
    ("csv", "duckdb"): ["binary", "decimal76", "far_date", "far_ms", "json", *OURS, *NESTED],
    ("csv", "pyarrow"): [
        "binary",
        "decimal76",
        "far_date",
        "timestamp_ns",
        "far_ms",
        "json",
        *OURS,
        *NESTED,
    ],
    ("csv", "polars"): ["binary", "decimal76", "json", *TEMPORAL, *OURS, *NESTED],
}
AS_TEXT |= {("tsv", reader): names for (codec, reader), names in AS_TEXT.items() if codec == "csv"}
# Types that a format does not have, and the wider ones that take their place.
WIDER = {
    ("parquet", None): {"timestamp_s": "timestamp_ms"},
    ("avro", "fastavro"): {"timestamp_s": "timestamp_ms"},
    ("avro", "polars"): {
        **{small: "int32" for small in ("int8", "int16", "uint8", "uint16")},
        "uint32": "int64",
        "timestamp_s": "timestamp_ms",
        # It does not know nanoseconds in Avro, and reads their number.
        "timestamp_ns": "int64",
        "duration_us": "int64",
    },
}


def is_text(codec, reader, column):
    """Whether a program reads the column of a codec as strings."""
    return column.name in AS_TEXT.get((codec, reader), [])

"""Columns of every type, with their values: how they are written in JSON and CSV, and what other
systems call the types.

A type has the name that it has in `:schema`; a list is a Python list of one type, a struct is a
dict. Values are those of Python, but dates are days since 1970, times and timestamps the number of
their units, so that no calendar of a reader limits them.
"""

import base64
import collections
import decimal
import json
import math
import re
import struct

import polars as pl
import pyarrow as pa

UNITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")

# A type, the values of a column, and in `cast` whether they are strings in the input that an
# expression casts, because JSON does not have them: `True`, or the expression for a `{name}`.
Column = collections.namedtuple("Column", ["name", "type", "values", "cast"])


def column(name, of, *values, cast=False):
    return Column(name, of, [*values, None], cast)


def integers(name, low, high):
    return column(name, name, 0, 1, low, high)


def dec(text):
    return decimal.Decimal(text)


def ticks(unit, *times):
    """Times as (days, seconds, fraction in units)."""
    return [(days * 86400 + seconds) * 10 ** UNITS[unit] + part for days, seconds, part in times]


TEXTS = [
    "",
    " ",
    "abc",
    'a "quoted" word',
    "a,b;c\td",
    "two\nlines",
    "cr\r\nlf",
    "back\\slash",
    "ä€",
    "\U0001f600 \U0010ffff",
    "\u2028\u2029\ufeff",
    "nul \0 bell \a",
    "null",
    "NULL",
    "NaN",
    "true",
    "007",
    "-0.0",
    "1e400",
    "'",
    '"',
    "{}",
    "\x7f\x80",
]
FLOATS = [0.0, -0.0, 1.5, -0.1, 1e308, -1.7976931348623157e308, 5e-324, 2.2250738585072014e-308]
SINGLES = [0.0, -0.0, 1.5, 3.4028234663852886e38, -3.4028234663852886e38, 1.401298464324817e-45]
SPECIAL = [math.nan, math.inf, -math.inf, -0.0, 1.0]
# 0001-01-01, 1969-12-31, 2024-02-29, 9999-12-31.
DAYS = [0, -719162, -1, 19782, 2932896]
# Values of JSON without a type: they are written as they came.
JSON = [
    "-0.0",
    "1e400",
    "12345678901234567890123",
    "1.50",
    '"text"',
    "[1, 2.0]",
    '{"a": {}}',
    "true",
]

COLUMNS = [
    integers("int8", -(2**7), 2**7 - 1),
    integers("int16", -(2**15), 2**15 - 1),
    integers("int32", -(2**31), 2**31 - 1),
    column("int64", "int64", 0, -(2**63), 2**63 - 1, 2**53 + 1),
    integers("uint8", 0, 2**8 - 1),
    integers("uint16", 0, 2**16 - 1),
    integers("uint32", 0, 2**32 - 1),
    column("uint64", "uint64", 0, 2**64 - 1, 2**63, 2**53 + 1),
    column("float32", "float32", *SINGLES),
    column("float64", "float64", *FLOATS),
    column("special32", "float32", *SPECIAL, cast=True),
    column("special64", "float64", *SPECIAL, cast=True),
    column("decimal9", "decimal(9,2)", dec("0.00"), dec("-9999999.99"), dec("9999999.99")),
    column("decimal18", "decimal(18,0)", dec(10**18 - 1), dec(1 - 10**18), dec("-1")),
    column("decimal38", "decimal(38,10)", *map(dec, ["9" * 28 + ".0123456789", "-0.0000000001"])),
    column(
        "decimal76", "decimal(76,5)", *map(dec, ["9" * 71 + ".00001", "-" + "9" * 71 + ".99999"])
    ),
    column("boolean", "boolean", True, False),
    column("utf8", "utf8", *TEXTS),
    column("binary", "binary", b"", b"\0", bytes(range(256)), "ä".encode(), b'"\n,'),
    column("date32", "date32", *DAYS),
    column("far_date", "date32", -735000, 2940000),
    column(
        "timestamp_s", "timestamp_s", *ticks("s", (0, 0, 0), (-719162, 0, 0), (2932896, 86399, 0))
    ),
    column(
        "timestamp_ms",
        "timestamp_ms",
        *ticks("ms", (0, 1, 1), (-1, 86399, 999), (-719162, 0, 1), (2932896, 86399, 999)),
    ),
    column(
        "timestamp_us",
        "timestamp_us",
        *ticks("us", (0, 0, 1), (-1, 86399, 999999), (-719162, 0, 1), (2932896, 86399, 999999)),
    ),
    # DuckDB takes the extremes themselves for infinities.
    column("timestamp_ns", "timestamp_ns", 0, 1, -1, -(2**63) + 2, 2**63 - 2),
    column("far_ms", "timestamp_ms", *ticks("ms", (-735000, 0, 1), (2940000, 0, 1))),
    column("time64", "time64", 0, 1, 86399999999, 45296789000, cast=True),
    column("json", "json", *JSON),
    column("nothing", "null", cast="null"),
    column(
        "elapsed",
        "duration_us",
        *(0, 1, -1, 97445500000, -(2**53), 86400000000),
        cast="({name}::timestamp - '1970-01-01'::timestamp)",
    ),
    # As they are written in text.
    column(
        "span",
        "interval",
        *("1 mons 2 days 3.500000000 secs", "-1 days", "2 hours", "-0.000001000 secs", "0 secs"),
        cast=True,
    ),
    column("list_boolean", ["boolean"], [True, None, False], []),
    column("list_float32", ["float32"], [1.5, -0.0, None], []),
    column("list_float64", ["float64"], [1.5, -0.0, 5e-324, None], []),
    column("list_binary", ["binary"], [b"", b"\xff\0", None], []),
    column("list_time64", ["time64"], [0, 86399999999, None], []),
    column("list_uint64", ["uint64"], [2**64 - 1, None], [0]),
    column("struct_uint64", {"u": "uint64"}, {"u": 2**64 - 1}, {"u": None}),
    column("list_int64", ["int64"], [], [1, None, -(2**63)], [None]),
    column("list_utf8", ["utf8"], ["", None, 'a "b", c'], []),
    column("list_json", ["json"], ["1.50", '"x"', None], []),
    column("list_list", [["int32"]], [[1], [], None], []),
    column("list_decimal", ["decimal(10,2)"], [dec("-0.50"), None], []),
    column(
        "list_struct",
        [{"t": "timestamp_us", "x": "float64"}],
        [{"t": -1, "x": -0.0}, None, {"t": None, "x": None}],
    ),
    column(
        "struct",
        {"a": "int64", "b": "utf8"},
        {"a": 2**53 + 1, "b": ""},
        {"a": None, "b": None},
        {"a": 0, "b": '",\n'},
    ),
    column(
        "struct_all",
        {"d": "date32", "y": "binary", "l": ["uint8"]},
        {"d": -1, "y": b"\xff", "l": [255]},
    ),
]


TIMES = [
    *("date32", "time64", "duration_us"),
    *("timestamp_s", "timestamp_ms", "timestamp_us", "timestamp_ns"),
]


def contains(of, names):
    """Whether a type is one of these, or has a part that is."""
    if isinstance(of, list):
        return contains(of[0], names)
    if isinstance(of, dict):
        return any(contains(part, names) for part in of.values())
    return of in names


def edn(of):
    """The type in `:schema`."""
    if isinstance(of, list):
        return f"[{edn(of[0])}]"
    if isinstance(of, dict):
        return "{" + " ".join(f":{name} {edn(part)}" for name, part in of.items()) + "}"
    return f'"{of}"'


# --- Values in text ---


def civil(days):
    """A date as text. Years beyond four digits have a sign."""
    era, day = divmod(days + 719468, 146097)
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5 - 1
    month += 3 if month < 10 else -9
    year += era * 400 + (month <= 2)
    sign = "-" if year < 0 else "+" if year > 9999 else ""
    return f"{sign}{abs(year):04}-{month:02}-{day:02}"


def clock(value, digits):
    seconds, part = divmod(value, 10**digits)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return text + (f".{part:0{digits}}" if digits else "")


def iso_duration(value):
    """A duration of microseconds in ISO 8601."""
    sign, (seconds, part) = "-" if value < 0 else "", divmod(abs(value), 10**6)
    fraction = f".{part:06}".rstrip("0") if part else ""
    return f"{sign}PT{seconds}{fraction}S" if value else "P0D"


def in_text(of, value):
    """A value as JSON and CSV have it: NaN and the infinities are NULL."""
    if isinstance(of, list) and value is not None:
        return [in_text(of[0], item) for item in value]
    if isinstance(of, dict) and value is not None:
        return {name: in_text(part, value[name]) for name, part in of.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Number(str):
    """A number of JSON, by its text."""


def as_json(of, value):
    """A value as Python reads its JSON: numbers keep their text, but floats are floats."""
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(of, list):
        return [as_json(of[0], item) for item in value]
    if isinstance(of, dict):
        return {name: as_json(part, value[name]) for name, part in of.items()}
    if of == "json":
        return read_json(value)
    if of == "duration_us":
        return iso_duration(value)
    if of == "binary":
        return base64.b64encode(value).decode()
    if of == "date32":
        return civil(value)
    if of == "time64":
        # A fraction has three, six or no digits.
        whole = clock(value, 6)
        return whole.removesuffix(".000000").removesuffix("000") if value % 1000 == 0 else whole
    if of.startswith("timestamp"):
        digits = UNITS[of.split("_")[1]]
        days, rest = divmod(value, 86400 * 10**digits)
        return f"{civil(days)}T{clock(rest, digits)}Z"
    return (
        value
        if of in ("utf8", "interval")
        else Number(f"{value:f}" if isinstance(value, decimal.Decimal) else value)
    )


def read_json(text):
    return json.loads(text, parse_int=Number, parse_float=Number)


def input_json(column, value):
    """A value in the input, as JSON."""
    if value is None:
        return "null"
    if column.type == "json":
        return value
    if column.cast and isinstance(value, float):
        return json.dumps(repr(value))
    if column.type == "duration_us":
        # The time that is as long after 1970.
        return printed(as_json("timestamp_us", value))
    return printed(as_json(column.type, value))


def printed(value):
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(printed, value)) + "]"
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(name)}: {printed(part)}" for name, part in value.items())
            + "}"
        )
    return json.dumps(value)


def same(of, ours, expected):
    """Whether two values are equal: floats in all bits, but one NaN is like another."""
    if isinstance(of, list) and isinstance(ours, list) and isinstance(expected, list):
        return len(ours) == len(expected) and all(
            same(of[0], *pair) for pair in zip(ours, expected)
        )
    if isinstance(of, dict) and isinstance(ours, dict) and isinstance(expected, dict):
        return ours.keys() == expected.keys() and all(
            same(of[name], ours[name], expected[name]) for name in ours
        )
    if of in ("float32", "float64") and isinstance(expected, float):
        if isinstance(ours, Number):
            ours = float(ours)
        if not isinstance(ours, float):
            return False
        return bits(of, ours) == bits(of, expected) or (math.isnan(ours) and math.isnan(expected))
    return type(ours) is type(expected) and ours == expected


def bits(of, value):
    return struct.pack("f" if of == "float32" else "d", value)


# --- Names of types ---


def arrow_type(of):
    """The type in Arrow, and in Parquet as pyarrow and Pseidon write it."""
    if isinstance(of, list):
        return pa.list_(arrow_type(of[0]))
    if isinstance(of, dict):
        return pa.struct([(name, arrow_type(part)) for name, part in of.items()])
    if match := DECIMAL.fullmatch(of):
        digits, scale = map(int, match.groups())
        return (pa.decimal128 if digits <= 38 else pa.decimal256)(digits, scale)
    if of.startswith("timestamp"):
        return pa.timestamp(of.split("_")[1], "UTC")
    special = {
        "utf8": pa.utf8(),
        "json": pa.utf8(),
        "boolean": pa.bool_(),
        "date32": pa.date32(),
        "time64": pa.time64("us"),
        "duration_us": pa.duration("us"),
        "map": pa.map_(pa.utf8(), pa.int64()),
    }
    return special.get(of) or getattr(pa, of)()


def stored_type(of):
    """The type in Arrow of dates and times as numbers."""
    if isinstance(of, list):
        return pa.list_(stored_type(of[0]))
    if isinstance(of, dict):
        return pa.struct([(name, stored_type(part)) for name, part in of.items()])
    if of == "date32":
        return pa.int32()
    return pa.int64() if of.startswith(("time", "duration")) else arrow_type(of)


def polars_type(of):
    if isinstance(of, list):
        return pl.List(polars_type(of[0]))
    if isinstance(of, dict):
        return pl.Struct({name: polars_type(part) for name, part in of.items()})
    if match := DECIMAL.fullmatch(of):
        return pl.Decimal(*map(int, match.groups()))
    if of.startswith("timestamp"):
        return pl.Datetime(of.split("_")[1], "UTC")
    special = {
        "utf8": pl.String(),
        "json": pl.String(),
        "date32": pl.Date(),
        "time64": pl.Time(),
        "duration_us": pl.Duration("us"),
    }
    return special.get(of) or getattr(pl, of.capitalize().replace("Ui", "UI"))()


def duckdb_type(of):
    if isinstance(of, list):
        return f"{duckdb_type(of[0])}[]"
    if isinstance(of, dict):
        return (
            "STRUCT(" + ", ".join(f"{name} {duckdb_type(part)}" for name, part in of.items()) + ")"
        )
    if of.startswith("timestamp"):
        return "TIMESTAMP WITH TIME ZONE"
    names = {
        "int8": "TINYINT",
        "int16": "SMALLINT",
        "int32": "INTEGER",
        "int64": "BIGINT",
        "uint8": "UTINYINT",
        "uint16": "USMALLINT",
        "uint32": "UINTEGER",
        "uint64": "UBIGINT",
        "float32": "FLOAT",
        "float64": "DOUBLE",
        "utf8": "VARCHAR",
        "binary": "BLOB",
        "date32": "DATE",
        "time64": "TIME",
        # It does not know the type, and reads the number of microseconds.
        "duration_us": "BIGINT",
        "null": "INTEGER",
    }
    return names.get(of, of.upper())


def avro_type(of):
    """The type in Avro, without its names and the union with null that each has."""
    if isinstance(of, list):
        return {"type": "array", "items": ["null", avro_type(of[0])]}
    if isinstance(of, dict):
        fields = [{"name": name, "type": ["null", avro_type(part)]} for name, part in of.items()]
        return {"type": "record", "fields": fields}
    if match := DECIMAL.fullmatch(of):
        digits, scale = map(int, match.groups())
        return {"type": "bytes", "logicalType": "decimal", "precision": digits, "scale": scale}
    names = {
        "int8": "int",
        "int16": "int",
        "int32": "int",
        "int64": "long",
        "uint8": "int",
        "uint16": "int",
        "uint32": "long",
        "float32": "float",
        "float64": "double",
        "utf8": "string",
        "binary": "bytes",
        "date32": {"type": "int", "logicalType": "date"},
        "time64": {"type": "long", "logicalType": "time-micros"},
        # Avro's duration has no sign and milliseconds only.
        "duration_us": "long",
        # Avro has no seconds.
        "timestamp_s": {"type": "long", "logicalType": "timestamp-millis"},
        "timestamp_ms": {"type": "long", "logicalType": "timestamp-millis"},
        "timestamp_us": {"type": "long", "logicalType": "timestamp-micros"},
        "timestamp_ns": {"type": "long", "logicalType": "timestamp-nanos"},
    }
    return names.get(of, of)


def replaced(of, names):
    """The type with other types in place of some, by their names."""
    if isinstance(of, list):
        return [replaced(of[0], names)]
    if isinstance(of, dict):
        return {name: replaced(part, names) for name, part in of.items()}
    return names.get(of, of)


def map_times(of, value, convert):
    """The value with each timestamp replaced by `convert(unit, timestamp)`."""
    if value is None:
        return None
    if isinstance(of, list):
        return [map_times(of[0], item, convert) for item in value]
    if isinstance(of, dict):
        return {name: map_times(part, value[name], convert) for name, part in of.items()}
    return convert(of.split("_")[1], value) if of.startswith("timestamp") else value

//! Tests of dialects, and of records without a header.

use super::*;

/// The values of the columns in a file with these settings: the header and the records, as a source
/// splits them.
fn read(
    settings: &str,
    columns: &[WantedColumn],
    file: &str,
) -> Result<(Vec<String>, Vec<String>), String> {
    let framing = Csv::CSV.framing(settings);
    let header = framing.header(file.as_bytes());
    let mut start = header.as_ref().map_or(0, |header| header.end + 1);
    let lines = &file.as_bytes()[start..];
    let from = start;
    let record = |end: usize| {
        let line = &file.as_bytes()[std::mem::replace(&mut start, from + end + 1)..from + end];
        framing.record(line)
    };
    let records: Vec<&[u8]> = framing.ends(lines).filter_map(record).collect();
    let header = header.map(|header| Bytes::copy_from_slice(&file.as_bytes()[header]));
    let payloads = Payloads::copied(records).with_header(header);
    let decoded = Csv::CSV.decoder(settings, columns)?.decode(&payloads);
    Ok(shown(columns, decoded))
}

#[test]
fn other_dialects_have_the_same_values() {
    let columns = [
        wanted("id", DataType::Int64),
        wanted("text", DataType::Utf8),
    ];
    let plain = "id,text\n1,\"a,\n\"\"b\"\"\"\n2,c\n";
    let (expected, bad) = read("", &columns, plain).unwrap();
    assert_eq!(bad, [""; 0]);
    for (settings, file) in [
        ("sep=|", "id|text\n1|\"a,\n\"\"b\"\"\"\n2|c\n"),
        ("sep=:;quote=single", "id:text\n1:'a,\n\"b\"'\n2:c\n"),
        ("quote=~", "id,text\n1,~a,\n\"b\"~\n2,c\n"),
        ("escape=backslash", "id,text\n1,\"a,\n\\\"b\\\"\"\n2,c\n"),
        (
            "comment=#",
            "# it's \"open\nid,text\n#\n1,\"a,\n\"\"b\"\"\"\n# \"\n2,c\n",
        ),
        ("header=true", plain),
    ] {
        let (rows, bad) = read(settings, &columns, file).unwrap();
        assert_eq!(bad, [""; 0], "{settings}");
        assert_eq!(rows, expected, "{settings}");
    }
    let text = [wanted("a", DataType::Utf8)];
    let (rows, _) = read("escape=backslash", &text, "a\n\"C:\\\\x\\n\\\"\"\n").unwrap();
    assert_eq!(rows, ["C:\\x\\n\""]);
    let (_, bad) = read("escape=backslash", &text, "a\n\"x\"\"y\"\n").unwrap();
    assert!(bad[0].contains("text follows the closing quote"), "{bad:?}");
}

#[test]
fn texts_that_stand_for_null_are_null_without_quotes() {
    let columns = [wanted("NULL", DataType::Utf8), wanted("n", DataType::Int64)];
    let settings = "null=NULL,\\N,-";
    let file = "NULL,n\nNULL,-\n\"NULL\",\\N\nNULLS,\n\"-\",7\n";
    let decoder = Csv::CSV.decoder(settings, &columns);
    let payloads = payloads("NULL,n", &["NULL,-", "\"NULL\",\\N", "NULLS,", "\"-\",7"]);
    let decoded = decoder.unwrap().decode(&payloads);
    let nulls = |column: &ArrayRef| (0..4).map(|row| column.is_null(row)).collect::<Vec<_>>();
    assert_eq!(nulls(&decoded.columns[0]), [true, false, false, false]);
    assert_eq!(nulls(&decoded.columns[1]), [true, true, true, false]);
    assert_eq!(
        read(settings, &columns, file).unwrap().0,
        [",", "NULL,", "NULLS,", "-,7"]
    );
    let samples = [payloads];
    let schema = Csv::CSV.infer(settings, &samples).unwrap();
    assert_eq!(print_schema(&schema), "{:NULL :utf8, :n :int64}");
}

#[test]
fn a_comma_separates_fractions_if_the_setting_says_so() {
    let columns = [
        wanted("f", DataType::Float64),
        wanted("d", DataType::Decimal128(6, 2)),
        wanted("n", DataType::Int64),
        wanted("t", DataType::Utf8),
    ];
    let settings = "sep=semicolon;decimal=comma";
    let file = "f;d;n;t\n1,5;-0,25;7;a,b.c\n1;2;3;\n1.5;1;1;\n1;1.234,5;1;\n1;1;1,0;\n";
    let (rows, bad) = read(settings, &columns, file).unwrap();
    assert_eq!(rows[..2], ["1.5,-0.25,7,a,b.c", "1.0,2.00,3,"]);
    // A point would separate thousands: `1.500` is not 1.5.
    assert_eq!(
        bad,
        [
            "2: `f` is the string \"1.5\"; expected float64",
            "3: `d` is the string \"1.234,5\"; expected decimal(6, 2)",
            "4: `n` is the string \"1,0\"; expected int64",
        ]
    );
    let samples = [payloads(
        "f;p;t",
        &["1,5;1.5;2024-05-01T10:00:00.5Z", "2;2;2024-05-01"],
    )];
    let schema = Csv::CSV.infer(settings, &samples).unwrap();
    let expected = "{:f :float64, :p :utf8, :t :timestamp_us}";
    assert_eq!(print_schema(&schema), expected);
    // In quotes, also beside commas that separate fields.
    let (rows, _) = read("decimal=comma", &columns[..1], "f,g\n\"1,5\",2\n").unwrap();
    assert_eq!(rows, ["1.5"]);
}

#[test]
fn without_a_header_fields_have_numbers() {
    let columns = [
        wanted("column3", DataType::Utf8),
        wanted("column1", DataType::Int64),
    ];
    let (rows, bad) = read("header=false", &columns, "1,a,b\n2,c\n3,d,e,f\n").unwrap();
    assert_eq!(rows, ["b,1", ",", "e,3"]);
    assert_eq!(bad, ["1: expected at least 3 fields, found 2"]);
    for name in ["id", "column0", "column", "column01", "Column1"] {
        let error = read("header=false", &[wanted(name, DataType::Utf8)], "1\n").unwrap_err();
        let expected = format!(
            "the records have no field `{name}`; without a header, the fields are column1, \
             column2, …, or those that :schema or the setting `fields` names"
        );
        assert_eq!(error, expected);
    }
    let samples = [Payloads::copied([b"7,x".as_slice(), b"8,"])];
    let schema = Csv::CSV.infer("header=false", &samples).unwrap();
    assert_eq!(print_schema(&schema), "{:column1 :int64, :column2 :utf8}");
}

#[test]
fn a_schema_names_the_fields_of_records_without_a_header() {
    let schema = |names: &[&str]| {
        let field = |name: &&str| Field::new(*name, DataType::Utf8, true);
        Schema::new(names.iter().map(field).collect::<Vec<_>>())
    };
    let named = |settings: &str, names: &[&str]| Csv::CSV.named(settings, &schema(names));
    let settings = named("sep=tab;header=false", &["id", "first-name"])
        .unwrap()
        .unwrap();
    assert_eq!(settings, "sep=tab;header=false;fields=id,first-name");
    let columns = [wanted("first-name", DataType::Utf8)];
    let (rows, bad) = read(&settings, &columns, "1\tAnn\n2\n").unwrap();
    assert_eq!(rows, ["Ann", ""]);
    assert_eq!(bad, ["1: expected 2 fields, found 1"]);
    // Otherwise they have names.
    for settings in ["", "fields=a,b", "header=false;fields=a,b"] {
        assert_eq!(named(settings, &["x"]), Ok(None), "{settings}");
    }
    assert_eq!(
        named("header=false", &["a", "column1"]).unwrap_err(),
        "without a header, :schema names all fields in their order, but `column1` is field 2 of it"
    );
    assert!(
        named("header=false", &["a b"])
            .unwrap_err()
            .contains("`a b`")
    );
}

#[test]
fn given_names_replace_those_of_a_header() {
    let columns = [wanted("b", DataType::Utf8)];
    let (rows, _) = read("fields=a,b;header=true", &columns, "x,y\n1,2\n").unwrap();
    assert_eq!(rows, ["2"]);
    let (rows, _) = read("fields=a,b", &columns, "x,y\n1,2\n").unwrap();
    assert_eq!(rows, ["y", "2"]);
}

#[test]
fn settings_that_contradict_each_other_are_errors() {
    for (settings, expected) in [
        (
            "sep=|;quote=|",
            "`sep` and `quote` are both `|`; choose different characters",
        ),
        (
            "sep=semicolon;quote=single;comment='",
            "`quote` and `comment` are both `'`; choose different characters",
        ),
        (
            "sep=#;comment=#",
            "`sep` and `comment` are both `#`; choose different characters",
        ),
        (
            "quote=none;escape=backslash",
            "`escape` has no meaning with quote=none; remove one of them",
        ),
        (
            "sep=\\;escape=backslash",
            "with escape=backslash, a backslash is neither `sep` nor `quote`",
        ),
        (
            "quote=none;decimal=comma",
            "a decimal comma cannot be told from the separator without quotes; set `sep`, or remove \
             quote=none",
        ),
        (
            "sep=-;null=n-a",
            "the `null` value `n-a` contains the separator or begins with a quote, so no field \
             without quotes has it",
        ),
        (
            "comment=//",
            "invalid `comment` value `//`; expected one character such as `#`",
        ),
        (
            "sep=x",
            "invalid `sep` value `x`; expected byte1, tab, space, semicolon, pipe, comma, or one \
             character such as `|`",
        ),
        (
            "header=no",
            "invalid `header` value `no`; expected true or false",
        ),
        (
            "escape=x",
            "invalid `escape` value `x`; expected double or backslash",
        ),
        (
            "decimal=.",
            "invalid `decimal` value `.`; expected point or comma",
        ),
    ] {
        assert_eq!(
            Csv::CSV.schema(settings).unwrap_err(),
            expected,
            "{settings}"
        );
    }
}

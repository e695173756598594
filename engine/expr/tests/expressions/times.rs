//! Dates beside timestamps and intervals, and durations.

use crate::fixture::check;

/// A timestamp of the year 9999 in the first row, and 1970 in the second.
const FAR: &str = "(case when small = 1 then '9999-12-31T12:00:00Z'::timestamp else at end)";

#[test]
fn dates_and_timestamps_have_the_range_of_timestamps() {
    let cases = [
        ("FAR > day", "boolean", ["true", "false", "NULL"]),
        ("day in (FAR)", "boolean", ["false", "true", "NULL"]),
        (
            "coalesce(FAR, day)",
            "timestamp_us",
            ["9999-12-31T12:00:00Z", "1970-01-01T00:00:00Z", "NULL"],
        ),
        (
            "greatest(day, FAR)",
            "timestamp_us",
            ["9999-12-31T12:00:00Z", "1970-01-01T00:00:00Z", "NULL"],
        ),
        (
            "date_part('epoch', FAR - '9999-12-01'::date)",
            "float64",
            ["2635200.0", "-253399622400.0", "NULL"],
        ),
        ("day < at", "boolean", ["true", "false", "NULL"]),
    ];
    for (text, data_type, expected) in cases {
        check(&[(&text.replace("FAR", FAR), data_type, expected)]);
    }
}

#[test]
fn hours_are_added_to_dates() {
    check(&[
        (
            "day + interval '90 minutes'",
            "timestamp_us",
            ["2024-02-29T01:30:00Z", "1970-01-01T01:30:00Z", "NULL"],
        ),
        (
            "interval '1 day 1 hour' + day",
            "timestamp_us",
            ["2024-03-01T01:00:00Z", "1970-01-02T01:00:00Z", "NULL"],
        ),
        (
            "day - concat(small, ' hours')::interval",
            "timestamp_us",
            ["2024-02-28T23:00:00Z", "1969-12-31T22:00:00Z", "NULL"],
        ),
        (
            "day + interval '1 month 1 day'",
            "date32",
            ["2024-03-30", "1970-02-02", "NULL"],
        ),
    ]);
}

#[test]
fn seconds_of_durations_have_a_fraction() {
    check(&[
        (
            "date_part('epoch', at - timestamp '2024-02-29')",
            "float64",
            ["86398.123", "-1709164800.0", "NULL"],
        ),
        (
            "extract(EPOCH from at - at)",
            "float64",
            ["0.0", "0.0", "NULL"],
        ),
    ]);
}

#[test]
fn intervals_are_compared_by_their_length() {
    check(&[
        (
            "interval '36 hours' > interval '1 day'",
            "boolean",
            ["true"; 3],
        ),
        (
            "interval '24 hours' = interval '1 day'",
            "boolean",
            ["true"; 3],
        ),
        (
            "interval '1 month' = interval '30 days'",
            "boolean",
            ["true"; 3],
        ),
        (
            "at - timestamp '1970-01-01' > interval '100 days'",
            "boolean",
            ["true", "false", "NULL"],
        ),
        (
            "interval '100 days' < FAR - at"
                .replace("FAR", FAR)
                .as_str(),
            "boolean",
            ["true", "false", "NULL"],
        ),
        (
            "concat(small, ' days')::interval in (interval '24 hours', interval '72 hours')",
            "boolean",
            ["true", "false", "true"],
        ),
        (
            "case concat(small, ' days')::interval when '48 hours' then 'two' end",
            "utf8",
            ["NULL", "two", "NULL"],
        ),
        (
            "(concat(small, ' days')::interval between '25 hours' and '2 days')",
            "boolean",
            ["false", "true", "false"],
        ),
        (
            "greatest(concat(small, ' days')::interval, interval '48 hours')::text",
            "utf8",
            ["48 hours", "2 days", "3 days"],
        ),
        ("null = interval '1 day'", "boolean", ["NULL"; 3]),
    ]);
}

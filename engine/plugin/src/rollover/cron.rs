//! Cron expressions with five fields: the wall-clock times (UTC) at which all open lanes are
//! sealed.

use chrono::{
    DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, TimeDelta, Timelike, Utc,
};

use crate::options::{Argument, OptionValue, ParseResult};
use crate::spec::OptionKind;

/// How far ahead the next time is searched: 29 February comes at least once in eight years.
const LOOK_AHEAD_DAYS: i64 = 366 * 9;

/// A cron expression such as `0 * * * *`: minute, hour, day of the month, month, day of the week (0
/// and 7 are Sunday).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    minutes: NumberSet,
    hours: NumberSet,
    days: NumberSet,
    months: NumberSet,
    weekdays: NumberSet,
}

/// A set of small numbers, and whether it was written as `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NumberSet {
    bits: u64,
    all: bool,
}

impl NumberSet {
    fn has(self, number: u32) -> bool {
        self.bits & (1 << number) != 0
    }
}

impl OptionValue for Cron {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<Cron> {
        argument.checked(Cron::parse)
    }
}

impl Cron {
    /// Parses the five fields. An error is a sentence.
    pub fn parse(text: &str) -> Result<Cron, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!(
                "expected five fields (minute hour day month weekday), such as \"0 * * * *\", \
                 found {}",
                fields.len()
            ));
        };
        let mut weekdays = parse_field("weekday", weekdays, 0, 7)?;
        if weekdays.has(7) {
            weekdays.bits |= 1;
        }
        let cron = Cron {
            minutes: parse_field("minute", minutes, 0, 59)?,
            hours: parse_field("hour", hours, 0, 23)?,
            days: parse_field("day", days, 1, 31)?,
            months: parse_field("month", months, 1, 12)?,
            weekdays,
        };
        match cron.next_after(DateTime::UNIX_EPOCH) {
            Some(_) => Ok(cron),
            None => Err("no date matches".to_owned()),
        }
    }

    /// The first matching time after `now`.
    pub fn next_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let now = now.naive_utc();
        let mut at = now
            .with_second(0)?
            .with_nanosecond(0)?
            .checked_add_signed(TimeDelta::minutes(1))?;
        let end = now.checked_add_signed(TimeDelta::days(LOOK_AHEAD_DAYS))?;
        while at < end {
            if !self.months.has(at.month()) {
                at = midnight(at.date().with_day(1)?.checked_add_months(Months::new(1))?);
            } else if !self.has_day(at.date()) {
                at = midnight(at.date().checked_add_days(Days::new(1))?);
            } else if !self.hours.has(at.hour()) {
                at = at.with_minute(0)?.checked_add_signed(TimeDelta::hours(1))?;
            } else if !self.minutes.has(at.minute()) {
                at = at.checked_add_signed(TimeDelta::minutes(1))?;
            } else {
                return Some(at.and_utc());
            }
        }
        None
    }

    /// As in cron: if both kinds of days are restricted, one of them is enough.
    fn has_day(&self, date: NaiveDate) -> bool {
        let (day, weekday) = (
            self.days.has(date.day()),
            self.weekdays.has(date.weekday().num_days_from_sunday()),
        );
        if self.days.all || self.weekdays.all {
            day && weekday
        } else {
            day || weekday
        }
    }
}

fn midnight(date: NaiveDate) -> NaiveDateTime {
    date.and_time(chrono::NaiveTime::MIN)
}

/// Parses `*`, `5`, `1-5`, `*/15`, `10-40/10` or a comma-separated list of these.
fn parse_field(name: &str, text: &str, least: u32, most: u32) -> Result<NumberSet, String> {
    let number = |text: &str| match text.parse::<u32>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!(
            "`{text}` is not a {name}; expected {least} to {most}"
        )),
    };
    let mut bits = 0;
    for item in text.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => match step.parse::<usize>() {
                Ok(step) if step > 0 => (range, step),
                _ => {
                    return Err(format!(
                        "`{step}` is not a step; expected an integer of at least 1"
                    ));
                }
            },
            None => (item, 1),
        };
        let (first, last) = match (range, range.split_once('-')) {
            ("*", _) => (least, most),
            (_, Some((first, last))) => (number(first)?, number(last)?),
            (one, None) if step == 1 => (number(one)?, number(one)?),
            (one, None) => (number(one)?, most),
        };
        if first > last {
            return Err(format!(
                "the range `{range}` is empty: its end is below its start"
            ));
        }
        (first..=last)
            .step_by(step)
            .for_each(|number| bits |= 1 << number);
    }
    Ok(NumberSet {
        bits,
        all: text == "*",
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_the_next_time() {
        let cases = [
            ("0 * * * *", "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z"),
            (
                "0 * * * *",
                "2026-01-01T10:59:59.9Z",
                "2026-01-01T11:00:00Z",
            ),
            (
                "*/15 * * * *",
                "2026-01-01T23:50:00Z",
                "2026-01-02T00:00:00Z",
            ),
            (
                "5,35 8-10 * * *",
                "2026-01-01T10:36:00Z",
                "2026-01-02T08:05:00Z",
            ),
            (
                "10-40/10 * * * *",
                "2026-01-01T10:20:00Z",
                "2026-01-01T10:30:00Z",
            ),
            (
                "50/5 * * * *",
                "2026-01-01T10:50:00Z",
                "2026-01-01T10:55:00Z",
            ),
            ("0 0 1 1 *", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 31 * *", "2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z"),
            ("0 0 * * 0", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            (
                "0 0 * * 1-5",
                "2026-01-02T00:00:00Z",
                "2026-01-05T00:00:00Z",
            ),
            ("0 0 13 * 5", "2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z"),
            ("0 0 13 * 5", "2026-01-09T00:00:00Z", "2026-01-13T00:00:00Z"),
        ];
        for (text, now, expected) in cases {
            let next = Cron::parse(text)
                .unwrap()
                .next_after(now.parse().unwrap())
                .unwrap();
            assert_eq!(
                next,
                expected.parse::<DateTime<Utc>>().unwrap(),
                "{text} after {now}"
            );
        }
    }

    #[test]
    fn errors_say_what_was_expected() {
        let cases = [
            (
                "0 * * *",
                "expected five fields (minute hour day month weekday), such as \"0 * * * *\", \
                 found 4",
            ),
            ("60 * * * *", "`60` is not a minute; expected 0 to 59"),
            ("x * * * *", "`x` is not a minute; expected 0 to 59"),
            (
                "* 5-3 * * *",
                "the range `5-3` is empty: its end is below its start",
            ),
            (
                "*/0 * * * *",
                "`0` is not a step; expected an integer of at least 1",
            ),
            ("* * 0 * *", "`0` is not a day; expected 1 to 31"),
            ("0 0 30 2 *", "no date matches"),
        ];
        for (text, expected) in cases {
            assert_eq!(Cron::parse(text).unwrap_err(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_string_is_parsed_or_refused(text in "[0-9*,/ -]{0,20}") {
            let _ = Cron::parse(&text);
        }

        #[test]
        fn the_next_time_is_later_and_matches(
            minute in 0u32..60, hour in 0u32..24, at in 0i64..4_000_000_000) {
            let now = DateTime::from_timestamp(at, 0).unwrap();
            let cron = Cron::parse(&format!("{minute} {hour} * * *")).unwrap();
            let next = cron.next_after(now).unwrap();
            prop_assert!(next > now && next - now <= TimeDelta::days(1));
            prop_assert_eq!((next.minute(), next.hour(), next.second()), (minute, hour, 0));
        }
    }
}

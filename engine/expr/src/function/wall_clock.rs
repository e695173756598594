//! `now`, `current_date` and `current_time`: the time at which the batch is evaluated, which is the
//! same in all calls.
//!
//! DataFusion's own functions are replaced at planning time by the time of planning.

use std::cell::Cell;
use std::sync::LazyLock;

use arrow::datatypes::{DataType, TimeUnit};
use chrono::Utc;
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{
    ColumnarValue, DocSection, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::types::timestamp;

const SECTION: DocSection = DocSection {
    include: true,
    label: "Time and Date Functions",
    description: None,
};

static NOW: LazyLock<Documentation> = LazyLock::new(|| {
    let description = "Returns the current time in UTC, with microseconds.";
    Documentation::builder(SECTION, description, "now()").build()
});

static TODAY: LazyLock<Documentation> = LazyLock::new(|| {
    let description = "Returns the current date in UTC.";
    Documentation::builder(SECTION, description, "current_date()").build()
});

static TIME_OF_DAY: LazyLock<Documentation> = LazyLock::new(|| {
    let description = "Returns the current time of day in UTC.";
    Documentation::builder(SECTION, description, "current_time()").build()
});

thread_local! {
    /// The time of the evaluation, in microseconds.
    static TIME: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Resets the time of the evaluation, also after a panic.
struct Reset;

impl Drop for Reset {
    fn drop(&mut self) {
        TIME.set(None);
    }
}

/// Evaluates expressions that see one time. Inside of another call, it is the time of that one.
pub fn at_one_time<T>(evaluate: impl FnOnce() -> T) -> T {
    if TIME.get().is_some() {
        return evaluate();
    }
    TIME.set(Some(Utc::now().timestamp_micros()));
    let _reset = Reset;
    evaluate()
}

/// What [`WallClock`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Clock {
    /// The timestamp, in microseconds.
    Now,
    /// The date in UTC.
    Today,
    /// The time of day in UTC.
    TimeOfDay,
}

/// A function without arguments that returns the time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct WallClock {
    clock: Clock,
    other_names: Vec<String>,
    signature: Signature,
}

impl WallClock {
    pub(super) fn new(clock: Clock) -> WallClock {
        WallClock {
            clock,
            other_names: match clock {
                Clock::Now => vec!["current_timestamp".to_owned()],
                Clock::Today => vec!["today".to_owned()],
                Clock::TimeOfDay => Vec::new(),
            },
            signature: Signature::nullary(Volatility::Volatile),
        }
    }
}

impl ScalarUDFImpl for WallClock {
    fn name(&self) -> &str {
        match self.clock {
            Clock::Now => "now",
            Clock::Today => "current_date",
            Clock::TimeOfDay => "current_time",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.other_names
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(match self.clock {
            Clock::Now => &NOW,
            Clock::Today => &TODAY,
            Clock::TimeOfDay => &TIME_OF_DAY,
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.clock {
            Clock::Now => timestamp(TimeUnit::Microsecond),
            Clock::Today => DataType::Date32,
            Clock::TimeOfDay => DataType::Time64(TimeUnit::Microsecond),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let time = TIME.get().unwrap_or_else(|| Utc::now().timestamp_micros());
        let now = ScalarValue::TimestampMicrosecond(Some(time), Some("UTC".into()));
        Ok(ColumnarValue::Scalar(
            now.cast_to(args.return_field.data_type())?,
        ))
    }
}

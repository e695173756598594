//! `now` and `today`: the time at which the batch is evaluated.
//!
//! DataFusion's own functions are replaced at planning time by the time of planning.

use arrow::datatypes::{DataType, TimeUnit};
use chrono::Utc;
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::types::timestamp;

/// What [`WallClock`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Clock {
    /// The timestamp, in microseconds.
    Now,
    /// The date in UTC.
    Today,
}

impl Clock {
    /// The function's names in expressions.
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        match self {
            Clock::Now => ["now", "current_timestamp"],
            Clock::Today => ["current_date", "today"],
        }
        .into_iter()
    }
}

/// A function without arguments that returns the time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct WallClock {
    clock: Clock,
    signature: Signature,
}

impl WallClock {
    pub(super) fn new(clock: Clock) -> WallClock {
        WallClock {
            clock,
            signature: Signature::nullary(Volatility::Volatile),
        }
    }
}

impl ScalarUDFImpl for WallClock {
    fn name(&self) -> &str {
        match self.clock {
            Clock::Now => "now",
            Clock::Today => "current_date",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.clock {
            Clock::Now => timestamp(TimeUnit::Microsecond),
            Clock::Today => DataType::Date32,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let now = ScalarValue::TimestampMicrosecond(
            Some(Utc::now().timestamp_micros()),
            Some("UTC".into()),
        );
        Ok(ColumnarValue::Scalar(
            now.cast_to(args.return_field.data_type())?,
        ))
    }
}

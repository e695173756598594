//! `now` and `today`: the time at which the batch is evaluated.
//!
//! DataFusion's own functions are replaced at planning time by the time of planning.

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

/// What [`WallClock`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Clock {
    /// The timestamp, in microseconds.
    Now,
    /// The date in UTC.
    Today,
}

/// A function without arguments that returns the time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct WallClock {
    clock: Clock,
    other_names: [String; 1],
    signature: Signature,
}

impl WallClock {
    pub(super) fn new(clock: Clock) -> WallClock {
        WallClock {
            clock,
            other_names: match clock {
                Clock::Now => ["current_timestamp".to_owned()],
                Clock::Today => ["today".to_owned()],
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
        }
    }

    fn aliases(&self) -> &[String] {
        &self.other_names
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(match self.clock {
            Clock::Now => &NOW,
            Clock::Today => &TODAY,
        })
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

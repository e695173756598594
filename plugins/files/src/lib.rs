//! Connectors for files: a [source](source::FilesSource) for log files and dumps, and a
//! [sink](sink::FilesSink) for rolling files.

#![forbid(unsafe_code)]

pub mod sink;
pub mod source;

pub use sink::FilesSink;
pub use source::FilesSource;

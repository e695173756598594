//! Files: logs and dumps as a [source](source::FilesSource), and files that roll as a
//! [sink](sink::FilesSink).

pub mod sink;
pub mod source;

pub use sink::FilesSink;
pub use source::FilesSource;

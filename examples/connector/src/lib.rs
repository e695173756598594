//! A sample connector: the source and the sink `spool`.
//!
//! A spool is a folder through which programs pass records on. A file in it is complete as soon as
//! it has a name that does not begin with `.`, and it never changes afterwards. The [`source`]
//! reads the files of a folder; the [`sink`] writes new ones, in a subfolder for each queue.
//!
//! `docs/connectors.md` walks through this crate in reading order and says why each part is as it
//! is. The crate is a member of the workspace and not part of the program `pseidon`.

#![forbid(unsafe_code)]

pub mod sink;
pub mod source;

pub use sink::SpoolSinkPlugin;
pub use source::SpoolSourcePlugin;

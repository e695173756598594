//! Numbers with what they count.

use indicatif::HumanCount;

/// A number of things, such as `1 file` or `1,200 files`.
pub(crate) fn counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", HumanCount(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_singular() {
        assert_eq!(counted(0, "file"), "0 files");
        assert_eq!(counted(1, "open file"), "1 open file");
        assert_eq!(counted(1200, "record"), "1,200 records");
    }
}

//! Why something failed, with the errors that caused it.
//!
//! A cause is part of the chain of [`Error::source`] and not of a message, so that a caller finds
//! the error of a library by its type, and nothing is printed twice. [`WithCauses`] prints a whole
//! chain; logs, pages and exit messages do so.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use pseidon_dsl::printable;

/// A message, and the error that caused what it says, if another error did. Displays the message
/// alone.
#[derive(Clone, Debug)]
pub struct Reason {
    what: Cow<'static, str>,
    cause: Option<Cause>,
}

type Cause = Arc<dyn Error + Send + Sync>;

impl Reason {
    /// A message that no other error caused.
    pub fn new(what: impl Into<Cow<'static, str>>) -> Reason {
        Reason {
            what: what.into(),
            cause: None,
        }
    }

    /// A message about what `error` has caused. It does not contain the text of `error`.
    pub fn caused_by(
        what: impl Into<Cow<'static, str>>,
        error: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Reason {
        Reason {
            what: what.into(),
            cause: Some(Arc::from(error.into())),
        }
    }

    /// The message of `error` alone, where there is nothing to add. The error is in the chain too,
    /// so that it is found by its type; [`WithCauses`] does not repeat it.
    pub fn of(error: impl Into<Box<dyn Error + Send + Sync>>) -> Reason {
        let error = error.into();
        Reason::caused_by(error.to_string(), error)
    }

    /// Adds text that is printed after the causes, such as what to do. It begins with its
    /// punctuation.
    pub fn followed_by(self, text: impl Into<Cow<'static, str>>) -> Reason {
        let (what, text) = (self.what, text.into());
        match self.cause {
            Some(cause) => Reason::caused_by(what, Remark { text, cause }),
            None => Reason::new(what + text),
        }
    }
}

impl From<String> for Reason {
    fn from(what: String) -> Reason {
        Reason::new(what)
    }
}

impl From<&'static str> for Reason {
    fn from(what: &'static str) -> Reason {
        Reason::new(what)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Reason {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let cause: &(dyn Error + 'static) = self.cause.as_deref()?;
        Some(cause)
    }
}

/// A link between a message and its cause: text that belongs after the causes.
#[derive(Debug)]
struct Remark {
    text: Cow<'static, str>,
    cause: Cause,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_start_matches(['.', ';', ',', ' ']))
    }
}

impl Error for Remark {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let cause: &(dyn Error + 'static) = &*self.cause;
        Some(cause)
    }
}

/// Displays an error with all its causes, outermost first: `a: b: c`.
///
/// Many libraries print a cause in the message as well; it is not repeated. What a server answered
/// or a record contains can be part of a message, so it is [printable()] and one line.
pub struct WithCauses<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut remarks = Vec::new();
        let mut next = self.0.source();
        while let Some(cause) = next {
            next = cause.source();
            if let Some(remark) = cause.downcast_ref::<Remark>() {
                remarks.push(&*remark.text);
                continue;
            }
            let message = cause.to_string();
            if !contains_message(&text, &message) {
                text.push_str(": ");
                text.push_str(&message);
            }
        }
        text.extend(remarks.into_iter().rev());
        f.write_str(&printable(&text))
    }
}

/// Whether a text contains this message as a whole: at its end, or between punctuation.
fn contains_message(text: &str, message: &str) -> bool {
    text.match_indices(message).any(|(start, _)| {
        let (before, after) = (&text[..start], &text[start + message.len()..]);
        (before.is_empty()
            || before.ends_with(": ")
            || before.ends_with(['(', '[', '`', '"', '\'']))
            && (after.is_empty()
                || after.starts_with([')', ']', '`', '"', '\'', ',', ';', '.', ':']))
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn full() -> io::Error {
        io::Error::from_raw_os_error(28)
    }

    fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
        std::iter::successors(Some(error), |&error| error.source())
            .find_map(|error| error.downcast_ref())
    }

    #[test]
    fn a_cause_is_in_the_chain_and_not_in_the_message() {
        let reason = Reason::caused_by("sink `out`", Reason::caused_by("cannot open a", full()));
        assert_eq!(reason.to_string(), "sink `out`");
        assert_eq!(
            WithCauses(&reason).to_string(),
            "sink `out`: cannot open a: No space left on device (os error 28)"
        );
        let found = io_error(&reason).map(io::Error::kind);
        assert_eq!(found, Some(io::ErrorKind::StorageFull));
    }

    #[test]
    fn an_answer_of_a_server_is_one_line() {
        let answer = Reason::new("no\r\n\u{1b}[2J\u{202e}");
        let reason = Reason::caused_by("cannot read", answer);
        assert_eq!(
            WithCauses(&reason).to_string(),
            "cannot read: no\\r\\n\\u{1b}[2J\\u{202e}"
        );
    }

    #[test]
    fn text_that_follows_a_cause_is_printed_after_all_causes() {
        let inner = Reason::caused_by("cannot read b", full()).followed_by(". Restore it");
        let reason = Reason::caused_by("cannot open a", inner).followed_by("; stopping");
        assert_eq!(
            WithCauses(&reason).to_string(),
            "cannot open a: cannot read b: No space left on device (os error 28). Restore it; \
             stopping"
        );
        assert!(io_error(&reason).is_some());
        let alone = Reason::new("lost data").followed_by(". Restore it");
        assert_eq!(alone.to_string(), "lost data. Restore it");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("I/O error `{0}`")]
    struct LibraryError(#[source] io::Error);

    #[test]
    fn a_cause_that_a_library_prints_as_well_is_not_repeated() {
        let reason = Reason::caused_by("cannot commit", LibraryError(full()));
        assert_eq!(
            WithCauses(&reason).to_string(),
            "cannot commit: I/O error `No space left on device (os error 28)`"
        );
        assert!(io_error(&reason).is_some());
        let reason = Reason::of(LibraryError(full()));
        assert_eq!(
            WithCauses(&reason).to_string(),
            "I/O error `No space left on device (os error 28)`"
        );
        assert!(io_error(&reason).is_some());
    }

    #[test]
    fn a_cause_that_resembles_a_part_of_the_message_is_printed() {
        let reason = Reason::caused_by("cannot read timed out.log", Reason::new("timed out"))
            .followed_by("; retrying");
        assert_eq!(
            WithCauses(&reason).to_string(),
            "cannot read timed out.log: timed out; retrying"
        );
    }
}

//! Errors: an errno, and the words that came with it.

use std::cell::RefCell;
use std::io;
use std::sync::OnceLock;

pub use rustix::io::Errno;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Errno>;

static SINK: OnceLock<fn(&str)> = OnceLock::new();

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Has `sink` called with each explanation: a sentence that says what an errno cannot, such as
/// who holds a port. Only the first call counts.
pub fn on_explanation(sink: fn(&str)) {
    // A second sink is ignored, as documented.
    let _ = SINK.set(sink);
}

/// The last explanation that came with an error of a call of this thread.
pub fn last_explanation() -> Option<String> {
    LAST.try_with(|last| last.borrow().clone()).ok().flatten()
}

/// Tells the sentence.
pub(crate) fn explain(text: &str) {
    // A thread that is ending has nobody who asks.
    let _ = LAST.try_with(|last| *last.borrow_mut() = Some(text.to_owned()));
    if let Some(sink) = SINK.get() {
        sink(text);
    }
}

/// The errno of an error of the client library.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn errno(error: io::Error) -> Errno {
    let Some(number) = fourwave::errno(&error) else {
        return match error.kind() {
            io::ErrorKind::Interrupted => Errno::INTR,
            io::ErrorKind::InvalidInput => Errno::INVAL,
            // A daemon of another version, or one that has lost its mind.
            _ => {
                explain(&error.to_string());
                Errno::PROTO
            }
        };
    };
    if error.raw_os_error().is_none() {
        explain(&error.to_string());
    }
    Errno::from_raw_os_error(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_for_who_asks() {
        let absent = fourwave::Runtime::connect("/nonexistent/control.sock").unwrap_err();
        assert_eq!(errno(absent), Errno::NETDOWN);
        assert!(last_explanation().unwrap().contains("/nonexistent/control.sock"));
        assert_eq!(errno(io::ErrorKind::Interrupted.into()), Errno::INTR);
        assert_eq!(errno(io::Error::from_raw_os_error(libc::EPIPE)), Errno::PIPE);
    }
}

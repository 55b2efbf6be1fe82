//! Errors as users of std's sockets expect them: `io::Error` with the kind and errno of Linux.

use rustix::io::Errno;
use std::fmt;
use std::io;

/// An errno together with what happened, in words: the payload of those `io::Error`s that need
/// a sentence (no daemon, a port that another program holds).
///
/// `io::Error::kind` is the errno's. `io::Error::raw_os_error` is `None` for an error with a
/// payload; [`errno`] finds the number in both kinds of error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    errno: i32,
    detail: String,
}

impl Explained {
    /// The errno that a socket call of Linux would give.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// What happened and what helps.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let os = io::Error::from_raw_os_error(self.errno);
        write!(f, "{}: {os}", self.detail)
    }
}

impl std::error::Error for Explained {}

/// The errno of an error of this library, whether it carries an explanation or not.
pub fn errno(error: &io::Error) -> Option<i32> {
    let payload = || error.get_ref()?.downcast_ref::<Explained>();
    error.raw_os_error().or_else(|| payload().map(Explained::errno))
}

/// An error with a sentence.
pub(crate) fn explained(errno: i32, detail: impl Into<String>) -> io::Error {
    let kind = io::Error::from_raw_os_error(errno).kind();
    io::Error::new(kind, Explained { errno, detail: detail.into() })
}

/// An error that the errno says all about.
pub(crate) fn os(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw_os_error())
}

/// The daemon is gone.
pub(crate) fn gone() -> io::Error {
    os(Errno::NETDOWN)
}

/// A non-blocking operation cannot go on now, or a blocking one ran out of time.
pub(crate) fn would_block() -> io::Error {
    os(Errno::AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explained_error_keeps_kind_and_errno() {
        let error = explained(Errno::ADDRINUSE.raw_os_error(), "port 80 is taken by nginx");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(errno(&error), Some(Errno::ADDRINUSE.raw_os_error()));
        assert!(error.to_string().starts_with("port 80 is taken by nginx: Address"));
    }

    #[test]
    fn a_plain_error_has_its_errno() {
        assert_eq!(errno(&gone()), Some(Errno::NETDOWN.raw_os_error()));
        assert_eq!(gone().kind(), io::ErrorKind::NetworkDown);
        assert_eq!(errno(&io::Error::other("x")), None);
    }
}

//! Calls that wait, and signals.

use crate::error::{Errno, Result, errno};
use crate::kernel;
use fourwave::Patience;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null;
use std::time::Instant;

/// The last real-time signal.
const LAST_SIGNAL: i32 = 64;

/// Sends `SIGPIPE` to the calling thread, as writing without `MSG_NOSIGNAL` does.
pub fn raise_sigpipe() {
    kernel::raise(libc::SIGPIPE);
}

/// Makes a call that waits, until `deadline` at the most; again after signals whose handlers all ask for
/// that.
pub(crate) fn patiently<T>(
    nonblocking: bool,
    deadline: Option<Instant>,
    mut call: impl FnMut(Patience) -> io::Result<T>,
) -> Result<T> {
    if nonblocking {
        return call(Patience::NONE).map_err(errno);
    }
    loop {
        match call(Patience::until(deadline).interruptible()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && signals_restart() => {}
            result => return result.map_err(errno),
        }
    }
}

/// Whether every handler of the process was installed with `SA_RESTART`. Which one has run cannot
/// be known.
pub(crate) fn signals_restart() -> bool {
    (1..=LAST_SIGNAL).all(|signal| {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: asks only; writes a sigaction if it succeeds, and all zeros are one too.
        let action = unsafe {
            libc::sigaction(signal, null(), action.as_mut_ptr());
            action.assume_init()
        };
        let handled = ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction);
        !handled || action.sa_flags & libc::SA_RESTART != 0
    })
}

/// Turns the end of a wait into what the caller says; other errors stay.
pub(crate) fn when_over<T>(result: Result<T>, over: Errno) -> Result<T> {
    result.map_err(|errno| if errno == Errno::AGAIN { over } else { errno })
}

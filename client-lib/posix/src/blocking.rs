//! Calls that wait, and signals.

use crate::error::{Errno, Result, errno, explain};
use crate::kernel::{self, Mask};
use fourwave::Patience;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null;
use std::time::{Duration, Instant};

/// The last real-time signal.
const LAST_SIGNAL: i32 = 64;

/// Sends `SIGPIPE` to the calling thread, as writing without `MSG_NOSIGNAL` does.
pub fn raise_sigpipe() {
    kernel::raise(libc::SIGPIPE);
}

/// Signals of a thread's own faults, which do not come while it waits. Runtimes (Rust's, Java's)
/// handle them without `SA_RESTART`.
const FAULTS: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];

/// Makes a call that waits, until `deadline` at the most; again after signals whose handlers all ask
/// for that, but never with a deadline (signal(7)).
pub(crate) fn patiently<T>(
    nonblocking: bool,
    deadline: Option<Instant>,
    call: impl FnMut(Patience) -> io::Result<T>,
) -> Result<T> {
    waiting(nonblocking, (deadline, deadline.is_none()), call)
}

/// As [`patiently`]; `restarts`: whether signals whose handlers ask for that do not end it.
pub(crate) fn waiting<T>(
    nonblocking: bool,
    (deadline, restarts): (Option<Instant>, bool),
    mut call: impl FnMut(Patience) -> io::Result<T>,
) -> Result<T> {
    if nonblocking {
        return call(Patience::NONE).map_err(errno);
    }
    loop {
        match call(Patience::until(deadline).interruptible()) {
            Err(error)
                if error.kind() == io::ErrorKind::Interrupted && restarts && signals_restart() => {}
            Err(error) if fourwave::errno(&error) == Some(libc::ENOBUFS) => {
                return without_lane((deadline, restarts), call);
            }
            result => return result.map_err(errno),
        }
    }
}

/// The daemon has no lane left on which the thread could be told: it looks now and then.
fn without_lane<T>(
    (deadline, restarts): (Option<Instant>, bool),
    mut call: impl FnMut(Patience) -> io::Result<T>,
) -> Result<T> {
    let mut tick = Tick::begin();
    loop {
        match call(Patience::NONE).map_err(errno) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Errno::AGAIN);
        }
        match tick.sleep(&mut [], left, None) {
            Err(Errno::INTR) if restarts && signals_restart() => {}
            result => result.map(drop)?,
        }
    }
}

/// Longer and longer sleeps of who is not told.
#[derive(Debug)]
pub(crate) struct Tick(Duration);

impl Tick {
    const FIRST: Duration = Duration::from_micros(250);
    const LONGEST: Duration = Duration::from_millis(8);

    pub(crate) fn begin() -> Tick {
        explain(
            "the daemon has no lane left for a waiting thread: such threads look for themselves, \
             every few milliseconds",
        );
        Tick(Tick::FIRST)
    }

    /// Sleeps, at most for `left`, and waits for descriptors of the kernel meanwhile.
    pub(crate) fn sleep(
        &mut self,
        theirs: &mut [libc::pollfd],
        left: Option<Duration>,
        mask: Mask<'_>,
    ) -> Result<usize> {
        let time = left.map_or(self.0, |left| left.min(self.0));
        self.0 = (self.0 * 2).min(Tick::LONGEST);
        kernel::poll(theirs, Some(time), mask)
    }
}

/// Whether every handler of the process was installed with `SA_RESTART`, those of faults apart.
/// Which one has run cannot
/// be known.
pub(crate) fn signals_restart() -> bool {
    (1..=LAST_SIGNAL).filter(|signal| !FAULTS.contains(signal)).all(|signal| {
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

//! What the library has to say to the operator: each sentence once, on standard error.

use std::sync::{Mutex, PoisonError};

/// Sentences that are remembered; after that many different ones it is silent.
const MOST: usize = 32;

static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Says a sentence, unless it was said before.
pub(crate) fn once(text: &str) {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() >= MOST || said.iter().any(|other| other == text) {
        return;
    }
    said.push(text.to_owned());
    drop(said);
    let line = format!("fourwave: {text}\n");
    // SAFETY: writes that many bytes of the line. Whether it arrives is nobody's business: the
    // program may have closed its standard error.
    unsafe { crate::next::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}

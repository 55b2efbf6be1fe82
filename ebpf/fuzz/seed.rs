//! Writes the sample frames of the tests into the folder that is its second argument, as a corpus
//! of the target that is its first: there is only one.

use std::path::PathBuf;
use std::{env, fs, io};

#[path = "../common/tests/support/mod.rs"]
mod support;

fn main() -> io::Result<()> {
    let folder = PathBuf::from(env::args_os().nth(2).ok_or(io::ErrorKind::InvalidInput)?);
    for sample in support::samples::samples() {
        let name = sample.name.replace([' ', ',', '\'', '.'], "-");
        fs::write(folder.join(name), sample.frame)?;
    }
    Ok(())
}

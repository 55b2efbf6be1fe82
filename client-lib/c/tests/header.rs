//! The committed header is what cbindgen makes of the source.
//!
//! `FOURWAVE_UPDATE_HEADER=1 cargo test -p fourwave-c --test header` writes it.

use std::fs;
use std::path::Path;

#[test]
fn the_header_is_current() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(package.join("cbindgen.toml")).expect("it is valid");
    let sources = ["sockets", "transfer", "descriptors", "waiting"];
    let builder = sources.iter().fold(cbindgen::Builder::new(), |builder, name| {
        builder.with_src(package.join("src").join(name).with_extension("rs"))
    });
    let mut made = Vec::new();
    builder.with_config(config).generate().expect("it can be parsed").write(&mut made);
    let made = String::from_utf8(made).expect("it is text");
    // A heading for readers of Rust.
    let made = made.replace(" * # Safety\n", "");
    let path = package.join("include/fourwave.h");
    if std::env::var_os("FOURWAVE_UPDATE_HEADER").is_some() {
        fs::write(&path, &made).expect("it can be written");
    }
    let committed = fs::read_to_string(&path).expect("it is committed");
    assert!(made == committed, "include/fourwave.h is out of date; see the top of this test");
}

//! Names the shared object by the version of its interface, which programs record when they are
//! linked.

/// Changed when a program that was linked before could no longer run.
const INTERFACE: &str = "0";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libfourwave.so.{INTERFACE}");
}

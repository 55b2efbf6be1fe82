//! The shared object, and a C program that finds it by pkg-config as a user's build does.

use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// Where cargo has put the library.
fn build_folder() -> PathBuf {
    let test = std::env::current_exe().expect("/proc is mounted");
    let folder = test.ancestors().nth(2).expect("tests lie two folders below the target's");
    for library in ["libfourwave.so", "libfourwave.a", "libfourwave_preload.so"] {
        let path = folder.join(library);
        let missing = "is missing: cargo build -p fourwave-c -p fourwave-preload";
        assert!(path.is_file(), "{} {missing}", path.display());
    }
    folder.to_owned()
}

/// What the command prints; it must succeed, and complain about nothing.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{command:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).expect("it is text")
}

/// Installs the library below `prefix`.
fn install(prefix: &Path) {
    let script = Path::new(PACKAGE).join("../../deploy/install");
    let mut command = Command::new(script);
    command.arg("library").env("PREFIX", prefix).env("BUILD", build_folder());
    output(command.env_remove("DESTDIR"));
}

#[test]
fn only_the_interface_is_exported() {
    let library = build_folder().join("libfourwave.so");
    let symbols = output(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    let mut names: Vec<&str> =
        symbols.lines().filter_map(|line| line.split_whitespace().last()).collect();
    names.sort_unstable();
    let header = std::fs::read_to_string(Path::new(PACKAGE).join("include/fourwave.h")).unwrap();
    let mut declared: Vec<&str> = header
        .lines()
        .filter(|line| line.contains('(') && !line.starts_with([' ', '/', '#']))
        .map(|line| line.split_once('(').unwrap().0)
        .map(|before| before.rsplit([' ', '*']).next().unwrap())
        .collect();
    declared.sort_unstable();
    assert!(declared.contains(&"fw_epoll_wait"), "{declared:?}");
    assert_eq!(names, declared);
    let dynamic = output(Command::new("readelf").arg("-d").arg(&library));
    assert!(dynamic.contains("Library soname: [libfourwave.so.0]"), "{dynamic}");
}

#[test]
fn a_c_program_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("usr");
    install(&prefix);
    let pkg_config = |arguments: &[&str]| {
        let mut command = Command::new("pkg-config");
        command.args(arguments).arg("fourwave");
        output(command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")))
    };
    assert_eq!(pkg_config(&["--modversion"]).trim(), env!("CARGO_PKG_VERSION"));
    let flags = pkg_config(&["--cflags", "--libs"]);
    let source = Path::new(PACKAGE).join("examples/echo.c");
    let program = folder.path().join("echo");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-o"]);
    output(gcc.arg(&program).arg(&source).args(flags.split_whitespace()));

    // Without a daemon it says so, and which one it has looked for.
    let socket = folder.path().join("control.sock");
    let run = Command::new(&program)
        .arg("7777")
        .env("LD_LIBRARY_PATH", prefix.join("lib"))
        .env("FOURWAVE_SOCKET", &socket)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(said.starts_with("bind: ") && said.contains(socket.to_str().unwrap()), "{said}");
}

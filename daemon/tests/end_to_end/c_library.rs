//! C programs with `libfourwave.so`, built as a user builds them, with the kernel as the peer.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use fourwave_bench::lab::{Ready, Side};

use crate::support::bytes::Pattern;
use crate::support::{Bed, FAMILIES, STOP_GRACE, eventually};

const PORT: u16 = 7777;

/// What the command prints; it must succeed.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).expect("it is text")
}

/// A program of the C library's package, and where its library is installed.
struct Built {
    program: PathBuf,
    libraries: PathBuf,
}

/// Installs the library in the lab's folder and builds a program against it.
fn build(bed: &Bed, source: &str) -> Built {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let test = env::current_exe().expect("/proc is mounted");
    let built = test.ancestors().nth(2).expect("tests lie two folders below the target's");
    let prefix = bed.folder().join("usr");
    let mut install = Command::new(repository.join("deploy/install"));
    install.arg("library").env("PREFIX", &prefix).env("BUILD", built).env_remove("DESTDIR");
    output(&mut install);
    let libraries = prefix.join("lib");
    let mut pkg_config = Command::new("pkg-config");
    pkg_config.args(["--cflags", "--libs", "fourwave"]);
    let flags = output(pkg_config.env("PKG_CONFIG_PATH", libraries.join("pkgconfig")));
    let source = repository.join("client-lib/c").join(source);
    let program = bed.folder().join("program");
    let mut gcc = Command::new("gcc");
    gcc.args(["-Wall", "-Wextra", "-Werror", "-O2", "-o"]).arg(&program).arg(&source);
    output(gcc.args(flags.split_whitespace()));
    Built { program, libraries }
}

fn command(bed: &Bed, built: &Built) -> Command {
    let mut command = bed.server().command(&built.program);
    command
        .env("LD_LIBRARY_PATH", &built.libraries)
        .env("FOURWAVE_SOCKET", bed.control_socket(Side::Server));
    command
}

#[test]
fn the_first_program() {
    let Some(mut bed) = Bed::new("c-hello") else { return };
    let built = build(&bed, "examples/hello.c");
    let command = command(&bed, &built);
    bed.spawn("c-hello", command, Ready::Prints("listening")).unwrap_or_else(|e| panic!("{e}"));
    for v6 in FAMILIES {
        for _ in 0..20 {
            let mut said = String::new();
            let mut stream = bed.kernel_connect(bed.server_address(v6, PORT));
            stream.read_to_string(&mut said).expect("an orderly end");
            assert_eq!(said, "hello over fourwave\n");
        }
    }
    bed.stop("c-hello", STOP_GRACE).unwrap_or_else(|error| panic!("{error}"));
    bed.wait_until_empty();
}

#[test]
fn an_echo_server_in_c() {
    let Some(mut bed) = Bed::new("c-echo") else { return };
    let built = build(&bed, "examples/echo.c");
    let mut command = command(&bed, &built);
    command.arg(PORT.to_string());
    bed.spawn("c-echo", command, Ready::Prints("listening")).unwrap_or_else(|e| panic!("{e}"));
    for v6 in FAMILIES {
        let address = bed.server_address(v6, PORT);
        // Short ones, all at once, then more than all buffers hold.
        let mut streams: Vec<_> = (0..100).map(|_| bed.kernel_connect(address)).collect();
        for (stream, byte) in streams.iter_mut().zip(0..) {
            stream.write_all(&[byte; 64]).expect("it is connected");
            stream.shutdown(Shutdown::Write).expect("it is connected");
        }
        for (mut stream, byte) in streams.into_iter().zip(0..) {
            let mut back = Vec::new();
            stream.read_to_end(&mut back).expect("an orderly end");
            let log = || fs::read_to_string(bed.folder().join("c-echo.log"));
            assert_eq!(back, [byte; 64], "the server says {:?}", log());
        }
        let mut bytes = vec![0; 16 << 20];
        Pattern::new(3).fill(&mut bytes);
        let mut stream = bed.kernel_connect(address);
        let mut back = vec![0; bytes.len()];
        thread::scope(|scope| {
            let mut writing = stream.try_clone().expect("a descriptor is left");
            let bytes = &bytes;
            scope.spawn(move || {
                writing.write_all(bytes).expect("it is connected");
                writing.shutdown(Shutdown::Write).expect("it is connected");
            });
            stream.read_exact(&mut back).expect("it is echoed");
        });
        assert!(back == bytes);
        assert_eq!(stream.read(&mut [0]).expect("an orderly end"), 0);
    }
    bed.check_programs().unwrap_or_else(|error| panic!("{error}"));
    bed.stop("c-echo", STOP_GRACE).unwrap_or_else(|error| panic!("{error}"));
    bed.wait_until_empty();
}

#[test]
fn calls_give_what_posix_says() {
    let Some(mut bed) = Bed::new("c-calls") else { return };
    let built = build(&bed, "tests/calls.c");
    let own = bed.server_address(false, PORT);
    // The port above must be free, too: nobody else is in this namespace.
    let listener = bed.kernel_listen(bed.client_address(false, 7000));
    let peer = listener.local_addr().expect("it is bound");
    let mut command = command(&bed, &built);
    for address in [own, peer] {
        command.arg(address.ip().to_string()).arg(address.port().to_string());
    }
    bed.spawn("c-calls", command, Ready::Prints("ready")).unwrap_or_else(|e| panic!("{e}"));

    let mut stream = bed.kernel_connect(own);
    let mut three = [0; 3];
    let log = bed.folder().join("c-calls.log");
    let said = || fs::read_to_string(&log).expect("it has a log");
    stream.read_exact(&mut three).unwrap_or_else(|error| panic!("{error}: {}", said()));
    assert_eq!(&three, b"go\n");
    stream.write_all(b"hello world").expect("it is connected");
    let mut last = Vec::new();
    stream.read_to_end(&mut last).unwrap_or_else(|error| panic!("{error}: {}", said()));
    assert_eq!(last, b"twelve", "{}", said());
    drop(stream);
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut writing = stream.try_clone()?;
        io::copy(&mut stream, &mut writing)
    });
    eventually("the program gets to its end", || {
        let said = said();
        assert!(!said.contains("line "), "{said}");
        said.contains("has done")
    });
    assert_eq!(echo.join().expect("no panic").expect("it is connected"), 4);
    bed.stop("c-calls", STOP_GRACE).unwrap_or_else(|error| panic!("{error}"));
    bed.wait_until_empty();
}

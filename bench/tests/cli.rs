//! `fourwave-bench lab` as a user types it, on a lab with a name of its own.

use std::process::{Command, Output};

/// Removes the lab however the test ends.
struct Named(String);

impl Named {
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_fourwave-bench"))
            .args(["lab", "--name", &self.0])
            .args(arguments)
            .output()
            .unwrap()
    }

    fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}

#[test]
fn up_exec_status_down() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI has to give it");
        eprintln!("skipped: building a lab needs root");
        return;
    }
    let lab = Named(format!("fwt-cli-{}", std::process::id()));
    assert!(!lab.run(&["status"]).status.success());
    let first = lab.says(&["up", "--no-daemon"]);
    assert!(first.contains("10.99.0.2/16") && !first.contains("is up already"), "{first}");
    // The same settings: nothing is built anew. Others: everything is.
    assert!(lab.says(&["up", "--no-daemon"]).contains("is up already"));
    assert!(lab.says(&["up", "--no-daemon", "--queues", "2"]).contains("removed a lab"));

    let addresses = lab.says(&["exec", "client", "--", "ip", "-brief", "address"]);
    assert!(addresses.contains("10.99.0.60/16") && addresses.contains("fd99::1/64"), "{addresses}");
    let failing = lab.run(&["exec", "server", "--", "sh", "-c", "exit 7"]);
    assert_eq!(failing.status.code(), Some(7));

    assert!(lab.says(&["status"]).contains("offloads off"));
    assert!(lab.says(&["down"]).contains("is removed"));
    assert!(lab.says(&["down"]).contains("no lab was up"));
}

#[test]
fn exec_with_preload() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI has to give it");
        eprintln!("skipped: building a lab needs root");
        return;
    }
    let lab = Named(format!("fwt-preload-{}", std::process::id()));
    lab.says(&["up", "--no-daemon", "--ports=80,6379"]);
    // Any library will do: what fourwave's does is for others to test. It is named in full.
    let library = std::fs::canonicalize("/proc/self/exe").unwrap();
    let run = |library: &std::path::Path, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fourwave-bench"));
        command.args(["lab", "--name", &lab.0, "exec", "--preload"]).args(arguments);
        command.env("FOURWAVE_PRELOAD", library).env_remove("LD_PRELOAD").output().unwrap()
    };
    let complains = |output: &Output, text: &str| {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(text), "{text}: {output:?}");
    };
    let missing = run(std::path::Path::new("/nowhere/x.so"), &["server", "--", "true"]);
    complains(&missing, "cargo build -p fourwave-preload");
    complains(&run(&library, &["server", "--ports=81", "--", "true"]), "port 81");
    complains(&run(&library, &["server", "--", "/nowhere/program"]), "/nowhere/program");

    // The shell says what it was given; ld.so says that a program is no library, and goes on.
    let show = "echo $LD_PRELOAD $FOURWAVE_PORTS $FOURWAVE_CONNECT $FOURWAVE_SOCKET; kill -9 $$";
    for (side, expected) in
        [("server", "80,6379 /run/".to_owned()), ("client", "10.99.0.2,fd99::2 /run/".to_owned())]
    {
        let output = run(&library, &[side, "--", "sh", "-c", show]);
        let said = String::from_utf8_lossy(&output.stdout);
        let expected = format!("{} {expected}", library.display());
        assert!(said.starts_with(&expected), "{output:?} instead of {expected}");
        // Nothing stands between: the end is the program's own.
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9));
        // The daemon was started for it, and stays.
        assert!(lab.says(&["status"]).contains(&format!("fourwaved-{side}: runs")));
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["", "../x", "a/b", "a b"] {
        let output = Named(name.to_owned()).run(&["status"]);
        assert!(!output.status.success(), "{name:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("letters"), "{output:?}");
    }
}

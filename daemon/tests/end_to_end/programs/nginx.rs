//! nginx: one master, two workers that share its listening sockets.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fourwave_bench::lab::Side;

use super::web::{self, CURL, Load, WRK};
use super::{PORT, Stage, compare, finish};
use crate::support::soaking;

const NGINX: &str = "/usr/sbin/nginx";
const CLOSING: Option<&str> = Some("Connection: close");

/// How long the load under reloads lasts if nobody ends it: much longer than they take.
const LOAD_SECONDS: u64 = 60;

/// Writes nginx's configuration and what it serves. Returns the folder.
///
/// The workers are `www-data`, as Debian has them, so the folder has to let everybody in.
pub fn site(stage: &Stage) -> PathBuf {
    let folder = stage.folder("site");
    web::write_files(&folder);
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {name};"))
        .join(" ");
    let (v4, v6) = (stage.bed.server_address(false, PORT), stage.bed.server_address(true, PORT));
    let text = format!(
        "daemon off; worker_processes 2; pid nginx.pid; error_log stderr notice;
         events {{ worker_connections 1024; }}
         http {{
             access_log off; log_not_found off; sendfile on; keepalive_requests 1000000; {temporary}
             server {{ listen {v4}; listen {v6}; root {}; }}
         }}\n",
        folder.display()
    );
    fs::write(folder.join("nginx.conf"), text).expect("the folder is there");
    folder
}

/// Starts an nginx made by [`Stage::tested`] or [`Stage::peer`].
pub fn start(
    stage: &mut Stage,
    folder: &Path,
    make: impl Fn(&Stage, &str) -> std::process::Command,
) {
    let mut command = make(stage, NGINX);
    command.arg("-p").arg(folder).args(["-c", "nginx.conf"]);
    stage.start("nginx", command, "start worker process ");
    stage.wait_until_said("nginx", "start worker process ", 2);
}

/// Nothing but what nginx says when all is well.
fn assert_content(stage: &Stage) {
    let said = stage.said("nginx");
    let complaint = said.lines().find(|line| {
        ["[warn]", "[error]", "[crit]", "[alert]", "[emerg]"].iter().any(|l| line.contains(l))
    });
    assert_eq!(complaint, None, "{said}");
}

fn url(stage: &Stage, v6: bool, file: &str) -> String {
    format!("http://{}/{file}", stage.bed.server_address(v6, PORT))
}

#[test]
fn nginx_serves_wrk_and_curl() {
    let requests = if soaking() { 500_000 } else { 50_000 };
    compare("nginx", Side::Server, &[NGINX, CURL, WRK], |stage| {
        let folder = site(stage);
        start(stage, &folder, Stage::tested);
        let bodies = web::fetch(|| stage.peer(CURL), &format!("http://{}", stage.server()));
        let v6 = finish(stage.peer(CURL).args(["-gsS", "--fail", &url(stage, true, "small")]));
        let wrk = || stage.peer(WRK);
        let short = Load { url: url(stage, false, "small"), connections: 64, header: CLOSING };
        short.run(wrk, requests);
        let kept = Load { url: url(stage, false, "medium"), connections: 32, header: None };
        kept.run(wrk, 1000);
        let large = Load { url: url(stage, false, "large"), connections: 4, header: CLOSING };
        large.run(wrk, 10);
        assert_content(stage);
        stage.stop("nginx");
        (bodies, v6.out)
    });
}

#[test]
fn nginx_reloads_under_load() {
    compare("reload", Side::Server, &[NGINX, WRK], |stage| {
        let folder = site(stage);
        start(stage, &folder, Stage::tested);
        let load = Load { url: url(stage, false, "small"), connections: 32, header: CLOSING };
        let mut wrk = load.start(stage.peer(WRK), LOAD_SECONDS);
        web::wait_until_begun(&wrk);
        for reload in 1..=3 {
            let mut command = stage.bed.server().command(NGINX);
            command.arg("-p").arg(&folder).args(["-c", "nginx.conf", "-s", "reload"]);
            finish(&mut command).text();
            // The old workers serve what they have, and go; two new ones have come.
            stage.wait_until_said("nginx", "exited with code 0", 2 * reload);
        }
        assert!(wrk.is_running(), "the load has to last longer than the reloads");
        // The new workers are to serve as well: for a moment, in a soak until the end.
        if !soaking() {
            thread::sleep(Duration::from_secs(1));
            web::interrupt(&wrk);
        }
        assert_ne!(web::flawless(wrk, LOAD_SECONDS), 0, "nothing was answered");
        assert_content(stage);
        stage.stop("nginx");
    });
}

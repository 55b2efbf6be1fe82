//! Redis: a server of one thread (and with threads for its sockets), and its own clients.

use std::fs::File;
use std::io::{Seek, Write};
use std::process::Command;

use fourwave_bench::lab::Side;
use sha2::{Digest, Sha256};

use super::{PORT, Running, Stage, compare, finish};
use crate::support::bytes::Pattern;
use crate::support::soaking;

const SERVER: &str = "/usr/bin/redis-server";
const CLI: &str = "/usr/bin/redis-cli";
const BENCHMARK: &str = "/usr/bin/redis-benchmark";
const PROGRAMS: [&str; 3] = [SERVER, CLI, BENCHMARK];

/// Bytes of a large value.
const LARGE: usize = 10 << 20;

/// A server at the server's end and clients at the client's; one of the two is tested.
struct Redis<'a> {
    stage: &'a mut Stage,
    tested: Side,
}

impl Redis<'_> {
    fn start<'a>(stage: &'a mut Stage, tested: Side, options: &[&str]) -> Redis<'a> {
        let folder = stage.folder("redis");
        let make = if tested == Side::Server { Stage::tested } else { Stage::peer };
        let mut server = make(stage, SERVER);
        server.args(["--save", "", "--protected-mode", "no", "--port", &PORT.to_string()]);
        server.args(["--bind", &stage.bed.server().v4().to_string()]);
        server.arg("--dir").arg(folder).args(options);
        stage.start("redis", server, "Ready to accept connections");
        Redis { stage, tested }
    }

    fn client(&self, program: &str) -> Command {
        let make = if self.tested == Side::Client { Stage::tested } else { Stage::peer };
        let mut command = make(self.stage, program);
        let host = self.stage.bed.server().v4().to_string();
        command.args(["-h", &host, "-p", &PORT.to_string()]);
        command
    }

    fn cli(&self, arguments: &[&str]) -> String {
        finish(self.client(CLI).args(arguments)).text()
    }

    /// Commands of a session, one a line, and what redis-cli shows for them.
    fn session(&self, commands: &str) -> String {
        let mut input = tempfile::tempfile().expect("a temporary file can be made");
        input.write_all(commands.as_bytes()).and_then(|()| input.rewind()).expect("there is room");
        Running::reading(&mut self.client(CLI), input).finish().text()
    }

    /// Which tests redis-benchmark has come to the end of.
    fn benchmark(&self, requests: u32, options: &[&str]) -> Vec<String> {
        let mut command = self.client(BENCHMARK);
        command.args(["-n", &requests.to_string(), "--csv"]).args(options);
        let finished = finish(&mut command);
        let text = finished.text();
        assert!(!text.contains("rror"), "{finished}");
        let names = text.lines().skip(1).filter_map(|line| line.split('"').nth(1));
        names.map(str::to_owned).collect()
    }

    /// Writes a large value and reads it; its hash.
    fn large_value(&self) -> String {
        let mut bytes = vec![0; LARGE];
        Pattern::new(7).fill(&mut bytes);
        let mut input: File = tempfile::tempfile().expect("a temporary file can be made");
        input.write_all(&bytes).and_then(|()| input.rewind()).expect("there is room");
        let set = Running::reading(self.client(CLI).args(["-x", "set", "large"]), input).finish();
        assert_eq!(set.text(), "OK\n");
        let got = finish(self.client(CLI).args(["get", "large"]));
        // Not a terminal: raw, with a line's end.
        assert_eq!(got.out.len(), LARGE + 1, "{}", got.err);
        Sha256::digest(&got.out).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// One client waits for what another brings.
    fn woken(&mut self) -> String {
        let mut waiting = self.client(CLI);
        waiting.args(["blpop", "queue", "20"]);
        let waiting = Running::start(&mut waiting);
        crate::support::eventually("it waits", || {
            self.cli(&["info", "clients"]).contains("blocked_clients:1")
        });
        let mut seen = self.cli(&["lpush", "queue", "item"]);
        seen += &waiting.finish().text();
        let mut subscriber = self.client(CLI);
        subscriber.args(["subscribe", "news"]);
        self.stage.start("subscriber", subscriber, "subscribe");
        seen += &self.cli(&["publish", "news", "headline"]);
        self.stage.wait_until_said("subscriber", "headline", 1);
        self.stage.stop("subscriber");
        seen
    }

    fn stop(self) {
        self.stage.stop("redis");
    }
}

const SESSION: &str = "\
ping
set a 1
incr a
append a xyz
get a
strlen a
rpush list one two three
lrange list 0 -1
hset hash field value
hgetall hash
zadd sorted 2 b 1 a
zrange sorted 0 -1 withscores
multi
incr counter
incr counter
exec
eval \"return {KEYS[1], ARGV[1]}\" 1 key arg
get nothing
lpush a wrong
nosuchcommand
setrange wide 99999 x
strlen wide
dbsize
client setname tested
client getname
flushall
dbsize
";

fn everything(stage: &mut Stage, tested: Side, options: &[&str], requests: u32) -> Vec<String> {
    let mut redis = Redis::start(stage, tested, options);
    let mut seen = vec![redis.session(SESSION), redis.large_value(), redis.woken()];
    let requests = if soaking() { 200_000 } else { requests };
    let common = "ping,set,get,incr,lpush,lrange_100,mset";
    seen.extend(redis.benchmark(requests, &["-t", common, "-c", "50"]));
    seen.extend(redis.benchmark(requests, &["-t", "set,get", "-P", "16", "-d", "1000"]));
    seen.extend(redis.benchmark(requests, &["-t", "set,get", "--threads", "2"]));
    // A connection for each request.
    seen.extend(redis.benchmark(requests / 4, &["-t", "set,get", "-k", "0", "-c", "20"]));
    seen.push(redis.cli(&["dbsize"]));
    let errors = redis.cli(&["info", "stats"]);
    seen.extend(errors.lines().filter(|l| l.contains("rejected_connections")).map(str::to_owned));
    redis.stop();
    seen
}

#[test]
fn redis_serves_kernel_clients() {
    compare("redis", Side::Server, &PROGRAMS, |stage| everything(stage, Side::Server, &[], 10_000));
}

#[test]
fn redis_with_threads_for_its_sockets() {
    // Its threads spin for each other: with few cores that takes long.
    let options = ["--io-threads", "2", "--io-threads-do-reads", "yes"];
    compare("redis-thr", Side::Server, &PROGRAMS, |stage| {
        everything(stage, Side::Server, &options, 1000)
    });
}

#[test]
fn redis_clients() {
    compare("redis-cli", Side::Client, &PROGRAMS, |stage| {
        everything(stage, Side::Client, &[], 10_000)
    });
}

/// A child writes the data to a file, while the parent keeps serving its connections.
#[test]
fn redis_saves_in_the_background() {
    compare("redis-bg", Side::Server, &PROGRAMS, |stage| {
        let redis = Redis::start(stage, Side::Server, &["--dbfilename", "saved.rdb"]);
        let mut seen = vec![redis.large_value()];
        for _ in 0..3 {
            let requests = if soaking() { 200_000 } else { 10_000 };
            let mut load = redis.client(BENCHMARK);
            load.args(["-n", &requests.to_string(), "-q", "-t", "set,get"]);
            let load = Running::start(&mut load);
            seen.push(redis.cli(&["bgsave"]));
            crate::support::eventually("it is saved", || {
                redis.cli(&["info", "persistence"]).contains("rdb_bgsave_in_progress:0")
            });
            load.finish().text();
            let info = redis.cli(&["info", "persistence"]);
            let status = info.lines().filter(|line| line.starts_with("rdb_last_bgsave_status"));
            seen.extend(status.map(str::to_owned));
        }
        redis.stop();
        seen
    });
}

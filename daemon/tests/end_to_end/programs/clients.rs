//! curl and wrk over fourwave, fetching from an nginx on kernel sockets.

use fourwave_bench::lab::Side;

use super::web::{self, CURL, Load, WRK};
use super::{Stage, compare, finish, nginx};

const NGINX: &str = "/usr/sbin/nginx";

#[test]
fn curl_and_wrk_as_clients() {
    compare("clients", Side::Client, &[NGINX, CURL, WRK], |stage| {
        let folder = nginx::site(stage);
        nginx::start(stage, &folder, Stage::peer);
        let base = format!("http://{}", stage.server());
        let bodies = web::fetch(|| stage.tested(CURL), &base);
        // Nobody listens there: the same words, and the same code.
        let nobody = format!("http://{}:9/", stage.bed.server().v4());
        let refused = finish(stage.tested(CURL).args(["-sS", &nobody]));
        let refused = (refused.status.code(), refused.err.contains("refused"));
        let wrk = || stage.tested(WRK);
        let load = |file: &str, connections, header| Load {
            url: format!("{base}/{file}"),
            connections,
            header,
        };
        load("small", 32, Some("Connection: close")).run(wrk, 3000);
        load("small", 32, None).run(wrk, 3000);
        load("large", 4, None).run(wrk, 10);
        stage.stop("nginx");
        (bodies, refused)
    });
}

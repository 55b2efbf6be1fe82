//! Long streams over bad paths, both servers, both directions, both families: every byte arrives,
//! whatever the relay does to the frames.

mod support;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fourwave_bench::compare::Progress;
use fourwave_bench::goodput::{self, Direction, GoodputConfig};
use fourwave_bench::lab::LabConfig;
use support::possible;

#[test]
fn streams_arrive_whole_over_every_path() {
    if !possible() {
        return;
    }
    let cpus = fourwave_bench::machine::cpus().unwrap();
    let paths = ["clean", "loss=0.1", "loss=1", "loss=5", "reorder=2,duplicate=1,delay=200us"];
    let config = GoodputConfig {
        lab: LabConfig::private("fwt-good-").relayed(),
        paths: paths.map(|path| path.parse().unwrap()).to_vec(),
        directions: Direction::ALL.to_vec(),
        families: vec![false, true],
        rounds: 1,
        bytes: 4 << 20,
        patience: Duration::from_secs(120),
        server_cpu: *cpus.last().unwrap(),
        client_cpu: cpus[0],
        seed: 1,
        daemon_keys: BTreeMap::new(),
    };
    let goodput = goodput::run(&config, &AtomicBool::new(false), &Progress::hidden()).unwrap();
    // Not captured: the figures are worth a look when all is well, too.
    writeln!(io::stderr(), "{}", goodput::render(&goodput)).unwrap();
    assert_eq!(goodput.rows.len(), 5 * 2 * 2);
    for row in &goodput.rows {
        for figures in row.figures() {
            let relay = &figures.relay;
            assert_eq!((figures.errors, relay.overruns), (0, 0), "{row:?}");
            // The path was as bad as was asked for: nearly 3000 segments of data.
            assert!(relay.frames > 2_000, "{row:?}");
            // At a tenth of a per cent it can be spared.
            if row.path.loss != 0.1 {
                assert_eq!(relay.lost > 0, row.path.loss > 0.0, "{row:?}");
            }
            assert_eq!(relay.reordered > 0, row.path.reorder > 0.0, "{row:?}");
            assert_eq!(relay.duplicated > 0, row.path.duplicate > 0.0, "{row:?}");
            if row.path.loss >= 1.0 {
                assert!(figures.retransmits > 0, "{row:?}");
            }
        }
    }
}

//! Long streams over the labs' links, kernel client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use fourwave::{Runtime, SocketOptions};

use super::Scope;
use super::bed::{Bed, Placement};
use super::measure::Bench;
use super::report::{BulkRow, Report, Spread};
use crate::compare::CompareError;
use crate::goodput::{Direction, GoodputConfig, Listener, Transfer, pattern, use_cubic};
use crate::lab::Side;
use crate::machine;

const PORT: u16 = 6999;

/// Streams in both directions to both servers, in interleaved rounds: with each end's receiving on
/// its own CPU, as between two machines, and with all of it where the sender is, as veth does.
pub(super) fn measure(
    bench: &Bench<'_>,
    beds: [&Bed; 2],
    report: &mut Report,
) -> Result<(), CompareError> {
    let config = bench.config;
    let bytes = if config.scope == Scope::Quick { 4 << 20 } else { 256 << 20 };
    let data = pattern(bytes);
    let [kernel, fourwave] = beds;
    let runtime = Runtime::connect(fourwave.lab().control_socket(Side::Server))
        .map_err(CompareError::io("the daemon's control socket"))?;
    let listening = kernel.lab().server().run(|| {
        let listener = std::net::TcpListener::bind(address(kernel))?;
        listener.set_nonblocking(true)?;
        // What it accepts inherits that.
        use_cubic(&listener)?;
        Ok(listener)
    })?;
    let ours = SocketOptions::new()
        .runtime(&runtime)
        .bind(address(fourwave))
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    let listeners = [
        Listener::Kernel(listening.map_err(CompareError::io("listening"))?),
        Listener::Fourwave(ours.map_err(CompareError::io("listening"))?),
    ];
    let goodput = GoodputConfig {
        lab: kernel.lab().config().clone(),
        paths: Vec::new(),
        directions: Vec::new(),
        families: Vec::new(),
        rounds: config.rounds,
        bytes,
        patience: Duration::from_secs(60),
        server_cpu: config.server_cpu,
        client_cpu: config.client_cpu,
        seed: 0,
        daemon_keys: BTreeMap::new(),
    };
    let streams = Streams { beds, listeners: &listeners, goodput: &goodput, data: &data };
    for placement in [Placement::ServerBound, Placement::Free] {
        for bed in beds {
            bed.place(bench, placement)?;
        }
        for direction in Direction::ALL {
            streams.measure(bench, placement, direction, report)?;
        }
    }
    Ok(())
}

/// What all streams have in common; kernel first, then fourwave.
struct Streams<'a> {
    beds: [&'a Bed; 2],
    listeners: &'a [Listener; 2],
    goodput: &'a GoodputConfig,
    data: &'a [u8],
}

impl Streams<'_> {
    fn measure(
        &self,
        bench: &Bench<'_>,
        placement: Placement,
        direction: Direction,
        report: &mut Report,
    ) -> Result<(), CompareError> {
        let (rounds, bytes) = (self.goodput.rounds, self.goodput.bytes);
        let mut rates = [Vec::new(), Vec::new()];
        let (mut busy, mut errors) = ([0_u64; 2], [0_u64; 2]);
        for round in 0..rounds {
            bench.progress.step(&format!(
                "round {}/{rounds}: a long stream {}, {}",
                round + 1,
                direction.name(),
                placement.name()
            ));
            for turn in 0..2 {
                bench.check()?;
                let index = (turn + round) % 2;
                let transfer = Transfer {
                    config: self.goodput,
                    lab: self.beds[index].lab(),
                    listener: &self.listeners[index],
                    address: address(self.beds[index]),
                    direction,
                    data: self.data,
                };
                let counted = || machine::busy_ns().map_err(CompareError::io("/proc/stat"));
                let before = counted()?;
                match transfer.run() {
                    Ok(elapsed) => {
                        rates[index].push(bytes as f64 * 8.0 / 1e6 / elapsed.as_secs_f64());
                        busy[index] += counted()? - before;
                    }
                    Err(error) => {
                        let server = self.beds[index].subject().name();
                        bench.progress.note(&format!("{server}: {error}"));
                        errors[index] += 1;
                    }
                }
            }
        }
        for index in 0..2 {
            let megabytes = bytes as f64 * rates[index].len().max(1) as f64 / 1e6;
            report.bulk.push(BulkRow {
                direction: direction.name(),
                placement: placement.name(),
                server: self.beds[index].subject().name(),
                bytes,
                megabits: Spread::over(&rates[index]).unwrap_or_default(),
                megabits_by_round: std::mem::take(&mut rates[index]),
                machine_us_per_megabyte: busy[index] as f64 / 1000.0 / megabytes,
                errors: errors[index],
            });
        }
        Ok(())
    }
}

fn address(bed: &Bed) -> SocketAddr {
    SocketAddr::new(bed.lab().server().v4(), PORT)
}

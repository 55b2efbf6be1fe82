//! A comparison as a table for the terminal.

use std::fmt::Write;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::result::{Comparison, Row};
use super::settings::Settings;

/// The table, the ratios, and the settings that matter.
pub fn render(comparison: &Comparison) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header([
        "client",
        "server",
        "connections/s",
        "connect p50 µs",
        "p99 µs",
        "p99.9 µs",
        "errors",
        "retransmits",
        "CPU µs/connection",
    ]);
    for row in &comparison.rows {
        table.add_row(cells(row));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{table}\n");
    for (name, ratio) in &comparison.ratios {
        let (median, min, max) = (ratio.median, ratio.min, ratio.max);
        let _ =
            writeln!(text, "{name}, fourwave ÷ kernel: {median:.2} (min {min:.2}, max {max:.2})");
    }
    text.push_str(&notes(&comparison.settings));
    text
}

fn cells(row: &Row) -> [String; 9] {
    let latency = &row.connect_latency_us;
    [
        row.client.to_owned(),
        row.server.to_owned(),
        format!("{:.0}", row.connections_per_second),
        format!("{:.1}", latency.p50),
        format!("{:.1}", latency.p99),
        format!("{:.1}", latency.p999),
        row.errors.to_string(),
        row.retransmits.to_string(),
        format!("{:.1}", row.cpu_us_per_connection),
    ]
}

fn notes(settings: &Settings) -> String {
    let Settings { rounds, duration_s, size, concurrency, kernel, cpus, .. } = settings;
    let Settings { server_cpu, client_cpu, rps, load_average, time_wait_s, .. } = settings;
    let paced = match settings.rate {
        Some(rate) => format!("open loop, {rate:.0} connections/s (the generator polls)"),
        None => format!("closed loop, {concurrency} in flight"),
    };
    let offloads = match settings.offloads_on.concat().as_slice() {
        [] => "off".to_owned(),
        on => format!("on: {}", on.join(" ")),
    };
    let mut text = format!(
        "{rounds} interleaved rounds of {duration_s} s on each server; {paced}; {size} B echo, \
         server closes first, TIME_WAIT {time_wait_s} s on both\n\
         Linux {kernel}, {cpus} CPUs, load average {load_average:.2}; servers on CPU {server_cpu}, \
         load on CPU {client_cpu}; {}, {} queue(s), RPS {rps} (masks {} and {}); checksum and \
         segmentation offloads {offloads}; kernel congestion control {}\n",
        settings.network,
        settings.queues,
        settings.rps_cpus[0],
        settings.rps_cpus[1],
        settings.congestion_control[0],
    );
    if let Some(fourwave) = &settings.fourwave {
        let _ = writeln!(text, "fourwave: XDP {}, copy mode (veth)", fourwave.xdp_mode);
    }
    if settings.is_busy() {
        let _ = writeln!(
            text,
            "Note: the machine was busy before the run (load average {load_average:.2}): wait for a \
             quiet one before comparing figures."
        );
    }
    if settings.shorter_than_time_wait {
        let _ = writeln!(
            text,
            "Note: each server got less than {time_wait_s} s of load: too short for a steady \
             TIME_WAIT population. Longer runs (--duration, --rounds) show that cost too."
        );
    }
    text
}

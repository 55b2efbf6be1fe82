//! The outcome as a table for the terminal.

use std::fmt::Write;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::report::{Goodput, Row};

/// The table, and the settings that matter.
pub fn render(goodput: &Goodput) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header([
        "IP",
        "stream",
        "path",
        "kernel Mbit/s",
        "fourwave Mbit/s",
        "ratio (min–max)",
        "retransmits k / f",
        "frames lost k / f",
        "errors k / f",
    ]);
    for row in &goodput.rows {
        table.add_row(cells(row));
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let settings = &goodput.settings;
    let offloads = match settings.offloads_on.concat().as_slice() {
        [] => "off".to_owned(),
        on => format!("on: {}", on.join(" ")),
    };
    let mut text = format!("{table}\n");
    let _ = writeln!(
        text,
        "kernel client; {} streams of {:.1} MiB on each server and path, medians; k: kernel server, \
         f: fourwave\n\
         servers on CPU {}, client and relay on CPU {}; MTU {}, checksum and segmentation offloads \
         {offloads}; kernel congestion control {}; load average before {:.2}",
        settings.rounds,
        settings.bytes as f64 / f64::from(1 << 20),
        settings.server_cpu,
        settings.client_cpu,
        settings.mtu,
        settings.congestion_control,
        settings.load_average,
    );
    let overruns: u64 =
        goodput.rows.iter().flat_map(Row::figures).map(|figures| figures.relay.overruns).sum();
    if overruns > 0 {
        let _ = writeln!(text, "Note: the relay itself lost {overruns} frames: it was too slow.");
    }
    text
}

fn cells(row: &Row) -> [String; 9] {
    let [kernel, fourwave] = row.figures();
    let ratio = row.goodput_ratio.map_or_else(
        || "–".to_owned(),
        |ratio| format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max),
    );
    [
        format!("v{}", row.ip_version),
        row.direction.name().to_owned(),
        row.path.to_string(),
        format!("{:.0}", kernel.goodput_mbps),
        format!("{:.0}", fourwave.goodput_mbps),
        ratio,
        format!("{} / {}", kernel.retransmits, fourwave.retransmits),
        format!("{} / {}", kernel.relay.lost, fourwave.relay.lost),
        format!("{} / {}", kernel.errors, fourwave.errors),
    ]
}

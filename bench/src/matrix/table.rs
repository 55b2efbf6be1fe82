//! A run as tables for the terminal.

use std::fmt::Write;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::chart::ratio;
use super::report::{Quantiles, Report, Row};

/// The ratios with their aims, the rows, and what must be known.
pub fn render(report: &Report) -> String {
    let mut text = format!("{}\n{}\n", ratios(report), rows(report));
    if !report.bulk.is_empty() {
        let _ = writeln!(text, "{}", bulk(report));
    }
    for memory in &report.memory {
        let _ = writeln!(
            text,
            "{}: an idle connection takes {:.0} bytes ({})",
            memory.server, memory.bytes_per_connection, memory.counted
        );
    }
    for series in &report.scaling {
        let _ = writeln!(text, "{}:", series.title);
        for point in &series.points {
            let (server, at) = (point.server, point.at);
            let (rate, p99, to) = (point.per_second, point.p99, point.to_plain);
            let _ = writeln!(
                text,
                "  {at:>10.0} {:<18} {server:<9} {rate:>9.0}/s, {:.2} ({:.2}–{:.2}) of one of \
                 everything, p99 {p99:.0} µs",
                series.axis, to.median, to.min, to.max
            );
        }
    }
    text.push_str(&settings(report));
    for note in &report.notes {
        let _ = writeln!(text, "Note: {note}");
    }
    text
}

fn table(header: &[&str], texts: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(header);
    for column in table.column_iter_mut().skip(texts) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn ratios(report: &Report) -> Table {
    let mut table = table(&["fourwave ÷ kernel", "", "ratio", "min", "max", "aim", ""], 2);
    for (name, judged) in report.ordered_ratios() {
        table.add_row([
            name.to_owned(),
            judged.title.to_owned(),
            ratio(judged.ratio.median),
            ratio(judged.ratio.min),
            ratio(judged.ratio.max),
            format!("{} {}", if judged.is == ">=" { "≥" } else { "≤" }, judged.aim),
            if judged.met { "met" } else { "missed" }.to_owned(),
        ]);
    }
    table
}

fn rows(report: &Report) -> Table {
    let mut table = table(
        &[
            "load",
            "client",
            "server",
            "per second",
            "connect p50/p99/p99.9 µs",
            "accept p50/p99 µs",
            "reply p50/p99 µs",
            "errors",
            "retr.",
            "frames in/out",
            "CPU µs core/all",
            "syscalls",
            "switches",
        ],
        3,
    );
    for row in &report.rows {
        table.add_row(cells(row));
    }
    table
}

fn cells(row: &Row) -> Vec<String> {
    let two = |quantiles: &Option<Quantiles>| match quantiles {
        Some(q) => format!("{:.0} / {:.0}", q.p50, q.p99),
        None => "–".to_owned(),
    };
    let connect = match &row.connect_us {
        Some(q) => format!("{:.0} / {:.0} / {:.0}", q.p50, q.p99, q.p999),
        None => "–".to_owned(),
    };
    vec![
        format!("{}: {}", row.id, row.load),
        row.client.to_owned(),
        row.server.to_owned(),
        format!("{:.0}", row.per_second.median),
        connect,
        two(&row.accept_us),
        two(&row.reply_us),
        row.errors.to_string(),
        row.retransmits.to_string(),
        format!("{:.2} / {:.2}", row.frames_in, row.frames_out),
        format!("{:.1} / {:.1}", row.server_core_us, row.machine_us),
        row.syscalls.map_or("–".to_owned(), |count| format!("{count:.2}")),
        format!("{:.3}", row.context_switches),
    ]
}

fn bulk(report: &Report) -> Table {
    let columns = ["a long stream", "placement", "server", "Mbit/s", "min", "max", "CPU µs/MB"];
    let mut table = table(&columns, 3);
    for row in &report.bulk {
        table.add_row([
            row.direction.to_owned(),
            row.placement.to_owned(),
            row.server.to_owned(),
            format!("{:.0}", row.megabits.median),
            format!("{:.0}", row.megabits.min),
            format!("{:.0}", row.megabits.max),
            format!("{:.0}", row.machine_us_per_megabyte),
        ]);
    }
    table
}

fn settings(report: &Report) -> String {
    let s = &report.settings;
    let offloads = match s.offloads_on.concat().as_slice() {
        [] => "off".to_owned(),
        on => format!("on: {}", on.join(" ")),
    };
    let sysctls: Vec<String> = s
        .sysctls
        .iter()
        .map(|(name, value)| format!("{}={value}", name.rsplit('/').next().unwrap_or(name)))
        .collect();
    format!(
        "{} interleaved rounds of {} s; {} B echo, {} closes first, TIME_WAIT {} s, backlog {}, {} \
         client addresses\n\
         {}, {} CPUs, Linux {}, load average {:.2}; servers on CPU {}, load on CPU {}; offloads \
         {offloads}\n\
         io_uring {}; {}\n\
         {}\
         server-bound: RPS gives each end its own CPU, frames are held back up to {} µs\n",
        s.rounds,
        s.length_s,
        s.size,
        s.closes_first,
        s.time_wait_s,
        s.backlog,
        s.client_addresses,
        s.processor,
        s.cpus,
        s.kernel,
        s.load_average,
        s.server_cpu,
        s.client_cpu,
        s.io_uring,
        sysctls.join(" "),
        servers(report),
        s.coalesce_us,
    )
}

fn servers(report: &Report) -> String {
    let s = &report.settings;
    let mut text = String::new();
    for (whose, servers) in [("kernel", &s.kernel_servers), ("fourwave", &s.fourwave_servers)] {
        for (setting, how) in servers {
            let _ = writeln!(text, "{whose} server, {setting}: {how}");
        }
    }
    text.push_str("fourwave: XDP generic, copy mode (veth)\n");
    text
}

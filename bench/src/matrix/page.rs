//! A run as one page for a browser: nothing outside of it is needed.

use std::fmt::Write;

use super::aims::Judged;
use super::chart::{Axis, Bar, Group, Line, Scale, bars, escape, lines, number, ratio as short};
use super::report::{Quantiles, Report, Row, Series};

const STYLE: &str = include_str!("page.css");

const MIB: f64 = 1_048_576.0;

/// Servers in the order of every chart.
const SERVERS: [&str; 3] = ["fourwave", "kernel", "limit"];

/// The page.
pub fn page(report: &Report) -> String {
    let mut body = String::new();
    body.push_str(&header(report));
    body.push_str(&tiles(report));
    for note in &report.notes {
        let _ = write!(body, "<p class=\"note\">{}</p>", escape(note));
    }
    body.push_str(&aims(report));
    body.push_str(&throughput(report));
    body.push_str(&percentiles(report));
    body.push_str(&over_load(report));
    body.push_str(&kept(report));
    body.push_str(&streams(report));
    body.push_str(&scaling(report));
    body.push_str(&rows(report));
    body.push_str(&method(report));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"/><title>fourwave beside the kernel</title>\
         <style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )
}

fn header(report: &Report) -> String {
    let s = &report.settings;
    format!(
        "<header><h1>fourwave beside the kernel</h1><p class=\"lead\">The same short TCP connections \
         to the same server, once on kernel sockets and once on fourwave, in {} interleaved rounds on \
         one machine.</p><p class=\"dim\">{} · {} CPUs · Linux {} · load average {:.2} before the run \
         · {} run</p></header>",
        s.rounds,
        escape(&s.processor),
        s.cpus,
        escape(&s.kernel),
        s.load_average,
        s.scope
    )
}

fn tiles(report: &Report) -> String {
    let shown = [
        ("server_bound_cps", "connections/s", "all server work on one core"),
        ("best_placement_cps", "connections/s", "best placement of each"),
        ("p99_connect_half_load", "p99 connect latency", "at half of the kernel’s maximum"),
        ("server_cpu_per_connection", "CPU per connection", "of the server’s core"),
    ];
    let mut text = String::from("<section class=\"tiles\">");
    for (name, what, how) in shown {
        let Some(judged) = report.ratios.get(name) else { continue };
        let _ = write!(
            text,
            "<div class=\"tile {}\"><div class=\"big\">{}<span>×</span></div><div>{what}</div>\
             <div class=\"dim\">{how}</div></div>",
            class(judged),
            short(judged.ratio.median)
        );
    }
    text.push_str("</section>");
    text
}

fn class(judged: &Judged) -> &'static str {
    if judged.met { "met" } else { "missed" }
}

fn section(title: &str, text: &str, inner: &str) -> String {
    if inner.is_empty() {
        return String::new();
    }
    format!("<section><h2>{}</h2><p>{text}</p>{inner}</section>", escape(title))
}

fn aims(report: &Report) -> String {
    let mut inner = String::from(
        "<div class=\"scroll\"><table><thead><tr><th>fourwave ÷ kernel</th><th>median</th><th>range \
         over rounds</th><th>aim</th><th></th></tr></thead><tbody>",
    );
    for (name, judged) in report.ordered_ratios() {
        let Judged { title, ratio, is, aim, .. } = judged;
        let sign = if *is == ">=" { "≥" } else { "≤" };
        let verdict = class(judged);
        let _ = write!(
            inner,
            "<tr><td>{}<div class=\"dim\"><code>{name}</code></div></td><td class=\"n strong\">{}</td>\
             <td class=\"n\">{} – {}</td><td class=\"n\">{sign} {aim}</td><td><span class=\"pill \
             {verdict}\">{verdict}</span></td></tr>",
            escape(title),
            short(ratio.median),
            short(ratio.min),
            short(ratio.max)
        );
    }
    inner.push_str("</tbody></table></div>");
    section(
        "Ratios and aims",
        "Each ratio compares the two servers within one round; the median of the rounds counts.",
        &inner,
    )
}

fn legend(servers: &[&str]) -> String {
    let mut text = String::from("<p class=\"legend\">");
    for server in servers {
        let name = match *server {
            "limit" => "stateless AF_XDP responder (no TCP at all)",
            other => other,
        };
        let _ = write!(text, "<span class=\"key {server}\"></span>{name} ");
    }
    text.push_str("</p>");
    text
}

/// Groups of bars for rows whose name `wanted` accepts.
fn rate_groups(report: &Report, wanted: impl Fn(&str) -> bool) -> Vec<Group> {
    let mut groups: Vec<(&str, Group)> = Vec::new();
    for server in SERVERS {
        for row in report.rows.iter().filter(|row| row.server == server && wanted(&row.id)) {
            let bar = Bar {
                series: server,
                value: row.per_second.median,
                range: Some((row.per_second.min, row.per_second.max)),
            };
            match groups.iter_mut().find(|(id, _)| *id == row.id) {
                Some((_, group)) => group.bars.push(bar),
                None => {
                    let label = format!("{} · {}", row.title, row.load);
                    groups.push((&row.id, Group { label, bars: vec![bar] }));
                }
            }
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

fn throughput(report: &Report) -> String {
    let ids = ["server_bound", "best_placement", "kernel_client"];
    let groups = rate_groups(report, |id| ids.contains(&id));
    let chart = bars(&groups, "connections/s");
    section(
        "Connections per second",
        "Connect, 64 bytes there and back, the server closes. Bars are medians, whiskers the smallest \
         and largest round. “Server-bound”: the generator has one core and everything of the server \
         the other.",
        &(legend(&SERVERS) + &chart),
    )
}

fn percentiles(report: &Report) -> String {
    let mut inner = String::new();
    for id in ["half_load", "full_load"] {
        let found: Vec<&Row> = SERVERS
            .iter()
            .filter_map(|server| {
                report.rows.iter().find(|row| row.id == id && row.server == *server)
            })
            .collect();
        let all: Vec<Line> = found
            .iter()
            .map(|row| Line {
                series: row.server,
                name: row.server.to_owned(),
                is_dashed: false,
                points: row.curve.iter().copied().filter(|point| point.0 < 0.999_99).collect(),
            })
            .collect();
        let x = Axis { label: "part of the connections".to_owned(), scale: Scale::Nines };
        let y = Axis { label: "connect latency, µs".to_owned(), scale: Scale::Logarithmic };
        let chart = lines(&x, &y, &all);
        if let (Some(row), false) = (found.first(), chart.is_empty()) {
            let title = escape(&format!("{} · {}", row.title, row.load));
            let _ = write!(inner, "<h3>{title}</h3>{chart}");
        }
    }
    section(
        "Connect latency at an equal load",
        "From when a SYN was due until its SYN-ACK was there, for the same number of connections \
         offered per second to both servers. Lower is better; the further right, the rarer.",
        &inner,
    )
}

fn over_load(report: &Report) -> String {
    let line = |server: &'static str, name: &str, is_dashed, value: fn((f64, f64)) -> f64| Line {
        series: server,
        name: format!("{server} {name}"),
        is_dashed,
        points: report
            .curves
            .iter()
            .filter(|point| point.server == server)
            .map(|point| (point.offered, value((point.p50, point.p99))))
            .collect(),
    };
    let mut all = Vec::new();
    for server in ["fourwave", "kernel"] {
        all.push(line(server, "p99", false, |(_, p99)| p99));
        all.push(line(server, "p50", true, |(p50, _)| p50));
    }
    all.retain(|line| !line.points.is_empty());
    let x = Axis { label: "connections offered per second".to_owned(), scale: Scale::Linear };
    let latency = Axis { label: "connect latency, µs".to_owned(), scale: Scale::Logarithmic };
    let first = lines(&x, &latency, &all);
    let completed: Vec<Line> = ["fourwave", "kernel"]
        .into_iter()
        .map(|server| Line {
            series: server,
            name: server.to_owned(),
            is_dashed: false,
            points: report
                .curves
                .iter()
                .filter(|point| point.server == server)
                .map(|point| (point.offered, point.completed))
                .collect(),
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    let y = Axis { label: "completed per second".to_owned(), scale: Scale::Linear };
    let second = lines(&x, &y, &completed);
    if first.is_empty() {
        return String::new();
    }
    section(
        "Latency over offered load",
        "Server-bound, up to twice what each server can do. Beyond its maximum clients give up after \
         0.25 s, and the latency is that of the connections that were let in.",
        &format!("<h3>Connect latency</h3>{first}<h3>What is completed</h3>{second}"),
    )
}

fn kept(report: &Report) -> String {
    let groups = rate_groups(report, |id| id.starts_with("keep_alive"));
    if groups.is_empty() {
        return String::new();
    }
    section(
        "Requests on kept connections",
        "64 bytes there and back, again and again on the same connections.",
        &(legend(&SERVERS[..2]) + &bars(&groups, "replies/s")),
    )
}

fn streams(report: &Report) -> String {
    let mut groups: Vec<Group> = Vec::new();
    for server in SERVERS {
        for row in report.bulk.iter().filter(|row| row.server == server) {
            let range = Some((row.megabits.min, row.megabits.max));
            let bar = Bar { series: server, value: row.megabits.median, range };
            let label = format!("{} MiB {}, {}", row.bytes >> 20, row.direction, row.placement);
            match groups.iter_mut().find(|group| group.label == label) {
                Some(group) => group.bars.push(bar),
                None => groups.push(Group { label, bars: vec![bar] }),
            }
        }
    }
    if groups.is_empty() {
        return String::new();
    }
    section(
        "Long streams",
        "Megabits per second to and from a kernel client, offloads off on both sides.",
        &(legend(&SERVERS[..2]) + &bars(&groups, "Mbit/s")),
    )
}

fn scaling(report: &Report) -> String {
    let mut inner = String::new();
    for series in &report.scaling {
        let of = |server: &'static str| Line {
            series: server,
            name: server.to_owned(),
            is_dashed: false,
            points: series
                .points
                .iter()
                .filter(|point| point.server == server)
                .map(|point| (point.at, point.per_second))
                .collect(),
        };
        let all: Vec<Line> = ["fourwave", "kernel"]
            .into_iter()
            .map(of)
            .filter(|line| !line.points.is_empty())
            .collect();
        let x = Axis { label: series.axis.to_owned(), scale: Scale::Linear };
        let y = Axis { label: "connections/s".to_owned(), scale: Scale::Linear };
        let chart = lines(&x, &y, &all);
        let _ = write!(inner, "<h3>{}</h3>{chart}{}", escape(series.title), points(series));
    }
    section(
        "As things grow",
        "Free placement, a lab of its own for each point. “÷ one” compares with a server that has one \
         of everything, loaded in turn with it: median and range of the pairs.",
        &inner,
    )
}

fn points(series: &Series) -> String {
    let mut table = format!(
        "<table class=\"small\"><thead><tr><th>{}</th><th>server</th><th>connections/s</th><th>÷ one\
         </th><th>connect p99 µs</th><th>daemon, MiB</th></tr></thead><tbody>",
        escape(series.axis)
    );
    for point in &series.points {
        let to = point.to_plain;
        let _ = write!(table, "<tr><td class=\"n\">{:.0}</td><td>{}</td>", point.at, point.server);
        for cell in [
            number(point.per_second),
            format!("{:.2} ({:.2}–{:.2})", to.median, to.min, to.max),
            number(point.p99),
            point.daemon_bytes.map_or("–".to_owned(), |bytes| number(bytes as f64 / MIB)),
        ] {
            let _ = write!(table, "<td class=\"n\">{cell}</td>");
        }
        table.push_str("</tr>");
    }
    table + "</tbody></table>"
}

fn rows(report: &Report) -> String {
    let mut inner = String::from(
        "<div class=\"scroll\"><table class=\"small\"><thead><tr><th>load</th><th>client</th>\
         <th>server</th><th>per second</th><th>connect µs<br/>p50 / p99 / p99.9</th><th>accept \
         µs<br/>p50 / p99</th><th>reply µs<br/>p50 / p99</th><th>errors</th><th>resent</th><th>frames\
         <br/>in / out</th><th>CPU µs<br/>core / processes / all</th><th>system calls</th>\
         <th>switches</th><th>idle bytes</th><th>others’ CPU</th></tr></thead><tbody>",
    );
    for row in &report.rows {
        let _ = write!(inner, "<tr class=\"{}\">", row.server);
        let _ = write!(
            inner,
            "<td>{}<div class=\"dim\">{}, {}</div></td><td>{}</td><td><span class=\"key {}\"></span>{}\
             </td>",
            escape(&row.title),
            row.placement,
            escape(&row.load),
            row.client,
            row.server,
            row.server
        );
        for cell in figures(row) {
            let _ = write!(inner, "<td class=\"n\">{cell}</td>");
        }
        inner.push_str("</tr>");
    }
    inner.push_str("</tbody></table></div>");
    section(
        "Everything",
        "Per connection, or per reply where connections are kept. “Accept” is the time from the SYN \
         until the server’s accept had returned, of one connection in sixteen.",
        &inner,
    )
}

fn figures(row: &Row) -> [String; 12] {
    let three = |quantiles: &Option<Quantiles>| match quantiles {
        Some(q) => format!("{} / {} / {}", number(q.p50), number(q.p99), number(q.p999)),
        None => "–".to_owned(),
    };
    let two = |quantiles: &Option<Quantiles>| match quantiles {
        Some(q) => format!("{} / {}", number(q.p50), number(q.p99)),
        None => "–".to_owned(),
    };
    [
        number(row.per_second.median),
        three(&row.connect_us),
        two(&row.accept_us),
        two(&row.reply_us),
        row.errors.to_string(),
        row.retransmits.to_string(),
        format!("{} / {}", number(row.frames_in), number(row.frames_out)),
        format!(
            "{} / {} / {}",
            number(row.server_core_us),
            number(row.server_processes_us),
            number(row.machine_us)
        ),
        row.syscalls.map_or("–".to_owned(), number),
        number(row.context_switches),
        row.memory_bytes.map_or("–".to_owned(), number),
        format!("{:.1} %", row.foreign * 100.0),
    ]
}

fn method(report: &Report) -> String {
    let s = &report.settings;
    let mut list = String::from("<dl>");
    let mut entry = |name: &str, value: &str| {
        let _ = write!(list, "<dt>{name}</dt><dd>{}</dd>", escape(value));
    };
    entry("Rounds", &format!("{} of {} s for each load and server", s.rounds, s.length_s));
    entry(
        "Connections",
        &format!(
            "{} B echo, the {} closes first, TIME_WAIT {} s, backlog {}, {} client addresses",
            s.size, s.closes_first, s.time_wait_s, s.backlog, s.client_addresses
        ),
    );
    entry(
        "Placement",
        &format!(
            "servers on CPU {}, load on CPU {}; server-bound: receive packet steering gives each end \
             its own CPU, and the generator holds frames back up to {} µs as a NIC would",
            s.server_cpu, s.client_cpu, s.coalesce_us
        ),
    );
    for (whose, servers) in [("Kernel", &s.kernel_servers), ("fourwave", &s.fourwave_servers)] {
        for (setting, how) in servers {
            entry(&format!("{whose} server, {setting}"), how);
        }
    }
    entry("io_uring", &s.io_uring);
    let sysctls: Vec<String> =
        s.sysctls.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    entry("Kernel settings", &sysctls.join("; "));
    entry(
        "Offloads",
        match s.offloads_on.concat().as_slice() {
            [] => "off on both ends",
            _ => "on",
        },
    );
    for memory in &report.memory {
        entry(
            &format!("An idle connection, {}", memory.server),
            &format!("{} bytes ({})", number(memory.bytes_per_connection), memory.counted),
        );
    }
    if let Some(idle) = report.idle_daemon_cpu {
        entry("An idle daemon", &format!("{} % of a core", number(idle * 100.0)));
    }
    entry("Daemon configuration", &s.daemon_config);
    list.push_str("</dl>");
    let mut tried = String::from(
        "<h3>What was tried</h3><div class=\"scroll\"><table class=\"small\"><thead><tr><th>for</th>\
         <th>server</th><th>how</th><th>connections/s</th><th></th></tr></thead><tbody>",
    );
    for one in &report.tried {
        let _ = write!(
            tried,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            one.purpose,
            one.server,
            escape(&one.what),
            number(one.per_second),
            if one.chosen { "chosen" } else { "" }
        );
    }
    tried.push_str("</tbody></table></div>");
    section(
        "How it was measured",
        "Each server has a lab of its own (two network namespaces and a veth pair); the kernel’s has \
         no XDP program on its interface. What differs between servers was chosen by trying.",
        &(list + &tried),
    )
}

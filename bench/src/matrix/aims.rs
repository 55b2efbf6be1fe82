//! The ratios that the comparison is about, and what is aimed at.

use std::collections::BTreeMap;

use serde::Serialize;

use super::bed::{Placement, Subject};
use super::report::{Report, Row, Spread};
use crate::compare::median;
use crate::goodput::Direction;

/// A ratio and whether it is as aimed at.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// Its place among all when people read them.
    #[serde(skip)]
    pub place: usize,
    /// In words.
    pub title: &'static str,
    /// fourwave's figure divided by the other's of the same round.
    pub ratio: Spread,
    /// `>=` or `<=`.
    pub is: &'static str,
    /// The aim.
    pub aim: f64,
    /// Whether the median is as aimed at.
    pub met: bool,
}

impl Judged {
    fn new(title: &'static str, ratio: Spread, is: &'static str, aim: f64) -> Judged {
        let met = if is == ">=" { ratio.median >= aim } else { ratio.median <= aim };
        Judged { place: 0, title, ratio, is, aim, met }
    }
}

/// fourwave's values of each round by the other's.
fn over(ours: &[f64], theirs: &[f64]) -> Option<Spread> {
    let pairs = ours.iter().zip(theirs).filter(|(_, theirs)| **theirs > 0.0);
    Spread::over(&pairs.map(|(ours, theirs)| ours / theirs).collect::<Vec<f64>>())
}

type Figure = fn(&Row) -> &[f64];

/// Name, row, rival, figure, direction and aim.
const RATIOS: [(&str, &str, &str, Subject, Figure, &str, f64); 12] = [
    (
        "server_bound_cps",
        "connections/s, all server work on one core",
        "server_bound",
        Subject::Kernel,
        |row| &row.per_second_by_round,
        ">=",
        2.5,
    ),
    (
        "best_placement_cps",
        "connections/s, best placement of each",
        "best_placement",
        Subject::Kernel,
        |row| &row.per_second_by_round,
        ">=",
        2.5,
    ),
    (
        "cps_to_limit",
        "connections/s ÷ stateless responder, server-bound",
        "server_bound",
        Subject::Limit,
        |row| &row.per_second_by_round,
        ">=",
        0.65,
    ),
    (
        "best_placement_cps_to_limit",
        "connections/s ÷ stateless responder, best placement",
        "best_placement",
        Subject::Limit,
        |row| &row.per_second_by_round,
        ">=",
        0.65,
    ),
    (
        "p99_connect_half_load",
        "p99 connect at half of the kernel's maximum",
        "half_load",
        Subject::Kernel,
        |row| &row.p99_by_round,
        "<=",
        0.5,
    ),
    (
        "p99_connect_full_load",
        "p99 connect at the kernel's maximum",
        "full_load",
        Subject::Kernel,
        |row| &row.p99_by_round,
        "<=",
        0.2,
    ),
    (
        "server_cpu_per_connection",
        "CPU of the server's core per connection",
        "server_bound",
        Subject::Kernel,
        |row| &row.server_core_us_by_round,
        "<=",
        0.3,
    ),
    (
        "kernel_client_cps",
        "connections/s of a kernel client",
        "kernel_client",
        Subject::Kernel,
        |row| &row.per_second_by_round,
        ">=",
        1.3,
    ),
    (
        "keep_alive_rps",
        "requests/s, 100 connections kept, server-bound",
        "keep_alive_100",
        Subject::Kernel,
        |row| &row.per_second_by_round,
        ">=",
        1.5,
    ),
    (
        "keep_alive_p99",
        "p99 of a reply, 100 connections kept, server-bound",
        "keep_alive_100",
        Subject::Kernel,
        |row| &row.p99_by_round,
        "<=",
        0.7,
    ),
    (
        "keep_alive_1_rps",
        "requests/s, 1 connection kept, server-bound",
        "keep_alive_1",
        Subject::Kernel,
        |row| &row.per_second_by_round,
        ">=",
        1.5,
    ),
    (
        "keep_alive_1000_rps",
        "requests/s, 1000 connections kept, server-bound",
        "keep_alive_1000",
        Subject::Kernel,
        |row| &row.per_second_by_round,
        ">=",
        1.5,
    ),
];

/// Ratios by name, each of which knows when it came.
struct All(BTreeMap<&'static str, Judged>);

impl All {
    fn insert(&mut self, name: &'static str, mut judged: Judged) {
        judged.place = self.0.len();
        self.0.insert(name, judged);
    }
}

/// Name, title, direction and placement.
const STREAMS: [(&str, &str, Direction, Placement); 4] = [
    (
        "bulk_from_server",
        "a long stream from the server, server-bound",
        Direction::Down,
        Placement::ServerBound,
    ),
    (
        "bulk_to_server",
        "a long stream to the server, server-bound",
        Direction::Up,
        Placement::ServerBound,
    ),
    (
        "bulk_from_server_free",
        "a long stream from the server, received where it is sent",
        Direction::Down,
        Placement::Free,
    ),
    (
        "bulk_to_server_free",
        "a long stream to the server, received where it is sent",
        Direction::Up,
        Placement::Free,
    ),
];

/// All ratios whose rows are there.
pub(super) fn judge(report: &Report) -> BTreeMap<&'static str, Judged> {
    let mut all = All(BTreeMap::new());
    for (name, title, id, rival, figure, is, aim) in RATIOS {
        let rows = (report.row(id, Subject::Fourwave), report.row(id, rival));
        let (Some(ours), Some(theirs)) = rows else { continue };
        if let Some(ratio) = over(figure(ours), figure(theirs)) {
            all.insert(name, Judged::new(title, ratio, is, aim));
        }
    }
    for (name, title, direction, placement) in STREAMS {
        let of = |server: Subject| {
            let same = (server.name(), direction.name(), placement.name());
            let row = report
                .bulk
                .iter()
                .find(|row| (row.server, row.direction, row.placement) == same)?;
            Some(row.megabits_by_round.as_slice())
        };
        if let (Some(ours), Some(theirs)) = (of(Subject::Fourwave), of(Subject::Kernel))
            && let Some(ratio) = over(ours, theirs)
        {
            all.insert(name, Judged::new(title, ratio, ">=", 1.0));
        }
    }
    let alone =
        (report.row("overload", Subject::Fourwave), report.row("server_bound", Subject::Fourwave));
    if let (Some(overload), Some(peak)) = alone
        && let Some(ratio) = over(&overload.per_second_by_round, &peak.per_second_by_round)
    {
        let title = "connections/s at twice fourwave's maximum ÷ that maximum";
        all.insert("overload_cps", Judged::new(title, ratio, ">=", 0.9));
    }
    for (name, title, id) in [
        ("idle_connections_cps", "connections/s beside most idle connections ÷ none", "idle"),
        ("time_wait_cps", "connections/s beside most TIME_WAIT ÷ none", "time_wait"),
        ("idle_and_time_wait_cps", "connections/s beside most of both ÷ none", "both"),
        ("workers_cps", "connections/s with two workers ÷ one", "workers"),
        ("threads_cps", "connections/s with most application threads ÷ one", "threads"),
        ("listeners_cps", "connections/s over most listeners ÷ one", "listeners"),
        ("clients_cps", "connections/s beside most attached programs ÷ one", "clients"),
    ] {
        let Some(series) = report.scaling.iter().find(|series| series.id == id) else { continue };
        let mut points = series.points.iter().filter(|point| point.server == "fourwave");
        if let Some(most) = points.next_back() {
            all.insert(name, Judged::new(title, most.to_plain, ">=", 0.9));
        }
    }
    if let Some(idle) = report.idle_daemon_cpu {
        let ratio = Spread { median: idle, min: idle, max: idle };
        all.insert(
            "idle_daemon_cpu",
            Judged::new("CPU of an idle daemon ÷ one core", ratio, "<=", 0.005),
        );
    }
    all.0
}

/// The median of a row's rate, 0 without the row.
pub(super) fn rate(report: &Report, id: &str, server: Subject) -> f64 {
    report.row(id, server).and_then(|row| median(&row.per_second_by_round)).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_pair_rounds_and_know_their_direction() {
        let ratio = over(&[10.0, 30.0, 20.0], &[10.0, 10.0, 10.0]).unwrap();
        assert_eq!(ratio, Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert!(Judged::new("", ratio, ">=", 2.0).met && !Judged::new("", ratio, ">=", 2.1).met);
        assert!(Judged::new("", ratio, "<=", 2.0).met && !Judged::new("", ratio, "<=", 1.9).met);
        assert_eq!(over(&[1.0], &[0.0]), None);
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::HashSet<&str> = RATIOS.iter().map(|ratio| ratio.0).collect();
        assert_eq!(names.len(), RATIOS.len());
    }
}

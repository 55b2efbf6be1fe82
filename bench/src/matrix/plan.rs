//! Which loads are made on which servers, and their interleaved rounds.

use super::Scope;
use super::bed::{Bed, Io, Placement, Server, ServerSpec, Subject};
use super::choose::{Choices, Setting};
use super::measure::{Bench, Load, Sample, Workload};
use super::report::{Label, Report, Row};
use crate::compare::CompareError;
use crate::load::Via;

/// One load on some servers.
pub(super) struct Cell {
    pub(super) label: Label,
    pub(super) load: Load,
    /// By place in the list of beds, with the server there.
    pub(super) entries: Vec<(usize, Option<Server>)>,
}

/// Loads whose size does not depend on what a server can do.
pub(super) fn closed_loops(
    bench: &Bench<'_>,
    beds: [&mut Bed; 3],
    choices: &Choices,
    report: &mut Report,
) -> Result<(), CompareError> {
    let config = bench.config;
    let load = |via, placement, workload| {
        let coalesce = choices.coalesce(placement);
        Load { via, placement, workload, length: config.length, coalesce }
    };
    let entries = |setting: Setting| -> Vec<(usize, Option<Server>)> {
        let all = [Subject::Kernel, Subject::Fourwave, Subject::Limit];
        // A kernel client's own cost hides what a responder could do.
        let wanted = if setting == Setting::KernelClient { 2 } else { 3 };
        let served = all.into_iter().take(wanted).enumerate();
        served.map(|(at, subject)| (at, choices.server(subject, setting).cloned())).collect()
    };
    let cell = |id: &str, title: &str, load: Load, entries| Cell {
        label: Label { id: id.to_owned(), title: title.to_owned() },
        load,
        entries,
    };
    let (bound, free) = (Placement::ServerBound, Placement::Free);
    let mut cells = Vec::new();
    for (setting, id, title) in [
        (Setting::ServerBound, "server_bound", "short connections, all server work on one core"),
        (Setting::BestPlacement, "best_placement", "short connections, best placement"),
        (Setting::KernelClient, "kernel_client", "short connections of a kernel client"),
    ] {
        let workload = setting.workload(config.concurrency);
        let load = load(setting.via(), setting.placement(), workload);
        cells.push(cell(id, title, load, entries(setting)));
    }

    let [kernel, fourwave, limit] = beds;
    let kept = ServerSpec {
        io: choices.io(Setting::ServerBound),
        defer_accept: false,
        cpus: vec![config.server_cpu],
        size: 0,
        listeners: 1,
    };
    let library = ServerSpec { io: Io::Library, ..kept.clone() };
    let keepers = [kernel.serve(&kept)?, fourwave.serve(&library)?];
    let keep = || keepers.iter().cloned().map(Some).enumerate().collect::<Vec<_>>();
    let numbers: &[usize] = if config.scope == Scope::Quick { &[10] } else { &[1, 10, 100, 1000] };
    for &connections in numbers {
        let workload = Workload::KeepAlive { connections };
        let mut load = load(Via::Xdp, bound, workload);
        // One request at a time gains nothing from being held back.
        if connections < 10 {
            load.coalesce = std::time::Duration::ZERO;
        }
        let title = format!("requests on {connections} kept connections, server-bound");
        cells.push(cell(&format!("keep_alive_{connections}"), &title, load, keep()));
    }
    let connections = if config.scope == Scope::Quick { 10 } else { 100 };
    cells.push(cell(
        "keep_alive_kernel_client",
        &format!("requests of a kernel client on {connections} kept connections"),
        load(Via::Kernel, free, Workload::KeepAlive { connections }),
        keep(),
    ));
    rounds(bench, &mut [kernel, fourwave, limit], &cells, report)
}

/// Makes all loads in every round; which server goes first changes from round to round. Ends with
/// one more pass that counts system calls; a quick run counts them of short connections only.
pub(super) fn rounds(
    bench: &Bench<'_>,
    beds: &mut [&mut Bed],
    cells: &[Cell],
    report: &mut Report,
) -> Result<(), CompareError> {
    let rounds = bench.config.rounds;
    let mut samples: Vec<Vec<Vec<Sample>>> =
        cells.iter().map(|cell| vec![Vec::new(); cell.entries.len()]).collect();
    for round in 0..rounds {
        for (cell, samples) in cells.iter().zip(&mut samples) {
            let mut line = String::new();
            let title = &cell.label.title;
            bench.progress.step(&format!("round {}/{rounds}: {title}", round + 1));
            for turn in 0..cell.entries.len() {
                bench.check()?;
                let index = (turn + round) % cell.entries.len();
                let (bed, server) = &cell.entries[index];
                let bed = &mut *beds[*bed];
                let sample = bench.sample(bed, server.as_ref(), &cell.load)?;
                let rate = sample.per_second(cell.load.workload);
                let errors = sample.report.error_count();
                line.push_str(&format!("  {} {rate:.0}/s", bed.subject().name()));
                if errors > 0 {
                    line.push_str(&format!(" ({errors} errors)"));
                }
                samples[index].push(sample);
            }
            bench.progress.note(&format!("round {}/{rounds}: {title}:{line}", round + 1));
        }
    }
    bench.progress.step("counting system calls");
    for (cell, samples) in cells.iter().zip(&samples) {
        for ((bed, server), samples) in cell.entries.iter().zip(samples) {
            bench.check()?;
            let bed = &mut *beds[*bed];
            let counts = bench.config.scope != Scope::Quick || cell.label.id == "server_bound";
            let syscalls =
                if counts { bench.syscalls(bed, server.as_ref(), &cell.load)? } else { None };
            report.rows.push(Row::of(&cell.label, bed.subject(), &cell.load, samples, syscalls));
        }
    }
    Ok(())
}
